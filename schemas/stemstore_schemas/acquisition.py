"""How a scan was acquired: beam, optics and scan geometry."""

import math
from typing import Annotated

from pydantic import Field, model_validator

from stemstore_schemas.quantity import Angle, Distance, Duration, Energy, Length, Rotation
from stemstore_schemas.record import Integer, Number, Record, Time, ValueSource

Extent = Annotated[Integer, Field(gt=0)]
ScanShape = tuple[Extent, ...]


class Acquisition(Record):
    """Beam, optics and scan geometry, as far as they are known."""

    beam_energy: Energy | None = Field(default=None, description="Kinetic energy of the beam electrons, keV.")
    semi_convergence_angle: Angle | None = Field(default=None, description="Half opening angle of the probe, mrad.")
    camera_length: Distance | None = Field(default=None, description="Effective specimen to detector distance, mm.")
    defocus: Length | None = Field(
        default=None, description="Defocus, nm; positive is underfocus, so that the aberration C10 is its negative."
    )
    magnification: Number | None = Field(default=None, description="Nominal magnification, no unit.")
    dwell_time: Duration | None = Field(default=None, description="Time the probe stays at one position, s.")
    exposure_time: Duration | None = Field(default=None, description="Time the detector integrates one frame, s.")
    frame_period: Duration | None = Field(default=None, description="Time from one frame to the next, s.")
    scan_rotation: Rotation | None = Field(
        default=None,
        description="Angle by which detector coordinates must be rotated (row towards column positive) to be parallel "
        "to the scan coordinates, deg. Never applied to stored data.",
    )
    scan_shape: ScanShape | None = Field(
        default=None, min_length=1, description="Extents of the scan axes, slow first, flyback columns included."
    )
    scan_shape_source: ValueSource | None = Field(default=None, description="Where the scan shape comes from.")
    scan_shape_alternatives: list[ScanShape] = Field(
        default=[], description="Other scan shapes that fit the number of frames."
    )
    flyback_columns: Integer = Field(
        default=0, ge=0, description="Columns at the end of each row recorded while the beam flew back."
    )
    sync_offset: Integer = Field(
        default=0, description="Frames skipped before the first position; negative: blank frames inserted before it."
    )
    frames_per_position: Integer = Field(default=1, gt=0, description="Frames recorded at each position.")
    start_time: Time | None = Field(default=None, description="Start of the acquisition, ISO 8601, with zone if known.")
    scan_number: Integer | None = Field(default=None, description="Number that the acquisition system gave the scan.")
    instrument: str | None = Field(default=None, description="Name of the microscope.")
    operator: str | None = Field(default=None, description="Who acquired the scan.")
    sample: str | None = Field(default=None, description="Name of the specimen.")

    @model_validator(mode="after")
    def _check_scan(self) -> "Acquisition":
        if (self.scan_shape is None) != (self.scan_shape_source is None):
            msg = (
                f"scan_shape is {self.scan_shape} and scan_shape_source is {self.scan_shape_source!r}; "
                "give both or none: a scan shape says where it comes from"
            )
            raise ValueError(msg)
        if self.scan_shape is not None and self.flyback_columns >= self.scan_shape[-1]:
            msg = (
                f"flyback_columns is {self.flyback_columns}, but rows of scan_shape {self.scan_shape} have "
                f"{self.scan_shape[-1]} columns in all; scan_shape includes the flyback columns"
            )
            raise ValueError(msg)
        return self

    @property
    def n_positions(self) -> int | None:
        """Number of scan positions, flyback included; None while the scan shape is unknown."""
        return None if self.scan_shape is None else math.prod(self.scan_shape)
