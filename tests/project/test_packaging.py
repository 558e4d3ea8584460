"""The wheel: built, installed beside nothing but its dependencies, and used."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"stemstore", "stemstore_readers", "stemstore_schemas"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Give the scripts of a fresh environment that has this wheel, and sees the dependencies of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
    python = scripts / Path(sys.executable).name
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A path in a .pth file comes last and its own .pth files are not followed: the editable checkout stays out.
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(paths)), encoding="utf-8")
    return scripts


def test_wheel_holds_three_packages_and_nothing_else(wheel):
    """No `readers`, `schemas` or `tests` end up among everybody's packages."""
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    assert all(f"{package}/py.typed" in names for package in PACKAGES)
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".nbi", ".nbc"))]


def test_wheel_carries_the_json_schemas(wheel):
    """The JSON Schemas are package data, byte for byte those of the checkout."""
    archive = zipfile.ZipFile(wheel)
    schemas = list((ROOT / "schemas" / "json").glob("*.json"))
    assert len(schemas) >= 2
    for schema in schemas:
        assert archive.read(f"stemstore_schemas/json/{schema.name}") == schema.read_bytes()


def test_wheel_is_what_is_imported(installed, tmp_path):
    """The environment sees the installed packages and not the checkout."""
    code = "import stemstore, stemstore_readers, stemstore_schemas as s; print(stemstore.__file__, s.__file__)"
    printed = call(installed / Path(sys.executable).name, "-c", code, cwd=tmp_path)
    assert all(Path(path).is_relative_to(installed.parent) for path in printed.split())


def test_command_lists_the_four_readers(installed, tmp_path):
    """The console script works, and all built-in readers load through their entry points."""
    document = json.loads(call(installed / "stemstore", "readers", "--json", cwd=tmp_path))
    found = {reader["name"]: reader for reader in document["readers"]}
    assert {"ncem_counted", "ncem_sectors", "npy", "raw_binary"} <= set(found)
    assert not [reader for reader in found.values() if reader.get("error")]


def test_schemas_are_found_through_the_package(installed, tmp_path):
    """An installed package finds its JSON Schemas with importlib.resources."""
    code = (
        "import json; from importlib.resources import files; "
        "found = list(files('stemstore_schemas').joinpath('json').iterdir()); "
        "print(sorted(json.loads(f.read_text(encoding='utf-8'))['$id'] for f in found))"
    )
    printed = call(installed / Path(sys.executable).name, "-c", code, cwd=tmp_path)
    assert "stemstore.scan-v1.json" in printed


def call(*command, cwd=None):
    """Run a command and give what it prints; show its errors where it fails."""
    found = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout
