"""Axes and their order."""

import numpy as np
import pytest
from pydantic import ValidationError

from stemstore_schemas import DIMS, FRAME_DIM, Axis
from stemstore_schemas.axis import check_axes


def test_coordinates_start_at_the_origin():
    """The origin is the coordinate of index 0; negative steps are legal."""
    axis = Axis(name="ky", size=3, unit="1/angstrom", step=-0.5, origin=0.5, source="measured")
    np.testing.assert_array_equal(axis.coordinates(), [0.5, 0.0, -0.5])


def test_a_plain_axis_counts_pixels():
    """Without a calibration an axis is the pixel index."""
    axis = Axis(name="x", size=4)
    assert (axis.unit, axis.source) == ("pixel", None)
    np.testing.assert_array_equal(axis.coordinates(), [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "greater than 0"), ({"step": 0.0}, "axis 'y' has step 0"), ({"step": float("nan")}, "finite"),
        ({"origin": float("inf")}, "finite"), ({"step": 1e308, "size": 9}, "ends beyond the largest number"),
        ({"unit": "nm"}, "axis 'y' is in 'nm' but does not say where"), ({"unit": "px"}, "Input should be 'nm'"),
        ({"name": "a b"}, "pattern"), ({"units": "nm"}, "Extra inputs are not permitted"),
    ],
)  # fmt: skip
def test_impossible_axes_are_refused(wrong, message):
    """Sizes are positive, steps finite and not zero, units listed, calibrations say where they come from."""
    with pytest.raises(ValidationError, match=message):
        Axis(**{"name": "y", "size": 3, **wrong})


def named(*names):
    return [Axis(name=name, size=2) for name in names]


@pytest.mark.parametrize("names", [DIMS, (FRAME_DIM, *DIMS), (FRAME_DIM, "ky", "kx"), ("time", "tilt", *DIMS)])
def test_orders_that_are_legal(names):
    """Further scan axes come in front; a stack has the frame axis alone."""
    assert check_axes(named(*names)) == named(*names)


@pytest.mark.parametrize(
    "names",
    [
        ("ky", "kx"), ("x", "y", "ky", "kx"), ("y", "x", "kx", "ky"), ("y", "x", "frame", "ky", "kx"),
        ("y", "y", "ky", "kx"), ("x", "ky", "kx"), (),
    ],
)  # fmt: skip
def test_orders_that_are_refused(names):
    """Detector axes are last, y and x right before them, and no name occurs twice."""
    with pytest.raises(ValueError, match="expected each name once, scan axes first"):
        check_axes(named(*names))
