"""The documents that a store contains, and the only door through which they are read and written."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from stemstore_schemas.acquisition import Acquisition
from stemstore_schemas.axis import Axis, check_axes
from stemstore_schemas.calibration import CalibrationDocument
from stemstore_schemas.counting import CountingDescription, EventEncoding
from stemstore_schemas.detector import Detector
from stemstore_schemas.provenance import HistoryEntry, SourceFile
from stemstore_schemas.record import FreeDocument, Instant, Integer, Record, Uuid
from stemstore_schemas.result import ResultDocument
from stemstore_schemas.series import SeriesDocument


class DocumentError(ValueError):
    """A document is not of the expected kind.

    Attributes
    ----------
    found
        What the document says.
    known
        What this release reads.
    """

    def __init__(self, message: str, found: Any, known: tuple[Any, ...]) -> None:
        super().__init__(message)
        self.found = found
        self.known = known

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the context when the error crosses a process border."""
        return (type(self), (str(self), self.found, self.known))


class SchemaVersionError(DocumentError):
    """A document has a version that this release does not know."""


class FrameCounts(Record):
    """How many frames of a scan are complete."""

    valid: Integer = Field(ge=0, description="Complete frames.")
    partial: Integer = Field(default=0, ge=0, description="Frames that lack some sectors.")
    missing: Integer = Field(default=0, ge=0, description="Frames of which nothing was recorded.")

    @property
    def total(self) -> int:
        """Number of frames of any state."""
        return self.valid + self.partial + self.missing


class SourceMetadata(Record):
    """What a reader learns from raw files; every part may be empty."""

    acquisition: Acquisition = Field(default=Acquisition(), description="Beam, optics and scan geometry.")
    detector: Detector = Field(default=Detector(), description="The detector.")
    axes: list[Axis] = Field(default=[], description="Calibrated axes that the files know; others are pixel indices.")
    vendor: FreeDocument = Field(default={}, description="The original header, verbatim.")
    warnings: list[str] = Field(default=[], description="What was odd about the files.")
    files: list[SourceFile] = Field(default=[], description="The files that were read.")
    counting: CountingDescription | None = Field(default=None, description="How events were counted; null for frames.")


class ScanDocument(Record):
    """Everything that a store says about its scan."""

    kind: Literal["stemstore.scan"] = Field(default="stemstore.scan", description="Kind of the document.")
    version: Literal[1] = Field(default=1, description="Version of the kind.")
    uuid: Uuid = Field(description="Identity of the store; a new one whenever the data are written anew.")
    profile: Literal["dense", "counted"] = Field(description="Whether the store holds frames or electron events.")
    axes: Annotated[list[Axis], AfterValidator(check_axes)] = Field(description="Axes in array order.")
    acquisition: Acquisition = Field(default=Acquisition(), description="Beam, optics and scan geometry.")
    detector: Detector = Field(default=Detector(), description="The detector.")
    counting: CountingDescription | None = Field(default=None, description="How events were counted; null for frames.")
    encoding: EventEncoding | None = Field(default=None, description="Layout of the events; null in the dense profile.")
    frames: FrameCounts = Field(description="How many frames are complete.")
    history: list[HistoryEntry] = Field(default=[], description="What was done, oldest first.")
    vendor: FreeDocument = Field(default={}, description="The original header, verbatim.")

    @model_validator(mode="after")
    def _check_profile(self) -> "ScanDocument":
        if (self.profile == "counted") != (self.encoding is not None):
            held = "no encoding" if self.encoding is None else f"the encoding {self.encoding.kind!r}"
            msg = f"profile is {self.profile!r} with {held}; a counted scan has an encoding, a dense one has none"
            raise ValueError(msg)
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of all axes, as stored."""
        return tuple(axis.size for axis in self.axes)


class CommitDocument(Record):
    """The last object of a finished store."""

    kind: Literal["stemstore.commit"] = Field(default="stemstore.commit", description="Kind of the document.")
    version: Literal[1] = Field(default=1, description="Version of the kind.")
    uuid: Uuid = Field(description="Identity of the store, equal to that of its scan document.")
    n_shards: Integer = Field(ge=0, description="Number of shards written.")
    n_bytes: Integer = Field(ge=0, description="Bytes of all shards.")
    metadata_digest: str = Field(min_length=1, description="Digest of the metadata: algorithm, colon, hexadecimal.")
    shards_digest: str = Field(min_length=1, description="Digest of the table of shard checksums, written likewise.")
    time: Instant = Field(description="When the store was finished, ISO 8601, UTC.")


Document = TypeVar("Document", bound=Record)

DOCUMENTS: dict[str, dict[int, type[Record]]] = {
    "stemstore.scan": {1: ScanDocument},
    "stemstore.commit": {1: CommitDocument},
    "stemstore.result": {1: ResultDocument},
    "stemstore.calibration": {1: CalibrationDocument},
    "stemstore.series": {1: SeriesDocument},
}
"""Every persisted kind with its versions, newest last."""


def load_document(document: Mapping[str, Any]) -> ScanDocument:
    """Check the metadata document of a store and bring it to the newest version in memory.

    Raises
    ------
    SchemaVersionError
        The document was written by a newer release, or has no version that is known.
    DocumentError
        It is a document of another kind.
    pydantic.ValidationError
        A key is unknown, missing or wrong; also a ``ValueError``.
    """
    return _load(document, "stemstore.scan", ScanDocument)


def load_commit(document: Mapping[str, Any]) -> CommitDocument:
    """Check the commit document of a store; errors as for `load_document`."""
    return _load(document, "stemstore.commit", CommitDocument)


def load_calibration(document: Mapping[str, Any]) -> CalibrationDocument:
    """Check the calibration document of a store; errors as for `load_document`."""
    return _load(document, "stemstore.calibration", CalibrationDocument)


def load_result(document: Mapping[str, Any]) -> ResultDocument:
    """Check the document of a saved result; errors as for `load_document`."""
    return _load(document, "stemstore.result", ResultDocument)


def load_series(document: Mapping[str, Any]) -> SeriesDocument:
    """Check the document of a group of scans; errors as for `load_document`."""
    return _load(document, "stemstore.series", SeriesDocument)


def dump_document(document: Record) -> dict[str, Any]:
    """Write a document as plain JSON values: NaN and infinity as strings, tuples as lists."""
    return json.loads(document.model_dump_json())


def _load(document: Mapping[str, Any], kind: str, newest: type[Document]) -> Document:
    if (found := document.get("kind")) != kind:
        msg = f"document is of kind {found!r}, expected {kind!r}; check that the path leads to a stemstore object"
        raise DocumentError(msg, found, (kind,))
    version, known = document.get("version"), tuple(DOCUMENTS[kind])
    if type(version) is not int or version not in known:  # True equals 1 and is no version
        newer = isinstance(version, int) and version > max(known)
        hint = "install a newer stemstore" if newer else "the document is damaged or not ours"
        listed = ", ".join(str(number) for number in known)
        msg = f"{kind} document has version {version!r}, this release reads version {listed}; {hint}"
        raise SchemaVersionError(msg, version, known)
    return newest.model_validate(dict(document))
