"""The specimen: phase, deflection and lattice follow from one another."""

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.testing import Crystal, Optics, Particles
from stemstore.testing.specimen import (
    deflection,
    deformation_gradient,
    diffuse_scattering,
    scatter_particles,
    stepped_strain,
)

ONE = Particles(np.array([[6.0, 7.0]]), np.array([1.5]), np.array([2.0]))


def gradient(particles, y, x):
    """Differentiate a sum of Gaussians by hand, rad/nm."""
    dy, dx = y[:, None, None] - particles.centres[:, 0], x[None, :, None] - particles.centres[:, 1]
    value = particles.heights * np.exp(-0.5 * (dy**2 + dx**2) / particles.widths**2)
    return np.stack([(-dy / particles.widths**2 * value).sum(-1), (-dx / particles.widths**2 * value).sum(-1)], axis=-1)


def test_phase_is_a_sum_of_gaussians():
    """A particle has its height at its centre and exp(-1/2) of it one width away."""
    phase = ONE.phase(np.array([6.0, 7.5]), np.array([7.0]))
    np.testing.assert_allclose(phase[:, 0], [2.0, 2.0 * np.exp(-0.5)])


def test_sharp_probe_sees_the_phase_gradient():
    """With a probe much finer than the particle the deflection is grad(phase) / (2 pi) in detector pixels."""
    optics = Optics(disk_radius=5000.0)
    shape = (24, 28)
    y, x = (optics.scan_step * np.arange(n) for n in shape)
    expected = gradient(ONE, y, x) / (2 * np.pi) / (10 * optics.pixel_step)
    found = deflection(ONE, shape, optics)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_deflection_does_not_depend_on_the_sampling():
    """A scan with twice the step gives every second value of the finer scan."""
    fine = deflection(ONE, (24, 28), Optics(scan_step=0.5))
    coarse = deflection(ONE, (12, 14), Optics(scan_step=1.0))
    np.testing.assert_allclose(coarse, fine[::2, ::2], atol=1e-3)


def test_electrons_are_attracted():
    """Beside a particle the pattern moves towards it, along the gradient of the phase."""
    found = deflection(ONE, (24, 28), Optics())
    assert found[8, 14, 0] > 1
    assert found[16, 14, 0] < -1
    assert found[12, 10, 1] > 1
    assert abs(found[12, 14]).max() < 1e-6


@pytest.mark.parametrize("place", [(10, 14), (13, 9), (18, 18)])
def test_deflection_is_that_of_wave_optics(place):
    """A focused probe through exp(i phase) has its far-field centre of mass where the deflection says."""
    optics, n, step = Optics(), 256, 0.1
    q = np.fft.fftfreq(n, step)
    aperture = np.hypot(q[:, None], q[None, :]) <= optics.aperture
    y, x = (optics.scan_step * p for p in place)
    probe = np.fft.ifft2(aperture * np.exp(-2j * np.pi * (q[:, None] * y + q[None, :] * x)))
    grid = step * np.arange(n)
    far = np.abs(np.fft.fft2(probe * np.exp(1j * ONE.phase(grid, grid)))) ** 2
    centre = np.array([(far.sum(1) * q).sum(), (far.sum(0) * q).sum()]) / far.sum()
    predicted = deflection(ONE, (24, 28), optics)[place]
    np.testing.assert_allclose(centre / (10 * optics.pixel_step), predicted, atol=0.03)


def test_strained_lattice_has_the_known_vectors():
    """Stretch (0.05, -0.03, 0.02) and rotation 0.05 rad deform two given vectors into those computed by hand."""
    strain = np.array([[0.05, 0.02], [0.02, -0.03]])
    f = deformation_gradient(strain, 0.05)
    deformed = np.array([[0.25, 0.02], [-0.03, 0.31]]) @ np.linalg.inv(f)
    np.testing.assert_allclose(deformed, [[0.23671326, 0.02758075], [-0.05063755, 0.31816933]], atol=1e-8)


def test_tension_shortens_the_reciprocal_vector():
    """One per cent tension along the rows' direction shortens g1 by the factor 1.01 and leaves g2."""
    crystal = Crystal(rotation=0.0)
    f = deformation_gradient(np.array([[0.01, 0.0], [0.0, 0.0]]), 0.0)
    before, after = crystal.reference(0.002), crystal.lattice(f, 0.002)
    np.testing.assert_allclose(after[0], before[0] / 1.01)
    np.testing.assert_allclose(after[1], before[1])


def test_rotation_turns_rows_towards_columns():
    """A positive rotation moves g1, which points along rows, towards positive columns."""
    f = deformation_gradient(np.zeros((2, 2)), 0.1)
    g1 = Crystal(rotation=0.0).lattice(f, 0.002)[0]
    np.testing.assert_allclose(g1[1] / g1[0], np.tan(0.1))


def test_crystal_is_centrosymmetric():
    """Opposite orders are both there and equally strong, so the lattice does not move the centre of mass."""
    crystal = Crystal()
    assert len(crystal.orders) == 12
    np.testing.assert_allclose(crystal.weights @ crystal.orders, 0, atol=1e-15)
    assert crystal.weights.sum() == pytest.approx(1)


def test_spacing_gives_the_vector_length():
    """3.905 angstrom at the default microscope are 114.6 pixels."""
    vectors = Crystal().reference(Optics().pixel_step)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1 / (3.905 * Optics().pixel_step))
    assert np.linalg.norm(vectors[0]) == pytest.approx(114.58, abs=0.01)
    assert np.linalg.det(vectors) > 0


def test_step_strains_the_right_half_only():
    """The left half keeps zero strain, the right half has the given one."""
    field = stepped_strain((3, 5), np.diag([0.02, 0.01]))
    assert not field[:, :2].any()
    np.testing.assert_array_equal(field[:, 2:], np.broadcast_to(np.diag([0.02, 0.01]), (3, 3, 2, 2)))


def test_diffuse_scattering_is_proportional_to_mass():
    """Half of the highest phase gives half of the contrast, no phase the base; without any phase all is base."""
    phase = np.array([[0.0, 1.5], [3.0, 0.75]])
    np.testing.assert_allclose(diffuse_scattering(phase, base=0.1, contrast=0.4), [[0.1, 0.3], [0.5, 0.2]])
    np.testing.assert_array_equal(diffuse_scattering(np.zeros((2, 3)), base=0.1), np.full((2, 3), 0.1))


@pytest.mark.parametrize("seed", range(4))
def test_particles_stand_apart(seed):
    """Halfway down the scan's particles the mass varies: a fifth of the particle area is thick, as much is thin."""
    grid = 0.5 * np.arange(40.0)
    phase = scatter_particles((40, 40), scan_step=0.5, seed=seed).phase(grid, grid)[:20]
    assert (phase > 0.5 * phase.max()).mean() > 0.15
    assert (phase < 0.25 * phase.max()).mean() > 0.15


@pytest.mark.parametrize("seed", range(4))
def test_particles_leave_the_lower_quarter_flat(seed):
    """Where groups of patterns are summed the deflection stays small, elsewhere it is pixels and bounded."""
    shift = np.abs(deflection(scatter_particles((40, 40), scan_step=0.5, seed=seed), (40, 40), Optics()))
    assert shift[30:].max() < 0.2
    assert 2 < np.sqrt((shift[:25] ** 2).mean()) < shift.max() < 12


def test_bad_numbers_are_refused():
    """Lengths must be positive, and the message names the field."""
    with pytest.raises(InputError, match="spacing -1"):
        Crystal(spacing=-1)
    with pytest.raises(InputError, match="scan_step"):
        Optics(scan_step=0)


def test_optics_of_300_kev():
    """The wavelength is 0.019687 angstrom and the pixel step is angle over wavelength."""
    optics = Optics()
    assert optics.wavelength == pytest.approx(0.019687, abs=1e-6)
    assert optics.pixel_step == pytest.approx(44e-6 / 0.0196875, rel=1e-4)
    assert optics.semi_convergence_angle == pytest.approx(1.892)
    assert optics.centre == (287.5, 287.5)
    np.testing.assert_allclose(optics.probe_transfer(np.array([0.0, 2 * optics.aperture, 9.0])), [1, 0, 0], atol=1e-12)
