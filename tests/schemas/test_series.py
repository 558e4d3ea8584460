"""The document of a group of scans."""

import json
import uuid

import jsonschema
import pytest
from pydantic import ValidationError

from stemstore_schemas import (
    DocumentError,
    SchemaVersionError,
    SeriesDocument,
    SeriesScan,
    dump_document,
    load_document,
    load_series,
)
from stemstore_schemas.export import json_schemas

TIME = "2024-05-17T09:30:00+00:00"


def scan(name, **changes):
    return SeriesScan(**({"name": name, "path": name, "uuid": str(uuid.uuid4()), "added": TIME} | changes))


def series(*scans, **changes):
    return SeriesDocument(uuid=str(uuid.uuid4()), scans=list(scans), time=TIME, **changes)


def test_series_survive_json():
    """The document is read back as written and keeps its published schema."""
    written = series(scan("a", order=-3.5), scan("b", order=0, title="flat"), dim="tilt", unit="deg", title="wedge")
    text = json.dumps(dump_document(written), allow_nan=False)
    assert load_series(json.loads(text)) == written
    jsonschema.validate(json.loads(text), json_schemas()["stemstore.series-v1.json"])


@pytest.mark.parametrize("same", ["name", "path", "uuid"])
def test_scans_are_told_apart(same):
    """Two scans share neither name nor store nor identity."""
    a, b = scan("a"), scan("b")
    twin = b.model_copy(update={same: getattr(a, same)})
    with pytest.raises(ValidationError, match=f"{same} '.*' occurs twice"):
        series(a, twin)


def test_all_scans_have_a_place_or_none():
    """An order that only some scans have could not be shown."""
    with pytest.raises(ValidationError, match="scan 'b' has an order and scan 'a' has none"):
        series(scan("a"), scan("b", order=1.0))


def test_the_axis_has_a_name_of_its_own():
    """The axes of scans keep their names."""
    with pytest.raises(ValidationError, match="dim is 'ky', the name of another axis"):
        series(dim="ky")
    with pytest.raises(ValidationError, match="pattern"):
        scan("a/b")


def test_other_documents_are_refused():
    """A scan is no series, and newer versions are told."""
    document = dump_document(series())
    with pytest.raises(DocumentError, match=r"kind 'stemstore.series', expected 'stemstore.scan'"):
        load_document(document)
    with pytest.raises(SchemaVersionError, match="version 2, this release reads version 1; install a newer"):
        load_series(document | {"version": 2})
