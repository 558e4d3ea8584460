"""Stored frames: bit for bit the same for zarr, xarray and our own reads, for every selection."""

import pickle
import threading

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import ChecksumError, CorruptDataError, InputError, StaleStoreError, TruncatedFileError
from stemstore.kernels.contract import DetectorRegion
from stemstore.selection import Selection
from stemstore.store import layout as layouts
from stemstore.store.arrays import block_extents
from stemstore.store.layout import dense_layout
from stemstore.store.open import open_store

SHAPE = (11, 9, 6, 5)


class Sums:
    """The smallest kernel: weighted sums, in plain NumPy."""

    reduces = "detector"
    combine = np.add

    def allocate(self, n_positions, dtype, region):
        return np.zeros((n_positions, 1), np.uint64)

    def frames(self, block, local, out, place, prepared):
        assert block.flags.c_contiguous
        out[place, 0] += (block[local].astype(np.uint64) * prepared).sum((1, 2))

    def events(self, gap, offsets, local, out, place, prepared):
        pytest.fail("frames were expected")


class Total(Sums):
    """One sum over all positions."""

    reduces = "scan"

    def allocate(self, n_positions, dtype, region):
        return np.zeros(region.stored, np.uint64)

    def frames(self, block, local, out, place, prepared):
        out += block[local].sum(0, dtype=np.uint64)


def counts(shape=SHAPE, dtype="u2", seed=0):
    """Frames of every value of small types, signs included."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    low = -500 if np.dtype(dtype).kind == "i" else 0
    return rng.integers(low, 250, shape).astype(dtype)


@pytest.fixture(scope="module")
def truth():
    """Frames of the module's store."""
    return counts()


@pytest.fixture(scope="module")
def stored(tmp_path_factory, truth):
    """Write a store with several shards of several chunks, edges cut off."""
    from dataclasses import replace

    from stemstore.store.writer import StoreWriter
    from stemstore_schemas import Axis, FrameCounts, ScanDocument

    layout = replace(dense_layout(SHAPE[:2], SHAPE[2:], "u2"), chunk=(2, 2, 6, 5), shard=(4, 4, 6, 5))
    axes = [Axis(name=name, size=n) for name, n in zip(("y", "x", "ky", "kx"), SHAPE, strict=True)]
    document = ScanDocument(
        uuid="00000000-0000-4000-8000-000000000001", profile="dense", axes=axes, frames=FrameCounts(valid=99)
    )
    writer = StoreWriter.init(tmp_path_factory.mktemp("frames") / "scan.zarr", document, layout)
    for number, part in enumerate(layout.partitions):
        writer.write_frames(number, truth[part])
    return open_store(writer.finalise())


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "f4", ">u2", ">f4"])
@pytest.mark.parametrize("shape", [(11, 9, 6, 5), (2, 5, 7, 6, 5), (23, 6, 5)])
def test_all_readers_see_the_same_bits(tmp_path, write_dense, dtype, shape):
    """Every pixel type and kind of scan axes reads back alike through zarr, xarray and our own reader."""
    data = counts(shape, dtype)
    url = write_dense(tmp_path / "scan.zarr", data)
    ours = open_store(url)
    read = ours.read(Selection.full(data.shape))
    assert read.dtype == data.dtype.newbyteorder("=") == ours.dtype
    np.testing.assert_array_equal(read, data)
    np.testing.assert_array_equal(zarr.open(url)["intensity"][...], data)
    dataset = xr.open_zarr(url)
    assert dataset["intensity"].dtype == ours.dtype
    np.testing.assert_array_equal(dataset["intensity"].values, data)
    assert dataset["intensity"].dims[-2:] == ("ky", "kx")
    dataset.close()


@pytest.mark.parametrize("profile", ["fast", "balanced", "small", "raw"])
def test_all_profiles(tmp_path, write_dense, small_layout, profile):
    """Every profile reads back alike through zarr and our own reader."""
    data = counts()
    url = write_dense(tmp_path / "scan.zarr", data, layout=small_layout(data, profile=profile))
    np.testing.assert_array_equal(open_store(url).read(Selection.full(data.shape)), data)
    np.testing.assert_array_equal(zarr.open(url)["intensity"][...], data)


def test_cut_frames_are_put_together(tmp_path, write_dense, monkeypatch):
    """Frames above the chunk budget are stored in tiles and read whole, odd edges included."""
    monkeypatch.setattr(layouts, "MAX_CHUNK_BYTES", 100)
    data = counts((3, 4, 17, 13))
    layout = dense_layout((3, 4), (17, 13), "u2")
    assert layout.chunk[-2:] == (5, 7)
    url = write_dense(tmp_path / "scan.zarr", data, layout=layout)
    scan = open_store(url)
    np.testing.assert_array_equal(scan.read(Selection.full(data.shape)), data)
    np.testing.assert_array_equal(zarr.open(url)["intensity"][...], data)
    image = scan.run(Selection.full(data.shape), Sums(), 1)
    np.testing.assert_array_equal(image.reshape(3, 4), data.sum((2, 3)))


def axis_key(n):
    """Integers, slices of any step and sorted or shuffled index lists."""
    bound = st.none() | st.integers(-n - 2, n + 2)
    steps = st.integers(1, 3) | st.integers(-3, -1)
    return st.one_of(
        st.integers(-n, n - 1),
        st.builds(slice, bound, bound, steps),
        st.lists(st.integers(-n, n - 1), max_size=6).map(lambda found: np.array(found, np.int64)),
    )


@settings(deadline=None, max_examples=150)
@given(st.tuples(*(axis_key(n) for n in SHAPE)), st.data())
def test_every_selection_reads_like_numpy(stored, truth, keys, data):
    """Integers, reversed slices, repeated indices and detector parts, one axis after the other."""
    selection, expected = Selection.full(SHAPE), truth
    axis = 0
    for key in keys:
        index = (*([slice(None)] * axis), key)
        composed = selection.compose(index)
        assert composed is not None
        selection, expected = composed, expected[index]
        axis += 0 if isinstance(key, int) else 1
    np.testing.assert_array_equal(stored.read(selection), expected)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=selection.n_positions, max_size=selection.n_positions)))
    keep = keep.reshape(selection.scan_lengths).astype(bool)
    weights = DetectorRegion.of(selection).embed(np.ones(selection.lengths[-2:], np.uint64))
    image = stored.run(selection, Sums(), weights, keep)
    grid = truth[np.ix_(*(np.asarray(run, np.int64) for run in selection.axes))]
    np.testing.assert_array_equal(image[:, 0], (grid.sum((2, 3), dtype="u8") * keep).reshape(-1))


def test_reducing_over_the_scan(stored, truth):
    """A kernel with one output for all positions gets every frame once."""
    total = stored.run(Selection.full(SHAPE), Total(), None)
    np.testing.assert_array_equal(total, truth.sum((0, 1)))


def test_each_chunk_is_decoded_once(stored, monkeypatch):
    """A shuffled selection decodes no inner chunk twice, and a skipped one not at all."""
    seen = []
    plain = type(stored._array).stream
    monkeypatch.setattr(type(stored._array), "stream", lambda s, w, v: (seen.extend(w), plain(s, w, v))[1])
    order = np.array([10, 0, 5, 1, 10, 4, 2])
    stored.read(Selection.full(SHAPE).compose((order,)))
    assert len(seen) == len(set(seen)) == 4 * 5
    seen.clear()
    keep = np.zeros(SHAPE[:2], bool)
    keep[3, 3] = True
    stored.run(Selection.full(SHAPE), Sums(), 1, keep)
    assert seen == [((0, 0, 0, 0), 3)]


def test_reads_may_interleave(stored, truth):
    """A kernel that reads from the same store on its own thread does not disturb the outer read."""

    class Nested(Sums):
        def frames(self, block, local, out, place, prepared):
            before = block.copy()
            stored.read(Selection.full(SHAPE).compose((slice(4, 9),)))
            np.testing.assert_array_equal(block, before)
            super().frames(block, local, out, place, prepared)

    image = stored.run(Selection.full(SHAPE), Nested(), 1)
    np.testing.assert_array_equal(image.reshape(SHAPE[:2]), truth.sum((2, 3)))


def test_threads_share_an_open_scan(stored, truth):
    """Many threads read parts of one open scan and all are right."""
    wrong = []

    def work(row):
        for _ in range(20):
            found = stored.read(Selection.full(SHAPE).compose((row,)))
            if not np.array_equal(found, truth[row]):
                wrong.append(row)

    threads = [threading.Thread(target=work, args=(row,)) for row in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_extents_of_work(stored):
    """The unit of work is a shard, a dask block a whole number of chunks."""
    assert stored.partition == (4, 4)
    assert stored.chunk == (4, 4)
    assert block_extents((4, 4), (16, 16), 64) == (8, 8)
    assert block_extents((4, 4), (16, 16), 40) == (4, 8)
    assert block_extents((1,), (100,), 1) == (1,)


def test_pickle_is_small_and_opens_again(stored, truth):
    """A scan travels as its url and uuid, without data."""
    frozen = pickle.dumps(stored)
    assert len(frozen) < 500
    again = pickle.loads(frozen)
    np.testing.assert_array_equal(again.read(Selection.full(SHAPE).compose((3, 4))), truth[3, 4])


@pytest.fixture
def shard(tmp_path, write_dense):
    """Write a store and give the path of its first shard."""
    url = write_dense(tmp_path / "scan.zarr", counts())
    return url, tmp_path / "scan.zarr" / "intensity" / "c" / "0" / "0" / "0" / "0"


def test_damaged_chunk_is_named(shard):
    """One flipped byte in the first chunk is a checksum error that names shard and chunk; other chunks still read."""
    url, path = shard
    body = bytearray(path.read_bytes())
    body[20] ^= 0x10
    path.write_bytes(bytes(body))
    scan = open_store(url)
    with pytest.raises(ChecksumError, match=r"chunk 0 of shard '.*intensity/c/0/0/0/0' is damaged"):
        scan.read(Selection.full(SHAPE))
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE).compose((3, 3))), counts()[3, 3])


def test_missing_and_cut_shards_are_named(shard):
    """A shard that is gone or cut is never read as zeros."""
    url, path = shard
    body = path.read_bytes()
    path.write_bytes(body[:30])
    with pytest.raises(CorruptDataError, match="fewer than its index"):
        open_store(url).read(Selection.full(SHAPE))
    path.unlink()
    with pytest.raises(CorruptDataError, match="intensity/c/0/0/0/0' is missing"):
        open_store(url).read(Selection.full(SHAPE))


def test_shard_cut_while_open_is_named(shard):
    """A shard that shrinks after its index was read is a truncated file."""
    url, path = shard
    scan = open_store(url)
    scan.read(Selection.full(SHAPE))
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(TruncatedFileError, match=r"intensity/c/0/0/0/0' ends early"):
        scan.read(Selection.full(SHAPE))


def test_replaced_store_is_noticed(tmp_path, write_dense):
    """An open scan refuses to read when another store has taken its place; so does a pickled one."""
    url = write_dense(tmp_path / "scan.zarr", counts())
    scan = open_store(url)
    frozen = pickle.dumps(scan)
    write_dense(url, counts(seed=1), overwrite=True)
    with pytest.raises(StaleStoreError, match="open it again"):
        scan.read(Selection.full(SHAPE))
    with pytest.raises(StaleStoreError, match="open it again"):
        pickle.loads(frozen)
    np.testing.assert_array_equal(open_store(url).read(Selection.full(SHAPE)), counts(seed=1))


def test_removed_store_is_noticed(tmp_path, write_dense):
    """An open scan says so when its store is gone."""
    import shutil

    url = write_dense(tmp_path / "scan.zarr", counts())
    scan = open_store(url)
    shutil.rmtree(url)
    with pytest.raises(StaleStoreError, match="is gone"):
        scan.read(Selection.full(SHAPE))


def test_frames_that_do_not_fit_are_refused(tmp_path, make_document, small_layout):
    """Wrong shapes, types and partition numbers are refused before anything is written."""
    from stemstore.store.writer import StoreWriter

    data = counts()
    layout = small_layout(data)
    writer = StoreWriter.init(tmp_path / "scan.zarr", make_document(SHAPE), layout)
    part = data[layout.partitions[0]]
    for frames in (part[:2], part.astype("f4"), part.swapaxes(2, 3)):
        with pytest.raises(InputError, match=r"partition 0 of .* got frames"):
            writer.write_frames(0, frames)
    with pytest.raises(InputError, match="partition 99 does not exist"):
        writer.write_frames(99, part)
    with pytest.raises(InputError, match="use write_frames"):
        writer.write_events(0, [])
    assert writer.finished() == set()


def test_selection_of_another_scan_is_refused(stored):
    """A selection made for another shape is not silently applied."""
    with pytest.raises(InputError, match=r"the selection is of an array \(3, 4, 6, 5\)"):
        stored.read(Selection.full((3, 4, 6, 5)))
