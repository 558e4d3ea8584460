"""Virtual detectors that follow the optic axis equal NumPy with a mask of its own for every position."""

import pickle

import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import InputError
from stemstore.kernels.contract import DetectorRegion
from stemstore.kernels.detector_sums import DetectorSums
from stemstore.ops.geometry.moved import MovedKernel
from stemstore.ops.geometry.origin import Movement
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition

SHAPE = (6, 7, 9, 12)
RNG = np.random.default_rng(8)
COUNTS = RNG.poisson(0.8, SHAPE).astype(np.uint8)
ORIGIN = RNG.normal(0, 1.5, (2, *SHAPE[:2])) + np.array([4, 5.5])[:, None, None]


def dataset(source, **calibration):
    """Open a source in memory."""
    return build(scan_source(source), [], Acquisition(), Calibration(**calibration), "memory", flyback=False)


def moved_ring(radii, origin, rows=range(SHAPE[2]), columns=range(SHAPE[3])):
    """Masks (y, x, ky, kx) of a ring about the middle of the frame, moved by the rounded distance of each origin."""
    centre = np.array([(SHAPE[2] - 1) / 2, (SHAPE[3] - 1) / 2])
    at = centre[:, None, None] + np.rint(np.asarray(origin) - centre[:, None, None])
    ky = np.asarray(rows)[:, None] - at[0][..., None, None]
    kx = np.asarray(columns) - at[1][..., None, None]
    squared = ky**2 + kx**2
    return (squared >= radii[0] ** 2) & (squared < radii[1] ** 2)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_selection_of_any_type_equals_a_mask_per_position(data):
    """Dense and counted, any pixel type, any selection of positions and pixels, streamed or block by block."""
    dtype = data.draw(st.sampled_from(["u1", "u2", "u4", "i2", "i4", "f4"]))
    counted = dtype == "u1" and data.draw(st.booleans())
    frames = COUNTS.astype(dtype)
    if dtype[0] == "i":
        frames -= 1
    image = dataset((ArrayEvents if counted else ArrayFrames)(frames)).intensity
    chosen = {}
    for axis, dim in enumerate(["y", "x", "ky", "kx"]):
        kind = data.draw(st.sampled_from(["all", "list", "slice"]))
        n = SHAPE[axis]
        index = list(range(n))
        if kind == "list":
            index = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n + 3))
        elif kind == "slice":
            start = data.draw(st.integers(0, n - 1))
            index = index[start :: data.draw(st.sampled_from([1, 2, 3]))][:: data.draw(st.sampled_from([1, -1]))]
        chosen[dim] = index
    part = image.isel(chosen)
    spread = data.draw(st.sampled_from([0.3, 1.0, 4.0]))
    origin = [(o - o.mean()) * spread + o.mean() for o in ORIGIN[:, chosen["y"]][:, :, chosen["x"]]]
    radii = data.draw(st.sampled_from([(0, 3), (1.5, 4), (2, 30)]))
    if data.draw(st.booleans()):
        part = (part * 1).chunk({"y": 2, "x": 3})
    masks = moved_ring(radii, origin, chosen["ky"], chosen["kx"])
    assume(masks.any())
    result = stemstore.virtual_image(part, stemstore.annulus(*radii), origin=origin)
    expected = frames[np.ix_(*chosen.values())] * masks
    wide = {"u": np.uint64, "i": np.int64, "f": np.float64}[dtype[0]]
    assert result.dtype == wide
    np.testing.assert_array_equal(result, expected.sum((2, 3), dtype=wide))


def test_an_origin_that_does_not_move_changes_nothing(scan, counts):
    """All detectors, whatever their kind, are where they are without an origin."""
    rng = np.random.default_rng(3)
    detectors = {
        **stemstore.segments(1, 5, 8, rotation=22.5),
        "soft": stemstore.disk(3.3, antialias=True),
        "box": stemstore.rectangle((2, 5), (1, 3)),
        "pixel": stemstore.point(4, 4),
        "real": rng.normal(size=(14, 10)),
        "mask": rng.random((14, 10)) < 0.5,
        "complex": rng.normal(size=(14, 10)) + 1j,
    }
    still = stemstore.virtual_image(scan, detectors)
    middle = np.full(counts.shape[:2], 6.5), np.full(counts.shape[:2], 4.5)
    moved = stemstore.virtual_image(scan, detectors, origin=middle)
    for name in detectors:
        np.testing.assert_array_equal(moved[name], still[name])
        assert moved[name].dtype == still[name].dtype


@pytest.mark.parametrize("kind", [bool, float, complex])
def test_weights_per_pixel_move_and_leave_the_detector(scan, counts, kind):
    """An array of weights is shifted; what leaves the detector is lost and zeros come in."""
    weights = (np.random.default_rng(4).normal(size=(14, 10)) * 3).astype(kind)
    rows = np.arange(11)[:, None] - 5 + np.zeros((11, 9), int)
    columns = np.arange(9) - 4 + np.zeros((11, 9), int)
    image = stemstore.virtual_image(scan, weights, origin=(6.5 + rows, 4.5 + columns))
    for y, x in [(0, 0), (5, 4), (10, 8), (7, 1), (2, 8)]:
        wide = np.zeros((42, 30), weights.dtype)
        wide[14 + rows[y, x] : 28 + rows[y, x], 10 + columns[y, x] : 20 + columns[y, x]] = weights
        expected = (counts[y, x] * wide[14:28, 10:20]).sum()
        np.testing.assert_allclose(image.values[y, x], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("unit", ["1/angstrom", "mrad", "pixel"])
def test_units_of_the_maps_are_those_they_carry(unit):
    """Distances from the optic axis in any unit move detectors by the same pixels."""
    ds = dataset(ArrayFrames(COUNTS), detector_step="2 mrad", beam_energy="300 keV", detector_center=(4, 5.5))
    step = {"1/angstrom": float(ds.ky[1] - ds.ky[0]), "mrad": 2.0, "pixel": 1.0}[unit]
    away = ORIGIN - np.array([4, 5.5])[:, None, None]
    maps = {
        name: (("y", "x"), part * step, {"units": unit}) for name, part in zip(("com_y", "com_x"), away, strict=True)
    }
    image = stemstore.virtual_image(ds, stemstore.disk(6, unit="mrad"), origin=xr.Dataset(maps))
    np.testing.assert_array_equal(image, (COUNTS * moved_ring((0, 3), ORIGIN)).sum((2, 3)))


def test_places_on_calibrated_axes_and_on_pixel_axes_agree():
    """A pair of maps gives places in the unit of the axes; swapped dims are put in order."""
    ds = dataset(ArrayFrames(COUNTS), detector_step="2 mrad", detector_center=(4, 5.5))
    away = 2 * (ORIGIN - np.array([4, 5.5])[:, None, None])
    turned = [xr.DataArray(part.T, dims=("x", "y")) for part in away]
    pixels = [xr.DataArray(part, dims=("y", "x"), attrs={"units": "pixel"}) for part in ORIGIN]
    first = stemstore.virtual_image(ds, stemstore.disk(6), origin=turned)
    np.testing.assert_array_equal(first, (COUNTS * moved_ring((0, 3), ORIGIN)).sum((2, 3)))
    np.testing.assert_array_equal(first, stemstore.virtual_image(ds, stemstore.disk(6), origin=pixels))
    assert "origin='moved by ky -" in first.attrs["history"]


def test_the_centre_of_mass_itself_can_be_the_origin():
    """A beam that walks over the detector gives a constant image once its disk follows it."""
    steps = RNG.integers(-2, 3, (2, *SHAPE[:2]))
    frames = np.zeros(SHAPE, np.uint16)
    beam = stemstore.disk(2.1, center=(4, 5.5)).weights(dataset(ArrayFrames(frames)).intensity)
    for y, x in np.ndindex(*SHAPE[:2]):
        frames[y, x] = 100 * np.roll(beam, steps[:, y, x], axis=(0, 1))
    ds = dataset(ArrayFrames(frames))
    followed = stemstore.virtual_image(ds, stemstore.disk(2.1), origin=stemstore.center_of_mass(ds).compute())
    assert (followed == 100 * beam.sum()).all()
    assert len(np.unique(stemstore.virtual_image(ds, stemstore.disk(2.1)))) > 1


def test_a_fit_to_the_centre_of_mass_is_an_origin(scan, counts):
    """What `fit_descan` gives is understood: a plane moves detectors by its rounded values."""
    rows, columns = np.indices((11, 9))
    plane = 0.4 * rows - 2, 0.3 * columns - 0.1 * rows
    com = xr.Dataset(
        {name: (("y", "x"), part, {"units": "pixel"}) for name, part in zip(("com_y", "com_x"), plane, strict=True)}
    )
    fit = stemstore.fit_descan(com, "plane")
    image = stemstore.virtual_image(scan, stemstore.point(6, 4), origin=fit)
    at = [np.rint(fit[name].values).astype(int) for name in ("com_y", "com_x")]
    np.testing.assert_array_equal(image, counts[rows, columns, 6 + at[0], 4 + at[1]])
    assert len(np.unique(at[0])) > 3


def test_single_positions_and_lines_work(scan, counts):
    """Dropped scan axes need scalars and lines of origins."""
    one = stemstore.virtual_image(scan.isel(y=2, x=3), stemstore.point(5, 5), origin=(7.5, 3.5))
    assert one.values.item() == counts[2, 3, 6, 4]
    line = stemstore.virtual_image(
        scan.isel(x=3), stemstore.point(5, 5), origin=(np.full(11, 7.5), np.arange(11) - 5.5)
    )
    expected = [counts[y, 3, 6, y - 5] if 0 <= y - 5 < 10 else 0 for y in range(11)]
    np.testing.assert_array_equal(line, expected)


def test_the_source_is_still_streamed_and_each_partition_once(scan):
    """Pieces are selections of the scan: none goes through blocks of frames."""
    moved = stemstore.virtual_image(scan, stemstore.disk(3), origin=(RNG.normal(6, 1, (11, 9)), np.full((11, 9), 4.5)))
    names = {str(key[0] if isinstance(key, tuple) else key).partition("-")[0] for key in dict(moved.data.dask)}
    assert "fused" in names
    assert not {"generic", "scan"} & names


def test_moved_images_can_be_computed_with_others(scan):
    """`compute` gives what each gives by itself."""
    origin = RNG.normal(6, 1, (11, 9)), RNG.normal(4.5, 1, (11, 9))
    lazy = (
        stemstore.virtual_image(scan, stemstore.disk(3), origin=origin),
        stemstore.virtual_image(scan, stemstore.annulus(3, 5), origin=origin),
        stemstore.virtual_image(scan, stemstore.disk(3)),
    )
    for together, alone in zip(stemstore.compute(*lazy), lazy, strict=True):
        np.testing.assert_array_equal(together, alone.compute())


def test_missing_frames_need_no_origin(frames_of, counts):
    """NaN where there is no frame is no error."""
    validity = np.full(counts.shape[:2], 2)
    validity[1, 1] = 0
    where = np.full((11, 9), 6.5)
    where[1, 1] = np.nan
    origin = (where, np.full((11, 9), 4.5))
    image = stemstore.virtual_image(frames_of(counts, validity), stemstore.disk(3), origin=origin)
    still = stemstore.virtual_image(frames_of(counts, validity), stemstore.disk(3))
    np.testing.assert_array_equal(image, still)


def test_what_is_kept_ready_is_bounded(scan, counts, monkeypatch):
    """Results do not depend on how many weights fit."""
    monkeypatch.setattr("stemstore.ops.geometry.moved.READY_BYTES", 1)
    origin = RNG.normal(6, 2, (11, 9)), RNG.normal(4.5, 2, (11, 9))
    image = stemstore.virtual_image(scan, np.ones((14, 10), bool), origin=origin)
    away = [np.rint(part - middle).astype(int) for part, middle in zip(origin, (6.5, 4.5), strict=True)]
    for y, x in np.ndindex(11, 9):
        inside = [slice(max(0, part[y, x]), max(0, n + part[y, x])) for part, n in zip(away, (14, 10), strict=True)]
        assert image.values[y, x] == counts[y, x][tuple(inside)].sum()


def test_kernels_travel_light_and_are_told_apart_by_what_they_compute():
    """What is prepared stays behind, and does not change a kernel's name in graphs."""
    table = np.ones((1, 5, 5), bool)
    index = np.arange(1, 5)
    kernel = MovedKernel.of(DetectorSums, table, Movement(np.zeros((2, 2), np.int64), None, index, index)).at(
        np.zeros((2, 2), np.int64)
    )
    before = tokenize(kernel)
    region = DetectorRegion((4, 4), range(4), range(4))
    out = kernel.allocate(2, np.dtype("u1"), region)
    kernel.frames(np.ones((2, 4, 4), np.uint8), np.arange(2), out, np.arange(2), kernel.prepare(region))
    assert out.tolist() == [[16], [16]]
    assert kernel.ready
    assert tokenize(kernel) == before != tokenize(kernel.at(np.zeros((1, 2), np.int64)))
    assert pickle.loads(pickle.dumps(kernel)).ready == {}


@pytest.mark.parametrize(
    ("origin", "match"),
    [
        ((np.zeros((11, 9)),), "pair of maps"),
        (np.zeros((11, 9)), "pair of maps"),
        (xr.Dataset({"com_y": ("y", np.zeros(11))}), "com_x"),
        ((np.zeros((9, 11)), np.zeros((11, 9))), r"shape \(9, 11\).*\(11, 9\)"),
        (
            (np.zeros((11, 9)), np.where(np.eye(11, 9), np.nan, 0)),
            r"kx is not finite at 9 positions, first at \(0, 0\)",
        ),
        ((np.full((11, 9), 1e6), np.zeros((11, 9))), "check its unit"),
    ],
    ids=["single", "array", "dataset", "shape", "nan", "far"],
)
def test_origins_that_cannot_work_are_refused(scan, origin, match):
    """The message says what is wrong before anything is read."""
    with pytest.raises(InputError, match=match):
        stemstore.virtual_image(scan, stemstore.disk(3), origin=origin)


def test_weights_cannot_move_over_gaps(scan):
    """On a strided detector it is not known what lies between two weights."""
    part = scan.intensity.isel(ky=slice(None, None, 2))
    zero = np.zeros((11, 9))
    with pytest.raises(InputError, match="gaps along ky"):
        stemstore.virtual_image(part, np.ones(part.shape[2:]), origin=(zero + 6, zero + 4))
    with pytest.raises(InputError, match="select some"):
        Movement.of(scan.intensity.isel(ky=slice(0, 0)), (zero, zero))
