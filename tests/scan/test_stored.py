"""Finished stores as sources: what they hold comes out frame by frame, whatever runs are asked for."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stemstore
from stemstore.errors import InputError
from stemstore.scan.addresses import check_apart
from stemstore.scan.opening import open_source_or_store
from stemstore.scan.stored import as_frames, boxes
from stemstore.sources.contract import EventSource, FrameSource
from stemstore.testing.arrays import ArrayEvents


@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), data=st.data())
def test_rectangles_cover_a_run_in_order(shape, data):
    """The rectangles of a run hold its positions, each once and in C order."""
    n = math.prod(shape)
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    flat = np.arange(n).reshape(shape)
    parts = [flat[part].reshape(-1) for part in boxes(start, stop, shape)]
    assert np.concatenate([np.empty(0, int), *parts]).tolist() == list(range(start, stop))


@pytest.fixture(scope="module")
def frames():
    """Make a scan with two exposures of each position."""
    return np.random.default_rng(3).poisson(0.4, (2, 5, 7, 6, 9)).astype(np.uint16)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, frames):
    """Convert the scan to a dense store, and its pixels of one electron to a counted one."""
    folder = tmp_path_factory.mktemp("stores")
    np.save(folder / "a.npy", frames)
    stemstore.convert(folder / "a.npy", folder / "dense.zarr", beam_energy=300)
    options = {"count": True, "background_threshold": 1.5, "xray_threshold": 99}
    stemstore.convert(folder / "a.npy", folder / "counted.zarr", **options)
    return folder


def test_frames_of_a_dense_store(stores, frames):
    """Any run of frames is that of the array; a buffer is filled; the source survives pickling."""
    source = open_source_or_store(stores / "dense.zarr")
    assert isinstance(source, FrameSource)
    assert (source.scan_shape, source.frame_shape, source.dtype) == ((2, 5, 7), (6, 9), np.uint16)
    assert source.metadata.acquisition.beam_energy.value == 300
    flat, copy = frames.reshape(-1, 6, 9), pickle.loads(pickle.dumps(source))
    for start, stop in ((0, 70), (3, 5), (6, 8), (5, 44), (35, 35), (69, 70)):
        np.testing.assert_array_equal(source.read_frames(start, stop), flat[start:stop])
    buffer = np.empty((20, 6, 9), np.uint16)
    assert copy.read_frames(10, 30, out=buffer) is buffer
    np.testing.assert_array_equal(buffer, flat[10:30])
    with pytest.raises(IndexError, match="leave the scan of 70 positions"):
        source.read_frames(60, 71)


def test_events_of_a_counted_store(stores):
    """Events come out as the store holds them, and the type for frames is known without reading them."""
    source = open_source_or_store(stores / "counted.zarr")
    assert isinstance(source, EventSource)
    assert not isinstance(source, FrameSource)
    whole, part = source.read_events(0, 70), source.read_events(9, 31)
    np.testing.assert_array_equal(part.indices, whole.indices[whole.indptr[9] : whole.indptr[31]])
    assert source.most_electrons == 1
    assert source.metadata.files[0].uuid == source.scan.uuid
    assert as_frames(source).dtype == np.uint8


@pytest.mark.parametrize(("most", "dtype"), [(255, np.uint8), (256, np.uint16), (70_000, np.uint32)])
def test_frames_of_events_are_exact(most, dtype):
    """Frames made of events show every electron in the smallest type that holds the fullest pixel."""
    counts = np.random.default_rng(0).poisson(0.5, (3, 4, 5, 6))
    counts[1, 2, 3, 4] = most
    made = as_frames(ArrayEvents(counts))
    assert made.dtype == dtype
    np.testing.assert_array_equal(made.read_frames(0, 12), counts.reshape(12, 5, 6))
    np.testing.assert_array_equal(made.read_frames(5, 8), counts.reshape(12, 5, 6)[5:8])


def test_raw_files_come_by_their_reader(stores, frames):
    """A raw file opens as before, options included; a store takes none."""
    source = open_source_or_store(stores / "a.npy", scan_shape=(10, 7))
    assert source.scan_shape == (10, 7)
    with pytest.raises(InputError, match=r"is a store and takes no options \['scan_shape'\]"):
        open_source_or_store(stores / "dense.zarr", scan_shape=(10, 7))


@pytest.mark.parametrize("place", ["dense.zarr", "dense.zarr/inside/b.zarr", ".", "./../{}/dense.zarr"])
def test_places_that_overlap_the_store(stores, place):
    """The store itself, a place in it and a place that holds it are refused."""
    with pytest.raises(InputError, match="overlap; choose another place"):
        check_apart(stores / "dense.zarr", stores / place.format(stores.name))


def test_places_that_are_free(stores):
    """A place beside the store is free, and raw data may lie anywhere."""
    check_apart(stores / "dense.zarr", stores / "dense.zarr2")
    check_apart(stores / "a.npy", stores / "a.npy")
    check_apart([stores / "a.npy", stores / "b.npy"], stores)
    check_apart(stores / "dense.zarr", "memory://somewhere/dense.zarr")
