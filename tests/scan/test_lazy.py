"""The lazy array is an ordinary dask array that knows its selection, and never claims one it lost."""

import copy
import pickle

import dask
import dask.array as da
import numba
import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.scan.lazy import ScanArray, cut_axis, natural_chunks, selection_of
from stemstore.selection import Selection
from stemstore.sources.streaming import FrameScan
from stemstore.testing.arrays import ArrayFrames

SHAPE = (11, 9, 14, 10)
FRAMES = np.random.default_rng(3).integers(0, 1000, SHAPE).astype(np.uint16)


@pytest.fixture
def array():
    """A lazy array over frames in memory, in several blocks."""
    source = FrameScan(ArrayFrames(FRAMES))
    source.chunk, source.partition = (4, 4), (4, 9)
    return ScanArray(source, Selection.full(SHAPE))


def test_array_is_a_dask_array_of_numpy_blocks(array):
    """Computing, persisting and mapping give and take NumPy arrays."""
    assert isinstance(array, da.Array)
    np.testing.assert_array_equal(array.compute(), FRAMES)
    assert type(array.map_blocks(lambda block: block, dtype=array.dtype).compute()) is np.ndarray
    assert selection_of(array.persist()) is None


@pytest.mark.parametrize("key", [slice(None), slice(3, None), slice(5, 6), slice(2, 9), slice(0, 0), slice(9, 1, -2)])
def test_blocks_of_an_axis(array, key):
    """Unbroken axes are cut where pieces of the source end, wherever they begin, as all others are."""
    part = array[key]
    axis = part.selection().axes[0]
    chunks = natural_chunks(part._source, part.selection())
    assert chunks[0] == tuple(piece.stop - piece.start for piece in cut_axis(axis, 4))
    np.testing.assert_array_equal(part.compute(), FRAMES[key])


def test_numba_functions_of_users_get_plain_blocks(array):
    """A compiled user function can be mapped over the blocks."""
    total = numba.njit(lambda block: block.sum())
    sums = array.map_blocks(lambda b: np.array(total(b)).reshape(1, 1, 1, 1), chunks=(1, 1, 1, 1), dtype=np.uint64)
    assert sums.sum().compute() == FRAMES.sum()


@pytest.mark.parametrize(
    "work",
    [
        lambda ds: ds.assign(total=ds.intensity.sum(("ky", "kx"))).compute().intensity,
        lambda ds: ds.assign(mean=ds.intensity.mean(("y", "x"))).persist().intensity,
        lambda ds: ds.intensity.chunk(y=2).compute(),
        lambda ds: xr.apply_ufunc(np.maximum, ds.intensity, ds.intensity // 2, dask="parallelized").compute(),
    ],
    ids=["compute", "persist", "chunk", "apply_ufunc"],
)
def test_a_scan_is_computed_together_with_other_lazy_arrays(dataset_of, work):
    """Frames of a scan, lazy results and chunked coordinates may lie in one dataset, which xarray computes at once."""
    np.testing.assert_array_equal(work(dataset_of(ArrayFrames(FRAMES))), FRAMES)


def test_opening_and_indexing_build_no_tasks(array):
    """A huge scan is opened and indexed without making a task per block."""
    source = FrameScan(ArrayFrames(FRAMES))
    source.shape, source.chunk = (100_000, 100_000, 14, 10), (2, 2)
    huge = ScanArray(source, Selection.full(source.shape), ((50_000,) * 2, (50_000,) * 2, (14,), (10,)))
    assert len(huge.dask) == 5
    assert huge[5:10].shape == (5, 100_000, 14, 10)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * 2,
        lambda x: x.astype("f4"),
        lambda x: x.transpose(1, 0, 2, 3),
        lambda x: da.where(x > 3, x, 0),
        lambda x: da.concatenate([x, x]),
        lambda x: da.roll(x, 1, axis=0),
        lambda x: dask.optimize(x)[0],
        lambda x: x[:, :, None],
    ],
    ids=["times", "astype", "transpose", "where", "join", "roll", "optimize", "newaxis"],
)
def test_changed_arrays_lose_their_selection(array, change):
    """Whatever is not a plain selection is an ordinary dask array."""
    assert selection_of(change(array)) is None


def test_item_assignment_is_noticed(array):
    """Assigning into the array in place makes operations use the new values."""
    array[0, 0] = 7
    assert selection_of(array) is None
    assert (array[0, 0].compute() == 7).all()


def test_out_argument_is_noticed(array):
    """A ufunc that writes into the array in place makes operations use the new values."""
    np.add(array, 1, out=array)
    assert selection_of(array) is None
    np.testing.assert_array_equal(array.compute(), FRAMES + 1)


@pytest.mark.parametrize(
    "keep",
    [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), lambda x: x[:]],
    ids=["copy", "deep", "pickle", "slice"],
)
def test_copies_keep_the_selection(array, keep):
    """Copying and pickling give the same selection of the same data."""
    other = keep(array)
    assert selection_of(other) is not None
    np.testing.assert_array_equal(other.compute(), FRAMES)


def test_rechunking_stays_lazy_and_right(array):
    """Other chunks are read directly, the detector axes cut too."""
    other = array[1:].rechunk({0: 3, 2: 5, -1: -1})
    assert selection_of(other) is not None
    assert other.chunks[2] == (5, 5, 4)
    np.testing.assert_array_equal(other.compute(), FRAMES[1:])


def test_reversed_data_under_old_coordinates_are_computed_as_they_are(array):
    """Labels do not decide which frames are meant: the data do."""
    image = xr.DataArray(array[::-1], dims=("y", "x", "ky", "kx"), coords={"y": np.arange(11)})
    sums = stemstore.virtual_image(image, np.ones(SHAPE[2:], bool))
    np.testing.assert_array_equal(sums, FRAMES[::-1].sum((2, 3)))
