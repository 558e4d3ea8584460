"""What every persisted model does with values."""

import json
import math

import numpy as np
import pytest
from pydantic import ValidationError

from stemstore_schemas import Axis, HistoryEntry, Quantity, ScanDocument, SourceFile, SourceMetadata
from stemstore_schemas.record import Record, plain

TIME = "2024-05-17T09:30:00+00:00"


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_numbers_survive_json_when_not_finite(text):
    """NaN and infinity are written as these strings and read back as numbers."""
    quantity = Quantity(value=float(text), unit="nm", source="header")
    written = quantity.model_dump_json()
    assert json.loads(written)["value"] == text
    back = Quantity.model_validate_json(written).value
    assert back == quantity.value or (math.isnan(back) and math.isnan(quantity.value))


@pytest.mark.parametrize("value", ["nan", "inf", "0.5", True])
def test_numbers_are_not_read_from_other_text(value):
    """Only the three defined strings stand for a number."""
    with pytest.raises(ValidationError, match="expected a number or one of the strings NaN, Infinity, -Infinity"):
        Quantity(value=value, unit="nm", source="user")


@pytest.mark.parametrize("value", ["12", True])
def test_integers_are_not_read_from_text(value):
    """A size written as text or truth value is refused."""
    with pytest.raises(ValidationError, match="expected a number"):
        Axis(name="y", size=value)


def test_free_documents_write_nonfinite_numbers_as_text():
    """In a vendor header NaN and infinity are strings from the start, at any depth."""
    vendor = SourceMetadata(vendor={"a": math.nan, "b": [math.inf, {"c": -math.inf}]}).vendor
    assert vendor == {"a": "NaN", "b": ["Infinity", {"c": "-Infinity"}]}


def test_numpy_values_become_plain():
    """Headers as h5py gives them need no conversion by the reader."""
    header = {
        "n": np.uint16(7),
        "grid": np.arange(4).reshape(2, 2),
        "flag": np.bool_(True),
        "name": np.bytes_(b"EMPAD"),
    }
    vendor = SourceMetadata(vendor=header).vendor
    assert vendor == {"n": 7, "grid": [[0, 1], [2, 3]], "flag": True, "name": "EMPAD"}
    assert type(vendor["n"]) is int
    assert Axis(name="y", size=np.int64(3), step=np.float32(0.5)) == Axis(name="y", size=3, step=0.5)


def test_text_that_is_not_unicode_stays_readable():
    """Bytes and file names outside UTF-8 become escapes, so that they can be written."""
    assert plain(b"\xff\xc3\xa9") == "\\xffé"
    assert SourceFile(path="scan\udcff.raw", size=1).path == "scan\\udcff.raw"


def test_free_documents_hold_json_only():
    """An object that JSON does not know is refused."""
    with pytest.raises(ValidationError, match="not a valid JSON value"):
        SourceMetadata(vendor={"a": object()})


def test_records_are_frozen():
    """A value cannot be changed in place."""
    with pytest.raises(ValidationError, match="frozen"):
        Axis(name="y", size=3).size = 4


@pytest.mark.parametrize("time", ["yesterday", "17.05.2024", "2024-05-17T09:30:00"])
def test_instants_need_a_zone(time):
    """Times of our own are ISO 8601 with their zone."""
    with pytest.raises(ValidationError, match=r"is not ISO 8601|has no zone"):
        HistoryEntry(operation="convert", time=time)


def all_records(model=Record):
    for child in model.__subclasses__():
        yield child
        yield from all_records(child)


def test_every_field_is_described():
    """Each persisted field says in the JSON Schema what it means."""
    assert ScanDocument in set(all_records())
    bare = [
        f"{model.__name__}.{name}"
        for model in all_records()
        for name, field in model.model_fields.items()
        if model.__module__.startswith("stemstore_schemas") and not field.description
    ]
    assert bare == []
