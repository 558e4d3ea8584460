"""The verb ``validate``: one line per finding, and an exit code for scripts."""

import shutil
from pathlib import Path


def test_a_good_store(call, store, document):
    """Gaps in the metadata are told and do not fail; --strict makes them fail."""
    result = call("validate", store, "--progress", "none")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert all(line.startswith("warning: ") for line in lines[:-1])
    assert lines[-1] == f"{Path(store).resolve()}: valid (no pixel was read)"
    assert call("validate", store, "--strict", "--progress", "none").exit_code == 1
    found = document("validate", store, "--deep", "--progress", "none")
    assert (found["valid"], found["deep"]) == (True, True)
    assert {finding["severity"] for finding in found["findings"]} == {"warning"}


def test_a_damaged_store(call, store, tmp_path):
    """A flipped bit is found by --deep, and named."""
    copy = Path(shutil.copytree(store, tmp_path / "a.zarr"))
    victim = next(path for path in (copy / "intensity" / "c").rglob("*") if path.is_file())
    body = bytearray(victim.read_bytes())
    body[40] ^= 1
    victim.write_bytes(bytes(body))
    assert call("validate", copy, "--progress", "none").exit_code == 0
    result = call("validate", copy, "--deep", "--progress", "none")
    assert result.exit_code == 1
    assert f"error: {victim.relative_to(copy).as_posix()}: " in result.stdout


def test_no_store(call, tmp_path):
    """Where there is no store the exit code is that of unreadable input."""
    assert call("validate", tmp_path / "none.zarr").exit_code == 3
