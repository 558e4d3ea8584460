"""What was stated or measured about a scan after its acquisition: energies, steps, directions, distortion."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stemstore_schemas.provenance import HistoryEntry
from stemstore_schemas.quantity import Angle, DetectorStep, Distance, Energy, Length, PixelPlace, Rotation
from stemstore_schemas.record import Finite, Number, Record, Uuid, ValueSource

Row = tuple[Finite, Finite]
Positive = Annotated[Finite, Field(gt=0)]


class Ellipse(Record):
    """Elliptic distortion of the diffraction plane and the matrix that takes it away."""

    matrix: tuple[Row, Row] = Field(
        description="Corrected vector = matrix times measured vector; vectors are (row, column) in stored pixels, "
        "counted from the optic axis."
    )
    a: Positive | None = Field(default=None, description="Semi-axis along theta, in pixels or any other unit.")
    b: Positive | None = Field(default=None, description="The other semi-axis, in the unit of a.")
    theta: Finite | None = Field(
        default=None, description="Direction of the semi-axis a, rows towards columns positive, deg."
    )
    source: ValueSource = Field(default="user", description="Where the ellipse comes from.")
    uncertainty: Number | None = Field(default=None, description="Standard uncertainty of a / b; null: not known.")

    @model_validator(mode="after")
    def _check(self) -> "Ellipse":
        (p, q), (r, s) = self.matrix
        if not p * s - q * r > 0:
            msg = f"the matrix of the ellipse is {self.matrix}, expected a positive determinant; check a, b and theta"
            raise ValueError(msg)
        if len({value is None for value in (self.a, self.b, self.theta)}) > 1:
            msg = f"the ellipse has a={self.a}, b={self.b}, theta={self.theta}; give all three or none"
            raise ValueError(msg)
        return self

    @classmethod
    def of_axes(cls, a: float, b: float, theta: float, **about: object) -> "Ellipse":
        """Make the ellipse of semi-axes a and b, with a along `theta` (deg): lengths along it shrink by b / a.

        Notes
        -----
        T = 1 - (1 - b / a) u u', with u = (cos theta, sin theta) on (row, column): the correction of py4DSTEM
        (Savitzky et al., Microsc. Microanal. 27, 712, 2021), whose determinant is b / a.
        """
        row, column = math.cos(math.radians(theta)), math.sin(math.radians(theta))
        rest = 1 - b / a
        matrix = ((1 - rest * row * row, -rest * row * column), (-rest * row * column, 1 - rest * column * column))
        return cls.model_validate({"matrix": matrix, "a": a, "b": b, "theta": theta, **about})


class CalibrationValues(Record):
    """What is stated about a scan, in place of what its files say; null means not stated."""

    beam_energy: Energy | None = Field(default=None, description="Kinetic energy of the beam electrons, keV.")
    semi_convergence_angle: Angle | None = Field(default=None, description="Half opening angle of the probe, mrad.")
    camera_length: Distance | None = Field(default=None, description="Effective specimen to detector distance, mm.")
    scan_rotation: Rotation | None = Field(
        default=None,
        description="Angle by which detector vectors must be rotated (row towards column positive) to be parallel to "
        "the scan axes, deg; a transposition comes first. Never applied to stored data.",
    )
    scan_step: tuple[Length, Length] | None = Field(default=None, description="Distance of positions along y and x.")
    detector_step: tuple[DetectorStep, DetectorStep] | None = Field(
        default=None, description="Size of a detector pixel along ky and kx, mrad or 1/angstrom."
    )
    detector_center: tuple[PixelPlace, PixelPlace] | None = Field(
        default=None, description="Where the optic axis lies along ky and kx, stored pixels from 0, not rounded."
    )
    detector_transpose: bool | None = Field(
        default=None, description="Whether (row, column) of a detector vector are exchanged before the rotation."
    )
    ellipse: Ellipse | None = Field(default=None, description="Elliptic distortion of the diffraction plane.")

    @model_validator(mode="after")
    def _check_steps(self) -> "CalibrationValues":
        for pair in (self.scan_step, self.detector_step):
            if pair is not None and not all(one.value > 0 for one in pair):
                msg = f"steps are {[one.value for one in pair]}, expected numbers above zero"
                raise ValueError(msg)
        return self

    def merged(self, newer: "CalibrationValues") -> "CalibrationValues":
        """Put what `newer` states in the place of these values."""
        names = CalibrationValues.model_fields
        stated = {name: getattr(newer, name) for name in names if getattr(newer, name) is not None}
        return CalibrationValues.model_validate({name: getattr(self, name) for name in names} | stated)


class CalibrationDocument(CalibrationValues):
    """The calibration that a store keeps beside its scan."""

    kind: Literal["stemstore.calibration"] = Field(default="stemstore.calibration", description="Kind of the document.")
    version: Literal[1] = Field(default=1, description="Version of the kind.")
    uuid: Uuid = Field(description="Identity of the scan that the calibration belongs to.")
    arrays: list[str] = Field(default=[], description="Arrays beside the document: origin_ky, dark and so on.")
    history: list[HistoryEntry] = Field(
        default=[], description="Every time it was saved, oldest first, with the values of that time."
    )
