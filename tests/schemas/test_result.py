"""The document of a saved result."""

import json

import jsonschema
import pytest
from pydantic import ValidationError

from stemstore_schemas import (
    DocumentError,
    HistoryEntry,
    ResultDocument,
    SchemaVersionError,
    dump_document,
    load_document,
    load_result,
)
from stemstore_schemas.export import json_schemas

TIME = "2024-05-17T09:30:00+00:00"
UUID = "0b7c6f3e-7a1d-4f0e-9c6a-2f6d5b1a9e10"


def result(**changes):
    known = {"uuid": UUID, "scan": UUID, "name": "adf", "form": "array", "variables": ["adf"], "time": TIME}
    return ResultDocument(**(known | changes))


def test_results_survive_json():
    """The document is read back as written, NaN among the parameters as text, and keeps its published schema."""
    entry = HistoryEntry(operation="virtual_image", parameters={"radius": float("nan")}, time=TIME)
    written = result(coordinates=["y", "which"], texts=["which"], history=[entry], parameters={"note": [1, None]})
    text = json.dumps(dump_document(written), allow_nan=False)
    assert load_result(json.loads(text)) == written
    jsonschema.validate(json.loads(text), json_schemas()["stemstore.result-v1.json"])


def test_one_array_is_one_variable():
    """An array has one variable, a dataset has at least one."""
    with pytest.raises(ValidationError, match=r"form is 'array' with variables \['a', 'b'\]; expected one"):
        result(variables=["a", "b"])
    with pytest.raises(ValidationError, match="at least 1 item"):
        result(form="dataset", variables=[])


def test_texts_are_coordinates():
    """Only coordinates can be texts."""
    with pytest.raises(ValidationError, match=r"texts \['which'\] are no coordinates"):
        result(texts=["which"])


def test_other_kinds_versions_and_keys_are_refused():
    """Like every persisted document it names its kind and version, and has no other keys."""
    document = dump_document(result())
    with pytest.raises(DocumentError, match=r"kind 'stemstore.result', expected 'stemstore.scan'"):
        load_document(document)
    with pytest.raises(SchemaVersionError, match="has version 2, this release reads version 1; install a newer"):
        load_result(document | {"version": 2})
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        load_result(document | {"colour": "blue"})
