"""What readers are held against: what other programs measured on sample files, and files that are damaged."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
from hypothesis import strategies as st

from stemstore.errors import StemStoreError
from stemstore.testing.reader_tests import read

EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
"""Words that overflow, vanish or never end."""

READ_AT_MOST = 2**22
"""Pixels of a frame that is read; damage may have made larger ones of it, all of them blank."""


def expected(sample, entry):
    """What the manifest of the sample data says about an entry."""
    manifest = json.loads(sample("manifest.json").read_text(encoding="utf-8"))
    return next(one for one in manifest["entries"] if one["id"] == entry)["expect"]


def check_array(array, truth):
    """An array has the shape, type, sum, values and digest that were measured by other programs."""
    assert array.shape == tuple(truth["shape"])
    assert array.dtype == truth["dtype"]
    total = truth.get("sum", truth.get("sum_float64"))
    assert math.isclose(array.sum(dtype="f8" if array.dtype.kind == "f" else "i8"), total, rel_tol=1e-12)
    for one in truth["values"]:
        assert array[tuple(one["index"])] == one["value"]
    stored = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
    assert hashlib.sha256(stored.tobytes()).hexdigest() == truth["array_sha256_little_endian_c_order"]


def whole(source):
    """All frames of a source in the shape of its scan."""
    frames = read(source, 0, math.prod(source.scan_shape))
    return frames.reshape(*source.scan_shape, *source.frame_shape)


@st.composite
def damaged(draw, content, head=None):
    """Bytes that were cut anywhere, have single bytes changed, or end in garbage; changes lie in the first `head`."""
    data = bytearray(content)
    for place in draw(st.lists(st.integers(0, min(head or len(data), len(data)) - 1), max_size=6)):
        data[place] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))]
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))] + draw(st.binary(max_size=200))
    return bytes(data)


@st.composite
def changed_words(draw, content, head=None):
    """Bytes of which one to three words among the first `head` are extreme numbers, in either byte order."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        width = draw(st.sampled_from((1, 2, 4, 8)))
        place = draw(st.integers(0, min(head or len(data), len(data)) - 1))
        number = draw(st.sampled_from(EXTREMES)) % 2 ** (8 * width)
        data[place : place + width] = number.to_bytes(width, draw(st.sampled_from(("little", "big"))))
    return bytes(data)


def check_damaged(reader, path, content):
    """Open and read what is left of a file: an error of ours or frames, and nothing else."""
    path.write_bytes(content)
    assert 0 <= reader.matches(str(path), content[:4096]) <= 1
    try:
        source = reader(str(path))
        if math.prod(source.frame_shape) < READ_AT_MOST:
            source.read_frames(0, min(2, math.prod(source.scan_shape)))
    except StemStoreError:
        pass
