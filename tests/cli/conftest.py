"""A tiny raw file in an awkward folder, and the store made from it by the command line itself."""

import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from stemstore.cli.main import app

SHAPE = (4, 5, 16, 16)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    """Keep settings of whoever runs the tests out of them."""
    for name in [name for name in os.environ if name.startswith("STEMSTORE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def frames():
    """Electrons per pixel of a small scan."""
    return np.random.default_rng(5).poisson(2, SHAPE).astype(np.uint16)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Make a folder whose name has spaces and letters beyond ASCII."""
    path = tmp_path_factory.mktemp("cli") / "Größe µ and spaces"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def raw(folder, frames):
    """Write the scan as a NumPy file."""
    np.save(folder / "scan 1.npy", frames)
    return str(folder / "scan 1.npy")


@pytest.fixture(scope="session")
def store(folder, raw):
    """Convert the scan to a calibrated store."""
    target = str(folder / "scan 1.zarr")
    options = ["--scan-step", "0.5", "--detector-step", "1 mrad", "--beam-energy", "300"]
    result = CliRunner().invoke(app, ["convert", raw, target, *options, "--progress", "none"])
    assert result.exit_code == 0, result.output
    return target


@pytest.fixture
def call():
    """Run the command line in this process."""
    return lambda *args, **more: CliRunner().invoke(app, [str(arg) for arg in args], **more)


@pytest.fixture
def document(call):
    """Run a verb with ``--json`` and give the document that it prints."""

    def run(*args, **more):
        result = call(*args, "--json", **more)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run
