"""What readers are held against: measured truths of sample files, damaged headers, the way through a store."""

from __future__ import annotations

import hashlib
import json
import math
import warnings

import numpy as np
from hypothesis import strategies as st

import stemstore
from stemstore.errors import ScanWarning
from stemstore.testing.reader_tests import read


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


def check_conversion(url, folder, **options):
    """A store that is made of the data opens with the same pixels, axes and units."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScanWarning)
        raw = stemstore.open(url, flyback=True, **options)
        stemstore.convert(url, folder / "out.zarr", **options)
    stored = stemstore.open(folder / "out.zarr", flyback=True)
    assert stored.intensity.dims == raw.intensity.dims
    np.testing.assert_array_equal(stored.intensity.values, raw.intensity.values)
    for dim in raw.intensity.dims:
        np.testing.assert_allclose(stored[dim].values, raw[dim].values, rtol=1e-12)
        assert stored[dim].attrs.get("units") == raw[dim].attrs.get("units")
    return stored


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
