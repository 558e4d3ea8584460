"""The verb ``export``."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

import stemstore


@pytest.fixture(scope="session")
def counted(folder, raw):
    """Count the scan with the library."""
    limits = {"count": True, "background_threshold": 4.5, "xray_threshold": 99, "scan_step": 0.5}
    stemstore.convert(raw, folder / "counted.zarr", **limits)
    return str(folder / "counted.zarr")


@pytest.mark.parametrize(
    ("name", "to"), [("a b.h5", None), ("a.toml", None), ("a.dat", "stempy"), ("a.txt", "raw-csr")]
)
def test_events_are_exported(call, counted, tmp_path, name, to):
    """The format follows from the extension or is named; the file opens with the same electrons."""
    result = call("export", counted, tmp_path / name, "--progress", "none", *(["--to", to] if to else []))
    assert result.exit_code == 0, result.output
    assert f"{name} ({to or ('stempy' if name.endswith('h5') else 'raw-csr')})" in result.stdout
    assert "not carried  the calibration of the axes y, x" in result.stdout
    reader = {"stempy": "ncem_counted", "raw-csr": "raw_csr"}.get(to)
    exported = stemstore.open(tmp_path / name, reader=reader, flyback_columns=0).intensity.values
    assert np.array_equal(exported, stemstore.open(counted).intensity.values)


def test_json_report(document, counted, tmp_path):
    """The document is the library's report."""
    found = document("export", counted, tmp_path / "a.toml", "--progress", "none")
    assert (found["schema_version"], found["verb"], found["format"]) == (1, "export", "raw-csr")
    assert found["shape"] == [4, 5, 16, 16]
    assert len(found["files"]) == 4
    assert found["n_events"] == int(stemstore.open(counted).intensity.values.sum())


def test_options_of_the_reader(call, document, counted, tmp_path):
    """Raw counted files take the options of their reader; flyback columns may be left out."""
    call("export", counted, tmp_path / "a.toml", "--progress", "none")
    options = ["--scan-shape", "5x4", "--flyback", "1", "--drop-flyback", "--progress", "none"]
    assert document("export", tmp_path / "a.toml", tmp_path / "b.h5", *options)["shape"] == [5, 3, 16, 16]
    with h5py.File(tmp_path / "b.h5") as file:
        assert len(file["electron_events/frames"]) == 15


def test_progress_stays_off_standard_output(call, counted, tmp_path):
    """Steps are positions; standard output has the report alone."""
    result = call("export", counted, tmp_path / "a.h5", "--progress", "jsonl")
    done = [json.loads(line) for line in result.stderr.splitlines()]
    assert done[-1]["done"] == done[-1]["total"] == 20


def test_existing_file_is_exit_4(call, counted, tmp_path):
    """A file is not replaced unasked."""
    assert call("export", counted, tmp_path / "a.h5", "--progress", "none").exit_code == 0
    result = call("export", counted, tmp_path / "a.h5")
    assert result.exit_code == 4
    assert "--overwrite" in result.stderr
    assert call("export", counted, tmp_path / "a.h5", "--overwrite", "--progress", "none").exit_code == 0


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("a.xyz", [], "names no format to export to"),
        ("a.h5", ["--to", "emd"], "'--to'"),
        ("a.h5", ["--scan-shape", "4x5"], "takes no options"),
        ("a.h5", ["--nonsense"], "No such option"),
    ],
)
def test_wrong_arguments_are_exit_2_and_write_nothing(call, counted, tmp_path, target, options, message):
    """What is wrong with the arguments is found before anything is written."""
    result = call("export", counted, tmp_path / target, *options, "--progress", "none")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_frames_are_exit_2_with_the_way_out(call, raw, tmp_path):
    """A scan of frames is told how to be counted."""
    result = call("export", raw, tmp_path / "a.h5", "--progress", "none")
    assert result.exit_code == 2
    assert "count=True" in result.stderr


def test_saved_results_are_a_warning(call, counted, tmp_path):
    """Standard error tells what stays with the store."""
    stemstore.save(stemstore.mean_pattern(stemstore.open(counted)), counted, "mean", overwrite=True)
    result = call("export", counted, tmp_path / "a.h5", "--progress", "none")
    assert result.stderr.startswith("warning: saved results (mean) stay with")


def test_references_are_exported(call, document, raw, tmp_path):
    """References name what they lead to, where it will be when a prefix says so; no pixel is copied."""
    result = call("export", raw, tmp_path / "a.json", "--prefix", "s3://bucket/raw")
    assert result.exit_code == 0, result.output
    assert f"refers to   s3://bucket/raw/{Path(raw).name}" in result.stdout
    assert (tmp_path / "a.json").stat().st_size < Path(raw).stat().st_size
    found = document("export", raw, tmp_path / "b.txt", "--to", "kerchunk")
    assert (found["format"], found["files"]) == ("kerchunk", [f"file://{raw}"])
    assert found["n_references"] == 1


def test_events_are_exit_2_where_references_are_asked_for(call, counted, tmp_path):
    """A counted scan names what it can be exported to."""
    result = call("export", counted, tmp_path / "a.json")
    assert result.exit_code == 2
    assert "'raw-csr'" in result.stderr
