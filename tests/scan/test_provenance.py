"""Entries of histories tell when, where, by whom and with what."""

from importlib import metadata

import numpy as np
import pytest

import stemstore
from stemstore.scan.provenance import history_entry
from stemstore.store.open import open_store


def test_an_entry_names_software_machine_person_and_job(monkeypatch):
    """Versions are those that are installed; person and job come from the environment."""
    monkeypatch.setenv("STEMSTORE_AGENT", " https://orcid.org/0000-0002-1825-0097 ")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    entry = history_entry("measure", {"radius": 3}, packages=("zarr",), environment={"workers": 2}, warnings=["odd"])
    assert entry.agent == "https://orcid.org/0000-0002-1825-0097"
    assert entry.software.keys() == {"zarr", "python"}
    assert entry.software["zarr"] == metadata.version("zarr")
    assert entry.environment.keys() == {"platform", "slurm_job", "workers"}
    assert (entry.environment["slurm_job"], entry.environment["workers"]) == ("4711", 2)
    assert (entry.parameters, entry.warnings) == ({"radius": 3}, ["odd"])


@pytest.mark.parametrize("blank", ["", "  "])
def test_nobody_is_named_by_default(monkeypatch, blank):
    """An empty variable names nobody."""
    monkeypatch.setenv("STEMSTORE_AGENT", blank)
    assert history_entry("measure", {}).agent is None


@pytest.mark.parametrize("given", [{}, {"reader": "npy"}])
def test_a_conversion_names_the_reader_that_was_found(tmp_path, given):
    """The format stands in the history whether it was found or stated; a store has none."""
    np.save(tmp_path / "scan.npy", np.arange(3 * 4 * 8 * 8, dtype=np.uint16).reshape(3, 4, 8, 8))
    stemstore.convert(tmp_path / "scan.npy", tmp_path / "a.zarr", **given)
    stemstore.convert(tmp_path / "a.zarr", tmp_path / "b.zarr")
    first, second = open_store(tmp_path / "b.zarr").document.history
    assert first.parameters["reader"] == "npy"
    assert second.parameters["reader"] is None
    assert {"stemstore", "numpy", "zarr", "numcodecs", "numba", "python"} == first.software.keys()
