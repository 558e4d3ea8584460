"""The verb ``convert``."""

import json
import subprocess
import sys

import numpy as np
import pytest

import stemstore


def contents(folder):
    """Names of everything below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_store_holds_the_frames(store, frames):
    """A round trip through the command line keeps every pixel."""
    assert np.array_equal(stemstore.open(store).intensity.values, frames)


def test_report(call, raw, tmp_path):
    """The report names the store, the shape and the frames; progress stays off standard output."""
    result = call("convert", raw, tmp_path / "a b.zarr", "--progress", "jsonl")
    assert result.exit_code == 0, result.output
    assert "a b.zarr (dense)" in result.stdout
    assert "4 x 5 x 16 x 16" in result.stdout
    done = [json.loads(line) for line in result.stderr.splitlines()]
    assert done[-1]["done"] == done[-1]["total"] == 1


def test_json_report(document, raw, tmp_path):
    """The document is the library's report."""
    found = document("convert", raw, tmp_path / "a.zarr", "--progress", "none", "--no-count", "--workers", "1")
    assert (found["schema_version"], found["profile"], found["workers"]) == (1, "dense", 1)
    assert found["frames"] == {"valid": 20, "partial": 0, "missing": 0}
    assert found["raw_bytes"] == 10240


def test_counting(document, raw, tmp_path, frames):
    """Given thresholds count the pixels above them; the numbers are in report and store."""
    limits = ["--count", "--background-threshold", "1.5", "--xray-threshold", "100", "--progress", "none"]
    found = document("convert", raw, tmp_path / "c.zarr", *limits)
    assert found["thresholds"]["background"] == 1.5
    assert found["profile"] == "counted"
    events = stemstore.open(tmp_path / "c.zarr").intensity.values
    assert 0 < found["n_events"] == events.sum()
    assert not np.any(events[frames < 2]), "no electron at or below the threshold"


def test_corrections_of_frames(document, raw, tmp_path, frames):
    """Images from files correct frames that are stored, each by its own option."""
    random = np.random.default_rng(1)
    bad, images = (
        np.zeros((16, 16), bool),
        {"dark": random.normal(2, 1, (16, 16)), "gain": random.uniform(1, 2, (16, 16))},
    )
    bad[3, 3] = True
    images |= {"bad-pixels": bad, "mask": random.random((16, 16)) > 0.5}
    options = []
    for name, image in images.items():
        np.save(tmp_path / f"{name}.npy", image)
        options += [f"--{name}", tmp_path / f"{name}.npy"]
    document("convert", raw, tmp_path / "a.zarr", "--progress", "none", *options)
    expected = (frames - images["dark"]) * images["gain"]
    expected[..., 3, 3] = (expected[..., 2:5, 2:5].sum(axis=(-2, -1)) - expected[..., 3, 3]) / 8
    found = stemstore.open(tmp_path / "a.zarr").intensity.values
    np.testing.assert_allclose(found, expected * images["mask"], rtol=1e-5, atol=1e-5)


def test_the_source_knows_no_mask(call, raw, tmp_path):
    """What the source does not carry cannot be asked for."""
    result = call("convert", raw, tmp_path / "a.zarr", "--mask", "detector", "--progress", "none")
    assert result.exit_code == 2
    assert "the data carry no mask" in result.stderr


def test_dry_run_writes_nothing(document, raw, tmp_path):
    """A plan tells layout and memory and leaves the disk alone."""
    found = document("convert", raw, tmp_path / "a.zarr", "--dry-run")
    assert contents(tmp_path) == []
    assert (found["dry_run"], found["shape"], found["n_shards"]) == (True, [4, 5, 16, 16], 1)
    assert found["bytes_before_compression"] == found["raw_bytes"] == 10240
    assert found["layout"]["kind"] == "dense"
    assert found["memory"] > 0


def test_dry_run_of_counting(call, raw, tmp_path):
    """A plan of counting shows the thresholds that would be used."""
    limits = ["--count", "--background-threshold", "1.5", "--xray-threshold", "100"]
    result = call("convert", raw, tmp_path / "a.zarr", "--dry-run", *limits)
    assert result.exit_code == 0, result.output
    assert "background 1.5 ADU, X-ray 100 ADU" in result.stdout
    assert contents(tmp_path) == []


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_existing_destination_is_exit_4(call, raw, store, dry):
    """A store is not replaced unasked, and a plan says so too."""
    result = call("convert", raw, store, *dry)
    assert result.exit_code == 4
    assert "--overwrite" in result.stderr


def test_overwrite_replaces(document, raw, tmp_path):
    """With --overwrite the store becomes another one."""
    document("convert", raw, tmp_path / "a.zarr", "--progress", "none")
    before = document("info", tmp_path / "a.zarr")["document"]["uuid"]
    document("convert", raw, tmp_path / "a.zarr", "--overwrite", "--progress", "none")
    assert document("info", tmp_path / "a.zarr")["document"]["uuid"] != before


def test_foreign_folder_is_never_replaced(call, raw, tmp_path):
    """--overwrite is for stores only."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    result = call("convert", raw, tmp_path / "thesis", "--overwrite")
    assert result.exit_code == 4
    assert contents(tmp_path) == ["thesis", "thesis/chapter.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scan-shape", "4,z"], "is not a shape"),
        (["--scan-shape", "0x4"], "is not a shape"),
        (["--option", "nonsense"], "write it as key=value"),
        (["--max-memory", "lots"], "size 'lots' is not understood"),
        (["--progress", "loud"], "expected one of auto"),
        (["--workers", "0"], "'--workers'"),
        (["--profile", "tiny"], "'--profile'"),
        (["--flyback", "-1"], "'--flyback'"),
        (["--scan-step", "half"], "'half' is not understood"),
        (["--scan-step", "-1"], "must be positive"),
        (["--beam-energy", "3 bananas"], "beam_energy"),
        (["--detector-center", "1"], "give 2 numbers"),
        (["--count", "--background-threshold", "5", "--xray-threshold", "4"], "is not below"),
        (["--nonsense"], "No such option"),
    ],
)
def test_wrong_arguments_are_exit_2_and_write_nothing(call, raw, tmp_path, options, message):
    """What is wrong with the arguments is found before anything is written."""
    result = call("convert", raw, tmp_path / "a.zarr", *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert contents(tmp_path) == []


def test_missing_destination_is_exit_2(call, raw):
    """A source alone is no conversion."""
    result = call("convert", raw)
    assert result.exit_code == 2
    assert "DST" in result.stderr


def test_memory_budget_is_exit_6(call, raw, tmp_path):
    """Work that does not fit the budget is refused before it starts."""
    limits = ["--count", "--background-threshold", "1", "--xray-threshold", "9", "--max-memory", "1MiB"]
    result = call("convert", raw, tmp_path / "a.zarr", *limits)
    assert result.exit_code == 6
    assert "--max-memory sets the budget" in result.stderr
    assert contents(tmp_path) == []


def test_interruption_leaves_nothing_behind(call, raw, tmp_path, monkeypatch):
    """Ctrl-C in the middle ends with 130 and without a half-written store."""

    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("stemstore.conversion.steps.write_frames", interrupt)
    result = call("convert", raw, tmp_path / "a.zarr", "--progress", "none")
    assert result.exit_code == 130
    assert result.stderr == "error: interrupted\n"
    assert contents(tmp_path) == []


TERMINATED = """
import os, signal, sys, time
import stemstore.conversion.steps as run
from stemstore.cli.main import main
def write_frames(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)
run.write_frames = write_frames
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is Unix's")
def test_termination_leaves_nothing_behind(raw, tmp_path):
    """A batch system that stops the job gets 143, and no half-written store stays."""
    command = [sys.executable, "-c", TERMINATED, "convert", raw, str(tmp_path / "a.zarr"), "--progress", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (143, "")
    assert contents(tmp_path) == []


def test_warnings_of_the_source_are_told(call, raw, tmp_path):
    """A scan larger than the data is converted, and standard error says what is missing."""
    result = call("convert", raw, tmp_path / "a.zarr", "--scan-shape", "5x5", "--progress", "none")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("warning: ")
    assert "5 missing" in result.stdout


def test_environment_gives_settings(document, raw, tmp_path):
    """Settings of the environment count, and the history keeps them."""
    environment = {"STEMSTORE_PROFILE": "raw", "STEMSTORE_XRAY_SIGMA": "90", "STEMSTORE_PROGRESS": "none"}
    document("convert", raw, tmp_path / "a.zarr", env=environment)
    parameters = document("info", tmp_path / "a.zarr")["document"]["history"][0]["parameters"]
    assert (parameters["profile"], parameters["xray_sigma"]) == ("raw", 90)


def test_calibration_is_stored(document, store):
    """Calibration options become the axes of the store, with their source."""
    axes = {axis["name"]: axis for axis in document("info", store)["document"]["axes"]}
    assert (axes["y"]["step"], axes["y"]["unit"], axes["y"]["source"]) == (0.5, "nm", "user")
    assert axes["kx"]["unit"] == "1/angstrom"
    assert axes["kx"]["step"] == pytest.approx(1e-3 / 0.0196875, rel=1e-4)  # angle over the wavelength at 300 kV


@pytest.fixture
def camera(tmp_path):
    """Write frames with a pedestal of 20.5, a dark image and a gain image; give their paths."""
    rng = np.random.default_rng(7)
    frames = np.rint(rng.normal(20.5, 1.8, (8, 8, 24, 24))).astype(np.uint16)
    frames[..., 5, 7] += 100
    paths = [tmp_path / f"{name}.npy" for name in ("frames", "dark", "gain", "bad")]
    bad = np.zeros((24, 24), bool)
    bad[20, 20] = True
    for path, values in zip(paths, (frames, np.full((24, 24), 20.25), np.ones((24, 24)), bad), strict=True):
        np.save(path, values)
    return paths


def test_every_option_of_counting(document, call, camera, tmp_path):
    """References, regions and false events have the names of the library; store and report tell what was used."""
    raw, dark, gain, bad = camera
    images = ["--dark", dark, "--gain", gain, "--bad-pixels", bad, "--row-dark", "median"]
    choice = ["--rule", "stempy", "--threshold", "half-row", "--false-events-per-frame", "0.01", "--profile", "small"]
    target = tmp_path / "c.zarr"
    found = document("convert", raw, target, "--count", *images, *choice, "--xray-threshold", "inf")
    assert len(found["thresholds"]["background"]) == 2
    assert found["n_events"] == pytest.approx(64, abs=3)
    (entry,) = document("info", target)["document"]["history"]
    expected = {"dark": str(dark), "gain": str(gain), "row_dark": "median", "rule": "stempy", "threshold": "half-row"}
    assert {name: entry["parameters"][name] for name in expected} == expected
    assert entry["parameters"]["profile"] == "small"


def test_thresholds_of_every_region(call, document, camera, tmp_path):
    """Several numbers are for as many regions, and anything else is a wrong argument."""
    limits = ["--xray-threshold", "900", "--threshold", "half-row"]
    found = document("convert", camera[0], tmp_path / "c.zarr", "--count", "--background-threshold", "40,50", *limits)
    assert found["thresholds"]["background"] == [40, 50]
    for text, message in (("40,50,60", "3 values for 2 regions"), ("40,high", "give 2 numbers"), ("nan", "in ADU")):
        given = ["--count", "--background-threshold", text, *limits]
        result = call("convert", camera[0], tmp_path / "d.zarr", *given)
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())


def test_doubts_are_told_once(call, camera, tmp_path):
    """A threshold inside the noise is warned of on standard error; the result stays on standard output."""
    result = call("convert", camera[0], tmp_path / "c.zarr", "--count", "--background-sigma", "2")
    assert result.exit_code == 0
    assert result.stderr.count("noise alone is expected to make") == 1
    assert "noise alone makes" in result.stdout
