"""The verb ``doctor``."""

import sys
from importlib import metadata

import numpy as np
import pytest

from stemstore.cli import doctor
from stemstore.sources.registry import ReaderInfo


def test_healthy_installation(call, tmp_path):
    """Versions are those that are installed, and nothing is left in the folder that was tried."""
    result = call("doctor", "--folder", tmp_path)
    assert result.exit_code == 0, result.output
    assert np.__version__ in result.stdout
    assert "works" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_document(document, tmp_path):
    """Programs get every finding."""
    found = document("doctor", "--folder", tmp_path)
    assert found["packages"]["zarr"] == metadata.version("zarr")
    assert found["executable"] == sys.executable
    assert found["readers"]["npy"] is None
    assert found["write_test"]["error"] is None
    assert found["write_test"]["free_bytes"] > 0
    assert found["protocols"]["file"] is True
    assert found["problems"] == []


def test_problems_are_exit_1(call, document, tmp_path, monkeypatch):
    """A folder that is not there and a broken plug-in are problems."""
    broken = {"odd": ReaderInfo("odd", package="odd-plugin", error="ImportError: no odd")}
    monkeypatch.setattr("stemstore.sources.registry.readers", lambda: broken)
    result = call("doctor", "--folder", tmp_path / "no")
    assert result.exit_code == 1
    problems = [line for line in result.stderr.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 2
    assert "ImportError: no odd" in problems[0]
    assert "cannot write" in problems[1]


def test_missing_packages_of_extras(monkeypatch):
    """Packages of an extra are read from the package's own metadata."""
    required = [
        "numpy>=1.26",
        's3fs>=2024.6; extra == "cloud"',
        "numpy; extra == 'cloud'",
        'no-such-thing; extra == "view"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: required)
    monkeypatch.setattr(doctor, "_version", lambda name: "1" if name == "numpy" else None)
    assert doctor.missing_packages("cloud") == ["s3fs"]
    assert doctor.missing_packages("view") == ["no-such-thing"]
    assert doctor.missing_packages("hdf5") == []


def test_missing_extra_says_what_to_install(call, tmp_path, monkeypatch):
    """A missing extra is no problem; its line says how to get it."""
    monkeypatch.setattr(doctor, "missing_packages", lambda extra: ["hdf5plugin"] if extra == "hdf5" else [])
    result = call("doctor", "--folder", tmp_path)
    assert result.exit_code == 0
    assert "lacks hdf5plugin: pip install 'stemstore[hdf5]'" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of folders are Unix's")
def test_cache_folder_follows_numba_setting(document, tmp_path, monkeypatch):
    """NUMBA_CACHE_DIR decides alone, as it does for numba."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    assert document("doctor")["numba_cache"] == str(tmp_path / "cache")
    assert not (tmp_path / "cache").exists(), "looking does not make it"
