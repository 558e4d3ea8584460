"""Encoder of Gatan DM3 and DM4, written from the description of the format, bottom up."""

from __future__ import annotations

import struct

import numpy as np

CODES = {"i2": (1, 2), "f4": (2, 6), "u1": (6, 10), "i4": (7, 3), "i1": (9, 9), "u2": (10, 4), "u4": (11, 5),
         "f8": (12, 7), "c8": (3, 6)}  # fmt: skip
"""Pixel type -> DataType, type word of the array."""


class DmFile:
    """Writes tag trees: dictionaries are groups, texts UTF-16, tuples structs of int32, arrays arrays."""

    def __init__(self, version=4, little=True):
        self.version, self.long = version, "I" if version == 3 else "Q"
        self.order = "<" if little else ">"

    def words(self, *numbers):
        return struct.pack(f">{len(numbers) + 1}{self.long}", len(numbers), *numbers)

    def value(self, value):
        """Pack the info words and the bytes of a value."""
        if isinstance(value, str):
            text = value.encode("utf-16-le" if self.order == "<" else "utf-16-be")
            return self.words(20, 4, len(text) // 2) + text
        if isinstance(value, np.ndarray):
            code = CODES[value.dtype.str[1:]][1]
            element = (15, 0, 2, 0, 6, 0, 6) if value.dtype.kind == "c" else (code,)
            stored = value.astype(value.dtype.newbyteorder(self.order))
            return self.words(20, *element, value.size) + stored.tobytes()
        if isinstance(value, tuple):
            fields = [word for _ in value for word in (0, 3)]
            return self.words(15, 0, len(value), *fields) + struct.pack(f"{self.order}{len(value)}i", *value)
        if isinstance(value, bool):
            return self.words(8) + bytes([value])
        if isinstance(value, int):
            return self.words(5) + struct.pack(f"{self.order}I", value)
        return self.words(7) + struct.pack(f"{self.order}d", value)

    def tag(self, name, value):
        """Pack a tag with its head; names that are numbers are left empty, as DigitalMicrograph does."""
        group = isinstance(value, dict)
        body = self.group(value) if group else b"%%%%" + self.value(value)
        written = b"" if name.isdigit() else name.encode()
        head = struct.pack(">BH", 20 if group else 21, len(written)) + written
        return head + (struct.pack(">Q", len(body)) if self.version == 4 else b"") + body

    def group(self, tree):
        tags = b"".join(self.tag(name, value) for name, value in tree.items())
        return struct.pack(f">BB{self.long}", 1, 0, len(tree)) + tags

    def encode(self, tree, tail=bytes(8)):
        """Pack a file."""
        body = self.group(tree)
        return struct.pack(f">I{self.long}I", self.version, len(body), self.order == "<") + body + tail


def image(array, units=None, tags=None, scales=None, origins=None, data_last=False):
    """Make the tree of an image; `units`, `scales`, `origins` fastest axis first, as in the file."""
    kind = CODES[array.dtype.str[1:]][0]
    dimension = {
        str(k): {"Origin": float((origins or {}).get(k, 0)), "Scale": float((scales or {}).get(k, 1)), "Units": unit}
        for k, unit in enumerate(units or ())
    }
    tree = {"Calibrations": {"Dimension": dimension}} if units else {}
    described = {"DataType": kind, "Dimensions": {str(k): n for k, n in enumerate(reversed(array.shape))}}
    data = {"Data": array}
    tree |= (described | data) if data_last else (data | described)
    if data_last:
        return {"ImageTags": tags or {}, "Name": "scan", "ImageData": tree}
    return {"ImageData": tree, "ImageTags": tags or {}, "Name": "scan"}


def file_of(*images, previews=()):
    """Make the tree of a file."""
    tree = {"ImageList": {str(i): one for i, one in enumerate(images)}}
    if previews:
        tree["Thumbnails"] = {str(i): {"ImageIndex": number} for i, number in enumerate(previews)}
    return tree
