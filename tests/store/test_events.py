"""Stored events: the frames they stand for, through our reader and by the definition of the coding."""

import pickle

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import ChecksumError, InputError
from stemstore.selection import Selection
from stemstore.store.events import run_extents
from stemstore.store.open import open_store
from stemstore.store.slots import max_multiplicity
from stemstore.store.writer import StoreWriter

SHAPE = (7, 9, 6, 5)


class Electrons:
    """Electrons per position, in plain NumPy from the coding."""

    reduces = "detector"
    combine = np.add

    def allocate(self, n_positions, dtype, region):
        return np.zeros(n_positions, np.uint64)

    def events(self, gap, offsets, local, out, place, prepared):
        for frame, row in zip(local, place, strict=True):
            out[row] += np.count_nonzero(gap[offsets[frame] : offsets[frame + 1]] != 65535)


def electrons(shape=SHAPE, rate=0.3, seed=0):
    """Make counted frames with empty ones and pixels that got several electrons."""
    data = np.random.default_rng(seed).poisson(rate, shape).astype(np.uint8)
    data[2] = 0
    data[3, 3, 2, 2] = 9
    return data


def decode(gap, n_slots, n_pixels):
    """Dense frames of one block, from the definition: 65535 adds and goes on."""
    frames = np.zeros((len(n_slots), n_pixels), np.int64)
    start = 0
    for frame, n in zip(frames, n_slots.tolist(), strict=True):
        index = 0
        for distance in gap[start : start + n].tolist():
            index += distance
            if distance != 65535:
                frame[index] += 1
        start += n
    return frames


@pytest.fixture(scope="module")
def truth():
    """Frames of the module's store."""
    return electrons()


@pytest.fixture
def stored(tmp_path, write_counted, truth):
    """Write a store whose blocks end anywhere in a row and whose rows of shards are not full."""
    return open_store(write_counted(tmp_path / "scan.zarr", truth))


def test_events_read_as_frames(stored, truth):
    """Every frame comes back, empty and crowded ones included."""
    read = stored.read(Selection.full(SHAPE))
    assert read.dtype == stored.dtype == np.uint8
    np.testing.assert_array_equal(read, truth)


def test_plain_zarr_gives_the_events(stored, truth):
    """With zarr and the definition of the coding alone, the frames come back."""
    group = zarr.open(stored.url)["events"]
    n_slots = group["n_slots"][...].reshape(-1)
    gap = group["gap"][...]
    assert group["n_slots"].shape == SHAPE[:2]
    frames = []
    for block, row in enumerate(gap):
        slots = n_slots[block * 5 : (block + 1) * 5]
        frames.append(decode(row[: slots.sum()], slots, 30))
    np.testing.assert_array_equal(np.concatenate(frames).reshape(SHAPE), truth)


def test_xarray_shows_the_tree(stored, truth):
    """Foreign tools see axes and slots of a counted scan without our software."""
    with xr.open_datatree(stored.url, engine="zarr", chunks=None) as tree:
        assert tree["events"]["n_slots"].dims == ("y", "x")
        assert tree["events"]["n_slots"].sum() == truth.sum()
        assert tree["ky"].attrs == {"units": "pixel"}


def test_crowded_blocks_take_further_chunks(tmp_path, write_counted):
    """A block of more slots than a chunk has goes on in the next column; others leave it absent."""
    data = electrons(rate=0.1)
    data[4] = 3
    url = write_counted(tmp_path / "scan.zarr", data, slots_per_chunk=32)
    shards = sorted(path.name for path in (tmp_path / "scan.zarr/events/gap/c/2").iterdir())
    assert len(shards) == zarr.open(url)["events/gap"].shape[1] // 32 == 15
    assert [path.name for path in (tmp_path / "scan.zarr/events/gap/c/0").iterdir()] == ["0"]
    scan = open_store(url)
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE)), data)
    sums = scan.run(Selection.full(SHAPE), Electrons(), None)
    np.testing.assert_array_equal(sums, data.sum((2, 3)).reshape(-1))


def test_far_events_need_escapes(tmp_path, write_counted):
    """First and later gaps of 65535 and more survive; slots are more than electrons."""
    data = np.zeros((2, 2, 300, 500), np.uint8)
    for frame, indices in enumerate([[65534], [65535, 131070], [149999, 149999], [0, 0, 65536]]):
        np.add.at(data.reshape(4, -1)[frame], indices, 1)
    scan = open_store(write_counted(tmp_path / "scan.zarr", data))
    assert scan.n_slots.tolist() == [1, 4, 4, 4]
    np.testing.assert_array_equal(scan.read(Selection.full(data.shape)), data)
    assert scan.run(Selection.full(data.shape), Electrons(), None).tolist() == [1, 2, 2, 3]


def test_an_empty_scan(tmp_path, write_counted):
    """A scan without a single electron is a scan."""
    scan = open_store(write_counted(tmp_path / "scan.zarr", np.zeros(SHAPE, np.uint8)))
    assert scan.n_slots.sum() == 0
    assert not scan.read(Selection.full(SHAPE)).any()


@pytest.mark.parametrize("shape", [(2, 4, 5, 6, 5), (23, 6, 5)])
def test_other_scan_axes(tmp_path, write_counted, shape):
    """Repeated frames and stacks keep their axes."""
    data = np.random.default_rng(3).poisson(0.4, shape).astype(np.uint8)
    scan = open_store(write_counted(tmp_path / "scan.zarr", data))
    assert scan.shape == shape
    np.testing.assert_array_equal(scan.read(Selection.full(shape)), data)


def test_wide_multiplicities_widen_the_frames(tmp_path, write_counted):
    """More than 255 electrons in a pixel make 16-bit frames; nothing wraps."""
    data = np.zeros(SHAPE, np.uint16)
    data[1, 1, 3, 3] = 300
    scan = open_store(write_counted(tmp_path / "scan.zarr", data, slots_per_chunk=512))
    assert scan.dtype == np.uint16
    np.testing.assert_array_equal(scan.read(Selection.full(SHAPE)), data)


@pytest.mark.parametrize(
    ("gap", "slots", "expected"),
    [
        ([], [0, 0], 0),
        ([65535], [1], 0),
        ([0, 5, 0], [1, 2], 2),
        ([0, 0, 0], [1, 2], 2),
        ([0, 0, 0], [3], 3),
        ([65535, 0, 0], [3], 2),
        ([3, 0, 0, 7, 0], [0, 5, 0], 3),
    ],
)
def test_multiplicity(gap, slots, expected):
    """Leading gaps of zero and those behind an escape repeat nothing."""
    assert max_multiplicity(np.array(gap, np.uint16), np.array(slots, np.uint32)) == expected


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_selection_reads_like_numpy(tmp_path_factory, request, truth, data):
    """Grids of positions and detector pixels, in any order, with and without skipped positions."""
    if not hasattr(test_every_selection_reads_like_numpy, "scan"):
        write = request.getfixturevalue("write_counted")
        url = write(tmp_path_factory.mktemp("events") / "scan.zarr", truth)
        test_every_selection_reads_like_numpy.scan = open_store(url)
    scan = test_every_selection_reads_like_numpy.scan
    axes = [np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=5)), np.int64) for n in SHAPE]
    selection = Selection(SHAPE, tuple(axes), (True,) * 4)
    np.testing.assert_array_equal(scan.read(selection), truth[np.ix_(*axes)])
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=selection.n_positions, max_size=selection.n_positions)))
    keep = keep.astype(bool).reshape(selection.scan_lengths)
    sums = scan.run(selection, Electrons(), None, keep)
    expected = truth.sum((2, 3), dtype="u8")[np.ix_(*axes[:2])] * keep
    np.testing.assert_array_equal(sums, expected.reshape(-1))


def test_browsing_decodes_a_block_once(stored, monkeypatch):
    """Frame after frame of one block costs one decode."""
    decoded = []
    plain = type(stored)._decode
    monkeypatch.setattr(type(stored), "_decode", lambda s, block: (decoded.append(block), plain(s, block))[1])
    for x in range(4):
        stored.read(Selection.full(SHAPE).compose((0, x)))
    assert decoded == [0]


def test_extents_of_work(stored):
    """A row of shards of 15 frames covers one scan row of 9."""
    assert stored.partition == (1, 9)
    assert stored.chunk == (1, 9)
    assert run_extents((3, 4, 5), 40) == (2, 4, 5)
    assert run_extents((3, 4, 5), 3) == (1, 1, 3)


def test_pickled_events_open_again(stored, truth):
    """Events travel as url and uuid."""
    again = pickle.loads(pickle.dumps(stored))
    np.testing.assert_array_equal(again.read(Selection.full(SHAPE).compose((3, 3))), truth[3, 3])


@pytest.mark.parametrize(("start", "stop"), [(0, 63), (3, 17), (5, 10), (18, 20), (7, 7)])
def test_ranges_of_events(stored, truth, start, stop):
    """Events of any range of positions, ascending, repeated pixels repeated."""
    found = stored.read_events(start, stop)
    frames = truth.reshape(-1, 30)[start:stop]
    assert found.n_frames == stop - start
    for number, frame in enumerate(frames):
        indices = found.indices[found.indptr[number] : found.indptr[number + 1]]
        np.testing.assert_array_equal(indices, np.repeat(np.arange(30), frame))
    with pytest.raises(IndexError, match="leave the scan of 63 frames"):
        stored.read_events(start, 64)


def test_damaged_events_are_named(stored):
    """A flipped byte in the gaps is a checksum error that names the shard."""
    from pathlib import Path

    path = Path(stored.url) / "events/gap/c/0/0"
    body = bytearray(path.read_bytes())
    body[10] ^= 1
    path.write_bytes(bytes(body))
    with pytest.raises(ChecksumError, match=r"chunk 0 of shard '.*events/gap/c/0/0' is damaged"):
        stored.read(Selection.full(SHAPE))


def test_blocks_that_do_not_fit_are_refused(tmp_path, make_document):
    """Wrong numbers of blocks, counts that contradict the gaps and wide gaps are refused."""
    from stemstore.store.layout import counted_layout

    layout = counted_layout((2, 3), (4, 4), 1.0)
    writer = StoreWriter.init(tmp_path / "scan.zarr", make_document((2, 3, 4, 4), counted=True), layout)
    slots = np.array([1, 0, 0, 0, 0, 0], np.uint32)
    with pytest.raises(InputError, match="got 0 blocks, expected 1"):
        writer.write_events(0, [])
    for gap, n_slots in [(np.zeros(2, "u2"), slots), (np.zeros(1, "u4"), slots), (np.zeros(1, "u2"), slots[:5])]:
        with pytest.raises(InputError, match=r"the block of frames 0\.\.5 got"):
            writer.write_events(0, [(gap, n_slots)])
    with pytest.raises(InputError, match="use write_events"):
        writer.write_frames(0, np.zeros((2, 3, 4, 4), "u1"))
