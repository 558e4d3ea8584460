"""The verb ``crate``: printed, or written beside the store."""

import json
from pathlib import Path


def test_crate_is_written_or_printed(call, document, store, tmp_path):
    """Without a place the document itself is the output, so that it can be piped; with one its path is told."""
    printed = json.loads(call("crate", store).stdout)
    assert printed["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    told = document("crate", store, "-o", tmp_path)
    assert told["output"] == str(tmp_path / "ro-crate-metadata.json")
    names = [entity["@id"] for entity in json.loads(Path(told["output"]).read_text(encoding="utf-8"))["@graph"]]
    assert Path(store).as_uri() + "/" in names
    taken = call("crate", store, "-o", tmp_path)
    assert taken.exit_code == 4
    assert "--overwrite" in taken.stderr
    assert call("crate", store, "-o", tmp_path, "--overwrite").stderr.startswith("wrote ")


def test_crate_as_prov(call, document, store, raw, tmp_path):
    """The other format names the raw file with its digest."""
    told = document("crate", store, "--format", "prov-json", "-o", tmp_path / "origin.json")
    entities = json.loads(Path(told["output"]).read_text(encoding="utf-8"))["entity"].values()
    (file,) = [one for one in entities if one["prov:location"] == raw]
    assert file["stemstore:digest"].startswith("crc32c:")
    assert document("crate", store, "--format", "prov-json")["document"]["prefix"]["uuid"] == "urn:uuid:"
    assert call("crate", store, "--licence", "mine").exit_code == 2
