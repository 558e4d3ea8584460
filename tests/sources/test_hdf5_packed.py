"""Packed chunks read without HDF5 give the pixels that were written; what is damaged is an error that says where."""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from stemstore.errors import CorruptDataError
from stemstore.sources import hdf5_packed
from stemstore.sources.hdf5 import open_hdf5
from stemstore.sources.hdf5_frames import Part

if TYPE_CHECKING:
    from pathlib import Path

hdf5plugin = pytest.importorskip("hdf5plugin", reason="needs hdf5plugin")

SCAN, FRAME = (4, 5), (6, 7)
TRUTH = np.random.default_rng(3).poisson(3, (*SCAN, *FRAME)).astype("<u2")


def write(path: Path, array: np.ndarray, **layout: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", data=array, **{**hdf5plugin.Bitshuffle(cname="lz4"), **layout})
    return path


def part_of(path: Path, **axes: Any) -> Part:
    with open_hdf5(path) as file:
        return Part.of(file["frames"], **axes)


def read(part: Part, start: int, stop: int) -> np.ndarray:
    out = np.full((stop - start, *part.frame_shape), 99, part.dtype.newbyteorder("="))
    part.read(start, out)
    return out


@pytest.fixture
def hdf5_decodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 must not be asked for pixels."""
    monkeypatch.setattr(h5py.Dataset, "read_direct", None)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", None)


@pytest.mark.usefixtures("hdf5_decodes_nothing")
@pytest.mark.parametrize("piece", [1, 200, 2**20])
@pytest.mark.parametrize("chunks", [(1, 1, 6, 7), (1, 5, 6, 7), (2, 3, 6, 7), (3, 2, 4, 5), (4, 5, 6, 7), (1, 1, 1, 7)])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u4", "<f4"])
def test_every_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, chunks: tuple[int, ...], dtype: str
) -> None:
    """Frames of any chunks, in pieces of any size, single chunks included, of both byte orders."""
    monkeypatch.setattr(hdf5_packed, "PIECE", piece)
    part = part_of(write(tmp_path / "a.h5", TRUTH.astype(dtype), chunks=chunks))
    flat = TRUTH.reshape(-1, *FRAME)
    for start, stop in itertools.combinations_with_replacement(range(0, 21, 3), 2):
        np.testing.assert_array_equal(read(part, start, stop), flat[start:stop])


@pytest.mark.usefixtures("hdf5_decodes_nothing")
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_every_order_of_axes(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Scan axes may lie anywhere, and one index of a further axis may be wanted."""
    stored = np.stack([TRUTH + 1000, TRUTH], axis=4).transpose(*order, 4)
    place = [order.index(axis) for axis in range(4)]
    path = write(tmp_path / "a.h5", stored, chunks=(2, 3, 2, 3, 1))
    part = part_of(path, scan_axes=place[:2], frame_axes=(place[2], place[3]), picked={4: 1})
    np.testing.assert_array_equal(read(part, 2, 17), TRUTH.reshape(-1, *FRAME)[2:17])


@pytest.mark.usefixtures("hdf5_decodes_nothing")
@pytest.mark.parametrize("layout", [hdf5plugin.Bitshuffle(cname="zstd"), hdf5plugin.LZ4()])
def test_other_packings(tmp_path: Path, layout: Any) -> None:
    """Zstandard behind the shuffle, and LZ4 without one."""
    part = part_of(write(tmp_path / "a.h5", TRUTH, chunks=(1, 2, 6, 7), **dict(layout)))
    np.testing.assert_array_equal(read(part, 1, 18), TRUTH.reshape(-1, *FRAME)[1:18])


def test_written_out_of_order_and_not_at_all(tmp_path: Path) -> None:
    """Chunks lie anywhere in the file; what was never written is filled; what was left unpacked is copied."""
    frames = TRUTH.reshape(-1, *FRAME)[:6]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        settings = {"chunks": (1, *FRAME), "fillvalue": 5, **hdf5plugin.Bitshuffle(cname="lz4")}
        stored = file.create_dataset("frames", (8, *FRAME), "<u2", **settings)
        for i in (4, 0, 5, 2, 1):
            stored[i] = frames[i]
        stored.id.write_direct_chunk((3, 0, 0), frames[3].tobytes(), filter_mask=1)
    part = part_of(tmp_path / "a.h5")
    np.testing.assert_array_equal(read(part, 0, 6), frames)
    assert (read(part, 6, 8) == 5).all()
    np.testing.assert_array_equal(read(part, 3, 4), frames[3:4])


def test_several_threads(tmp_path: Path) -> None:
    """Many reads at once give what one gives."""
    part = part_of(write(tmp_path / "a.h5", TRUTH, chunks=(1, 1, 6, 7)))
    flat = TRUTH.reshape(-1, *FRAME)
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(lambda i: read(part, i % 15, i % 15 + 5), range(200)))
    for i, one in enumerate(found):
        np.testing.assert_array_equal(one, flat[i % 15 : i % 15 + 5])


def test_no_plugin_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are read where the package with the filters is not installed."""
    path = write(tmp_path / "a.h5", TRUTH, chunks=(1, 1, 6, 7))
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code < 256)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    np.testing.assert_array_equal(read(part_of(path), 0, 20), TRUTH.reshape(-1, *FRAME))


@pytest.mark.parametrize("at", [0, 8, 12, 17])
def test_damaged_chunk_is_named(tmp_path: Path, at: int) -> None:
    """A chunk damaged in its header, a length or its packed bytes is an error with its place; the others are read."""
    frames = np.arange(144, dtype=np.uint32).reshape(3, 6, 8)
    path = write(tmp_path / "a.h5", frames, chunks=(1, 6, 8))
    with h5py.File(path) as file:
        place = file["frames"].id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[place + at : place + at + 4] = b"\xff" * 4
    path.write_bytes(content)
    part = part_of(path)
    np.testing.assert_array_equal(read(part, 0, 1), frames[:1])
    with pytest.raises(CorruptDataError, match=rf"/frames at \(1, 0, 0\) \(byte {place} of"):
        read(part, 0, 3)
    with pytest.raises(CorruptDataError, match="contradicts"):
        read(part, 1, 2)


def test_odd_integers_are_checked_and_left_to_hdf5(tmp_path: Path) -> None:
    """Twelve bits in sixteen, shifted, are decoded by HDF5, whose decoder is not given a damaged chunk."""
    path, kind = tmp_path / "a.h5", h5py.h5t.STD_U16LE.copy()
    kind.set_precision(12)
    kind.set_offset(4)
    with h5py.File(path, "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((2, *FRAME))
        settings.set_filter(32008, h5py.h5z.FLAG_MANDATORY, (0, 2))
        made = h5py.h5d.create(file.id, b"frames", kind, h5py.h5s.create_simple((20, *FRAME)), settings)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(TRUTH.reshape(-1, *FRAME)))
        place = made.get_chunk_info_by_coord((4, 0, 0)).byte_offset
    part = part_of(path)
    np.testing.assert_array_equal(read(part, 1, 20), TRUTH.reshape(-1, *FRAME)[1:])
    content = bytearray(path.read_bytes())
    content[place + 13] ^= 0x88
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"\(4, 0, 0\)"):
        read(part, 1, 20)
