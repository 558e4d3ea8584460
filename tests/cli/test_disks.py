"""The verb ``disks``: the result lies in the store, and a run can be resumed."""

import numpy as np
import pytest

import stemstore
from stemstore.ops.disks.table import table_of


@pytest.fixture(scope="module")
def patterns(tmp_path_factory):
    """Write a store of 4 x 3 patterns with two disks each."""
    rows, columns = np.indices((48, 40))
    image = sum(a * (np.hypot(rows - y, columns - x) < 4) for y, x, a in ((14, 12, 60), (30, 26, 20)))
    folder = tmp_path_factory.mktemp("patterns")
    np.save(folder / "scan.npy", np.random.default_rng(2).poisson(image + 0.05, (4, 3, 48, 40)).astype(np.uint16))
    probe = 200.0 * (np.hypot(rows - 24, columns - 20) < 4)
    np.save(folder / "vacuum.npy", np.random.default_rng(3).poisson(probe, (2, 3, 48, 40)).astype(np.uint16))
    np.save(folder / "probe.npy", probe)
    for name in ("scan", "vacuum"):
        stemstore.convert(str(folder / f"{name}.npy"), str(folder / f"{name}.zarr"))
    return folder


def test_the_result_is_in_the_store(document, patterns):
    """The document counts what lies there under the name."""
    found = document("disks", patterns / "scan.zarr", "--radius", "4", "--out", "first", "--option", "min_rel=0.1")
    assert (found["patterns"], found["disks"], found["most_disks"], found["result"]) == (12, 24, 2, "first")
    disks = stemstore.open_result(patterns / "scan.zarr", "first")
    assert disks.attrs["min_rel"] == 0.1
    assert len(table_of(disks).qy) == 24


def test_template_and_resources(document, patterns):
    """A probe image takes the place of the radius; threads and memory are limited."""
    probe = patterns / "probe.npy"
    options = ["--template", probe, "--out", "second", "--workers", "1", "--max-memory", "300MiB"]
    assert document("disks", patterns / "scan.zarr", *options)["radius"] == pytest.approx(4, abs=0.3)
    options = ["--template", patterns / "vacuum.zarr", "--out", "vacuum"]
    assert document("disks", patterns / "scan.zarr", *options)["disks"] == 24


def test_a_name_is_taken_once(call, patterns):
    """A second run needs --resume, which opens the result, or --overwrite."""
    again = ["disks", patterns / "scan.zarr", "--radius", "4", "--out", "third"]
    assert call(*again).exit_code == 0
    refused = call(*again)
    assert refused.exit_code == 4
    assert "has a result 'third' already" in refused.stderr
    assert call(*again, "--resume").exit_code == 0
    assert call(*again, "--overwrite").exit_code == 0


def test_an_interruption_says_how_to_go_on(call, patterns, monkeypatch):
    """Ctrl-C is exit code 130; what is done stays, and --resume finishes it."""
    from stemstore.cli import progress

    def interrupt(*_):
        raise KeyboardInterrupt

    run = ["disks", patterns / "scan.zarr", "--radius", "4", "--out", "fourth", "--progress", "jsonl"]
    with monkeypatch.context() as patch:
        patch.setattr(progress.Reports, "advance", interrupt)
        result = call(*run)
    assert result.exit_code == 130
    assert "--resume" in result.stderr
    assert (patterns / "scan.zarr/derived/.part-fourth").is_dir()
    assert call(*run, "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "needs the size of the disks"),
        (["--radius", "4", "--option", "store=1"], 2, "'store' is no setting of disk detection"),
        (["--template", "nowhere.npy"], 3, "the template 'nowhere.npy' does not exist"),
        (["--radius", "4", "--max-memory", "much"], 2, "size 'much' is not understood"),
        (["--radius", "4", "--max-memory", "1kB", "--out", "small"], 6, "exceeds the budget"),
    ],
)
def test_mistakes(call, patterns, options, code, message):
    """Wrong arguments end with their exit code and say what is wrong."""
    result = call("disks", patterns / "scan.zarr", *options)
    assert result.exit_code == code, result.output
    assert message in result.stderr


def test_an_empty_result_is_told(call, patterns):
    """Where nothing is found, a warning says so."""
    result = call("disks", patterns / "scan.zarr", "--radius", "4", "--out", "none", "--option", "min_abs=1e9")
    assert "warning: no disks in 12 patterns" in result.stderr
