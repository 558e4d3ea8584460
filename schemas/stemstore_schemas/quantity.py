"""A value with its unit and its origin."""

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field

from stemstore_schemas.record import Number, Record, ValueSource
from stemstore_schemas.units import Unit, UnitError, convert_value


class Quantity(Record):
    """A value, its unit, where it comes from, and how sure it is."""

    value: Number = Field(description="The number, in `unit`; NaN and infinity are written as strings.")
    unit: Unit = Field(description="Unit of value and uncertainty.")
    source: ValueSource = Field(description="Where the value comes from.")
    uncertainty: Number | None = Field(
        default=None, description="Standard uncertainty in `unit`; null when it is not known."
    )

    def to(self, unit: Unit) -> "Quantity":
        """Express the quantity in another listed unit of the same dimension; `UnitError` where there is none."""
        if unit == self.unit:
            return self
        spread = None if self.uncertainty is None else convert_value(self.uncertainty, self.unit, unit)
        return Quantity(
            value=convert_value(self.value, self.unit, unit), unit=unit, source=self.source, uncertainty=spread
        )


def _in(*units: Unit) -> Callable[[Quantity], Quantity]:
    """Make a check that a quantity is in one of `units`."""

    def check(quantity: Quantity) -> Quantity:
        if quantity.unit in units:
            return quantity
        expected = " or ".join(repr(unit) for unit in units)
        try:
            quantity.to(units[0])
            hint = f"convert it with .to({units[0]!r})"
        except UnitError:
            hint = "give it in that unit"
        msg = f"got the unit {quantity.unit!r}, expected {expected}; {hint}"
        raise ValueError(msg)

    return check


Energy = Annotated[Quantity, AfterValidator(_in("keV"))]
"""A quantity in keV."""

Angle = Annotated[Quantity, AfterValidator(_in("mrad"))]
"""A quantity in mrad."""

Rotation = Annotated[Quantity, AfterValidator(_in("deg"))]
"""A quantity in deg."""

Distance = Annotated[Quantity, AfterValidator(_in("mm"))]
"""A quantity in mm: lengths of the column."""

Length = Annotated[Quantity, AfterValidator(_in("nm"))]
"""A quantity in nm: lengths at the specimen."""

PixelPitch = Annotated[Quantity, AfterValidator(_in("mm", "nm"))]
"""A quantity in mm or nm: lengths on the detector."""

Duration = Annotated[Quantity, AfterValidator(_in("s"))]
"""A quantity in s."""

DetectorStep = Annotated[Quantity, AfterValidator(_in("1/angstrom", "mrad"))]
"""A quantity in 1/angstrom or mrad: sizes of detector pixels on the diffraction plane."""

PixelPlace = Annotated[Quantity, AfterValidator(_in("pixel"))]
"""A quantity in stored pixels: places on the detector."""
