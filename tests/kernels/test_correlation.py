"""Probe measurement, kernels, correlation and the limit of precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import fft

from stemstore.errors import InputError
from stemstore.kernels import correlation


def test_disk_profile_is_linear_across_the_edge() -> None:
    """Along a row through the centre the values are those of the formula."""
    image = correlation.disk((1, 9), (0.0, 4.0), 2.0, 4.0)
    assert image[0].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_disk_area_is_that_of_a_circle() -> None:
    """A disk of radius 9.5 has the area pi r^2 up to the pixel grid."""
    area = correlation.disk((40, 41), (19.3, 20.8), 9.5, 1.0).sum()
    assert area == pytest.approx(math.pi * 9.5**2, rel=0.005)


def test_probe_is_measured_beside_weaker_disks() -> None:
    """Radius, centre and edge of the brightest disk come out although the pattern holds others."""
    shape, others = (64, 72), ((10.0, 12.0), (50.0, 58.0))
    image = 100 * correlation.disk(shape, (31.3, 36.6), 8.0, 2.0) + 1.0
    image += sum(5 * correlation.disk(shape, centre, 8.0, 2.0) for centre in others)
    probe = correlation.measure_probe(image)
    assert probe.radius == pytest.approx(8.0, abs=0.15)
    assert probe.centre == pytest.approx((31.3, 36.6), abs=0.03)
    assert probe.edge_width == pytest.approx(2.0, abs=0.6)


@pytest.mark.parametrize("image", [np.zeros((8, 8)), np.ones((2, 8, 8)), np.full((8, 8), np.nan)])
def test_a_template_without_a_disk_is_refused(image: np.ndarray) -> None:
    """Empty, stacked and not finite templates raise an error that says what to pass."""
    with pytest.raises(InputError, match="probe template must be a finite two-dimensional image"):
        correlation.measure_probe(image)


def test_a_measured_probe_lands_on_the_origin_without_its_surroundings() -> None:
    """The cut probe equals the synthetic one at pixel (0, 0); background and neighbours are gone."""
    image = 3.0 + 50 * correlation.disk((80, 80), (39.7, 41.2), 8.0, 4.0)
    image += 30 * correlation.disk((80, 80), (39.7, 65.2), 8.0, 4.0)
    probe = correlation.Probe(8.0, 4.0, (39.7, 41.2))
    placed = correlation.probe_at_origin(image, probe, (96, 90)) / 50
    assert np.abs(placed - correlation.disk_at_origin((96, 90), 8.0, 4.0)).max() < 0.06


def test_kernels_do_not_see_a_constant() -> None:
    """The detection kernel is zero-sum and both kernels have the expected total."""
    detect, refine = correlation.make_kernels(correlation.disk_at_origin((32, 30), 4.0, 2.0), 12.0, 1.0, 10.0)
    assert detect[0, 0] == 0
    assert refine[0, 0] == pytest.approx(1.0)


def test_correlation_equals_the_direct_sum() -> None:
    """Both maps are sum_p K(p - x) I(p) on a periodic frame of odd size."""
    shape = (15, 21)
    image = np.random.default_rng(0).poisson(3.0, shape).astype(np.float32)
    kernels = correlation.make_kernels(correlation.disk_at_origin(shape, 3.0, 2.0), 7.0, 0.8, 10.0)
    maps = correlation.correlate(image, *(k.astype(np.complex64) for k in kernels))
    for transform, found in zip(kernels, maps, strict=True):
        kernel = fft.irfft2(np.conj(transform), s=shape)
        direct = [[(np.roll(kernel, (y, x), (0, 1)) * image).sum() for x in range(21)] for y in range(15)]
        np.testing.assert_allclose(found, direct, atol=2e-5)


def test_refinement_kernel_is_the_logarithm_of_the_probe() -> None:
    """In real space the refinement kernel is log(1 + c S), scaled to unit sum, and nothing beyond the disk."""
    probe = correlation.disk_at_origin((32, 32), 5.0, 2.0)
    kernel = fft.irfft2(np.conj(correlation.make_kernels(probe, 15.0, 1.0, 4.0)[1]), s=(32, 32))
    expected = np.log(1 + 4 * probe)
    np.testing.assert_allclose(kernel, expected / expected.sum(), atol=1e-12)


def test_position_limit_tends_to_the_closed_form() -> None:
    """The limit is sqrt(r w / (N ln(1 + A / b))); the pixels widen the edge w by half a pixel."""
    radius, edge, counts, background = 20.0, 4.0, 5000.0, 0.5
    peak = counts / (math.pi * radius**2)
    closed = math.sqrt(radius * (edge + 0.5) / (counts * math.log(1 + peak / background)))
    assert correlation.position_limit(radius, edge, counts, background) == pytest.approx(closed, rel=0.02)


def test_position_limit_scales_with_the_dose() -> None:
    """Four times the counts on four times the background halve the limit."""
    one, four = (correlation.position_limit(8.0, 2.0, n * 300.0, n * 0.1) for n in (1, 4))
    assert four == pytest.approx(one / 2)


@pytest.mark.parametrize(("counts", "background"), [(0.0, 1.0), (10.0, 0.0)])
def test_position_limit_needs_counts_and_background(counts: float, background: float) -> None:
    """Without counts or background there is no finite limit, and the error says so."""
    with pytest.raises(InputError, match="needs counts and background above zero"):
        correlation.position_limit(8.0, 2.0, counts, background)
