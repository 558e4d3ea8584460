"""What a group of scans says about them: which they are, and in what order."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stemstore_schemas.record import Finite, Instant, Record, Time, Uuid
from stemstore_schemas.units import Unit

TAKEN_DIMS = ("y", "x", "ky", "kx", "frame", "scan")
"""Names that the leading axis of a series cannot have: scans have axes of these names, or it has another meaning."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]


class SeriesScan(Record):
    """One scan of a series."""

    name: Name = Field(description="Name of the scan, its label along the series.")
    path: Name = Field(description="Name of the store inside the group.")
    uuid: Uuid = Field(description="Identity of the scan; its store has to carry the same.")
    order: Finite | None = Field(default=None, description="Place along the series, in `unit`, such as time or tilt.")
    start_time: Time | None = Field(default=None, description="Start of the acquisition, ISO 8601, with zone if known.")
    title: str | None = Field(default=None, description="What the scan is called where its name is not enough.")
    source: str | None = Field(
        default=None, description="Digest of the digests of the raw files: algorithm, colon, hexadecimal."
    )
    added: Instant = Field(description="When the scan was entered, ISO 8601, UTC.")


class SeriesDocument(Record):
    """Everything that a group says about the scans in it; the scans themselves are stores of their own."""

    kind: Literal["stemstore.series"] = Field(default="stemstore.series", description="Kind of the document.")
    version: Literal[1] = Field(default=1, description="Version of the kind.")
    uuid: Uuid = Field(description="Identity of the series; stays while scans are added.")
    title: str | None = Field(default=None, description="What the experiment is called.")
    dim: str = Field(
        default="time", pattern=r"^[A-Za-z][A-Za-z0-9_]*$", description="Name of the axis along which the scans follow."
    )
    unit: Unit | None = Field(default=None, description="Unit of `order`; null where it has none.")
    scans: list[SeriesScan] = Field(default=[], description="Scans in the order in which the series shows them.")
    time: Instant = Field(description="When the document was written, ISO 8601, UTC.")

    @model_validator(mode="after")
    def _check_scans(self) -> "SeriesDocument":
        for name in ("name", "path", "uuid"):
            values = [getattr(scan, name) for scan in self.scans]
            if twice := sorted({value for value in values if values.count(value) > 1}):
                msg = f"{name} {', '.join(map(repr, twice))} occurs twice; every scan of a series has its own"
                raise ValueError(msg)
        placed = [scan.name for scan in self.scans if scan.order is not None]
        if placed and len(placed) < len(self.scans):
            without = next(scan.name for scan in self.scans if scan.order is None)
            msg = f"scan {placed[0]!r} has an order and scan {without!r} has none; give one to all scans or to none"
            raise ValueError(msg)
        if self.dim in TAKEN_DIMS:
            msg = f"dim is {self.dim!r}, the name of another axis; choose one such as 'time' or 'tilt'"
            raise ValueError(msg)
        return self
