"""What our fields are called elsewhere, with the factor between our unit and theirs.

One table for importers and exporters. A place is left empty where the other side has no field of the same meaning, or
where its sign or unit is not settled (defocus in NeXus, dwell time in HyperSpy).

Sources: NeXus application definition NXem and base classes NXem_optical_system, NXebeam_column
(FAIRmat-NFDI/nexus_definitions); HyperSpy user guide, "Metadata structure"; NCEM EMD 0.2 files as ncempy writes
them (ercius/openNCEM).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Target = Literal["nexus", "hyperspy", "emd"]


@dataclass(frozen=True, slots=True)
class ForeignField:
    """A field of another format.

    Attributes
    ----------
    path
        NeXus: path below the entry; HyperSpy: path in the metadata tree; EMD: group and attribute.
    unit
        Unit over there, as text; empty for texts and pure numbers.
    factor
        Their number is ours times `factor`.
    """

    path: str
    unit: str = ""
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class FieldMapping:
    """One of our fields, by its path in the scan document, and its counterparts."""

    field: str
    nexus: ForeignField | None = None
    hyperspy: ForeignField | None = None
    emd: ForeignField | None = None


_EVENT_OPTICS = "measurement/eventID/instrument/optics"

MAPPINGS: tuple[FieldMapping, ...] = (
    FieldMapping(
        "acquisition.beam_energy",
        nexus=ForeignField("measurement/instrument/ebeam_column/electron_source/voltage", "V", 1000.0),
        hyperspy=ForeignField("Acquisition_instrument.TEM.beam_energy", "keV"),
        emd=ForeignField("microscope/high tension", "V", 1000.0),
    ),
    FieldMapping(
        "acquisition.semi_convergence_angle",
        nexus=ForeignField(f"{_EVENT_OPTICS}/semi_convergence_angle", "mrad"),
        hyperspy=ForeignField("Acquisition_instrument.TEM.convergence_angle", "mrad"),
        emd=ForeignField("microscope/convergence angle", "rad", 1e-3),
    ),
    FieldMapping(
        "acquisition.camera_length",
        nexus=ForeignField(f"{_EVENT_OPTICS}/camera_length", "mm"),
        hyperspy=ForeignField("Acquisition_instrument.TEM.camera_length", "mm"),
        emd=ForeignField("microscope/camera length", "m", 1e-3),
    ),
    FieldMapping(
        "acquisition.magnification",
        nexus=ForeignField(f"{_EVENT_OPTICS}/magnification"),
        hyperspy=ForeignField("Acquisition_instrument.TEM.magnification"),
        emd=ForeignField("microscope/magnification"),
    ),
    FieldMapping("acquisition.dwell_time", emd=ForeignField("microscope/dwell time", "s")),
    FieldMapping(
        "acquisition.exposure_time", hyperspy=ForeignField("Acquisition_instrument.TEM.Detector.Camera.exposure", "s")
    ),
    FieldMapping("acquisition.start_time", nexus=ForeignField("start_time")),
    FieldMapping(
        "acquisition.instrument",
        nexus=ForeignField("measurement/instrument/name"),
        hyperspy=ForeignField("Acquisition_instrument.TEM.microscope"),
    ),
)


def foreign_fields(target: Target) -> dict[str, ForeignField]:
    """Our field paths and their counterparts in one other format."""
    found = {mapping.field: getattr(mapping, target) for mapping in MAPPINGS}
    return {field: foreign for field, foreign in found.items() if foreign is not None}
