"""Defaults from the radius, overrides and refusals of the disk plan."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.kernels.disks.plan import plan_disks
from stemstore.kernels.disks.probe import disk, template_of


def test_all_defaults_follow_from_the_radius() -> None:
    """The documented defaults at a radius of 8 px on 256 x 256 px."""
    expected = {
        "radius": 8.0,
        "edge_width": 2.0,
        "kernel": "sigmoid",
        "window": 20.0,
        "sigma_detect": 2.0,
        "power": 1.0,
        "binning": 2,
        "subpixel": "likelihood",
        "contrast": None,
        "edge_boundary": 8,
        "min_visible": 0.5,
        "min_abs": None,
        "significance": 5.0,
        "min_rel": 0.005,
        "relative_to": 1,
        "min_spacing": 16.0,
        "max_peaks": 326,
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


@pytest.mark.parametrize(("radius", "binning"), [(1.5, 1), (7.9, 1), (8.0, 2), (15.9, 2), (16.0, 4), (40.0, 8)])
def test_bins_leave_a_radius_of_four(radius: float, binning: int) -> None:
    """The default binning is the largest power of two that leaves a radius of 4; none where the map gives positions."""
    assert plan_disks((128, 128), radius=radius).parameters.binning == binning
    assert plan_disks((128, 128), radius=radius, subpixel="poly").parameters.binning == 1


@pytest.mark.parametrize(
    ("options", "padded"),
    [
        ({}, (144, 105)),  # 128 + 15 - 6 and 96 + 15 - 6, then sizes without large primes
        ({"edge_boundary": 15}, (128, 96)),
        ({"subpixel": "poly"}, (128, 96)),  # periodic, as py4DSTEM's
        ({"subpixel": "poly", "edge_boundary": 2}, (144, 120)),
        ({"binning": 2, "window": 12}, (72, 54)),
    ],
)
def test_transforms_leave_room_for_the_kernel(options: dict[str, Any], padded: tuple[int, int]) -> None:
    """The window of a disk at the boundary does not reach around to the other side of the frame."""
    plan = plan_disks((128, 96), radius=6, **options)
    assert plan.fft_shape == padded
    assert plan.kernels[0].shape == (padded[0], padded[1] // 2 + 1)


def test_plan_is_picklable() -> None:
    """A plan survives the way to another process."""
    plan = plan_disks((40, 44), radius=4)
    again = pickle.loads(pickle.dumps(plan))
    np.testing.assert_array_equal(again.kernels[0], plan.kernels[0])
    np.testing.assert_array_equal(again.bank.psi, plan.bank.psi)
    assert again.parameters == plan.parameters


def test_only_what_is_needed_is_planned() -> None:
    """Tables are for the likelihood, the sharp kernel for Newton steps, two kernels for hidden pixels."""
    bad = np.zeros((64, 64), np.bool_)
    bad[30:40, 10] = True
    plans = {name: plan_disks((64, 64), radius=4, subpixel=name) for name in ("likelihood", "newton", "poly", "none")}
    assert [name for name, plan in plans.items() if plan.bank is not None] == ["likelihood"]
    assert [name for name, plan in plans.items() if plan.sharp is not None] == ["newton"]
    assert len(plans["likelihood"].kernels) == 1
    assert len(plan_disks((64, 64), radius=4, bad_pixels=bad).kernels) == 2
    assert len(plan_disks((64, 64), radius=4, edge_boundary=1).kernels) == 2


def test_a_template_object_is_used_as_it_is() -> None:
    """A template made before gives the plan of its image; its source is kept."""
    image = 40 * disk((64, 64), (30.2, 33.4), 6.0, 2.0)
    one, other = (
        plan_disks((64, 64), template=image),
        plan_disks((64, 64), template=template_of(image, "a vacuum scan")),
    )
    np.testing.assert_array_equal(one.kernels[0], other.kernels[0])
    assert (one.template, other.template) == ("image of shape (64, 64)", "a vacuum scan")


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
        ({"radius": 4.0, "bad_pixels": np.ones((64, 64), bool)}, "hides the whole detector"),
        ({"radius": 4.0, "kernel": "square"}, "'kernel' of disk detection is one of sigmoid, gaussian, gradient"),
        ({"radius": 4.0, "subpixel": "multicorr"}, "'subpixel' of disk detection is one of likelihood, newton"),
        ({"radius": 4.0, "power": 1.5}, "'power' of disk detection must be at most 1"),
        ({"radius": 4.0, "min_visible": 2}, "'min_visible' of disk detection must be at most 1"),
        ({"radius": 4.0, "contrast": 0}, "'contrast' of disk detection must be at least 0.001"),
        ({"radius": 4.0, "subpixel": "poly", "binning": 2}, "needs binning=1"),
    ],
)
def test_settings_that_cannot_work_are_refused(arguments: dict[str, Any], message: str) -> None:
    """Missing size, impossible radius, unknown names and values out of range name themselves."""
    with pytest.raises(InputError, match=message):
        plan_disks((64, 64), **arguments)
