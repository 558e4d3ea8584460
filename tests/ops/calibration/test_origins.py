"""The optic axis of every position is found by each method, and a smooth model of it keeps what was measured."""

import json

import numpy as np
import pytest

import stemstore
from stemstore.errors import CalibrationMissingError, InputError
from stemstore.ops.calibration.origins import fit_origin, measure_origin
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore.testing.diffraction import Pattern

SCAN, DETECTOR = (7, 9), (40, 44)
Y, X = np.meshgrid(np.linspace(-1, 1, SCAN[0]), np.linspace(-1, 1, SCAN[1]), indexing="ij")
ROWS, COLUMNS = 18.3 + 2.0 * Y + 0.5 * X, 22.6 - 0.7 * Y + 1.5 * X


@pytest.fixture(scope="module")
def frames():
    """A scan whose beam walks over the detector."""
    rng = np.random.default_rng(7)
    images = [
        Pattern(np.array([place]), np.array([0.8]), 7.0, 1.0, 60.0).image(DETECTOR)
        for place in zip(ROWS.ravel(), COLUMNS.ravel(), strict=True)
    ]
    return rng.poisson(4e3 * np.stack(images)).astype(np.uint16).reshape(SCAN + DETECTOR)


@pytest.fixture(params=[ArrayFrames, ArrayEvents], ids=["dense", "counted"])
def source(request):
    return request.param


@pytest.mark.parametrize(("method", "limit"), [("com_disk", 0.08), ("com_threshold", 0.2), ("friedel", 0.12)])
def test_each_method_follows_the_beam(dataset_of, frames, source, method, limit):
    """The RMS distance from the truth is a small part of a pixel, for frames and for events."""
    found = measure_origin(dataset_of(source(frames)), method=method)
    assert found.chunks
    found = found.compute()
    assert np.sqrt(((found.origin_ky - ROWS) ** 2).mean()) < limit
    assert np.sqrt(((found.origin_kx - COLUMNS) ** 2).mean()) < limit
    assert (found.quality > 0.8).all()
    assert found.origin_ky.attrs["units"] == "pixel"
    assert found.origin_ky.attrs["history"].startswith("measure_origin(")


def test_methods_agree_on_frames_and_events(dataset_of, frames):
    """Counted and dense scans give the same numbers to the last bit."""
    dense, counted = (
        measure_origin(dataset_of(one(frames)), radius=7.0).compute() for one in (ArrayFrames, ArrayEvents)
    )
    for name in dense.data_vars:
        np.testing.assert_array_equal(dense[name], counted[name])


def test_errors_cover_the_truth(dataset_of, frames, source):
    """About 95 in 100 origins lie within 1.96 of their standard errors."""
    found = measure_origin(dataset_of(source(frames)), radius=7.0).compute()
    score = np.stack(
        [(found.origin_ky - ROWS) / found.origin_ky_sigma, (found.origin_kx - COLUMNS) / found.origin_kx_sigma]
    )
    assert 0.88 < (np.abs(score) < 1.96).mean() < 0.995


def test_units_and_selections_keep_the_place(dataset_of, frames, source):
    """Calibrated axes, cropped, strided or reversed, give the same place on the detector."""
    ds = dataset_of(source(frames), detector_step="0.5 mrad", detector_center=(20.0, 21.0))
    whole = measure_origin(ds, radius=3.5).compute()
    assert whole.origin_ky.attrs["units"] == "mrad"
    np.testing.assert_allclose(whole.origin_ky, (ROWS - 20.0) * 0.5, atol=0.15)
    pixels = measure_origin(ds, radius=7.0, unit="pixel").compute()
    np.testing.assert_allclose((pixels.origin_kx - 21.0) * 0.5, whole.origin_kx, atol=1e-12)
    cropped = measure_origin(ds.isel(ky=slice(3, 38), kx=slice(6, None)), radius=3.5).compute()
    np.testing.assert_allclose(cropped.origin_kx, whole.origin_kx, atol=0.05)
    turned = measure_origin(ds.isel(ky=slice(None, None, -1)), radius=3.5).compute()
    np.testing.assert_allclose(turned.origin_ky, whole.origin_ky, atol=0.05)
    with pytest.raises(CalibrationMissingError, match="unit"):
        measure_origin(dataset_of(source(frames)), radius=3.5, unit="mrad")


def test_arrays_in_memory_give_the_same(dataset_of, frames):
    """A NumPy copy of the scan goes the generic way to the same numbers."""
    ds = dataset_of(ArrayFrames(frames))
    np.testing.assert_array_equal(
        measure_origin(ds.intensity.compute(), radius=7.0).origin_ky, measure_origin(ds, radius=7.0).origin_ky
    )


def test_an_origin_that_the_scan_has_is_measured_anew(dataset_of, frames):
    """A scan that carries an origin gives the places on its axes all the same, by a graph of the same name."""
    ds = dataset_of(ArrayFrames(frames))
    found = measure_origin(ds, radius=7.0)
    known = ds.assign_coords({name: (("y", "x"), np.full(SCAN, 3.0)) for name in ("origin_ky", "origin_kx")})
    again = measure_origin(known, radius=7.0)
    np.testing.assert_array_equal(again.origin_ky, found.origin_ky)
    assert again.quality.data.name == found.quality.data.name


def test_one_pass_serves_origins_and_images(dataset_of, frames, source):
    """Origins share the pass over the data with other operations and give the same numbers."""
    ds = dataset_of(source(frames))
    origin, image = stemstore.compute(measure_origin(ds, radius=7.0), stemstore.virtual_image(ds, stemstore.disk(6)))
    np.testing.assert_array_equal(origin.origin_ky, measure_origin(ds, radius=7.0).origin_ky)
    np.testing.assert_array_equal(image, stemstore.virtual_image(ds, stemstore.disk(6)))


def test_empty_and_missing_frames_are_nan_with_quality_zero(frames_of, frames):
    """Frames without intensity, or not recorded at all, have no origin; the fit does without them."""
    spoilt = frames.copy()
    spoilt[2, 3] = 0
    validity = np.full(SCAN, 2, np.uint8)
    validity[4, 5] = 0
    found = measure_origin(frames_of(spoilt, validity), radius=7.0).compute()
    missing = np.isnan(found.origin_ky.values)
    assert np.argwhere(missing).tolist() == [[2, 3], [4, 5]]
    np.testing.assert_array_equal(found.quality.values[missing], 0)
    fit = fit_origin(found, "plane", robust=False)
    assert fit.attrs["n_positions"] == ROWS.size - 2
    assert np.isfinite(fit.origin_ky).all()
    np.testing.assert_array_equal(fit.used, ~missing)


def test_near_and_mask_reach_every_method(dataset_of, frames):
    """A brighter disk elsewhere is passed over where a place is given, and a hot pixel where it is masked."""
    spoilt = frames.astype(np.uint32)
    spoilt[..., 3:9, 33:40] += 400
    spoilt[..., 30, 5] = 60000
    good = np.ones(DETECTOR, bool)
    good[30, 5] = False
    for method in ("com_disk", "com_threshold"):
        found = measure_origin(
            dataset_of(ArrayFrames(spoilt)), method=method, radius=7.0, near=(18.3, 22.6), reach=11.0, mask=good
        )
        np.testing.assert_allclose(found.origin_ky, ROWS, atol=0.6)


def test_the_model_recovers_the_truth_and_keeps_what_was_measured(dataset_of, frames):
    """A plane through the origins has the slopes of the beam, leaves the noise, and can move detectors."""
    ds = dataset_of(ArrayFrames(frames))
    found = measure_origin(ds)
    fit = fit_origin(found, "plane", robust=False)
    np.testing.assert_allclose(fit.origin_ky, ROWS, atol=0.05)
    np.testing.assert_allclose(fit.origin_kx, COLUMNS, atol=0.05)
    expected = [[15.8, 22.6 + 0.7 - 1.5], [2 / 3, -0.7 / 3], [0.125, 1.5 / 4]]
    np.testing.assert_allclose(fit.coefficients, expected, atol=0.08)
    np.testing.assert_array_equal(fit.origin_ky_measured, found.origin_ky)
    left = np.stack([fit.origin_ky_measured - fit.origin_ky, fit.origin_kx_measured - fit.origin_kx])
    np.testing.assert_allclose(fit.rest, np.sqrt((left**2).mean(axis=(1, 2))))
    moved = stemstore.virtual_image(ds, stemstore.disk(8.5), origin=(fit.origin_ky, fit.origin_kx)).compute()
    still = stemstore.virtual_image(ds, stemstore.disk(8.5)).compute()
    assert float(moved.std() / moved.mean()) < 0.5 * float(still.std() / still.mean())


def test_a_robust_fit_forgets_outliers(dataset_of, frames):
    """Positions far from the model are left out, and those of low quality where asked."""
    found = measure_origin(dataset_of(ArrayFrames(frames)), radius=7.0).compute()
    found.origin_ky[1, 1] += 12
    found.quality[1, 1] = 0.1
    for robust, quality in ((True, 0.0), (False, 0.5)):
        fit = fit_origin(found, "plane", robust=robust, min_quality=quality)
        np.testing.assert_allclose(fit.origin_ky, ROWS, atol=0.1)
        assert fit.attrs["n_positions"] < ROWS.size
    assert abs(fit_origin(found, "plane", robust=False).origin_ky - ROWS).max() > 0.3


def test_a_vacuum_simulation_stays_where_it_is(sample, frames_of):
    """In a simulated strain scan without descan the origin is the centre of the detector at every position."""
    truth = json.loads(sample("sim/au_strain_nanobeam.json").read_text())
    with np.load(sample("sim/au_strain_nanobeam_counts_u16.npz")) as file:
        fit = fit_origin(measure_origin(frames_of(file["counts"])), "constant")
    np.testing.assert_allclose(fit.coefficients[0], truth["detector_centre_px"], atol=0.02)
    assert (fit.rest < 0.08).all()


WRONG = {
    "method": ({"method": "magic"}, "method 'magic'"),
    "radius": ({"radius": -1.0}, "radius = -1.0"),
    "reach alone": ({"radius": 7.0, "reach": 3.0}, "belong together"),
    "fraction": ({"method": "com_threshold", "fraction": 0.0}, "fraction"),
    "weights": ({"radius": 7.0, "mask": np.ones(DETECTOR)}, "boolean"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_refused(dataset_of, frames, options, message):
    """Arguments that cannot work are named before anything is read."""
    with pytest.raises(InputError, match=message):
        measure_origin(dataset_of(ArrayFrames(frames)), **options)


def test_a_scan_without_disk_asks_for_a_radius(frames_of):
    """Where no radius is given and none can be measured, that is what the message asks for."""
    with pytest.raises(InputError, match="give radius="):
        measure_origin(frames_of(np.ones((2, 2, 20, 20), np.uint8)))


def test_fits_that_cannot_work_are_refused(dataset_of, frames):
    """An unknown model, something that is no origin, and a scan without a single measured origin."""
    found = measure_origin(dataset_of(ArrayFrames(frames)), radius=7.0)
    with pytest.raises(InputError, match="model 'cubic'"):
        fit_origin(found, "cubic")
    with pytest.raises(InputError, match="result of measure_origin"):
        fit_origin(found[["quality"]])
    with pytest.raises(InputError, match="no position has"):
        fit_origin(found, min_quality=2.0)
