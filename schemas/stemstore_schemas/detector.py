"""The detector: its shape, sectors, orientation and corrections."""

from typing import Annotated

from pydantic import Field, model_validator

from stemstore_schemas.quantity import Energy, PixelPitch
from stemstore_schemas.record import Integer, Number, Record

Extent = Annotated[Integer, Field(gt=0)]
Edge = Annotated[Integer, Field(ge=0)]
ArrayName = Annotated[str, Field(min_length=1)]


class Sector(Record):
    """A rectangle of the detector that is read out on its own."""

    name: str = Field(min_length=1, description="Name of the sector in the acquisition system.")
    rows: tuple[Edge, Edge] = Field(description="Half-open range of detector rows: first, one past the last.")
    columns: tuple[Edge, Edge] = Field(description="Half-open range of detector columns: first, one past the last.")

    @model_validator(mode="after")
    def _check_ranges(self) -> "Sector":
        for what, (start, stop) in (("rows", self.rows), ("columns", self.columns)):
            if start >= stop:
                msg = f"sector {self.name!r} has {what} {start}..{stop}, expected start < stop; give a half-open range"
                raise ValueError(msg)
        return self


class Detector(Record):
    """The detector as it wrote the frames; nothing named here has been applied to the stored data."""

    name: str | None = Field(default=None, description="Name of the detector.")
    shape: tuple[Extent, Extent] | None = Field(default=None, description="Detector rows and columns, pixel.")
    pixel_size: tuple[PixelPitch, PixelPitch] | None = Field(
        default=None, description="Physical pitch of rows and of columns, mm or nm."
    )
    sectors: list[Sector] = Field(default=[], description="Parts that are read out on their own; empty for one part.")
    binning: tuple[Extent, Extent] | None = Field(
        default=None, description="Physical pixels per stored pixel along rows and columns."
    )
    flip: tuple[bool, bool] | None = Field(
        default=None,
        description="Whether stored rows (first) and columns (second) run against the image convention; null: unknown.",
    )
    transpose: bool | None = Field(
        default=None, description="Whether stored rows and columns are exchanged; null: unknown."
    )
    counter_depth: Integer | None = Field(default=None, gt=0, description="Bits of the pixel counters.")
    thresholds: list[Energy] = Field(default=[], description="Energy thresholds of a counting detector, keV.")
    counts_per_electron: Number | None = Field(default=None, description="Mean stored value of one electron, count.")
    mask: ArrayName | None = Field(
        default=None, description="Name of the array in calibration/ that is true at usable pixels."
    )
    gain: ArrayName | None = Field(default=None, description="Name of the gain reference in calibration/.")
    dark: ArrayName | None = Field(default=None, description="Name of the dark reference in calibration/.")

    @model_validator(mode="after")
    def _check_sectors(self) -> "Detector":
        names = [sector.name for sector in self.sectors]
        if len(set(names)) != len(names):
            msg = f"sectors are called {names}, expected each name once; rename them"
            raise ValueError(msg)
        for sector in self.sectors:
            if self.shape and (sector.rows[1] > self.shape[0] or sector.columns[1] > self.shape[1]):
                msg = (
                    f"sector {sector.name!r} ends at row {sector.rows[1]}, column {sector.columns[1]}, outside the "
                    f"detector of shape {self.shape}; correct the sector or the shape"
                )
                raise ValueError(msg)
        return self
