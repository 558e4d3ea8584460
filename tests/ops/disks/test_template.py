"""Templates of the probe: from vacuum scans, regions, patterns, and synthetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from stemstore.errors import InputError
from stemstore.kernels.disks.plan import plan_disks
from stemstore.kernels.disks.probe import Template
from stemstore.kernels.disks.search import COLUMNS, frame_disks
from stemstore.ops.disks.template import disk_template

PROBE = Template(7.0, 2.0)
SHAPE = (72, 80)


def vacuum(height: float = 30.0, wander: float = 6.0) -> xr.DataArray:
    """Give a scan of 5 x 6 vacuum patterns whose disk wanders."""
    rng = np.random.default_rng(3)
    frames = np.empty((5, 6, *SHAPE), np.uint16)
    for place in np.ndindex(5, 6):
        centre = np.array([35.0, 41.0]) + rng.uniform(-wander, wander, 2)
        frames[place] = rng.poisson(height * PROBE.draw(SHAPE, (centre[0], centre[1])) + 0.02)
    return xr.DataArray(frames, dims=("y", "x", "ky", "kx"))


def worst(template: Template) -> float:
    """Largest difference from the true probe."""
    shape, centre = (31, 31), (15.0, 15.0)
    return float(np.abs(template.draw(shape, centre) - PROBE.draw(shape, centre)).max())


def test_a_vacuum_scan_gives_the_probe_although_it_wanders() -> None:
    """Aligned patterns make a sharp probe; their plain mean is blurred and larger."""
    scan = vacuum()
    template = disk_template(scan)
    assert template.radius == pytest.approx(7.0, abs=0.05)
    assert template.edge_width == pytest.approx(2.0, abs=0.3)
    assert worst(template) < 0.15
    assert template.source == "mean of 30 aligned patterns"
    assert worst(disk_template(scan.mean(("y", "x")))) > 0.4


def test_dask_and_stored_scans_give_the_same(frames_of: Any) -> None:
    """Chunks and the way in make no difference."""
    scan = vacuum()
    plain = disk_template(scan)
    for other in (scan.chunk(y=2, x=3), frames_of(scan.values)):
        template = disk_template(other)
        np.testing.assert_allclose(template.stamp, plain.stamp, atol=1e-9)


def test_only_the_region_and_so_many_patterns_take_part() -> None:
    """Patterns outside the region, here full of something else, have no say; their number is limited."""
    scan = vacuum()
    scan[:3] = 50
    roi = np.zeros((5, 6), np.bool_)
    roi[3:] = True
    assert disk_template(scan, roi=roi).source == "mean of 12 aligned patterns"
    limited = disk_template(scan, roi=roi, max_patterns=5)
    assert limited.source == "mean of 5 aligned patterns"
    assert limited.radius == pytest.approx(7.0, abs=0.1)


def test_patterns_without_a_whole_disk_are_left_out() -> None:
    """Empty patterns and disks that leave the detector do not count."""
    scan = vacuum()
    scan[0, 0] = 0
    scan[4, 5] = np.roll(scan[4, 5].values, 34, axis=0)
    assert disk_template(scan).source == "mean of 28 aligned patterns"


def test_a_pattern_gives_its_brightest_disk() -> None:
    """One pattern, labelled in any order or a plain array, gives the same template."""
    image = 40 * PROBE.draw(SHAPE, (30.3, 44.6)) + 9 * PROBE.draw(SHAPE, (30.3, 68.0)) + 0.5
    template = disk_template(image)
    assert template.centre == pytest.approx((30.3, 44.6), abs=0.02)
    assert worst(template) < 0.05
    labelled = xr.DataArray(image, dims=("ky", "kx"))
    for other in (labelled, labelled.T):
        np.testing.assert_array_equal(disk_template(other).stamp, template.stamp)


def test_corrections_come_first() -> None:
    """A hot pixel in the disk and a dark pattern are taken out before anything is measured."""
    image = 40 * PROBE.draw(SHAPE, (30.3, 44.6))
    dark, bad = np.linspace(0, 50, SHAPE[1]) * np.ones(SHAPE), np.zeros(SHAPE, np.bool_)
    bad[31, 45] = True
    spoilt = np.where(bad, 1e5, image + dark)
    template = disk_template(spoilt, dark=dark, bad_pixels=bad)
    assert worst(template) < 0.05
    scan = xr.DataArray(np.stack([[spoilt] * 2]), dims=("y", "x", "ky", "kx"))
    assert worst(disk_template(scan, dark=dark, bad_pixels=bad)) < 0.05


def test_a_synthetic_disk_has_what_was_asked_for() -> None:
    """Radius and edge width are used as given; 2 px is the default edge."""
    template = disk_template(radius=9.5)
    assert (template.radius, template.edge_width, template.stamp, template.source) == (9.5, 2.0, None, "synthetic disk")
    assert disk_template(radius=9.5, edge_width=3.0).edge_width == 3.0


def test_a_given_radius_replaces_the_measured_one() -> None:
    """The image stays, the settings follow the radius that was given."""
    image = 40 * PROBE.draw(SHAPE, (30.3, 44.6))
    assert plan_disks(SHAPE, template=disk_template(image, radius=8.0)).parameters.min_spacing == 16.0


def test_a_template_of_vacuum_finds_disks_as_well_as_the_true_one() -> None:
    """With the measured probe positions have the errors of the synthetic one, to a tenth."""
    rng = np.random.default_rng(5)
    places = rng.uniform(20, 50, (150, 2))
    frames = [rng.poisson(5 * PROBE.draw(SHAPE, (p[0], p[1])) + 0.2).astype(np.uint16) for p in places]
    errors = []
    for probe in (PROBE, disk_template(vacuum())):
        plan = plan_disks(SHAPE, template=probe)
        out = np.empty((plan.parameters.max_peaks, len(COLUMNS)), np.float32)
        found = [out[0, :2].copy() for frame in frames if frame_disks(frame, plan, out) == 1]
        assert len(found) == len(frames)
        errors.append(np.sqrt(np.mean((np.array(found) - places) ** 2)))
    assert errors[1] < 1.1 * errors[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a template needs the size of the disk"),
        ({"radius": -1.0}, "are above 0"),
        ({"source": np.ones((9, 9)), "edge_width": 2.0}, "edge_width goes with a synthetic disk"),
        ({"source": np.ones((9, 9)), "roi": np.ones((3, 3), bool)}, "roi names positions of a scan"),
        ({"source": np.zeros((9, 9))}, "must be a finite two-dimensional image with counts"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: dict[str, Any], message: str) -> None:
    """Errors say which argument is in the way."""
    with pytest.raises(InputError, match=message):
        disk_template(**arguments)


def test_scans_without_a_disk_are_refused() -> None:
    """No position, no counts, and no whole disk each have their error."""
    scan = vacuum()
    with pytest.raises(InputError, match="no pattern takes part"):
        disk_template(scan, roi=np.zeros((5, 6), bool))
    with pytest.raises(InputError, match="none of 30 patterns shows a whole disk of radius 25 px"):
        disk_template(scan, radius=25.0)
    with pytest.raises(InputError, match="finite two-dimensional image with counts"):
        disk_template(scan * 0)
