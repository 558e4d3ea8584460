"""Axes change units without moving."""

import numpy as np
import pytest

from stemstore.errors import CalibrationMissingError
from stemstore.scan.coordinates import optic_axis, scan_coordinates, unit_factor
from stemstore_schemas import Axis


@pytest.mark.parametrize(
    ("own", "unit", "energy", "factor"),
    [
        ("mrad", "1/angstrom", 300, 1e-3 / 0.0196875),
        ("1/angstrom", "mrad", 200, 25.0793),
        ("1/nm", "1/angstrom", None, 0.1),
        ("rad", "mrad", None, 1000),
        ("nm", "angstrom", None, 10),
        ("1/nm", "mrad", 80, 4.17572),
        ("mrad", "1/nm", 80, 1 / 4.17572),
    ],
)
def test_factors(own, unit, energy, factor):
    """Angles and reciprocal lengths are related by the relativistic wavelength."""
    assert unit_factor(own, unit, energy, "ky") == pytest.approx(factor, rel=1e-5)


@pytest.mark.parametrize(
    ("own", "unit"), [("mrad", "1/angstrom"), ("pixel", "mrad"), ("nm", "mrad"), ("nm", "furlong")]
)
def test_factors_that_are_not_known(own, unit):
    """The message names axis and units."""
    with pytest.raises(CalibrationMissingError, match=f"'ky' is in '{own}'"):
        unit_factor(own, unit, None, "ky")


def test_coordinates_carry_units_and_pixel_numbers():
    """Index coordinates are physical; pixel numbers stand beside them."""
    axes = [Axis(name="ky", size=4, unit="mrad", step=0.5, origin=-1.0, source="user"), Axis(name="kx", size=3)]
    coords = scan_coordinates(axes)
    np.testing.assert_array_equal(coords["ky"], [-1.0, -0.5, 0.0, 0.5])
    assert coords["ky"].attrs["units"] == "mrad"
    np.testing.assert_array_equal(coords["kx"], coords["kx_pixel"])


def test_optic_axis_in_pixels_follows_the_calibration(frames_of):
    """A calibrated zero lies between pixels where it was put."""
    ds = frames_of(np.zeros((2, 2, 8, 6), np.uint8), detector_step=0.5, detector_center=(3.25, 2))
    assert optic_axis(ds.intensity, "ky", "pixel") == pytest.approx(3.25)
    assert optic_axis(ds.intensity, "ky", None) == 0.0
    plain = frames_of(np.zeros((2, 2, 8, 6), np.uint8))
    assert optic_axis(plain.intensity.isel(ky=slice(2, None)), "ky", None) == 3.5
