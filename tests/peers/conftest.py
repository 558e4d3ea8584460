"""Other programs, each in an environment of its own, and a scan exported for them.

They are asked only where ``STEMSTORE_TEST_PEERS`` names a folder for their environments, as ``make test-peers`` does:
installing them takes minutes and needs a package index.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from stemstore.exchange.run import export
from stemstore.testing.arrays import ArrayEvents


@functools.cache
def install(requirement: str, root: str) -> tuple[Path, str]:
    """Make an environment with one program, unless it is there; gives its interpreter, and why it cannot be had."""
    folder = Path(root).absolute() / requirement.replace("==", "-")
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = folder / "installed"
    if done.exists():
        return python, ""
    venv.create(folder, with_pip=True, clear=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        return python, f"{requirement} cannot be installed here: {found.stderr.strip().splitlines()[-1]}"
    done.touch()
    return python, ""


def interpreter(requirement: str) -> Path:
    """Give the interpreter of a program's environment; the test is skipped where it cannot be had."""
    root = os.environ.get("STEMSTORE_TEST_PEERS")
    if not root:
        pytest.skip("asks another program: run make test-peers, or set STEMSTORE_TEST_PEERS to a folder for it")
    python, problem = install(requirement, root)
    if problem:
        pytest.skip(problem)
    return python


@pytest.fixture(scope="session")
def program():
    """Give the command of a program from its environment."""
    return lambda requirement, command: interpreter(requirement).with_name(command)


@pytest.fixture(scope="session")
def ask():
    """Run code in the environment of a program; the code sees the path as `path` and prints one JSON document."""

    def run(requirement, code, path):
        python = interpreter(requirement)
        text = f"import json, numpy as np\npath = {str(path)!r}\n{code}"
        found = subprocess.run([python, "-c", text], capture_output=True, text=True, check=False, cwd=Path(path).parent)
        assert found.returncode == 0, found.stderr
        return {name: np.array(value) for name, value in json.loads(found.stdout.splitlines()[-1]).items()}

    return run


@pytest.fixture
def exported(tmp_path):
    """Write electrons per pixel, through a store, for another program."""

    def write(counts, name, **options):
        import stemstore

        path = tmp_path / "scan.toml"
        events = ArrayEvents(counts).read_events(0, int(np.prod(counts.shape[:-2])))
        events.indptr.astype("<i8").tofile(tmp_path / "in_rows.dat")
        events.indices.astype("<u4").tofile(tmp_path / "in_pixels.dat")
        np.ones(len(events.indices), "<u1").tofile(tmp_path / "in_ones.dat")
        lines = ["[params]", 'filetype = "raw_csr"', f"nav_shape = {list(counts.shape[:-2])}"]
        lines += [f"sig_shape = {list(counts.shape[-2:])}", "[raw_csr]"]
        for role, kind in (("indptr", "<i8"), ("indices", "<u4"), ("data", "<u1")):
            file = {"indptr": "in_rows.dat", "indices": "in_pixels.dat", "data": "in_ones.dat"}[role]
            lines += [f'{role}_file = "{file}"', f'{role}_dtype = "{kind}"']
        path.write_text("\n".join(lines), encoding="utf-8")
        stemstore.convert(path, tmp_path / "scan.zarr", **options)
        export(tmp_path / "scan.zarr", tmp_path / name)
        return tmp_path / name

    return write
