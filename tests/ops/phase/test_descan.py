"""The descan fit finds what was put in, keeps away from what is missing, and says what it may take with it."""

import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import CalibrationMissingError, InputError
from stemstore.ops.phase.descan import fit_descan, subtract_descan
from stemstore.testing.arrays import ArrayEvents, ArrayFrames

SHAPE = (6, 9)
Y, X = np.indices(SHAPE).astype(float)
RAMP = np.stack([2 + 0.5 * Y - 0.25 * X, -1 + 0.125 * Y + 3 * X])


def maps(vector, **attrs):
    """Deflections as a Dataset in memory."""
    attrs = {"units": "mrad"} | attrs
    values = zip(("com_y", "com_x"), np.array(vector, float), strict=True)
    return xr.Dataset({name: (("y", "x"), v, attrs) for name, v in values})


def stack(com):
    """Both components, rows first."""
    return np.stack([com.com_y.values, com.com_x.values])


def spots(row, column, source=ArrayFrames, detector=(48, 50)):
    """Scan with one bright pixel per frame."""
    row, column = np.broadcast_arrays(row, column)
    frames = np.zeros((*row.shape, *detector), np.uint16)
    y, x = np.indices(row.shape)
    frames[y, x, row, column] = 3
    return source(frames)


y4, x4 = np.indices((5, 4))
REGRESSIONS = [  # pixel hit, and the plane relative to pixel (3, 3)
    ("fixed", y4 * 0 + 1, x4 * 0 + 4, [[-2, 1], [0, 0], [0, 0]]),
    ("own axis", 2 * y4 + 1, 45 - x4, [[-2, 42], [2, 0], [0, -1]]),
    ("mixed", 1 + 2 * y4 + 3 * x4, 4 + y4 + 4 * x4, [[-2, 1], [2, 1], [3, 4]]),
]


@pytest.mark.parametrize("hole", [False, True], ids=["full", "hole"])
@pytest.mark.parametrize(
    ("row", "column", "expected"), [case[1:] for case in REGRESSIONS], ids=[c[0] for c in REGRESSIONS]
)
def test_regression_cases_of_libertem(dataset_of, row, column, expected, hole):
    """Known planes in known pixels give their coefficients and leave nothing, with or without a hole in the region."""
    com = stemstore.center_of_mass(dataset_of(spots(row, column, ArrayEvents)), center=(3, 3))
    if hole:
        com = com.where((com.y != 2) | (com.x != 1))
    fit = fit_descan(com, "plane")
    np.testing.assert_allclose(fit.coefficients, expected, atol=1e-11)
    np.testing.assert_allclose(fit.descan_rest, 0, atol=1e-11)
    np.testing.assert_allclose(fit.com_y, row - 3, atol=1e-11)
    assert fit.attrs["n_positions"] == 20 - hole


def test_a_constant_has_no_slopes(dataset_of):
    """The constant fit of a fixed pixel gives its offset, and zero slopes in the same table."""
    com = stemstore.center_of_mass(dataset_of(spots(np.ones((3, 4), int), 4)), center=(3, 3))
    fit = fit_descan(com)
    np.testing.assert_allclose(fit.coefficients, [[-2, 1], [0, 0], [0, 0]], atol=1e-12)
    assert list(fit.term.values) == ["offset", "d/dy", "d/dx"]
    assert list(fit.component.values) == ["com_y", "com_x"]


def test_models_reach_as_far_as_their_order():
    """A constant leaves a ramp, a plane takes it and leaves a bowl, a parabola takes all."""
    bowl = RAMP + np.stack([0.1 * Y * X, 0.2 * X**2 - 0.3 * Y**2])
    rest = {
        model: fit_descan(maps(bowl), model).descan_rest.values for model in ("none", "constant", "plane", "parabola")
    }
    np.testing.assert_allclose(rest["none"], np.sqrt((bowl**2).mean((1, 2))))
    np.testing.assert_allclose(rest["constant"], bowl.std((1, 2)))
    assert (rest["plane"] < rest["constant"]).all()
    assert (rest["plane"] > 0.1).all()
    np.testing.assert_allclose(rest["parabola"], 0, atol=1e-12)
    coefficients = fit_descan(maps(bowl), "parabola").coefficients
    expected = [[2, -1], [0.5, 0.125], [-0.25, 3], [0, -0.3], [0.1, 0], [0, 0.2]]
    np.testing.assert_allclose(coefficients, expected, atol=1e-11)


def test_no_model_is_zero():
    """The model none fits nothing and takes nothing off."""
    fit = fit_descan(maps(RAMP), "none")
    np.testing.assert_array_equal(stack(fit), 0)
    np.testing.assert_array_equal(stack(subtract_descan(maps(RAMP), fit)), RAMP)


def test_missing_and_partial_frames_take_no_part(frames_of):
    """Frames without electrons, without data or without a part of the detector do not bend the fit."""
    validity = np.full((5, 4), 2)
    frames = np.zeros((5, 4, 48, 50), np.uint16)
    frames[y4, x4, 2 * y4 + 1, 45 - x4] = 3
    frames[0, 0] = 0
    frames[1, 2], frames[4, 1] = np.eye(48, 50, dtype=np.uint16), np.eye(48, 50, dtype=np.uint16)
    validity[1, 2], validity[4, 1] = 0, 1
    com = stemstore.center_of_mass(frames_of(frames, validity), center=(3, 3))
    fit = fit_descan(com, "plane")
    np.testing.assert_allclose(fit.coefficients, [[-2, 42], [2, 0], [0, -1]], atol=1e-11)
    assert fit.attrs["n_positions"] == 17
    assert np.isfinite(stack(fit)).all()


def test_scans_of_partial_frames_alone_are_fitted(frames_of):
    """Where no frame is complete, partial ones are what there is."""
    frames = np.zeros((3, 3, 8, 8), np.uint16)
    frames[..., 1, 5] = 2
    fit = fit_descan(stemstore.center_of_mass(frames_of(frames, np.ones((3, 3), int)), center=(0, 0)))
    np.testing.assert_allclose(fit.coefficients[0], [1, 5])
    assert fit.attrs["n_positions"] == 9


def test_missing_frames_stay_out_when_numbers_were_filled_in():
    """A zero in place of a missing frame does not become a deflection."""
    valid = np.ones(SHAPE, int)
    valid[2, 3] = 0
    filled = RAMP.copy()
    filled[:, 2, 3] = 0
    fit = fit_descan(maps(filled).assign_coords(valid=(("y", "x"), valid)), "plane")
    np.testing.assert_allclose(stack(fit), RAMP, atol=1e-11)


def test_robust_fits_leave_outliers_out():
    """Two wild positions bend the plain fit and not the robust one."""
    wild = RAMP.copy()
    wild[:, 1, 2], wild[:, 4, 7] = (60, -90), (-80, 70)
    robust = fit_descan(maps(wild), "plane", robust=True)
    np.testing.assert_allclose(stack(robust), RAMP, atol=1e-10)
    assert robust.attrs["n_positions"] <= RAMP[0].size - 2
    assert np.abs(stack(fit_descan(maps(wild), "plane")) - RAMP).max() > 1


def test_subtraction_leaves_what_is_not_descan():
    """What is left has the fit taken off, keeps other variables, and says so."""
    com = maps(RAMP, history="before").assign(total=(("y", "x"), X))
    left = subtract_descan(com, fit_descan(com, "plane"))
    np.testing.assert_allclose(stack(left), 0, atol=1e-12)
    np.testing.assert_array_equal(left.total, com.total)
    assert left.com_y.attrs["descan"] == "plane"
    assert left.com_y.attrs["history"].endswith("]")
    assert "subtract_descan" in left.com_y.attrs["history"]
    twice = subtract_descan(left, fit_descan(left))
    assert twice.com_x.attrs["descan"] == "plane + constant"


def test_subtraction_is_lazy_and_the_fit_is_not(scan):
    """A fit reads the data once; taking it off reads nothing."""
    com = stemstore.center_of_mass(scan)
    fit = fit_descan(com, "plane")
    assert fit.com_y.chunks is None
    assert subtract_descan(com, fit).com_y.chunks is not None


def test_slopes_carry_a_warning_and_their_size():
    """A plane says that signal may go with it, how large it is, and what is left; a constant does not."""
    noise = np.random.default_rng(3).normal(0, 0.1, (2, *SHAPE))
    fit = fit_descan(maps(RAMP + noise), "plane")
    assert "may be signal" in fit.attrs["warning"]
    assert fit.com_y.attrs["descan_variation"] == pytest.approx(0.5 * 5 + 0.25 * 8, rel=0.1)
    assert fit.com_x.attrs["descan_variation"] == pytest.approx(0.125 * 5 + 3 * 8, rel=0.05)
    assert fit.com_y.attrs["descan_rest"] == pytest.approx(0.1, rel=0.3)
    left = subtract_descan(maps(RAMP + noise), fit)
    assert left.com_x.attrs["warning"] == fit.attrs["warning"]
    assert left.com_x.attrs["descan_variation"] == fit.com_x.attrs["descan_variation"]
    assert "warning" not in fit_descan(maps(RAMP)).attrs


def test_a_vacuum_scan_is_taken_as_it_is():
    """A measured map is subtracted position by position, in its own unit."""
    vacuum = maps(np.sin(RAMP) * 1e-3, units="rad")
    fit = fit_descan(maps(RAMP), vacuum)
    np.testing.assert_allclose(stack(fit), np.sin(RAMP), rtol=1e-12)
    assert fit.attrs["descan"] == "map"
    assert fit.com_y.attrs["units"] == "mrad"
    assert "coefficients" not in fit
    for given in (fit, vacuum):
        np.testing.assert_allclose(stack(subtract_descan(maps(RAMP), given)), RAMP - np.sin(RAMP), rtol=1e-12)


def test_steps_of_a_vacuum_scan_may_differ(dataset_of):
    """Scans of one shape belong together whatever their step; labels do not pick out common positions."""
    com, vacuum = (
        stemstore.center_of_mass(dataset_of(spots(y4 + 1, x4 + 2), scan_step=step), center=(0, 0))
        for step in (0.5, 0.7)
    )
    left = subtract_descan(com, fit_descan(com, vacuum)).compute()
    np.testing.assert_array_equal(stack(left), np.zeros((2, 5, 4)))


def test_maps_of_other_positions_are_refused(dataset_of):
    """Another shape, another part of the scan, and a unit without relation are errors."""
    com = stemstore.center_of_mass(dataset_of(spots(y4 + 1, x4 + 2)))
    with pytest.raises(InputError, match=r"\(3, 4\) positions .* \(5, 4\)"):
        subtract_descan(com, com.isel(y=slice(3)))
    with pytest.raises(InputError, match="different selections along 'y'"):
        fit_descan(com.isel(y=slice(0, 3)), com.isel(y=slice(2, 5)))
    with pytest.raises(CalibrationMissingError, match="'pixel'"):
        subtract_descan(maps(RAMP), maps(RAMP, units="pixel"))
    with pytest.raises(InputError, match="no position in common"):
        fit_descan(maps(RAMP), maps(RAMP * np.nan))


@pytest.mark.parametrize(
    ("vector", "model", "words"),
    [
        (RAMP[:, :1], "plane", "do not determine descan 'plane'"),
        (RAMP[:, :, :2], "parabola", "do not determine descan 'parabola'"),
        (RAMP * np.nan, "constant", "NaN at every position"),
        (RAMP, "cubic", "'cubic' is not known.*plane"),
    ],
)
def test_fits_that_cannot_be_made_are_refused(vector, model, words):
    """A single row has no slope across, two columns no curvature, nothing has no mean."""
    with pytest.raises(InputError, match=words):
        fit_descan(maps(vector), model)


def test_a_single_row_has_a_mean():
    """A line scan can be centred."""
    np.testing.assert_allclose(fit_descan(maps(RAMP[:, :1])).coefficients[0], RAMP[:, :1].mean((1, 2)))
