"""The verb ``series``, and ``info`` of what it made."""

import json
import shutil

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import stemstore
from stemstore.cli import info, series
from stemstore.cli.verb import Verb
from stemstore.scan.series.open import open_series


@pytest.fixture
def run():
    """Run one of the two verbs in this process."""
    app = typer.Typer()
    app.command("series", cls=Verb)(series.run)
    app.command("info", cls=Verb)(info.run)
    return lambda *args: CliRunner().invoke(app, [*map(str, args)])


@pytest.fixture
def raw(tmp_path, frames):
    """A folder of two raw scans and something else."""
    folder = tmp_path / "day 3"
    folder.mkdir()
    for number in (1, 2):
        np.save(folder / f"s{number}.npy", frames + number)
    (folder / "notes.txt").write_text("…")
    return folder


def test_series(run, raw, tmp_path, frames):
    """A folder is converted with the options of ``convert``; what was done is a table."""
    done = run("series", raw, tmp_path / "a.zarr", "--beam-energy", "300", "--title", "day 3", "--order", "0,5",
               "--order-unit", "s", "--progress", "none")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert [line.split() for line in done.stdout.splitlines()[:3]] == [
        ["SCAN", "STATE", "STORED"],
        ["s1", "converted", *done.stdout.splitlines()[1].split()[2:]],
        ["s2", "converted", *done.stdout.splitlines()[2].split()[2:]],
    ]
    assert "notes.txt' is no scan" in done.stderr
    ds = open_series(tmp_path / "a.zarr")
    assert (ds.time.values.tolist(), ds.time.attrs["units"], ds.attrs["beam_energy_keV"]) == ([0, 5], "s", 300)
    np.testing.assert_array_equal(ds.intensity[1], frames + 2)


def test_json_and_resume(run, raw, tmp_path):
    """The report is one document; a repeated call leaves alone what is there."""
    first = json.loads(run("series", raw, tmp_path / "a.zarr", "--json", "--progress", "none").stdout)
    assert [scan["state"] for scan in first["scans"]] == ["converted", "converted"]
    assert first["scans"][0]["report"]["shape"] == [4, 5, 16, 16]
    taken = run("series", raw, tmp_path / "a.zarr", "--progress", "none")
    assert taken.exit_code == 4
    again = json.loads(run("series", raw, tmp_path / "a.zarr", "--resume", "--json", "--progress", "none").stdout)
    assert [scan["state"] for scan in again["scans"]] == ["there", "there"]


def test_a_scan_that_fails(run, raw, tmp_path):
    """The others are converted; the message names the one that failed, and the exit code says so."""
    whole = (raw / "s1.npy").read_bytes()
    (raw / "s1.npy").write_bytes(whole[:40])
    done = run("series", raw, tmp_path / "a.zarr", "--progress", "none")
    assert done.exit_code == 1
    assert "1 of 2 scans could not be converted: s1" in done.stderr
    assert "scan 's1': " in done.stderr
    assert "--resume leaves alone what is done" in done.stderr
    (raw / "s1.npy").write_bytes(whole)
    assert run("series", raw, tmp_path / "a.zarr", "--resume", "--progress", "none").exit_code == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--order", "1,x"], 2, "--order '1,x' is not understood"),
        (["--order", "1"], 2, "order has 1 places for 2 scans"),
        (["--order-unit", "s"], 2, "unit='s' without places"),
        (["--dim", "kx"], 2, "dim='kx'"),
    ],
)
def test_mistakes(run, raw, tmp_path, options, code, message):
    """Wrong options are usage errors, and nothing is written."""
    done = run("series", raw, tmp_path / "a.zarr", *options, "--progress", "none")
    assert (done.exit_code, message in done.stderr) == (code, True)
    assert not (tmp_path / "a.zarr").exists()


def test_info_of_a_series(run, raw, tmp_path):
    """Scans are listed with what is wrong about their stores."""
    options = ["--order", "s1=-3,s2=3", "--order-unit", "deg", "--dim", "tilt", "--progress", "none"]
    assert run("series", raw, tmp_path / "a.zarr", *options).exit_code == 0
    done = run("info", tmp_path / "a.zarr")
    assert done.exit_code == 0
    assert "TILT (deg)" in done.stdout
    assert "s1" in done.stdout
    assert "4x5x16x16" in done.stdout
    ds = open_series(tmp_path / "a.zarr")
    stemstore.save(ds.intensity.sum(("ky", "kx")), ds, "sums")
    assert "results  sums" in run("info", tmp_path / "a.zarr").stdout
    shutil.rmtree(tmp_path / "a.zarr" / "s2")
    done = run("info", tmp_path / "a.zarr")
    assert "missing" in done.stdout
    assert "warning: scan 's2'" in done.stderr
    found = json.loads(run("info", tmp_path / "a.zarr", "--json").stdout)
    assert [result["name"] for result in found["results"]] == ["sums"]
    assert [(scan["name"], scan["order"], scan["problem"] is None) for scan in found["scans"]] == [
        ("s1", -3.0, True),
        ("s2", 3.0, False),
    ]
