"""Metadata of arrays without data are those that zarr writes itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from stemstore.store.codecs import frame_codec
from stemstore.store.virtual import VirtualArray

VALUES = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)


def array(dtype="<u2", codec=None, **more):
    """Describe an array of one chunk."""
    dims = ("y", "x", "ky", "kx")
    return VirtualArray("a", VALUES.shape, VALUES.shape, np.dtype(dtype), codec, dims, {"units": "count"}, **more)


@pytest.mark.parametrize("profile", ["fast", "balanced", "small", "raw"])
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<f8"])
def test_encoded_chunks_are_read_in_both_formats(profile, dtype):
    """Zarr decodes what this room encoded, without the checksum in format 2 and with it in format 3."""
    codec = frame_codec(profile, np.dtype(dtype).itemsize)
    made, body = array(dtype, codec), codec.encode(VALUES.astype(dtype))
    two, three = {}, {}
    documents = {f"a/{name}": document for name, document in made.to_v2().items()}
    for key, document in documents.items():
        two[key] = _buffer(json.dumps(document).encode())
    two["a/0.0.0.0"] = _buffer(body[: len(body) - made.suffix])
    made.declare(three)
    three["a/c/0/0/0/0"] = _buffer(body)
    for held, form in ((two, 2), (three, 3)):
        found = zarr.open_array(zarr.storage.MemoryStore(held), path="a", mode="r", zarr_format=form)
        np.testing.assert_array_equal(found[...], VALUES.astype(dtype))
        assert found.attrs["units"] == "count"


@pytest.mark.parametrize("dtype", ["u1", "<i4", ">u2", ">f4"])
def test_bare_values_keep_their_byte_order(dtype):
    """Values as a detector wrote them are read by zarr in either byte order."""
    held = {}
    array(dtype).declare(held)
    held["a/c/0/0/0/0"] = _buffer(VALUES.astype(dtype).tobytes())
    found = zarr.open_array(zarr.storage.MemoryStore(held), path="a", mode="r")[...]
    np.testing.assert_array_equal(found, VALUES)
    assert array(dtype).to_v2()[".zarray"]["dtype"] == np.dtype(dtype).str
    assert array(dtype).suffix == 0


def test_fill_values_of_format_2():
    """Nothing is said of integers, where xarray would take it for a mark; NaN is spelt as the format has it."""
    assert array().to_v2()[".zarray"]["fill_value"] is None
    assert array("<f4", fill=np.nan).to_v2()[".zarray"]["fill_value"] == "NaN"


def _buffer(body):
    return zarr.core.buffer.default_buffer_prototype().buffer.from_bytes(bytes(body))
