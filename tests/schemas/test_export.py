"""JSON Schema documents."""

import json
from pathlib import Path

import jsonschema
import pytest

from stemstore_schemas import DIMS, Axis, CommitDocument, FrameCounts, Quantity, ScanDocument, dump_document
from stemstore_schemas.export import json_schemas, main

FOLDER = Path(__file__).parents[2] / "schemas" / "json"
UUID = "0b7c6f3e-7a1d-4f0e-9c6a-2f6d5b1a9e10"


def scan():
    axes = [Axis(name=name, size=2) for name in DIMS]
    energy = Quantity(value=float("nan"), unit="keV", source="header")
    return dump_document(
        ScanDocument(
            uuid=UUID, profile="dense", axes=axes, frames=FrameCounts(valid=4), acquisition={"beam_energy": energy}
        )
    )


def test_shipped_documents_match_the_models():
    """The files in schemas/json are those of the models: none missing, none left over, none stale."""
    shipped = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}
    assert shipped == json_schemas(), "run python -m stemstore_schemas.export schemas/json"


def test_there_is_one_document_a_persisted_kind():
    """File names carry kind and version."""
    assert sorted(json_schemas()) == [
        "stemstore.calibration-v1.json",
        "stemstore.commit-v1.json",
        "stemstore.result-v1.json",
        "stemstore.scan-v1.json",
        "stemstore.series-v1.json",
    ]


@pytest.mark.parametrize("name", sorted(json_schemas()))
def test_documents_are_valid_json_schema(name):
    """Each document keeps the rules of its dialect."""
    jsonschema.Draft202012Validator.check_schema(json_schemas()[name])


def test_a_written_scan_keeps_its_schema():
    """What we write satisfies what we publish, NaN included."""
    jsonschema.validate(scan(), json_schemas()["stemstore.scan-v1.json"])


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"colour": "blue"}, {"frames": {"valid": -1}}, {"profile": "sparse"}, {"axes": [{}]}]
)
def test_a_wrong_scan_breaks_the_schema(change):
    """The published schema refuses what our models refuse."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**scan(), **change}, json_schemas()["stemstore.scan-v1.json"])


def test_a_written_commit_keeps_its_schema():
    """The commit document satisfies its schema."""
    commit = CommitDocument(
        uuid=UUID, n_shards=1, n_bytes=9, metadata_digest="a:0", shards_digest="a:1", time="2024-05-17T09:30:00+00:00"
    )
    jsonschema.validate(dump_document(commit), json_schemas()["stemstore.commit-v1.json"])


def test_command_writes_and_lists_the_documents(tmp_path, capsys):
    """The command fills a folder and names what it wrote."""
    assert main([str(tmp_path / "json")]) == 0
    written = sorted(path.name for path in (tmp_path / "json").iterdir())
    assert written == sorted(json_schemas())
    listed = capsys.readouterr().out
    assert all(name in listed for name in written)
