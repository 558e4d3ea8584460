"""The probe: drawn, measured, cut out of images; the limit of precision."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.kernels.disks.probe import Template, disk, measure_probe, position_limit, template_of


def test_disk_profile_is_linear_across_the_edge() -> None:
    """Along a row through the centre the values are those of the formula."""
    image = disk((1, 9), (0.0, 4.0), 2.0, 4.0)
    assert image[0].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25, 0.0]


def test_disk_area_is_that_of_a_circle() -> None:
    """A disk of radius 9.5 has the area pi r^2 up to the pixel grid."""
    area = disk((40, 41), (19.3, 20.8), 9.5, 1.0).sum()
    assert area == pytest.approx(math.pi * 9.5**2, rel=0.005)


def test_probe_is_measured_beside_weaker_disks() -> None:
    """Radius, centre and edge of the brightest disk come out although the pattern holds others."""
    shape, others = (64, 72), ((10.0, 12.0), (50.0, 58.0))
    image = 100 * disk(shape, (31.3, 36.6), 8.0, 2.0) + 1.0
    image += sum(5 * disk(shape, centre, 8.0, 2.0) for centre in others)
    probe = measure_probe(image)
    assert probe.radius == pytest.approx(8.0, abs=0.15)
    assert probe.centre == pytest.approx((31.3, 36.6), abs=0.03)
    assert probe.edge_width == pytest.approx(2.0, abs=0.6)


@pytest.mark.parametrize("image", [np.zeros((8, 8)), np.ones((2, 8, 8)), np.full((8, 8), np.nan)])
def test_a_template_without_a_disk_is_refused(image: np.ndarray) -> None:
    """Empty, stacked and not finite templates raise an error that says what to pass."""
    with pytest.raises(InputError, match="probe template must be a finite two-dimensional image"):
        measure_probe(image)


@pytest.mark.parametrize(("height", "error"), [(20, 0.1), (1000, 0.015)])
def test_the_centre_of_a_noisy_probe_is_measured_precisely(height: float, error: float) -> None:
    """Radius and centre of counted probes are those they were drawn with, the better the more counts."""
    image = np.random.default_rng(3).poisson(height * Template(7.0, 2.0).draw((96, 96), (41.7, 55.2)) + 0.3)
    probe = measure_probe(image)
    assert probe.centre == pytest.approx((41.7, 55.2), abs=error)
    assert probe.radius == pytest.approx(7.0, abs=0.1)


def test_a_spot_without_an_edge_still_has_a_size() -> None:
    """Where no round edge can be fitted the rough measure remains."""
    image = np.zeros((20, 20))
    image[9:11, 7:10] = 5.0
    probe = measure_probe(image)
    assert probe.centre == pytest.approx((9.5, 8.0), abs=0.3)
    assert probe.radius == pytest.approx(math.sqrt(6 / math.pi), abs=0.3)


def test_a_synthetic_disk_is_averaged_over_pixels() -> None:
    """The sum of a drawn disk is its area and its centre of mass where it was put, cut at the border."""
    image = Template(6.0, 2.0).draw((40, 44), (19.3, 20.8))
    rows, columns = np.indices(image.shape)
    assert image.sum() == pytest.approx(math.pi * (36 + 4 / 12), rel=1e-3)
    assert (rows * image).sum() / image.sum() == pytest.approx(19.3, abs=1e-3)
    assert (columns * image).sum() / image.sum() == pytest.approx(20.8, abs=1e-3)
    assert Template(6.0, 2.0).draw((40, 44), (0.0, 20.8)).sum() < 0.6 * image.sum()


def test_a_cut_probe_is_drawn_without_its_surroundings() -> None:
    """A probe cut out of an image equals the synthetic one anywhere; background and neighbours are gone."""
    image = 3.0 + 50 * disk((80, 80), (39.7, 41.2), 8.0, 4.0) + 30 * disk((80, 80), (39.7, 65.2), 8.0, 4.0)
    template = template_of(image)
    for centre in ((40.0, 30.0), (20.6, 33.3), (2.25, 58.9)):
        drawn = template.draw((60, 60), centre)
        assert np.abs(drawn - disk((60, 60), centre, 8.0, 4.0)).max() < 0.06
    assert template.centre == pytest.approx((39.7, 41.2), abs=0.02)
    assert template.source == "image of shape (80, 80)"


def test_another_radius_keeps_the_image() -> None:
    """A radius that is asked for replaces the measured one; without one nothing changes."""
    template = template_of(disk((40, 40), (20.0, 20.0), 6.0, 2.0))
    assert template.with_radius(7.5).radius == 7.5
    assert template.with_radius(7.5).stamp is template.stamp
    assert template.with_radius(None) is template


def test_small_shifts_of_a_stamp_do_not_lose_counts() -> None:
    """Moved by a part of a pixel a stamp keeps its sum."""
    template = template_of(disk((40, 40), (20.0, 20.0), 6.0, 2.0))
    sums = [template.draw((50, 50), (25.0 + d, 25.0)).sum() for d in (0.0, 0.25, 0.5)]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-6)


def test_position_limit_tends_to_the_closed_form() -> None:
    """The limit is sqrt(r w / (N ln(1 + A / b))); the pixels widen the edge w by half a pixel."""
    radius, edge, counts, background = 20.0, 4.0, 5000.0, 0.5
    peak = counts / (math.pi * radius**2)
    closed = math.sqrt(radius * (edge + 0.5) / (counts * math.log(1 + peak / background)))
    assert position_limit(radius, edge, counts, background) == pytest.approx(closed, rel=0.02)


def test_position_limit_scales_with_the_dose() -> None:
    """Four times the counts on four times the background halve the limit."""
    one, four = (position_limit(8.0, 2.0, n * 300.0, n * 0.1) for n in (1, 4))
    assert four == pytest.approx(one / 2)


@pytest.mark.parametrize(("counts", "background"), [(0.0, 1.0), (10.0, 0.0)])
def test_position_limit_needs_counts_and_background(counts: float, background: float) -> None:
    """Without counts or background there is no finite limit, and the error says so."""
    with pytest.raises(InputError, match="needs counts and background above zero"):
        position_limit(8.0, 2.0, counts, background)
