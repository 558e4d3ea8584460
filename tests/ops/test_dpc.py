"""Integration recovers known phases, in radians, with the right sign and boundary."""

import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import CalibrationMissingError, InputError
from stemstore.ops.dpc import integrate, rotate
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


@pytest.mark.parametrize(
    ("angle", "transpose", "matrix"),
    [(90, False, [[0, -1], [1, 0]]), (90, True, [[-1, 0], [0, 1]]), (0, True, [[0, 1], [1, 0]])],
)
def test_rotation_matrices(angle, transpose, matrix):
    """Rotation turns rows towards columns; the swap comes first."""
    vectors = np.random.default_rng(0).normal(size=(2, 5))
    np.testing.assert_allclose(rotate(vectors, angle, transpose=transpose), np.array(matrix) @ vectors, atol=1e-12)


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
        stemstore.dpc(ds, descan="plane")
