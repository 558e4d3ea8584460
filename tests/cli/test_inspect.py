"""The verb ``inspect``."""

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

from stemstore.testing.elsewhere import CountedFiles


def test_raw_file(call, raw):
    """A raw file shows its format, scan, detector and size."""
    result = call("inspect", raw)
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "npy (confidence 1)" in text
    assert "4 x 5 positions (from header)" in text
    assert "16 x 16 pixels, uint16" in text
    assert "10.0 KiB (10 240 bytes) of pixels" in text


def test_json_document(document, raw):
    """The document has the figures of the text."""
    found = document("inspect", raw)
    assert (found["schema_version"], found["verb"], found["kind"]) == (1, "inspect", "frames")
    assert (found["scan_shape"], found["frame_shape"], found["raw_bytes"]) == ([4, 5], [16, 16], 10240)
    assert found["claims"]["npy"] == 1.0


def test_reader_options_reach_the_reader(document, raw):
    """The user's scan shape is used and said to be the user's."""
    found = document("inspect", raw, "--scan-shape", "5x4")
    assert (found["scan_shape"], found["scan_shape_source"]) == ([5, 4], "user")


def test_environment_gives_options(document, raw):
    """A setting in the environment counts where the command line is silent."""
    assert document("inspect", raw, env={"STEMSTORE_SCAN_SHAPE": "2x10"})["scan_shape"] == [2, 10]
    given = document("inspect", raw, "--scan-shape", "10x2", env={"STEMSTORE_SCAN_SHAPE": "2x10"})
    assert given["scan_shape"] == [10, 2]


def test_store(document, store):
    """A store is recognised as such, its calibration is known."""
    found = document("inspect", store)
    assert (found["kind"], found["reader"], found["complete"]) == ("store", None, True)
    assert found["known"]["scan_step"] == "0.5 nm (from user)"


def test_raw_binary_with_free_options(document, tmp_path, frames):
    """Options of any reader are passed by name, JSON values and plain text alike."""
    frames.astype("<u2").tofile(tmp_path / "x.raw")
    options = ["--reader", "raw_binary", "--option", "shape=[4, 5, 16, 16]", "--option", "dtype=<u2"]
    assert document("inspect", tmp_path / "x.raw", *options)["scan_shape"] == [4, 5]


class Locked(CountedFiles):
    """Files that open to those who know the word."""

    protocol = "locked"

    def info(self, path, **more):
        if self.storage_options.get("word") != "sesame seed":
            msg = f"{path} is locked"
            raise PermissionError(msg)
        return super().info(path, **more)


def test_options_of_servers_reach_them(call, document, raw):
    """What a server wants to be told is given as to the library, is for URLs only, and is not repeated in messages."""
    fsspec.register_implementation("locked", Locked, clobber=True)
    url = f"locked://{raw}"
    assert document("inspect", url, "--storage-option", "word=sesame seed")["scan_shape"] == [4, 5]
    for verb in (["inspect", url], ["convert", url, f"{url}.zarr"]):
        refused = call(*verb, "--storage-option", "word=open barley")
        assert refused.exit_code
        assert "is locked" in refused.stderr
        assert "barley" not in refused.stderr
    assert "without a URL" in call("inspect", raw, "--storage-option", "word=sesame seed").stderr
    assert "sesame" not in call("inspect", url, "--storage-option", "sesame").stderr


def test_missing_file_is_exit_3(call, tmp_path):
    """A path that does not exist is unreadable input."""
    result = call("inspect", tmp_path / "no such file.npy", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stderr)["error"]["kind"] == "not-found"


def test_unknown_format_is_exit_3_with_a_hint(call, tmp_path):
    """A file that nobody knows leads to the list of readers."""
    (tmp_path / "notes.txt").write_text("hello")
    result = call("inspect", tmp_path / "notes.txt")
    assert result.exit_code == 3
    assert "'stemstore readers' lists the formats" in result.stderr


def test_truncated_file_is_exit_3(call, tmp_path, raw):
    """A damaged file is unreadable input."""
    (tmp_path / "short.npy").write_bytes(Path(raw).read_bytes()[:100])
    assert call("inspect", tmp_path / "short.npy").exit_code == 3


def test_unknown_reader_is_exit_2(call, raw):
    """A reader that does not exist is a wrong argument."""
    result = call("inspect", raw, "--reader", "nope")
    assert result.exit_code == 2
    assert "no reader is called 'nope'" in result.stderr


def test_unknown_reader_option_is_exit_2(call, raw):
    """An option that the reader does not have is a wrong argument."""
    result = call("inspect", raw, "--flyback", "1")
    assert result.exit_code == 2
    assert "has no option 'flyback_columns'" in result.stderr


def test_plot(document, tmp_path):
    """A picture of the noise is written beside the facts, which hold the fit."""
    frames = np.rint(np.random.default_rng(3).normal(30, 2, (4, 4, 24, 24))).astype(np.uint16)
    np.save(tmp_path / "noise.npy", frames)
    found = document("inspect", tmp_path / "noise.npy", "--plot", tmp_path / "fit.svg")
    assert found["thresholds"]["pedestal_mean"] == pytest.approx(30, abs=0.2)
    assert found["occupancy"] < 1e-3
    assert b"<svg" in (tmp_path / "fit.svg").read_bytes()
