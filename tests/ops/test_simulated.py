"""Multislice simulations with known potentials: sign, scale and axes of centre of mass and phase are physical."""

import json

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

import stemstore
from stemstore.testing.arrays import ArrayFrames


@pytest.fixture(scope="module")
def simulation(sample):
    """A thin crystal in focus."""
    return known_scan(sample, "mos2_focus")


@pytest.fixture(scope="module")
def defocused(sample):
    """The same under a wide, defocused probe, whose deflection is smaller than its counting noise."""
    return known_scan(sample, "mos2_defocus150")


def known_scan(sample, name):
    """Counts of a thin crystal, its parameters, and gradient and value of its phase blurred by the probe."""
    folder = sample(f"sim/{name}.json").parent
    known = json.loads((folder / f"{name}.json").read_text())
    counts = np.load(folder / f"{name}_counts_u16.npz")["counts"]
    truth = np.load(folder / f"{name}_truth.npz")
    step = np.array(known["potential_sampling_A"])
    probe = np.fft.ifftshift(np.abs(truth["probe_complex"]) ** 2)
    transfer = np.conj(np.fft.fft2(probe / probe.sum()))
    spectrum = np.fft.fft2(truth["projected_potential_VA"]) * transfer
    phase = known["interaction_parameter_sigma_rad_per_V_A"] * np.fft.ifft2(spectrum).real
    q = [np.fft.fftfreq(n, d) for n, d in zip(phase.shape, step, strict=True)]
    gradient = [np.fft.ifft2(2j * np.pi * q[0][:, None] * np.fft.fft2(phase)).real]
    gradient += [np.fft.ifft2(2j * np.pi * q[1][None, :] * np.fft.fft2(phase)).real]
    where = np.meshgrid(truth["scan_x_A"] / step[0], truth["scan_y_A"] / step[1], indexing="ij")
    at = [map_coordinates(image, where, order=1, mode="grid-wrap") for image in (*gradient, phase)]
    return counts, known, at


@pytest.fixture
def lazy(simulation, dataset_of):
    """The counts as a calibrated scan."""
    return calibrated(simulation, dataset_of)


def calibrated(scan, dataset_of):
    """Open the counts with the calibration they were simulated with."""
    counts, known, _ = scan
    return dataset_of(
        ArrayFrames(counts),
        beam_energy=known["energy_eV"] / 1e3,
        detector_step=known["detector_sampling_mrad"][0],
        detector_center=tuple(known["detector_centre_px"]),
        scan_step=known["scan_step_A"][0] / 10,
    )


def test_centre_of_mass_points_up_the_potential(simulation, lazy):
    """Momenta equal the blurred phase gradient over 2 pi: right axis, sign and scale, despite counting noise."""
    com = stemstore.center_of_mass(lazy).compute()
    along_y, along_x = (g / (2 * np.pi) for g in simulation[2][:2])
    for measured, expected, other in ((com.com_y, along_y, along_x), (com.com_x, along_x, along_y)):
        values = measured.values.ravel()
        assert measured.attrs["units"] == "1/angstrom"
        assert np.corrcoef(values, expected.ravel())[0, 1] > 0.99
        assert np.polyfit(expected.ravel(), values, 1)[0] == pytest.approx(1.0, abs=0.03)
        assert abs(np.corrcoef(values, other.ravel())[0, 1]) < 0.02


def test_centre_of_mass_is_as_good_as_chance_allows(defocused, dataset_of):
    """Where the deflection drowns in noise, slope and correlation are those of the truth plus the stated errors."""
    com = stemstore.center_of_mass(calibrated(defocused, dataset_of), sigma=True).compute()
    for name, gradient in zip("yx", defocused[2][:2], strict=True):
        expected, noise = gradient.ravel() / (2 * np.pi), float(com[f"com_{name}_sigma"].mean())
        values = com[f"com_{name}"].values.ravel()
        error = noise / (expected.std() * np.sqrt(expected.size))
        assert np.polyfit(expected, values, 1)[0] == pytest.approx(1.0, abs=3 * error)
        limit = expected.std() / np.hypot(expected.std(), noise)
        assert np.corrcoef(values, expected)[0, 1] == pytest.approx(limit, abs=3 / np.sqrt(expected.size))


def test_integrated_phase_is_the_blurred_phase(simulation, lazy):
    """The phase comes out in radians: the specimen's phase blurred by the probe, up to a constant."""
    phase = stemstore.dpc(lazy, descan="none").phase.values
    expected = simulation[2][2] - simulation[2][2].mean()
    assert np.corrcoef(phase.ravel(), expected.ravel())[0, 1] > 0.98
    assert np.linalg.norm(phase - expected) / np.linalg.norm(expected) < 0.16


def test_bright_field_disk_has_the_semi_convergence_angle(simulation, lazy):
    """The edge of the mean pattern lies at the semi-convergence angle."""
    known = simulation[1]
    inside = stemstore.virtual_image(lazy, stemstore.disk(known["semiangle_mrad"] + 1, unit="mrad")).sum().values
    edge = stemstore.virtual_image(lazy, stemstore.annulus(27, 30, unit="mrad")).sum().values
    core = stemstore.virtual_image(lazy, stemstore.annulus(20, 23, unit="mrad")).sum().values
    assert inside / simulation[0].sum() > 0.9
    assert edge < 0.1 * core
