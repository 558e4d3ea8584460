"""Where chunks lie, and which datasets are decoded without HDF5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from stemstore.errors import CorruptDataError, NotFoundError
from stemstore.sources import hdf5_chunks
from stemstore.sources.hdf5_chunks import Chunking, places_of

if TYPE_CHECKING:
    from pathlib import Path

BITSHUFFLE = {"compression": 32008, "compression_opts": (0, 2)}


def write(path: Path, array: np.ndarray, **layout: Any) -> Chunking | None:
    with h5py.File(path, "w") as file:
        return Chunking.of(file.create_dataset("frames", data=array, **layout))


@pytest.fixture
def scattered(tmp_path: Path) -> tuple[Path, Chunking]:
    """A dataset of 5 x 3 chunks of which some were never written, in the order in which they were."""
    pytest.importorskip("hdf5plugin", reason="needs hdf5plugin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = file.create_dataset("frames", (9, 5, 4), "<u2", chunks=(2, 2, 4), fillvalue=7, **BITSHUFFLE)
        for row, column in ((8, 4), (0, 0), (2, 2), (4, 4)):
            stored.id.write_direct_chunk((row, column, 0), b"x" * (row + 20), filter_mask=int(row == 4))
        chunking = Chunking.of(stored)
    assert chunking is not None
    return tmp_path / "a.h5", chunking


def test_listed_as_looked_up(scattered: tuple[Path, Chunking], monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one and all at once, the same places are found; the bytes there are those that were written."""
    path, chunking = scattered
    wanted = np.array([14, 0, 4, 8, 1, 13])
    found = places_of(str(path), "/frames", chunking, wanted)
    monkeypatch.setattr(hdf5_chunks, "FEW", 0)
    listed = places_of(str(path), "/frames", chunking, wanted)
    for one, other in zip(found, listed, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found.offset < 0, [False, False, False, False, True, True])
    np.testing.assert_array_equal(found.size[:4], [28, 20, 22, 24])
    np.testing.assert_array_equal(found.bare[:4], [False, False, False, True])
    content = path.read_bytes()
    assert all(content[at : at + n] == b"x" * n for at, n in zip(found.offset[:4], found.size[:4], strict=True))


def test_lists_are_kept_and_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list serves later questions without HDF5; over the limit the list not used for longest goes."""
    pytest.importorskip("hdf5plugin", reason="needs hdf5plugin")
    memory = hdf5_chunks._Memory()
    monkeypatch.setattr(hdf5_chunks, "_MEMORY", memory)
    monkeypatch.setattr(hdf5_chunks, "MOST_KEPT", 150)
    chunkings = {}
    for name in "abc":
        chunkings[name] = write(tmp_path / name, np.zeros((70, 2, 4), "<u2"), chunks=(1, 2, 4), **BITSHUFFLE)
    for name in "abac":
        chunking = chunkings[name]
        assert chunking is not None
        places_of(str(tmp_path / name), "/frames", chunking, np.arange(70))
    assert [key[0][-1] for key in memory.tables] == ["a", "c"]
    monkeypatch.setattr(hdf5_chunks, "open_hdf5", None)
    chunking = chunkings["a"]
    assert chunking is not None
    assert (places_of(str(tmp_path / "a"), "/frames", chunking, np.arange(70)).offset > 0).all()


def test_a_changed_dataset_is_refused(scattered: tuple[Path, Chunking]) -> None:
    """A file that was replaced, or is gone, is an error that says so."""
    path, chunking = scattered
    write(path, np.zeros((9, 5, 4), "<u4"), chunks=(2, 2, 4), **BITSHUFFLE)
    with pytest.raises(CorruptDataError, match="not what it was when it was opened"):
        places_of(str(path), "/frames", chunking, np.arange(1))
    path.unlink()
    with pytest.raises(NotFoundError, match=r"a\.h5"):
        places_of(str(path), "/frames", chunking, np.arange(1))


def test_what_is_decoded_here(tmp_path: Path) -> None:
    """Bitshuffle with a compressor and LZ4 are; shuffled only, with a checksum, other filters and none are HDF5's."""
    plugin = pytest.importorskip("hdf5plugin", reason="needs hdf5plugin")
    frames = np.zeros((3, 8, 8), ">u2")

    def packing(**layout: Any) -> str | None:
        found = write(tmp_path / "a.h5", frames, **layout)
        return None if found is None else found.packing

    assert packing(**plugin.Bitshuffle(cname="lz4")) == "bitshuffle-lz4"
    assert packing(**plugin.Bitshuffle(cname="zstd")) == "bitshuffle-zstd"
    assert packing(**plugin.LZ4()) == "lz4"
    assert packing(**plugin.Bitshuffle(cname="none")) is None
    assert packing(**plugin.Bitshuffle(cname="lz4"), fletcher32=True) is None
    assert packing(compression="gzip") is None
    assert packing() is None


def test_numbers_with_padding_are_left_to_hdf5(tmp_path: Path) -> None:
    """Twelve bits in sixteen cannot be taken as they lie."""
    pytest.importorskip("hdf5plugin", reason="needs hdf5plugin")
    kind = h5py.h5t.STD_U16LE.copy()
    kind.set_precision(12)
    kind.set_offset(4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((1, 8, 8))
        settings.set_filter(32008, h5py.h5z.FLAG_MANDATORY, (0, 2))
        made = h5py.h5d.create(file.id, b"frames", kind, h5py.h5s.create_simple((3, 8, 8)), settings)
        chunking = Chunking.of(h5py.Dataset(made))
    assert chunking is not None
    assert not chunking.decoded_here
