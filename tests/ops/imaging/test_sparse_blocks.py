"""Counted scans as sparse arrays."""

import uuid

import dask
import dask.array as da
import numpy as np
import pytest
import sparse

import stemstore
from stemstore.errors import InputError, MemoryBudgetError
from stemstore.kernels.events import encode
from stemstore.kernels.occupied import Rows
from stemstore.ops.imaging import sparse_blocks
from stemstore.ops.imaging.bright_field import bright_field_stack
from stemstore.ops.imaging.dose import thin
from stemstore.ops.imaging.recenter import recenter
from stemstore.ops.imaging.sparse_blocks import as_gcxs, to_sparse
from stemstore.sources import streaming
from stemstore.store.layout import counted_layout
from stemstore.store.writer import StoreWriter
from stemstore.testing.arrays import ArrayEvents
from stemstore_schemas import Axis, EventEncoding, FrameCounts, ScanDocument


def write_events(url, counts):
    """Write counts as a finished store of events."""
    layout = counted_layout(counts.shape[:2], counts.shape[2:], 40.0)
    document = ScanDocument(
        uuid=str(uuid.uuid4()),
        profile="counted",
        axes=[Axis(name=name, size=n) for name, n in zip(("y", "x", "ky", "kx"), counts.shape, strict=True)],
        frames=FrameCounts(valid=counts.shape[0] * counts.shape[1]),
        encoding=EventEncoding(frames_per_block=1, slots_per_chunk=1),
    )
    writer, events = StoreWriter.init(str(url), document, layout), ArrayEvents(counts)
    for number in range(len(layout.partitions)):
        blocks = [events.read_events(start, stop) for start, stop in layout.blocks(number)]
        writer.write_events(number, [encode(block.indptr, block.indices) for block in blocks])
    writer.finalise()


def test_a_whole_scan(scan, counts):
    """Positions are the compressed axes, and every occupied pixel is one entry."""
    found = to_sparse(scan)
    assert isinstance(found, sparse.GCXS)
    assert found.compressed_axes == (0, 1)
    assert found.nnz == np.count_nonzero(counts)
    np.testing.assert_array_equal(found.todense(), counts)


def test_nothing_is_copied():
    """The arrays that were decoded are those of the sparse array."""
    rows = Rows(np.array([0, 2, 3]), np.array([0, 3, 1], np.int32), np.array([1, 2, 1], np.uint8))
    found = as_gcxs(rows, (1, 2, 2, 2))
    for own, given in ((found.indices, rows.indices), (found.indptr, rows.indptr), (found.data, rows.values)):
        assert np.shares_memory(own, given)


def test_parts(scan, counts):
    """Single frames, rows of frames, crops and reversed axes."""
    np.testing.assert_array_equal(to_sparse(scan.intensity[2, 3]).todense(), counts[2, 3])
    np.testing.assert_array_equal(to_sparse(scan.isel(y=2)).todense(), counts[2])
    cut = {"y": slice(None, None, -3), "x": [4, 4, 0], "ky": slice(2, 9), "kx": slice(None, None, -1)}
    np.testing.assert_array_equal(to_sparse(scan.isel(cut)).todense(), scan.intensity.isel(cut))


def test_blocks(dataset_of, counts, monkeypatch):
    """Blocks are those of the events, and dask's functions run on them, in other processes as well."""
    monkeypatch.setattr(sparse_blocks, "EVENT_BATCH", 20)
    ds = dataset_of(ArrayEvents(counts))
    blocks = to_sparse(ds, blocks=True)
    assert isinstance(blocks, da.Array)
    assert blocks.chunks[:2] == ((2, 2, 2, 2, 2, 1), (9,))
    assert isinstance(blocks._meta, sparse.GCXS)
    np.testing.assert_array_equal(blocks.compute().todense(), counts)
    counted = blocks.map_blocks(lambda block: block.todense().sum((2, 3)), drop_axis=(2, 3), dtype=np.uint64)
    np.testing.assert_array_equal(counted, counts.sum((2, 3)))
    with dask.config.set(scheduler="processes", num_workers=2):
        np.testing.assert_array_equal(blocks.blocks[1].compute().todense(), counts[2:4])
    assert to_sparse(ds.intensity[3, 4], blocks=True).compute().shape == (14, 10)


def test_thinned_scans(dataset_of, counts):
    """Scans that were thinned are sparse arrays as well."""
    low = thin(dataset_of(ArrayEvents(counts)), 0.5)
    np.testing.assert_array_equal(to_sparse(low).todense(), low.intensity)


def test_changed_and_computed_scans(scan, counts):
    """Small arrays of pixels are looked through, whole or block by block."""
    for image in (scan.intensity * 2, scan.intensity.compute() * 2):
        np.testing.assert_array_equal(to_sparse(image).todense(), counts * 2)
        np.testing.assert_array_equal(to_sparse(image, blocks=True).compute().todense(), counts * 2)


def test_large_dense_scans(frames_of, counts, monkeypatch):
    """A dense scan above the limit is refused with advice; a part of it is not."""
    ds = frames_of(counts)
    monkeypatch.setattr(sparse_blocks, "DENSE_BYTES", counts.nbytes - 1)
    for blocks in (False, True):
        with pytest.raises(InputError, match=r"this scan is dense .* select a part, or count it"):
            to_sparse(ds, blocks=blocks)
    np.testing.assert_array_equal(to_sparse(ds.isel(y=1)).todense(), counts[1])


def test_more_than_the_budget(tmp_path, counts, monkeypatch):
    """The events of a store are counted before they are read."""
    write_events(tmp_path / "s.zarr", counts)
    ds = stemstore.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(to_sparse(ds).todense(), counts)
    monkeypatch.setenv("STEMSTORE_MAX_MEMORY", "10KiB")
    with pytest.raises(MemoryBudgetError, match="use blocks=True"):
        to_sparse(ds)
    np.testing.assert_array_equal(to_sparse(ds.isel(y=[0])).todense(), counts[:1])
    np.testing.assert_array_equal(to_sparse(ds, blocks=True).compute().todense(), counts)


def test_hundreds_of_electrons_in_a_pixel(tmp_path):
    """A store with more than 255 electrons in a pixel has wider frames, and every operation has all of them."""
    counts = np.random.default_rng(0).poisson(0.3, (5, 4, 7, 9)).astype(np.uint16)
    counts[1, 2, 3, 4], counts[4, 3, 6, 8], counts[0, 0, 0, 0] = 300, 1000, 256
    write_events(tmp_path / "s.zarr", counts)
    ds = stemstore.open(tmp_path / "s.zarr")
    found = to_sparse(ds)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found.todense(), counts)
    low = thin(ds, 0.5)
    kept = int(low.intensity[4, 3, 6, 8])
    assert 400 < kept < 600
    np.testing.assert_array_equal(to_sparse(low).todense(), low.intensity)
    everything = np.ones((7, 9), bool)
    np.testing.assert_array_equal(bright_field_stack(ds, everything)[62], counts[:, :, 6, 8])
    np.testing.assert_array_equal(stemstore.max_pattern(ds), counts.max((0, 1)))
    np.testing.assert_allclose(stemstore.variance_pattern(ds), counts.var((0, 1)), rtol=1e-12)
    moved = recenter(ds, (np.full((5, 4), 4.0), np.full((5, 4), 4.0)))
    np.testing.assert_array_equal(moved.intensity[..., :-1, :], counts[..., 1:, :])


def test_too_many_electrons_in_a_pixel(dataset_of, monkeypatch):
    """Raw events with more electrons in a pixel than the shown type holds are refused, as frames of them are."""
    monkeypatch.setattr(streaming, "EVENT_BATCH", 1)
    counts = np.zeros((1, 2, 2, 2), np.uint16)
    counts[0, 1, 1, 0] = 256
    with pytest.raises(InputError, match="pixel 2 has more electrons"):
        to_sparse(dataset_of(ArrayEvents(counts)))


def test_dense_frames_of_floats(frames_of):
    """Dense frames keep their type."""
    frames = np.array([[[[0.0, 1.5], [0.0, 0.0]]]], np.float32)
    found = to_sparse(frames_of(frames))
    assert found.dtype == np.float32
    assert found.nnz == 1
    np.testing.assert_array_equal(found.todense(), frames)
