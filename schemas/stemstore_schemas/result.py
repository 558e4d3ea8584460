"""What a store says about a result that was saved into it."""

from typing import Literal

from pydantic import Field, model_validator

from stemstore_schemas.provenance import HistoryEntry
from stemstore_schemas.record import FreeDocument, Instant, Record, Uuid


class ResultDocument(Record):
    """A saved result: arrays of one group of a store, what they are and where they come from."""

    kind: Literal["stemstore.result"] = Field(default="stemstore.result", description="Kind of the document.")
    version: Literal[1] = Field(default=1, description="Version of the kind.")
    uuid: Uuid = Field(description="Identity of the result; a new one whenever it is saved anew.")
    scan: Uuid = Field(description="Identity of the scan in whose store it lies.")
    name: str = Field(min_length=1, description="Name of the result: its group is derived/<name>.")
    form: Literal["array", "dataset"] = Field(description="Whether one labelled array was saved or several together.")
    array_name: str | None = Field(default=None, description="Name that the one array had itself, if any.")
    variables: list[str] = Field(min_length=1, description="Arrays of the group that are data; one if form is array.")
    coordinates: list[str] = Field(default=[], description="Arrays of the group that are coordinates.")
    texts: list[str] = Field(
        default=[], description="Coordinates that are texts: their values number the attribute `labels`."
    )
    parameters: FreeDocument = Field(default={}, description="What the user noted about the result.")
    history: list[HistoryEntry] = Field(
        default=[],
        description="Operations, oldest first, the saving last; an operation has the time of the saving, which ran it.",
    )
    time: Instant = Field(description="When the saving began, ISO 8601, UTC.")

    @model_validator(mode="after")
    def _check_form(self) -> "ResultDocument":
        if self.form == "array" and len(self.variables) != 1:
            msg = f"form is 'array' with variables {self.variables}; expected one"
            raise ValueError(msg)
        if odd := sorted(set(self.texts) - set(self.coordinates)):
            msg = f"texts {odd} are no coordinates; expected some of {self.coordinates}"
            raise ValueError(msg)
        return self
