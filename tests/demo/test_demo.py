"""The demonstration says truly whether its results agree with the truth."""

import json

import numpy as np
import pytest
import xarray as xr

from stemstore.demo.compare import Check, correlation, disk_checks
from stemstore.demo.figures import save_images, vector_colours
from stemstore.demo.report import write_report
from stemstore.demo.run import DemoResult, run_demo
from stemstore.errors import InputError
from stemstore.testing.scoring import matched_events


def test_one_failed_check_fails_the_demo(tmp_path):
    """The result holds only when every check does."""
    good, bad = Check("a", "1", "1", True), Check("b", "1", "2", np.bool_(False))
    assert DemoResult(tmp_path, [good]).holds
    assert not DemoResult(tmp_path, [good, bad]).holds


def test_report_shows_every_check_and_escapes_text(tmp_path):
    """Failed checks stand out; foreign text cannot become markup."""
    checks = [Check("recall", "0.5", "≥ 0.96", False), Check("same", "yes", "yes", True)]
    path = write_report(
        tmp_path / "report.html", checks=checks, facts={"step": "1 s"}, pictures={}, inspection="<script>x</script>"
    )
    page = path.read_text(encoding="utf-8")
    assert "1 of 2 hold" in page
    assert 'class="no">NO' in page
    assert "<script>" not in page


def test_missed_and_misplaced_disks_fail():
    """Errors are root mean squares over what was found, and a disk that was not found fails the check."""
    errors = np.array([[0.1, -0.1], [np.nan, np.nan], [0.1, 0.1]])
    found, rms, ratio = disk_checks("x", errors, limit=0.05)
    assert not found.holds
    assert rms.holds
    assert rms.measured == "0.100 px"
    assert not ratio.holds


def test_matching_is_one_to_one_and_reaches_the_neighbours():
    """Two events cannot share an electron; diagonal neighbours match, pixels two away do not."""
    width = 10
    assert matched_events(np.array([33, 34]), np.array([33]), (10, width)) == 1
    assert matched_events(np.array([22]), np.array([33]), (10, width)) == 1
    assert matched_events(np.array([31]), np.array([33]), (10, width)) == 0
    assert matched_events(np.array([], int), np.array([33]), (10, width)) == 0
    # the greedy choice 33 -> 33 would leave 34 without a partner
    assert matched_events(np.array([33, 35]), np.array([34, 33]), (10, width)) == 2


def test_pictures_are_written_and_unknown_vectors_are_grey(tmp_path):
    """A map becomes a PNG; NaN has no direction."""
    path = save_images(tmp_path / "a.png", {"one": xr.DataArray(np.eye(4))}, step=(0.5, "nm"))
    assert path.read_bytes().startswith(b"\x89PNG")
    colours = vector_colours(np.array([[[np.nan, np.nan], [1.0, 0.0]]]), 1.0)
    assert (colours[0, 0] == 0.5).all()
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)


def test_small_scans_are_refused(tmp_path):
    """Too few positions for the analysis is said at once; nothing is written."""
    with pytest.raises(InputError, match="24 x 24"):
        run_demo(tmp_path / "demo", scan_shape=(10, 40))
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_demo_agrees_with_its_truth(tmp_path):
    """The whole main job on 1 GB of raw data gives the known answers."""
    result = run_demo(tmp_path, scan_shape=(40, 40), seed=3)
    assert result.report.is_file()
    document = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [check for check in document["checks"] if not check["holds"]] == []
