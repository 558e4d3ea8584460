"""Where data come from and what was done to them."""

from pydantic import Field

from stemstore_schemas.record import FreeDocument, Instant, Integer, Number, Record, Time, Uuid


class SourceFile(Record):
    """A file or store that went into a result."""

    path: str = Field(min_length=1, description="Path or URL as it was given.")
    size: Integer = Field(ge=0, description="Size in bytes.")
    mtime: Time | None = Field(default=None, description="Time of the last modification, ISO 8601.")
    digest: str | None = Field(default=None, description="Digest of the content: algorithm, colon, hexadecimal digits.")
    uuid: Uuid | None = Field(default=None, description="Identity of a store; null for a plain file.")


class HistoryEntry(Record):
    """One operation. Entries are appended and never changed."""

    operation: str = Field(min_length=1, description="Name of the operation.")
    operation_version: Integer = Field(default=1, gt=0, description="Version of the meaning of its parameters.")
    parameters: FreeDocument = Field(default={}, description="All parameters after defaults.")
    inputs: list[SourceFile] = Field(default=[], description="Files and stores that were read.")
    outputs: dict[str, str] = Field(default={}, description="Names of the results and their digests.")
    software: dict[str, str] = Field(default={}, description="Package names and versions.")
    environment: FreeDocument = Field(
        default={}, description="Where it ran: Python, operating system, container, scheduler, workers."
    )
    time: Instant = Field(description="Start of the operation, ISO 8601, UTC.")
    wall_seconds: Number | None = Field(default=None, description="How long it took, s.")
    host: str | None = Field(default=None, description="Class of the machine.")
    agent: str | None = Field(default=None, description="Person or ORCID, where configured.")
    warnings: list[str] = Field(default=[], description="Warnings that were raised.")
    seed: Integer | None = Field(default=None, description="Seed of the random numbers.")
