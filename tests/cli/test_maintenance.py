"""The verbs ``copy``, ``pack``, ``edit`` and ``verify`` on a store in an awkward folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import stemstore


@pytest.fixture
def copied(store, tmp_path):
    """Copy the store for a test that changes it."""
    return shutil.copytree(store, tmp_path / "an odd name µ.zarr")


def test_copy(call, store, tmp_path, document):
    """The copy is told in words and as JSON; a taken place has its exit code."""
    result = call("copy", store, tmp_path / "a.zarr", "--progress", "none")
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "a.zarr") in result.stdout
    assert call("copy", store, tmp_path / "a.zarr").exit_code == 4
    found = document("copy", store, tmp_path / "a.zarr", "--overwrite", "--resume", "--progress", "none")
    assert (found["url"], found["n_kept"]) == (str(tmp_path / "a.zarr"), 0)
    assert stemstore.validate(tmp_path / "a.zarr", deep=True).valid
    assert call("copy", tmp_path / "none.zarr", tmp_path / "b.zarr").exit_code == 3


def test_a_damaged_source(call, copied, tmp_path):
    """The exit code is that of a checksum, and the shard is named."""
    victim = next(path for path in (Path(copied) / "intensity" / "c").rglob("*") if path.is_file())
    body = bytearray(victim.read_bytes())
    body[40] ^= 1
    victim.write_bytes(bytes(body))
    for verb in (("copy", copied, tmp_path / "b.zarr"), ("pack", copied, tmp_path / "b.zip")):
        result = call(*verb, "--progress", "none")
        assert result.exit_code == 5
        assert victim.relative_to(copied).as_posix() in result.stderr
        assert not Path(verb[2]).exists()


def test_pack(call, copied, frames, document):
    """The file has the store's name by default, and opens."""
    result = call("pack", copied, "--progress", "none")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(stemstore.open(f"{copied}.zip").intensity.values, frames)
    assert call("pack", copied).exit_code == 4
    assert document("pack", copied, "--overwrite", "--progress", "none")["url"] == f"{copied}.zip"
    assert call("pack", copied, "a.tar").exit_code == 2
    assert call("validate", f"{copied}.zip", "--deep", "--progress", "none").exit_code == 0


def test_edit(call, copied, document):
    """Old and new values are told; what cannot be changed is a usage error."""
    result = call("edit", copied, "--set", "acquisition.sample=gold µ", "--set", "scan_step=0.2,0.4", "--note", "why")
    assert result.exit_code == 0, result.output
    assert "acquisition.sample: null -> gold µ" in result.stdout
    assert "axes.x.step: 0.5 -> 0.4" in result.stdout
    assert stemstore.validate(copied, deep=True).valid
    found = document("edit", copied, "--set", "beam_energy=80 keV")
    assert found["changes"]["acquisition.beam_energy"]["new"]["value"] == 80
    assert "state detector_step as well" in found["warnings"][0]
    assert call("edit", copied, "--unset", "acquisition.sample").stdout == "acquisition.sample: gold µ -> null\n"
    assert "nothing to change" in call("edit", copied).stdout
    for wrong in ("uuid=1", "acquisition.sample", "beam_energy=fast", "axes.kx.size=3"):
        assert call("edit", copied, "--set", wrong).exit_code == 2
    assert call("edit", copied, "--set", "beam_energy=1", "--unset", "beam_energy").exit_code == 2


def test_verify(call, folder, raw, frames, tmp_path, document):
    """Exit code 0 where store and source are the same and 1 where not; the first difference is told."""
    stemstore.convert(raw, tmp_path / "a.zarr")
    result = call("verify", tmp_path / "a.zarr", "--progress", "none")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'a.zarr'}: all 20 frames are those of the source\n"
    assert document("verify", tmp_path / "a.zarr", raw, "--progress", "none")["equal"] is True
    changed = frames.copy()
    changed[2, 1, 3, 4] += 5
    np.save(tmp_path / "other.npy", changed)
    result = call("verify", tmp_path / "a.zarr", tmp_path / "other.npy", "--progress", "none")
    assert result.exit_code == 1
    assert result.stdout.startswith("pixel at position (2, 1), pixel (3, 4): the store holds ")
    assert "1 of 20 frames differ from the source" in result.stdout
    assert call("verify", tmp_path / "a.zarr", tmp_path / "none.npy", "--progress", "none").exit_code == 3
