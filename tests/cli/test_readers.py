"""The verb ``readers``."""

import json

from stemstore.sources.registry import ReaderInfo, readers


def test_built_in_readers_are_listed(call):
    """Each reader has a line with its name and its extensions."""
    lines = call("readers").stdout.splitlines()
    assert lines[0].split() == ["NAME", "DESCRIPTION", "EXTENSIONS", "PACKAGE"]
    assert [line.split()[0] for line in lines[1:]] == sorted(readers())  # which ones these are is pinned elsewhere
    assert len(lines) > 20
    assert next(line for line in lines if line.startswith("npy")).split()[-2:] == [".npy", "stemstore"]


def test_options_are_listed_as_json(document):
    """Programs learn the options of a reader and their defaults."""
    found = {reader["name"]: reader for reader in document("readers")["readers"]}
    assert found["npy"]["options"] == {"scan_shape": {"required": False, "default": None}}
    assert found["ncem_sectors"]["options"]["version"]["default"] == 5


def test_broken_plug_ins_are_told(call, monkeypatch):
    """A plug-in that does not load is listed, its error goes to standard error."""
    broken = {"odd": ReaderInfo("odd", package="odd-plugin", error="ImportError: no odd")}
    monkeypatch.setattr("stemstore.sources.registry.readers", lambda: broken)
    result = call("readers")
    assert "does not load" in result.stdout
    assert result.stderr == "warning: reader 'odd' of odd-plugin does not load: ImportError: no odd\n"
    assert json.loads(call("readers", "--json").stdout)["readers"][0]["error"] == "ImportError: no odd"
