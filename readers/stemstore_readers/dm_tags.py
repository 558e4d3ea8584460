"""The tag tree of Gatan DM3 and DM4 files: walked once, bounded, long arrays left in the file.

Structure words are big-endian; L is uint32 in DM3 and uint64 in DM4. Values have the byte order of the header.

=========  =====================================================================================================
header     u32 version (3, 4), L size (differs between writers, not used), u32 byte order of values (1 little)
group      u8 sorted, u8 open, L number of tags, tags
tag        u8 kind (21 data, 20 group, 0 end), u16 length of name, name; DM4: u64 bytes that follow; content
data       ``%%%%``, L number of info words, info words (L), value
=========  =====================================================================================================

Info words: ``t`` a number, ``15 0 n (0 t)*n`` a struct, ``20 <element> count`` an array, ``18 length`` text.

Sources: ercius/openNCEM (``ncempy/io/dm.py``), nion-software/nionswift-io, and files of several writers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from stemstore.errors import (
    CorruptDataError,
    FormatVersionError,
    StemStoreError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources.files import file_size, unreadable

if TYPE_CHECKING:
    from io import BufferedIOBase

    from stemstore.sources.remote import Place

Tree: TypeAlias = "dict[str, Any]"
"""Names and values of a group; values are numbers, texts, lists, trees and `ArrayTag`."""

HEADER = {3: struct.Struct(">III"), 4: struct.Struct(">IQI")}
"""Version -> version, size, byte order."""

NUMBERS = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "?", 9: "b", 10: "b", 11: "q", 12: "Q"}
"""Type word -> code of the `struct` module."""

_TEXT_TYPE, _STRUCT, _STRING, _ARRAY = 4, 15, 18, 20
_END, _GROUP, _DATA = 0, 20, 21
_MARK = b"%%%%"

MAX_DEPTH = 64
"""Groups within groups; files seen have twelve."""

MAX_TAGS = 2**18
"""Tags that are walked; long spectrum images carry some thousands."""

MAX_INFO = 1024
"""Info words of a tag; a struct of 500 fields."""

MAX_NESTED = 4
"""Arrays within arrays; two have been seen."""

MAX_VALUE_BYTES = 8192
"""Longest value that is read; longer arrays are images, references and the like."""

MAX_ALL_BYTES = 2**22
"""Bytes of values that are read altogether; the rest stays in the file."""


@dataclass(frozen=True, slots=True)
class ArrayTag:
    """An array that stays in the file: info words of its element, elements, bytes, and its first byte in the file."""

    words: tuple[int, ...]
    count: int
    nbytes: int
    offset: int


@dataclass(slots=True)
class Tags:
    """A walked file.

    Attributes
    ----------
    version, little
        Format version; whether values are little-endian.
    root
        All tags up to the first place that cannot be read.
    problem
        What is wrong at that place; None when all was read.
    """

    version: int
    little: bool
    root: Tree = field(default_factory=dict)
    problem: StemStoreError | None = None


def parse_header(content: bytes) -> tuple[int, bool, int]:
    """Read version, byte order (true: little-endian values) and length of a header.

    Raises
    ------
    UnknownFormatError
        The bytes are no header of a DM file.
    FormatVersionError
        The version is not 3 or 4.
    TruncatedFileError
        The file ends inside the header.
    """
    version = int.from_bytes(content[:4], "big")
    if len(content) >= 4 and version not in HEADER:  # noqa: PLR2004 (length of the version word)
        if version in (1, 2, 5, 6) and content[:3] == bytes(3):
            msg = f"file has the DM format {version}, known are 3 and 4; save it as DM4 with DigitalMicrograph"
            raise FormatVersionError(msg, found=version, expected=[3, 4])
        msg = f"file starts with {content[:8]!r}, expected the version 3 or 4 of a DM file; check the format"
        raise UnknownFormatError(msg, found=content[:8])
    layout = HEADER.get(version, HEADER[3])
    if len(content) < layout.size:
        msg = f"file ends inside its header at byte {len(content)}, expected {layout.size}; copy it again"
        raise TruncatedFileError(msg, found=len(content), expected=layout.size)
    order = layout.unpack_from(content)[2]
    if order not in (0, 1):
        msg = f"file states the byte order {order} at byte {layout.size - 4}, expected 0 or 1; it is no DM file"
        raise UnknownFormatError(msg, byte=layout.size - 4, found=order)
    return version, bool(order), layout.size


def read_tags(path: Place) -> Tags:
    """Walk the tags of a file.

    A tree that breaks off keeps what was read, and `Tags.problem` says where it ends.

    Raises
    ------
    UnknownFormatError, FormatVersionError, TruncatedFileError
        As for `parse_header`.
    StorageError, NotFoundError
        The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            version, little, start = parse_header(file.read(HEADER[4].size))
            tags = Tags(version, little)
            file.seek(start)
            walker = _Walker(file, file_size(path), tags)
            try:
                walker.group(tags.root, (), 0)
            except (CorruptDataError, TruncatedFileError) as error:
                tags.problem = error
            return tags
    except OSError as error:
        if isinstance(error, StemStoreError):
            raise
        raise unreadable(path, error) from error


class _Walker:
    """Reads tags one after the other; the file's position is the only place that it knows."""

    def __init__(self, file: BufferedIOBase, size: int, tags: Tags) -> None:
        self.file, self.size = file, size
        self.at = file.tell()
        self.long = "I" if tags.version == 3 else "Q"  # noqa: PLR2004 (format version)
        self.skippable = self.long == "Q"
        self.order = "<" if tags.little else ">"
        self.n_tags = self.n_bytes = 0

    def take(self, n: int) -> bytes:
        """Read the next bytes."""
        content = self.file.read(n) if n <= self.size - self.at else b""
        if len(content) < n:
            msg = f"the tags end at byte {self.size}, where {n} bytes from byte {self.at} on were expected"
            raise TruncatedFileError(msg, byte=self.at, found=self.size, expected=self.at + n)
        self.at += n
        return content

    def numbers(self, code: str) -> tuple[int, ...]:
        """Read big-endian numbers."""
        layout = f">{code}"
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def wrong(self, path: tuple[str, ...], text: str) -> CorruptDataError:
        """Say where the tag tree is damaged."""
        where = ".".join(path) or "the root"
        msg = f"tag tree is damaged before byte {self.at}, in {where}: {text}"
        return CorruptDataError(msg, byte=self.at, key=where)

    def group(self, tree: Tree, path: tuple[str, ...], depth: int) -> None:
        """Read the tags of a group into a tree."""
        if depth > MAX_DEPTH:
            raise self.wrong(path, f"more than {MAX_DEPTH} groups within groups")
        _, _, count = self.numbers("BB" + self.long)
        for number in range(count):
            kind, length = self.numbers("BH")
            self.n_tags += 1
            if self.n_tags > MAX_TAGS:
                raise self.wrong(path, f"more than {MAX_TAGS} tags")
            if kind == _END:
                return
            name = self.name(length, number, tree)
            follow = self.numbers("Q")[0] if self.skippable else None
            if kind == _GROUP:
                tree[name] = {}  # in its place before it is filled: what is read before a damage stays
                self.group(tree[name], (*path, name), depth + 1)
            elif kind == _DATA:
                self.data(tree, name, path, follow)
            else:
                raise self.wrong(path, f"tag of unknown kind {kind}, expected 0, 20 or 21")

    def name(self, length: int, number: int, tree: Tree) -> str:
        """Read the name of a tag; one without a name is called by its number, one that is there twice by both."""
        content = self.take(length)
        try:
            name = content.decode()
        except UnicodeDecodeError:
            name = content.decode("latin1")
        if not name:
            return str(number)
        return name if name not in tree else f"{name} ({number})"

    def data(self, tree: Tree, name: str, path: tuple[str, ...], follow: int | None) -> None:
        """Read a value, or note where it lies and go on behind it."""
        start = self.at
        if self.take(4) != _MARK:
            raise self.wrong(path, f"tag {name!r} lacks its mark {_MARK!r}")
        (n_words,) = self.numbers(self.long)
        if not 0 < n_words <= MAX_INFO:
            raise self.wrong(path, f"tag {name!r} states {n_words} info words, expected 1 to {MAX_INFO}")
        words = self.numbers(f"{n_words}{self.long}")
        nbytes = value_bytes(words)
        if nbytes is None:
            if follow is None or follow > self.size - start:
                raise self.wrong(path, f"tag {name!r} has the unknown type {words[:4]}")
            self.skip(start + follow - self.at)
            return
        if nbytes > MAX_VALUE_BYTES or self.n_bytes + nbytes > MAX_ALL_BYTES:
            count = words[-1] if words[0] == _ARRAY else 1
            tree[name] = ArrayTag(words[1:-1] if words[0] == _ARRAY else words, count, nbytes, self.at)
            self.skip(nbytes)
            return
        self.n_bytes += nbytes
        offset = self.at
        if name == "Data" and words[0] == _ARRAY:  # small images, too, are read later
            tree[name] = ArrayTag(words[1:-1], words[-1], nbytes, offset)
            self.skip(nbytes)
        else:
            tree[name] = decode(words, self.take(nbytes), self.order)

    def skip(self, n: int) -> None:
        """Go on behind a value that is not read."""
        if not 0 <= n <= self.size - self.at:
            msg = f"the file ends at byte {self.size}, inside a value of {n} bytes at byte {self.at}"
            raise TruncatedFileError(msg, byte=self.at, found=self.size, expected=self.at + n)
        self.at += n
        self.file.seek(self.at)


def value_bytes(words: tuple[int, ...]) -> int | None:
    """Length in bytes of a value with these info words; None for a type that is not known."""
    if len(words) < 2:  # noqa: PLR2004 (a number, or nothing)
        return struct.calcsize(f"<{NUMBERS[words[0]]}") if words and words[0] in NUMBERS else None
    codes = _struct_codes(words)
    if codes is not None:
        return struct.calcsize(f"<{codes}")
    if words[0] == _STRING and len(words) == 2:  # noqa: PLR2004 (type and length)
        return words[1]
    if words[0] == _ARRAY and words[:MAX_NESTED] != (_ARRAY,) * MAX_NESTED:
        each = value_bytes(words[1:-1])
        return None if each is None else each * words[-1]
    return None


def _struct_codes(words: tuple[int, ...]) -> str | None:
    """Codes of the `struct` module for the fields of a struct; None for anything else."""
    if words[0] != _STRUCT or len(words) < 3 or len(words) != 3 + 2 * words[2]:  # noqa: PLR2004 (three words of head)
        return None
    fields = words[4::2]
    return "".join(NUMBERS[t] for t in fields) if all(t in NUMBERS for t in fields) else None


def decode(words: tuple[int, ...], content: bytes, order: str) -> Any:
    """Turn the bytes of a value into a number, a text or a list (of lists)."""
    if len(words) == 1:
        return struct.unpack(order + NUMBERS[words[0]], content)[0]
    codes = _struct_codes(words)
    if codes is not None:
        return list(struct.unpack(order + codes, content))
    if words[0] == _STRING:
        return _text(content, order) if len(content) % 2 == 0 else content.decode("latin1")
    count = words[-1]
    if words[1:-1] == (_TEXT_TYPE,):
        text = _text(content, order)
        if all(letter.isprintable() or letter.isspace() for letter in text):
            return text
    if len(words) == 3:  # noqa: PLR2004 (an array of numbers)
        return list(struct.unpack(f"{order}{count}{NUMBERS[words[1]]}", content))
    each = len(content) // count if count else 0
    return [decode(words[1:-1], content[each * i : each * (i + 1)], order) for i in range(count if each else 0)]


def _text(content: bytes, order: str) -> str:
    return content.decode("utf-16-le" if order == "<" else "utf-16-be", "replace").rstrip("\0")


def look_up(tree: Any, path: str) -> Any:
    """Find a value by names joined with ``/``; None where there is none."""
    for name in path.split("/"):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def as_document(value: Any) -> Any:
    """Make a tree of tags JSON-able: arrays that stay in the file become a line of text."""
    if isinstance(value, dict):
        return {name: as_document(item) for name, item in value.items()}
    if isinstance(value, ArrayTag):
        return f"{value.count} elements of type {list(value.words)}, {value.nbytes} bytes from byte {value.offset} on"
    if isinstance(value, list):
        return [as_document(item) for item in value]
    return value
