"""Imports go down: the contracts of the house hold."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_import_contracts_hold():
    """import-linter finds no import that goes up, sideways, or to a library that a room must not know."""
    linter = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run(
        [linter, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert found.returncode == 0, found.stdout
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    assert f"{len(contracts)} kept, 0 broken" in found.stdout


def test_every_reader_has_its_own_file():
    """A built-in reader is found in the module that carries its name."""
    ours = [entry for entry in entry_points(group="stemstore.readers") if entry.dist.name == "stemstore"]
    assert {entry.name for entry in ours} == {
        "blockfile",
        "de_seq",
        "dectris",
        "dm",
        "emd_ncem",
        "emd_py4dstem",
        "emd_velox",
        "empad",
        "empad_g2",
        "fpd",
        "frms6",
        "hspy",
        "k2is",
        "merlin_mib",
        "mrc",
        "ncem_counted",
        "ncem_sectors",
        "nexus",
        "nion",
        "npy",
        "npz",
        "pantarhei",
        "raw_binary",
        "raw_csr",
        "tia",
        "tiff",
        "topspin",
        "tpx3",
        "tvips",
        "zspy",
    }
    for entry in ours:
        assert entry.module == f"stemstore_readers.{entry.name}"
        assert importlib.import_module(entry.module)
        assert entry.load().name == entry.name
