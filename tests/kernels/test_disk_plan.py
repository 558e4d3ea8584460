"""Defaults from the radius, overrides and refusals of the disk plan."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.kernels.correlation import disk
from stemstore.kernels.disk_plan import plan_disks


def test_all_defaults_follow_from_the_radius() -> None:
    """The documented defaults at a radius of 8 px on 256 x 256 px."""
    expected = {
        "radius": 8.0,
        "edge_width": 2.0,
        "min_spacing": 16.0,
        "edge_boundary": 8,
        "sigma_detect": 2.0,
        "window": 20.0,
        "climb": 2,
        "min_abs": None,
        "significance": 5.0,
        "min_rel": 0.005,
        "relative_to": 1,
        "max_peaks": 326,
        "contrast": 10.0,
    }
    assert dataclasses.asdict(plan_disks((256, 256), radius=8).parameters) == expected


def test_options_override_defaults() -> None:
    """A given option is used as it is; all others stay."""
    parameters = plan_disks((64, 64), radius=5, min_spacing=30, max_peaks=9, min_abs=0.5).parameters
    assert (parameters.min_spacing, parameters.max_peaks, parameters.min_abs) == (30, 9, 0.5)
    assert parameters.edge_boundary == 5


def test_a_template_gives_the_radius() -> None:
    """Radius and edge are measured on the template unless a radius is given."""
    image = 40 * disk((64, 64), (30.2, 33.4), 6.0, 2.0)
    assert plan_disks((64, 64), template=image).parameters.radius == pytest.approx(6.0, abs=0.15)
    assert plan_disks((64, 64), template=image, radius=7.0).parameters.radius == 7.0


@pytest.mark.parametrize(
    ("shape", "padded"),
    [((128, 96), (128, 96)), ((121, 105), (121, 105)), ((127, 131), (128, 135)), ((576, 578), (576, 600))],
)
def test_only_sizes_with_large_primes_are_enlarged(shape: tuple[int, int], padded: tuple[int, int]) -> None:
    """A size with a prime factor above 11 grows to the next fast one; others stay, odd ones included."""
    plan = plan_disks(shape, radius=6)
    assert plan.fft_shape == padded
    assert plan.detect.shape == (plan.fft_shape[0], plan.fft_shape[1] // 2 + 1)


def test_plan_is_picklable() -> None:
    """A plan survives the way to another process."""
    plan = plan_disks((40, 44), radius=4)
    again = pickle.loads(pickle.dumps(plan))
    np.testing.assert_array_equal(again.detect, plan.detect)
    assert again.parameters == plan.parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs the size of the disks"),
        ({"radius": 1.0}, "radius of 1 px does not work"),
        ({"radius": 40.0}, "the disk must fit the frame"),
        ({"radius": float("nan")}, "radius of nan px does not work"),
        ({"radius": 4.0, "min_distance": 3}, "unknown option 'min_distance'"),
        ({"radius": 4.0, "max_peaks": 0}, "'max_peaks' of disk detection must be at least 1"),
        ({"radius": 4.0, "sigma_detect": -1.0}, "'sigma_detect' of disk detection must be at least 0"),
        ({"radius": 4.0, "edge_boundary": 0}, "'edge_boundary' of disk detection must be at least 1"),
        ({"radius": 4.0, "bad_pixels": np.zeros((3, 3), bool)}, "bad_pixels has shape"),
    ],
)
def test_settings_that_cannot_work_are_refused(arguments: dict[str, Any], message: str) -> None:
    """Missing size, impossible radius, unknown names and values out of range name themselves."""
    with pytest.raises(InputError, match=message):
        plan_disks((64, 64), **arguments)
