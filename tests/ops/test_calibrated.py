"""Operations on centred, calibrated and distorted scans equal NumPy in pixels, position by position."""

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import InputError
from stemstore.ops.geometry.regions import one_turn
from stemstore.scan.calibrate import calibrate
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition, Ellipse

SHAPE = (4, 5, 13, 16)
CENTER = (5.75, 8.25)
RNG = np.random.default_rng(5)
COUNTS = RNG.poisson(0.8, SHAPE).astype(np.uint8)
ORIGIN = RNG.normal(0, 1.6, (2, *SHAPE[:2])) + np.array(CENTER)[:, None, None]
MOVES = np.rint(ORIGIN - np.array(CENTER)[:, None, None])
TILTED = np.array(Ellipse.of_axes(1.25, 1.0, 34).matrix)


def dataset(kind=ArrayFrames, counts=COUNTS, **calibration):
    """Open the scan from memory."""
    return build(scan_source(kind(counts)), [], Acquisition(), Calibration(**calibration), "memory", flyback=False)


def vectors(moves, matrix, rows=range(SHAPE[2]), columns=range(SHAPE[3])):
    """Corrected vectors (2, y, x, ky, kx) of the pixels, in pixels from the moved centre."""
    row = np.asarray(rows)[:, None] - CENTER[0] - moves[0][..., None, None] + np.zeros(len(columns))
    column = np.asarray(columns) - CENTER[1] - moves[1][..., None, None] + np.zeros((len(rows), 1))
    return np.einsum("ij,jyxrc->iyxrc", matrix, np.stack([row, column]))


@st.composite
def scans(draw):
    """A calibrated scan, dense or counted, streamed or not, any part of it; its counts, and its vectors in pixels."""
    kind = draw(st.sampled_from([ArrayFrames, ArrayEvents]))
    matrix = draw(st.sampled_from([np.eye(2), TILTED]))
    moving = draw(st.booleans())
    step = draw(st.sampled_from([None, "0.5 mrad", (0.5, 0.75)]))
    ds = dataset(kind)
    parts = {
        "y": draw(st.sampled_from([slice(None), slice(None, None, -1), [2, 0, 2], slice(1, None, 2)])),
        "x": draw(st.sampled_from([slice(None), slice(3, None, -2), [4, 1]])),
        "ky": draw(st.sampled_from([slice(None), slice(2, 12), slice(None, None, -1), slice(None, None, 2)])),
        "kx": draw(st.sampled_from([slice(None), slice(1, None, 3), slice(None, None, -1), slice(14, 3, -1)])),
    }
    index = [np.arange(n)[part] for n, part in zip(SHAPE, parts.values(), strict=True)]
    first = draw(st.booleans())  # the selection comes before or after the calibration
    maps = [part[np.ix_(*index[:2])] if first else part for part in ORIGIN]
    options = {"detector_center": CENTER, "beam_energy": 300}
    options |= {} if step is None else {"detector_step": step}
    options |= {"ellipse": matrix} if (matrix != np.eye(2)).any() or draw(st.booleans()) else {}
    if moving:
        options["origin"] = [xr.DataArray(part, dims=("y", "x"), attrs={"units": "pixel"}) for part in maps]
    ds = calibrate(ds.isel(parts), **options) if first else calibrate(ds, **options).isel(parts)
    if draw(st.booleans()):
        ds = ds.assign(intensity=(ds.intensity * np.uint8(1)).assign_attrs(ds.intensity.attrs))
    moves = (MOVES if moving else np.zeros_like(MOVES))[:, index[0]][:, :, index[1]]
    return ds, COUNTS[np.ix_(*index)], vectors(moves, matrix, *index[2:]), matrix


@settings(deadline=None, max_examples=50)
@given(scans(), st.data())
def test_detectors_in_pixels_and_in_units_are_those_of_numpy(scan, data):
    """A ring or sector, centred and calibrated, is the ring of the corrected vectors in pixels of every position."""
    ds, counts, (row, column), _ = scan
    inner, outer = data.draw(st.sampled_from([(0.0, 3.2), (2.1, 5.3), (1.7, 30.0)]))
    inside = (row**2 + column**2 >= inner**2) & (row**2 + column**2 < outer**2)
    step = ds.ky.attrs["step"], ds.kx.attrs["step"]
    square = step[0] == step[1]
    unit = data.draw(st.sampled_from(["pixel", None] if square else ["pixel"]))
    scale = 1.0 if unit == "pixel" else step[0]
    assume(inside.any(axis=(0, 1)).any())
    detector = stemstore.annulus(inner * scale, outer * scale, unit=unit)
    start, stop = data.draw(st.sampled_from([(0.0, 360.0), (10.0, 130.0), (200.0, 20.0)]))
    if stop != 360:
        angle = one_turn(np.degrees(np.arctan2(row, column)))
        inside &= (angle >= start) & (angle < stop) if start < stop else (angle >= start) | (angle < stop)
        assume(inside.any())
        detector = stemstore.sector(inner * scale, outer * scale, start, stop, unit=unit)
    try:
        image = stemstore.virtual_image(ds, detector)
    except InputError as error:  # no pixel at any position
        assert "covers no pixel" in str(error)  # noqa: PT017 (a detector outside the selection is legal to meet here)
        assert not inside.any()
        return
    assert image.dtype == np.uint64
    np.testing.assert_array_equal(image, (counts * inside).sum((2, 3), dtype=np.uint64))


@settings(deadline=None, max_examples=35)
@given(scans(), st.data())
def test_rings_that_move_are_annuli_that_move(scan, data):
    """Sum, mean and variance of every ring, the number of its pixels, and that the rings hold every electron once."""
    ds, counts, (row, column), _ = scan
    squared = row**2 + column**2
    bins = data.draw(st.sampled_from([None, 1, 4]))
    profile = stemstore.radial_profile(ds, bins=bins, unit="pixel").compute()
    np.testing.assert_array_equal(profile.sum("k"), counts.sum((2, 3), dtype=np.uint64))
    name = data.draw(st.sampled_from(["mean", "variance"]))
    other = stemstore.radial_profile(ds, bins=bins, unit="pixel", statistic=name).compute()
    sizes = profile.n_pixels.broadcast_like(profile)
    for ring in range(profile.sizes["k"]):
        inner, outer = float(profile.k_inner[ring]), float(profile.k_outer[ring])
        inside = (squared >= inner**2) & (squared < outer**2)
        np.testing.assert_array_equal(sizes[..., ring], inside.sum((2, 3)))
        np.testing.assert_array_equal(profile[..., ring], (counts * inside).sum((2, 3)))
        for place in itertools.product(range(counts.shape[0]), range(counts.shape[1])):
            pixels = counts[place][inside[place]]
            expected = getattr(np, {"mean": "mean", "variance": "var"}[name])(pixels) if pixels.size else np.nan
            np.testing.assert_allclose(other.values[place][ring], expected, rtol=1e-12, atol=1e-14)


@settings(deadline=None, max_examples=20)
@given(scans(), st.integers(1, 7))
def test_polar_cells_that_move_are_segments_that_move(scan, n_angles):
    """Cells add up to the radial profile and hold the pixels of the direction of the corrected vector."""
    ds, counts, (row, column), _ = scan
    polar = stemstore.polar_profile(ds, n_angles, edges=[0, 2.6, 40], unit="pixel").compute()
    np.testing.assert_array_equal(polar.sum("angle"), stemstore.radial_profile(ds, edges=[0, 2.6, 40], unit="pixel"))
    angle = one_turn(np.degrees(np.arctan2(row, column)))
    borders = [*(i * 360 / n_angles for i in range(n_angles)), 360.0]
    outside = row**2 + column**2 >= 2.6**2
    sizes = polar.n_pixels.broadcast_like(polar)
    for number, (start, stop) in enumerate(itertools.pairwise(borders)):
        inside = outside & (angle >= start) & (angle < stop)
        np.testing.assert_array_equal(polar[:, :, 1, number], (counts * inside).sum((2, 3)))
        np.testing.assert_array_equal(sizes[:, :, 1, number], inside.sum((2, 3)))


@settings(deadline=None, max_examples=35)
@given(scans(), st.booleans(), st.sampled_from(["pixel", None]))
def test_the_centre_of_mass_counts_from_the_origin(scan, masked, unit):
    """Descan is taken off exactly, a mask follows by whole pixels, and vectors are those of the corrected plane."""
    ds, counts, (row, column), matrix = scan
    inside = row**2 + column**2 < 4.4**2 if masked else np.ones(row.shape, bool)
    assume(inside.any())
    mask = stemstore.disk(4.4, unit="pixel") if masked else None
    com = stemstore.center_of_mass(ds, mask=mask, unit=unit, sigma=True).compute()
    rest = np.zeros((2, 4, 5))
    if "origin_ky" in ds.coords:
        rest = np.stack([ds.origin_ky, ds.origin_kx]) - np.array(CENTER)[:, None, None]
        rest = rest - np.rint(rest)
    total = (counts * inside).sum((2, 3))
    np.testing.assert_array_equal(com.total, total)
    steps = np.array([ds.ky.attrs["step"], ds.kx.attrs["step"]]) if unit is None else np.ones(2)
    scaled = steps[:, None, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.stack([(counts * inside * part).sum((2, 3)) / total for part in (row, column)])
        left = rest[:, : total.shape[0], : total.shape[1]]
        expected = (mean - np.einsum("ij,jyx->iyx", matrix, left)) * scaled
        spread = (counts * inside * (row - mean[0][..., None, None]) ** 2).sum((2, 3)) / total**2
    for name, values in zip(("com_y", "com_x"), expected, strict=True):
        np.testing.assert_allclose(com[name], values, rtol=1e-9, atol=1e-9 * steps.max())
    np.testing.assert_allclose(com.com_y_sigma, np.sqrt(spread) * steps[0], rtol=1e-6, atol=1e-7 * steps[0])


@pytest.fixture
def walking():
    """A scan whose beam walks, centred and calibrated; pixels of 0.5 mrad."""
    return calibrate(dataset(), detector_step="0.5 mrad", detector_center=CENTER, origin=pixels(ORIGIN))


def pixels(maps):
    """Give maps as places in stored pixels."""
    return [xr.DataArray(part, dims=("y", "x"), attrs={"units": "pixel"}) for part in maps]


@pytest.mark.parametrize("kind", [ArrayFrames, ArrayEvents])
def test_the_beam_of_a_walking_disk_is_at_zero(kind):
    """Descan put on purpose into frames of one disk leaves no deflection and a constant image."""
    row, column = np.indices((30, 32))
    shift = np.random.default_rng(2).integers(-6, 7, (2, 4, 5))
    frames = np.zeros((4, 5, 30, 32), np.uint8)
    for y, x in np.ndindex(4, 5):
        frames[y, x] = 3 * ((row - 14 - shift[0, y, x]) ** 2 + (column - 15 - shift[1, y, x]) ** 2 < 5**2)
    ds = dataset(kind, frames, detector_step="0.5 mrad", beam_energy=300)
    ds = calibrate(ds, origin=stemstore.center_of_mass(ds))
    com = stemstore.center_of_mass(ds).compute()
    np.testing.assert_allclose([com.com_y, com.com_x], 0, atol=1e-12)
    image = stemstore.virtual_image(ds, stemstore.disk(3.5, unit="mrad"))
    assert len(np.unique(image)) == 1
    assert image[0, 0] == frames[0, 0].sum()
    still = stemstore.center_of_mass(ds, origin=False)
    assert float(abs(still.com_y).max()) > 0.1


def test_what_is_given_comes_before_what_the_scan_carries(walking):
    """False switches the origin off, another origin takes its place, and a centre counts for all positions."""
    plain = calibrate(walking, origin=False)
    disk = stemstore.disk(1.6)
    for operation in (
        lambda ds, **options: stemstore.virtual_image(ds, disk, **options),
        lambda ds, **options: stemstore.center_of_mass(ds, mask=disk, **options).com_y,
        stemstore.radial_profile,
        stemstore.radial_variance,
        lambda ds, **options: stemstore.polar_profile(ds, 4, **options),
    ):
        np.testing.assert_array_equal(operation(walking, origin=False), operation(plain))
        np.testing.assert_array_equal(operation(plain, origin=pixels(ORIGIN)), operation(walking))
        assert operation(walking).sizes != operation(plain).sizes or (operation(walking) != operation(plain)).any()
    for operation in (stemstore.center_of_mass, stemstore.radial_profile):
        xr.testing.assert_equal(
            operation(walking, center=(0.5, 0)).drop_vars(("origin_ky", "origin_kx")),
            operation(plain, center=(0.5, 0)),
        )
        with pytest.raises(InputError, match="both center and origin"):
            operation(walking, center=(0, 0), origin=pixels(ORIGIN))


def test_flags_of_pixels_stay_and_detectors_move(walking):
    """A mask that is an array belongs to the pixels; one that is a shape belongs to the beam."""
    dead = RNG.random(SHAPE[2:]) < 0.8
    com = stemstore.center_of_mass(walking, mask=dead, unit="pixel").compute()
    rows = (COUNTS * dead * np.arange(13)[:, None]).sum((2, 3)) / (COUNTS * dead).sum((2, 3))
    np.testing.assert_allclose(com.com_y, rows - ORIGIN[0], rtol=1e-9, atol=1e-9)
    profile = stemstore.radial_profile(walking, bins=2, mask=dead, statistic="mean").compute()
    np.testing.assert_array_equal(profile.n_pixels.sum("k"), np.full(SHAPE[:2], dead.sum()))
    half = stemstore.sector(0, 99, 0, 180)
    profile = stemstore.radial_profile(walking, bins=2, mask=half)
    np.testing.assert_array_equal(profile.sum("k"), stemstore.virtual_image(walking, half))


def test_missing_frames_need_no_origin(frames_of):
    """Where nothing was recorded there is no number, whatever the origin; everywhere else all is as it was."""
    validity = np.full(SHAPE[:2], 2)
    validity[1, 2] = 0
    frames = COUNTS * (validity > 0)[..., None, None]
    maps = ORIGIN.copy()
    maps[:, 1, 2] = np.nan
    ds = calibrate(frames_of(frames, validity), origin=pixels(maps))
    com = stemstore.center_of_mass(ds).compute()
    mean = stemstore.radial_profile(ds, bins=3, statistic="mean").compute()
    assert np.isnan([com.com_y[1, 2], *mean[1, 2]]).all()
    assert np.isfinite(com.com_y).sum() == 19
    assert stemstore.virtual_image(ds, stemstore.disk(3))[1, 2] == 0


def test_repeated_frames_share_the_origin_of_their_position():
    """A map (y, x) holds for every frame of a position."""
    frames = np.stack([COUNTS, COUNTS[::-1]])
    ds = calibrate(dataset(counts=frames), origin=pixels(ORIGIN))
    one = calibrate(dataset(counts=frames[1]), origin=pixels(ORIGIN))
    for operation in (lambda d: stemstore.virtual_image(d, stemstore.disk(3)), stemstore.radial_profile):
        np.testing.assert_array_equal(operation(ds)[1].sum(), operation(one).sum())
    com, alone = stemstore.center_of_mass(ds), stemstore.center_of_mass(one)
    np.testing.assert_allclose(com.com_y[1], alone.com_y)


def test_single_positions_keep_their_origin(walking):
    """A selected frame and a selected row give what the whole scan gives there."""
    whole = stemstore.center_of_mass(walking).compute(), stemstore.virtual_image(walking, stemstore.disk(1.6)).compute()
    for part in ({"y": 2, "x": 3}, {"y": 1}, {"x": slice(None, None, -2)}):
        ds = walking.isel(part)
        np.testing.assert_allclose(stemstore.center_of_mass(ds).com_x, whole[0].com_x.isel(part))
        np.testing.assert_array_equal(stemstore.virtual_image(ds, stemstore.disk(1.6)), whole[1].isel(part))
        assert stemstore.radial_profile(ds, bins=2).sum("k").equals(stemstore.radial_profile(ds, bins=1).sum("k"))


def test_deflections_can_be_origins_whatever_was_done_to_them(walking):
    """An ellipse, a rotation and an origin that were taken off are put back: the beam is where it was measured."""
    rows = (COUNTS * np.arange(13)[:, None]).sum((2, 3)) / COUNTS.sum((2, 3))
    tilted = calibrate(walking, ellipse=TILTED)
    com = stemstore.transform_com(stemstore.center_of_mass(tilted), rotation=33, transpose=True)
    np.testing.assert_allclose(calibrate(tilted, origin=com).origin_ky, rows, rtol=1e-9)
    nothing = stemstore.fit_descan(com, "none")
    np.testing.assert_allclose(calibrate(tilted, origin=nothing).origin_kx, ORIGIN[1], rtol=1e-9)


def test_rotation_and_transposition_are_not_applied(walking):
    """They travel with the results and change no number."""
    turned = calibrate(walking, scan_rotation=30, detector_transpose=True)
    com, plain = stemstore.center_of_mass(turned), stemstore.center_of_mass(walking)
    xr.testing.assert_equal(com, plain)
    assert (com.com_y.attrs["scan_rotation_deg"], com.com_y.attrs["detector_transpose"]) == (30, 1)


def test_boxes_points_and_arrays_know_no_ellipse():
    """An ellipse bends circles only."""
    plain, bent = dataset(), calibrate(dataset(), ellipse=TILTED)
    detectors = {
        "box": stemstore.rectangle((2, 5), (1, 9)),
        "soft": stemstore.rectangle((2.2, 5.1), (1, 9), antialias=True),
        "pixel": stemstore.point(4, 4),
        "array": RNG.random(SHAPE[2:]),
    }
    xr.testing.assert_equal(stemstore.virtual_image(plain, detectors), stemstore.virtual_image(bent, detectors))


@pytest.mark.parametrize("antialias", [True, "exact"])
@pytest.mark.parametrize("step", ["1 mrad", (1.0, 1.4)])
def test_soft_edges_of_bent_circles_are_shares_of_pixels(antialias, step):
    """Weights equal fine sampling of the bent pixels, and soft rings add up to soft disks."""
    ds = calibrate(dataset(counts=np.zeros((1, 1, 41, 43), np.uint8)), detector_step=step, ellipse=TILTED)
    fine = (np.arange(20) + 0.5) / 20 - 0.5
    row = (np.arange(41)[:, None] - 20 + fine).reshape(-1, 1)
    column = (np.arange(43)[:, None] - 21 + fine).reshape(1, -1)
    scale = (1.0, 1.0) if isinstance(step, str) else step
    y = scale[0] * (TILTED[0, 0] * row + TILTED[0, 1] * column)
    x = scale[1] * (TILTED[1, 0] * row + TILTED[1, 1] * column)
    share = (y**2 + x**2 < 11.3**2).reshape(41, 20, 43, 20).mean((1, 3))
    weights = stemstore.disk(11.3, antialias=antialias).weights(ds.intensity)
    assert np.abs(weights - share).max() < (0.1 if antialias is True else 0.06)
    assert weights.sum() == pytest.approx(share.sum(), rel=0.01 if antialias is True else 0.002)
    rings = stemstore.disk(7, antialias=antialias), stemstore.annulus(7, 11.3, antialias=antialias)
    np.testing.assert_allclose(sum(ring.weights(ds.intensity) for ring in rings), weights, atol=1e-12)
    parts = stemstore.segments(0, 11.3, 5, rotation=17, antialias=antialias).values()
    np.testing.assert_allclose(sum(part.weights(ds.intensity) for part in parts), weights, atol=1e-12)


def test_a_bent_ring_becomes_a_ring():
    """The ring that an ellipse bent is one ring of the profile once the ellipse is known, and two without."""
    ellipse = Ellipse.of_axes(1.2, 1.0, 30)
    row, column = np.indices((81, 81)) - 40.0
    y, x = np.einsum("ij,jrc->irc", ellipse.matrix, np.stack([row, column]))
    ring = (100 * np.exp(-((np.hypot(y, x) - 25) ** 2) / 2)).astype(np.uint8)[None, None]
    ds = dataset(counts=ring)
    sharp, blurred = (
        stemstore.radial_profile(one, statistic="mean")[0, 0] for one in (calibrate(ds, ellipse=ellipse), ds)
    )
    assert float(sharp.idxmax("k")) == pytest.approx(25, abs=0.6)
    assert float(sharp.max()) > 1.5 * float(blurred.max())


def test_the_history_says_what_was_taken_off(walking):
    """Origin and ellipse are named, with the matrix that was applied to vectors."""
    tilted = calibrate(walking, ellipse=TILTED)
    com = stemstore.center_of_mass(tilted)
    np.testing.assert_allclose(np.reshape(com.com_y.attrs["com_matrix"], (2, 2)), TILTED)
    assert com.com_y.attrs["com_zero"] == "origin"
    assert "origin='of each position', ellipse=[" in com.attrs["history"]
    for result in (stemstore.virtual_image(tilted, stemstore.disk(2)), stemstore.radial_profile(tilted)):
        assert "origin='moved by ky -" in result.attrs["history"]
        assert "ellipse=[" in result.attrs["history"]
        assert result.attrs["ellipse_matrix"] == tilted.intensity.attrs["ellipse_matrix"]
    tilted.intensity.attrs["ellipse_matrix"] = [1, 2]
    with pytest.raises(InputError, match="expected four numbers"):
        stemstore.virtual_image(tilted, stemstore.disk(2))


def test_profiles_that_move_travel_and_share_a_pass(walking):
    """Kernels are pickled without what they have ready, in processes of their own, and together with others."""
    results = [
        stemstore.radial_profile(walking, bins=3),
        stemstore.polar_profile(walking, 3, statistic="mean"),
        stemstore.center_of_mass(walking, mask=stemstore.disk(2)),
    ]
    alone = [result.compute(scheduler="sync") for result in results]
    for other in (stemstore.compute(*results, scheduler="sync"), [r.compute(scheduler="processes") for r in results]):
        for one, expected in zip(other, alone, strict=True):
            xr.testing.assert_equal(one, expected)


@pytest.mark.parametrize("step", [None, (0.5, 0.75)])
@pytest.mark.parametrize("part", [{}, {"ky": slice(12, None, -1), "kx": slice(1, 13)}])
def test_boxes_of_pixels_keep_origin_and_ellipse(step, part):
    """A binned detector tells the same deflections, in its own units, and moves its rings along."""
    options = {} if step is None else {"detector_step": step}
    ds = calibrate(
        dataset(counts=np.zeros((4, 5, 12, 12), np.uint8)), **options, detector_center=CENTER, ellipse=TILTED
    )
    ds = calibrate(ds.isel(part), origin=pixels(ORIGIN))
    for factor in (2, (2, 3)):
        boxes = stemstore.bin_detector(ds, factor)
        at = [np.argmin(np.abs(boxes[dim].values - boxes[dim].values.mean())) for dim in ("ky", "kx")]
        frames = np.zeros(ds.intensity.shape, np.uint8)
        rows, columns = (int(i) * f for i, f in zip(at, (factor, factor) if factor == 2 else factor, strict=True))
        frames[..., rows : rows + 2, columns : columns + (2 if factor == 2 else 3)] = 1
        whole = ds.intensity.copy(data=frames)
        binned = stemstore.bin_detector(whole, factor)
        one, other = stemstore.center_of_mass(whole), stemstore.center_of_mass(binned)
        np.testing.assert_allclose(one.com_y, other.com_y, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(one.com_x, other.com_x, rtol=1e-9, atol=1e-9)


def test_groups_of_positions_have_the_mean_of_their_origins(walking):
    """Binning the scan keeps a map with a value for each group."""
    binned = stemstore.bin_scan(walking, 2)
    np.testing.assert_allclose(binned.origin_ky, ORIGIN[0][:, :4].reshape(2, 2, 2, 2).mean((1, 3)))
    assert stemstore.virtual_image(binned, stemstore.disk(2)).shape == (2, 2)


def test_what_is_measured_can_be_stated_and_used():
    """Beam, origin, step and ellipse as the measuring functions give them: a walking, bent disk stands still, round."""
    from stemstore.ops.calibration.beam import find_beam
    from stemstore.ops.calibration.ellipse import fit_ellipse
    from stemstore.ops.calibration.origins import fit_origin, measure_origin
    from stemstore.ops.calibration.spacings import detector_step_from_angle

    y, x = np.mgrid[:5, :6]
    places = np.stack([31.2 + 0.8 * y - 0.5 * x, 33.1 - 0.4 * y + 0.6 * x])
    bend = Ellipse.of_axes(1.04, 1.0, 25)
    row, column = np.indices((64, 66))
    away = np.stack([part - place[..., None, None] for part, place in zip((row, column), places, strict=True)])
    k = np.hypot(*np.einsum("ij,jyxrc->iyxrc", np.array(bend.matrix), away))
    rate = 30 / (1 + np.exp((k - 8) / 0.3)) + 8 * np.exp(-((k - 20) ** 2) / 4)
    ds = dataset(counts=np.random.default_rng(0).poisson(rate).astype(np.uint16), beam_energy=300)
    beam = find_beam(ds.intensity[2, 3])
    origin = fit_origin(measure_origin(ds, radius=8), "plane")
    step = detector_step_from_angle(beam, "20 mrad")
    ds = calibrate(ds, origin=origin, detector_step=step, detector_center=beam.center)
    np.testing.assert_allclose(ds.origin_ky, places[0], atol=0.1)
    assert abs(stemstore.center_of_mass(ds, mask=stemstore.disk(30, unit="mrad"), unit="pixel").com_y).max() < 0.2
    still = stemstore.radial_profile(ds, statistic="mean", unit="pixel", bins=60).mean(("y", "x"))
    ellipse = fit_ellipse(ds.intensity[2, 3], 15, 25, unit="pixel")
    assert ellipse.ratio == pytest.approx(1.04, abs=0.01)
    rounder = calibrate(ds, ellipse=ellipse)
    found = stemstore.radial_profile(rounder, statistic="mean", unit="pixel", bins=60).mean(("y", "x"))
    ring = slice(15, 25)
    assert float(found.sel(k=ring).max()) > float(still.sel(k=ring).max())
    np.testing.assert_allclose(np.reshape(rounder.intensity.attrs["ellipse_matrix"], (2, 2)), bend.matrix, atol=0.01)
