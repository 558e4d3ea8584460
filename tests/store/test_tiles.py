"""Stores whose chunks cut the detector: every pixel arrives, and tiles that nobody looks at are not read."""

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.kernels.contract import DetectorRegion
from stemstore.kernels.detector_sums import DetectorSums
from stemstore.kernels.moments import Moments
from stemstore.kernels.patterns import PatternMax, PatternSum
from stemstore.kernels.pixel_images import PixelImages
from stemstore.selection import Selection
from stemstore.store.layout import DenseLayout
from stemstore.store.open import open_store
from stemstore.store.stream import ShardedArray

SHAPE = (5, 7, 13, 11)
CHUNK, SHARD = (2, 3, 4, 4), (4, 6, 16, 12)  # none divides its axis


@pytest.fixture
def frames():
    """Every pixel has its own value."""
    return np.random.default_rng(7).permutation(np.prod(SHAPE)).astype(np.uint16).reshape(SHAPE)


@pytest.fixture
def tiled(tmp_path, frames, write_dense):
    """Tiles of 4 x 4 pixels of 2 x 3 positions."""
    return open_store(
        write_dense(tmp_path / "a.zarr", frames, layout=DenseLayout(SHAPE, "uint16", CHUNK, SHARD, "fast"))
    )


@pytest.fixture
def tiles_read(monkeypatch):
    """Give the detector tiles that were decoded since the last call."""
    seen, stream = set(), ShardedArray.stream

    def watched(self, wanted, visit):
        seen.update(number % 12 for _, number in wanted)  # 4 x 3 tiles follow each other in a shard
        return stream(self, wanted, visit)

    monkeypatch.setattr(ShardedArray, "stream", watched)

    def read():
        found = sorted(seen)
        seen.clear()
        return found

    return read


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_tiles_hold_the_frames(tmp_path_factory, write_dense, frames, data):
    """Whatever the chunks and shards are, zarr, xarray and our own reads give the pixels that were written."""
    chunk = tuple(data.draw(st.integers(n // 4, n + 1)) for n in SHAPE)
    scan = tuple(c * data.draw(st.integers(1, 3)) for c in chunk[:2])
    cover = tuple(c * -(-n // c) for c, n in zip(chunk[2:], SHAPE[2:], strict=True))
    layout = DenseLayout(SHAPE, "uint16", chunk, scan + cover, data.draw(st.sampled_from(["fast", "raw"])))
    url = write_dense(tmp_path_factory.mktemp("any") / "a.zarr", frames, layout=layout)
    part = tuple(slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))) for n in SHAPE)
    np.testing.assert_array_equal(stemstore.open(url).intensity[part].values, frames[part])
    np.testing.assert_array_equal(zarr.open(url, mode="r")["intensity"][:], frames)
    np.testing.assert_array_equal(xr.open_zarr(url).intensity[part].values, frames[part])


def test_a_region_reads_its_tiles(tiled, frames, tiles_read):
    """A cut-out of the detector decodes the tiles that it lies on, and no other."""
    ds = stemstore.open(tiled.url)
    np.testing.assert_array_equal(ds.intensity[:, :, 4:8, 8:].values, frames[:, :, 4:8, 8:])
    assert tiles_read() == [5]
    np.testing.assert_array_equal(ds.intensity[3, ::2, 12:, 2:9:5].values, frames[3, ::2, 12:, 2:9:5])
    assert tiles_read() == [9, 10]


@pytest.mark.parametrize(
    ("kernel", "expected", "tiles"),
    [
        (lambda mask: DetectorSums(mask[None]), lambda f, m: f[..., m].sum(-1, dtype=np.uint64), [7, 10]),
        (lambda mask: DetectorSums(2.5 * mask[None]), lambda f, m: 2.5 * f[..., m].sum(-1, dtype=np.uint64), [7, 10]),
        (Moments, lambda f, m: f[..., m].sum(-1, dtype=np.uint64), [7, 10]),
        (
            lambda mask: PixelImages(np.where(mask, 0, -1), 1, np.dtype(np.uint64)),
            lambda f, m: f[..., m].sum(-1, dtype=np.uint64),
            [7, 10],
        ),
    ],
)
def test_kernels_read_the_tiles_that_they_look_at(tiled, frames, tiles_read, kernel, expected, tiles):
    """Sums over some pixels are those of whole frames, and only their tiles are decoded."""
    mask = np.zeros(SHAPE[2:], bool)
    mask[9:13, 6:8] = mask[11, 4] = True
    selection, kernel = Selection.full(SHAPE), kernel(mask)
    out = tiled.run(selection, kernel, kernel.prepare(DetectorRegion.of(selection)))
    np.testing.assert_array_equal(out[:, 0].reshape(SHAPE[:2]), expected(frames, mask))
    assert tiles_read() == tiles


@pytest.mark.parametrize(("kernel", "reduce"), [(PatternSum(), np.sum), (PatternMax(), np.max)])
def test_patterns_read_the_visible_tiles(tiled, frames, tiles_read, kernel, reduce):
    """A sum or maximum of a part of the detector needs its tiles only."""
    selection = Selection.full(SHAPE).compose((slice(None), slice(None), slice(1, 3), slice(5, 11)))
    region = DetectorRegion.of(selection)
    out = kernel.finish(tiled.run(selection, kernel, kernel.prepare(region)), region)
    np.testing.assert_array_equal(out, reduce(frames[:, :, 1:3, 5:11], axis=(0, 1)))
    assert tiles_read() == [1, 2]


def test_several_results_read_the_tiles_of_any(tiled, frames, tiles_read):
    """In one pass the tiles of all operations are decoded once; an operation that does not tell needs all."""
    ds = stemstore.open(tiled.url)
    first, second = np.zeros((2, *SHAPE[2:]), bool)
    first[0, 0] = second[12, 10] = True
    images = stemstore.compute(*(stemstore.virtual_image(ds, mask) for mask in (first, second)))
    assert tiles_read() == [0, 11]
    np.testing.assert_array_equal(images[0], frames[..., 0, 0])
    np.testing.assert_array_equal(images[1], frames[..., 12, 10])
    stemstore.compute(stemstore.virtual_image(ds, first), ds.intensity.sum(("y", "x")))
    assert tiles_read() == list(range(12))


def test_neighbours_of_a_bad_pixel_are_read(tiled, frames, frames_of, tiles_read):
    """A bad pixel is made of its neighbours, whose tiles are read though they lie outside of the mask."""
    bad = np.zeros(SHAPE[2:], bool)
    bad[4, 4] = True
    image = stemstore.virtual_image(stemstore.open(tiled.url), bad, bad_pixels=bad).values
    assert tiles_read() == [0, 1, 3, 4]
    np.testing.assert_array_equal(image, stemstore.virtual_image(frames_of(frames), bad, bad_pixels=bad))


def test_an_empty_mask_reads_one_tile(tiled, tiles_read):
    """Where nothing is looked at the result is zero, and kernels are asked all the same."""
    ds = stemstore.open(tiled.url)
    assert not stemstore.virtual_image(ds, np.zeros(SHAPE[2:], bool)).values.any()
    assert tiles_read() == [0]
