"""Quantities and the units that fields demand."""

import pytest
from pydantic import ValidationError

from stemstore_schemas import Acquisition, Detector, Quantity, UnitError


def quantity(value, unit):
    return Quantity(value=value, unit=unit, source="header")


def test_conversion_carries_source_and_uncertainty():
    """A converted quantity keeps its origin and scales its uncertainty."""
    angle = Quantity(value=0.0214, unit="rad", source="measured", uncertainty=0.0001).to("mrad")
    assert (angle.value, angle.uncertainty) == pytest.approx((21.4, 0.1))
    assert (angle.unit, angle.source) == ("mrad", "measured")


def test_conversion_to_another_dimension_is_refused():
    """A length is no angle."""
    with pytest.raises(UnitError, match=r"cannot convert 'nm' \(length\) to 'mrad' \(angle\)"):
        quantity(1, "nm").to("mrad")


def test_units_outside_the_list_are_refused():
    """Foreign spellings do not get into a store."""
    with pytest.raises(ValidationError, match="Input should be 'nm', 'angstrom', '1/angstrom'"):
        quantity(1, "A^-1")


@pytest.mark.parametrize(
    ("field", "unit"),
    [
        ("beam_energy", "keV"), ("semi_convergence_angle", "mrad"), ("camera_length", "mm"), ("dwell_time", "s"),
        ("exposure_time", "s"), ("frame_period", "s"), ("scan_rotation", "deg"), ("defocus", "nm"),
    ],
)  # fmt: skip
def test_fields_demand_their_unit(field, unit):
    """Each field takes one unit and names it when it gets another."""
    assert getattr(Acquisition(**{field: quantity(1, unit)}), field).unit == unit
    with pytest.raises(ValidationError, match=f"got the unit 'count', expected '{unit}'; give it in that unit"):
        Acquisition(**{field: quantity(1, "count")})


def test_the_message_tells_how_to_convert():
    """Where a conversion exists, the message says which."""
    with pytest.raises(ValidationError, match=r"got the unit 'rad', expected 'mrad'; convert it with .to\('mrad'\)"):
        Acquisition(semi_convergence_angle=quantity(0.02, "rad"))


def test_pixel_size_is_a_length():
    """The pitch of detector pixels is in mm or nm."""
    assert Detector(pixel_size=(quantity(0.15, "mm"), quantity(5000, "nm"))).pixel_size[1].unit == "nm"
    with pytest.raises(ValidationError, match="expected 'mm' or 'nm'"):
        Detector(pixel_size=(quantity(1, "mm"), quantity(1, "pixel")))
