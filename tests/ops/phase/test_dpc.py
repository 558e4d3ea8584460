"""Integration recovers known phases, in radians, with the right sign and boundary."""

import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import CalibrationMissingError, InputError
from stemstore.ops.phase.integration import integrate
from stemstore.testing.arrays import ArrayFrames

STEP = (0.5, 0.8)  # nm


def cosine(shape=(12, 15), m=2, n=3):
    """A phase with zero slope at the borders, and its gradient per nm."""
    y, x = np.indices(shape) + 0.5
    a, b = np.pi * m / shape[0], np.pi * n / shape[1]
    phase = np.cos(a * y) * np.cos(b * x)
    slope = [-a * np.sin(a * y) * np.cos(b * x) / STEP[0], -b * np.cos(a * y) * np.sin(b * x) / STEP[1]]
    return phase, np.stack(slope)


def test_mirror_boundary_recovers_a_cosine_exactly():
    """An ordinary field of view has no jump at its borders; wrapping it around is wrong."""
    phase, slope = cosine()
    np.testing.assert_allclose(integrate(slope, STEP), phase, atol=1e-13)
    assert np.abs(integrate(slope, STEP, boundary="periodic") - phase).max() > 0.1


def test_periodic_boundary_recovers_a_wave_exactly():
    """A periodic phase is recovered to rounding."""
    y, x = np.indices((16, 20))
    q = 2 * np.pi * np.array([2 / 16, 3 / 20])
    phase = np.sin(q[0] * y + q[1] * x)
    slope = np.stack([q[0] / STEP[0] * np.cos(q[0] * y + q[1] * x), q[1] / STEP[1] * np.cos(q[0] * y + q[1] * x)])
    np.testing.assert_allclose(integrate(slope, STEP, boundary="periodic"), phase, atol=1e-13)


def com_dataset(phase_slope, steps=STEP, unit="nm"):
    """Momenta (1/angstrom) that belong to a phase gradient in rad per nm."""
    momenta = phase_slope / (2 * np.pi * 10)
    coords = {
        name: (name, np.arange(n) * step, {"units": unit})
        for name, n, step in zip(("y", "x"), momenta.shape[1:], steps, strict=True)
    }
    attrs = {"units": "1/angstrom"}
    variables = {name: (("y", "x"), m, attrs) for name, m in zip(("com_y", "com_x"), momenta, strict=True)}
    return xr.Dataset(variables, coords=coords)


def test_phase_comes_out_in_radians():
    """Momenta of a known phase give back that phase, with mean zero, and its divergence."""
    phase, slope = cosine((40, 44), 1, 2)
    result = stemstore.dpc(com_dataset(slope)).compute()
    assert result.phase.attrs["units"] == "rad"
    np.testing.assert_allclose(result.phase, phase - phase.mean(), atol=1e-12)
    a, b = np.pi / 40 / STEP[0], 2 * np.pi / 44 / STEP[1]
    inside = np.s_[2:-2, 2:-2]
    expected = -(a**2 + b**2) * phase / (2 * np.pi * 10)
    np.testing.assert_allclose(result.dcom.values[inside], expected[inside], rtol=0.02, atol=1e-5)


def test_known_optic_axis_keeps_the_slope_of_the_phase():
    """Without descan removal a ramp is integrated; with it the ramp is gone."""
    slope = np.stack([np.full((16, 16), 0.3), np.zeros((16, 16))])
    kept = stemstore.dpc(com_dataset(slope), descan="none").phase.values
    removed = stemstore.dpc(com_dataset(slope)).phase.values
    np.testing.assert_allclose(removed, 0, atol=1e-12)
    expected = 0.3 * STEP[0] * (np.arange(16) - 7.5)[:, None] * np.ones(16)
    np.testing.assert_allclose(kept, expected, atol=0.2 * STEP[0])


def test_phase_scales_with_scan_and_detector_steps(dataset_of, counts):
    """Twice the scan step, or twice the detector step, gives twice the phase."""

    def phase(scan_step, detector_step):
        ds = dataset_of(ArrayFrames(counts), scan_step=scan_step, detector_step=detector_step, beam_energy=200)
        return stemstore.dpc(ds).phase.values

    one = phase(0.5, 1.0)
    np.testing.assert_allclose(phase(1.0, 1.0), 2 * one, rtol=1e-9)
    np.testing.assert_allclose(phase(0.5, 2.0), 2 * one, rtol=1e-9)


def test_swapping_all_axes_swaps_the_phase(dataset_of, counts):
    """Transposing scan and detector together transposes the result and nothing else."""
    known = {"scan_step": 0.5, "detector_step": 1.0, "beam_energy": 200}
    one = stemstore.dpc(dataset_of(ArrayFrames(counts), **known)).phase.values
    other = stemstore.dpc(dataset_of(ArrayFrames(counts.transpose(1, 0, 3, 2).copy()), **known)).phase.values
    np.testing.assert_allclose(other.T, one, atol=1e-10)


def stack(com):
    """Both components, rows first."""
    return np.stack([com.com_y.values, com.com_x.values])


@pytest.mark.parametrize("model", ["constant", "plane", "parabola"])
def test_descan_of_each_order_is_taken_off(model):
    """A phase comes back although the deflection of that order was added, up to what the fit takes of the phase."""
    _, slope = cosine((40, 44), 4, 6)
    y, x = np.indices((40, 44)) / 40
    added = {"constant": [y * 0 + 2, x * 0 - 1], "plane": [2 * y - x, x + 3], "parabola": [y * y - x, x * x - y * x]}
    clean = stemstore.dpc(com_dataset(slope), descan=model)
    moved = stemstore.dpc(com_dataset(slope + np.stack(added[model])), descan=model)
    np.testing.assert_allclose(moved.phase, clean.phase, atol=1e-10)
    assert moved.attrs["descan"] == moved.phase.attrs["descan"] == model


def test_removing_a_slope_removes_signal_and_says_so():
    """A curved phase survives the constant and not the plane, whose result warns and gives both sizes."""
    y, x = (np.indices((24, 24)) - 11.5) * np.array(STEP)[:, None, None]
    curved = np.stack([0.2 * y, 0.3 * x])
    kept, lost = (stemstore.dpc(com_dataset(curved), descan=model) for model in ("constant", "plane"))
    expected = 0.1 * y**2 + 0.15 * x**2
    assert np.corrcoef(kept.phase.values.ravel(), expected.ravel())[0, 1] > 0.999
    np.testing.assert_allclose(lost.phase, 0, atol=1e-10)
    assert "may be signal" in lost.attrs["warning"]
    assert "may be signal" in lost.phase.attrs["warning"]
    np.testing.assert_allclose(lost.descan_variation, np.ptp(curved, axis=(1, 2)) / (2 * np.pi * 10))
    np.testing.assert_allclose(lost.descan_rest, 0, atol=1e-12)
    assert "warning" not in kept.attrs
    assert "descan_rest" not in kept


def test_fits_and_vacuum_scans_are_taken_off():
    """A fit does what its name does, in another unit too; a measured map is subtracted as it is."""
    _, slope = cosine((20, 24))
    field = com_dataset(slope + 0.1 * np.indices((20, 24)))
    by_name, by_fit = (
        stemstore.dpc(field, descan="plane"),
        stemstore.dpc(field, descan=stemstore.fit_descan(field, "plane")),
    )
    np.testing.assert_allclose(by_fit.phase, by_name.phase, atol=1e-11)
    np.testing.assert_allclose(by_fit.attrs["descan_variation"], by_name.descan_variation)
    np.testing.assert_allclose(by_fit.attrs["descan_rest"], by_name.descan_rest)
    assert by_fit.attrs["descan"] == "plane"
    assert "may be signal" in by_fit.phase.attrs["warning"]
    other = field * 10
    other.com_y.attrs["units"] = other.com_x.attrs["units"] = "1/nm"
    in_nm = stemstore.dpc(other, descan=stemstore.fit_descan(other, "plane"))
    np.testing.assert_allclose(in_nm.phase, by_name.phase, atol=1e-11)
    np.testing.assert_allclose(in_nm.attrs["descan_variation"], by_name.descan_variation)
    vacuum = com_dataset(10 * 0.1 * np.indices((20, 24)))
    vacuum.com_y.attrs["units"] = vacuum.com_x.attrs["units"] = "1/nm"
    by_map = stemstore.dpc(field, descan=vacuum)
    np.testing.assert_allclose(by_map.phase, stemstore.dpc(com_dataset(slope), descan="none").phase, atol=1e-11)
    assert by_map.attrs["descan"] == "map"


def test_rotation_and_swap_are_applied_and_kept():
    """The deflections of the result are turned, rows towards columns, after the swap, and the matrix is told."""
    _, slope = cosine((20, 24))
    field = com_dataset(slope)
    turned = stemstore.dpc(field, rotation=90, transpose=True, descan="none")
    np.testing.assert_allclose(stack(turned), [-field.com_y, field.com_x], atol=1e-15)
    np.testing.assert_allclose(turned.attrs["com_matrix"], [-1, 0, 0, 1], atol=1e-12)
    again = stemstore.dpc(stemstore.transform_com(field, rotation=30), rotation=60, descan="none")
    np.testing.assert_allclose(again.phase.attrs["com_matrix"], [0, -1, 1, 0], atol=1e-12)


def test_partial_frames_do_not_shift_the_mean(dataset_of, counts):
    """A lost half of the detector moves one deflection far, and none of the others."""
    frames, validity = counts.copy(), np.full(counts.shape[:2], 2)
    frames[3, 4, :7], validity[3, 4] = 0, 1
    known = {"scan_step": 0.5, "detector_step": 1.0, "beam_energy": 200}
    whole = stemstore.center_of_mass(dataset_of(ArrayFrames(counts), **known))
    hurt = stemstore.dpc(dataset_of(ArrayFrames(frames, validity), **known))
    others = np.ones(counts.shape[:2], bool)
    others[3, 4] = False
    for name in ("com_y", "com_x"):
        mean = whole[name].values[others].mean()
        np.testing.assert_allclose(hurt[name].values[others], whole[name].values[others] - mean, atol=1e-12)


def test_selections_that_run_backwards_give_the_phase_backwards():
    """Signs of the steps are respected, high pass included."""
    _, slope = cosine((20, 24))
    field = com_dataset(slope)
    for high_pass in (None, 1.0):
        there = stemstore.dpc(field, high_pass=high_pass)
        back = stemstore.dpc(field.isel(y=slice(None, None, -1), x=slice(None, None, -1)), high_pass=high_pass)
        np.testing.assert_allclose(back.phase.values[::-1, ::-1], there.phase, atol=1e-12)
        np.testing.assert_allclose(back.dcom.values[::-1, ::-1], there.dcom, atol=1e-12)


def test_everything_stays_lazy(dataset_of, counts):
    """No model of the descan reads the scan before it is computed."""
    ds = dataset_of(ArrayFrames(counts), scan_step=0.5, detector_step=1.0, beam_energy=200)
    for model in ("none", "constant", "plane", "parabola"):
        assert all(v.chunks is not None for v in stemstore.dpc(ds, descan=model).data_vars.values())


def test_scans_without_any_deflection_have_no_phase(dataset_of, counts):
    """Nothing to fit a descan to is an error when computed, not a flat phase."""
    ds = dataset_of(ArrayFrames(counts * 0), scan_step=0.5, detector_step=1.0, beam_energy=200)
    with pytest.raises(InputError, match="NaN at every position"):
        stemstore.dpc(ds).phase.compute()


def test_the_divergence_is_unknown_beside_a_hole(dataset_of, counts):
    """An empty frame is integrated as zero, and neither it nor its neighbours have a divergence."""
    frames = counts.copy()
    frames[3, 4] = 0
    result = stemstore.dpc(dataset_of(ArrayFrames(frames), scan_step=0.5, detector_step=1.0, beam_energy=200)).compute()
    assert np.argwhere(np.isnan(result.dcom.values)).tolist() == [[2, 4], [3, 3], [3, 4], [3, 5], [4, 4]]
    com = stemstore.center_of_mass(dataset_of(ArrayFrames(frames), scan_step=0.5, detector_step=1.0, beam_energy=200))
    np.testing.assert_allclose(result.dcom, stemstore.divergence(com), atol=1e-12)


def test_py4dstem_scale_the_phase_is_in_radians_and_not_divided_by_two_pi():
    """A phase of one radian comes back as one radian; py4DSTEM 0.14 gives phase / (2 pi)."""
    phase, slope = cosine((40, 44), 1, 2)
    found = stemstore.dpc(com_dataset(slope)).phase.values
    assert np.polyfit(phase.ravel(), found.ravel(), 1)[0] == pytest.approx(1, abs=1e-9)


def test_high_pass_damps_slow_waves_by_the_stated_factor():
    """A wave of one period per field of view is halved by a cut at one cycle."""
    y = np.arange(32)
    wave = np.sin(2 * np.pi * y / 32)[:, None] * np.ones(32)
    slope = np.stack([2 * np.pi / 32 * np.cos(2 * np.pi * y / 32)[:, None] * np.ones(32), np.zeros((32, 32))])
    np.testing.assert_allclose(integrate(slope, (1, 1), boundary="periodic", high_pass=1.0), wave / 2, atol=1e-12)


def test_positions_without_momentum_do_not_spread(dataset_of, counts):
    """A NaN in the centre of mass leaves the phase finite."""
    frames = counts.copy()
    frames[3, 4] = 0
    ds = dataset_of(ArrayFrames(frames), scan_step=0.5, detector_step=1.0, beam_energy=200)
    assert np.isfinite(stemstore.dpc(ds).phase).all()


def test_uncalibrated_scans_are_refused_with_the_missing_attribute(scan):
    """No scale, no phase: the message names the axis and how to give it."""
    with pytest.raises(CalibrationMissingError, match="cannot be expressed in '1/angstrom'"):
        stemstore.dpc(scan)


def test_scan_step_is_needed(dataset_of, counts):
    """The detector alone does not give a scale."""
    ds = dataset_of(ArrayFrames(counts), detector_step=1.0, beam_energy=200)
    with pytest.raises(CalibrationMissingError, match=r"scan axis 'y'.*scan_step"):
        stemstore.dpc(ds)


def test_single_rows_and_unknown_boundaries_are_refused(dataset_of, counts):
    """Integration needs two dimensions."""
    ds = dataset_of(ArrayFrames(counts[:1]), scan_step=0.5, detector_step=1.0, beam_energy=200)
    with pytest.raises(InputError, match="at least two positions along 'y'"):
        stemstore.dpc(ds)
    with pytest.raises(InputError, match="mirror"):
        stemstore.dpc(ds, boundary="reflect")
    with pytest.raises(InputError, match="constant"):
        stemstore.dpc(ds, descan="cubic")
