"""The verb ``demo``: what it hands on; the demonstration itself is tested in its own room."""

from pathlib import Path

import pytest

from stemstore.demo.compare import Check
from stemstore.demo.run import DemoResult


@pytest.fixture
def calls(monkeypatch):
    """Replace the demonstration by a note of its arguments."""
    seen = []

    def run_demo(folder, **options):
        options.pop("progress").start("simulating", 1)
        seen.append((folder, options))
        checks = [Check("recall", "0.97", "> 0.96", True), Check("phase", "0.5", "> 0.9", folder.name != "bad")]
        return DemoResult(folder / "report.html", checks)

    monkeypatch.setattr("stemstore.demo.run.run_demo", run_demo)
    return seen


def test_defaults(call, calls):
    """Without options the default scan is made in a folder of the demonstration."""
    result = call("demo")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1:3] == [["recall", "0.97", ">", "0.96", "yes"], ["phase", "0.5", ">", "0.9", "yes"]]
    assert lines[-1] == [str(Path("stemstore-demo") / "report.html")]
    assert calls == [(Path("stemstore-demo"), {"scan_shape": (40, 40), "dose": 120.0, "seed": 0})]
    assert result.stderr == "simulating: 0 of 1 after 0 s\n"


def test_options(document, calls, tmp_path):
    """Every option reaches the demonstration."""
    found = document("demo", tmp_path, "--scan-shape", "8x9", "--dose", "50", "--seed", "3", "--progress", "none")
    assert (found["report"], found["holds"]) == (str(tmp_path / "report.html"), True)
    assert found["checks"][0] == {"name": "recall", "measured": "0.97", "expected": "> 0.96", "holds": True}
    assert calls == [(tmp_path, {"scan_shape": (8, 9), "dose": 50.0, "seed": 3})]


def test_disagreement_is_exit_1(call, calls, tmp_path):
    """A result that does not agree with the truth is a failure."""
    result = call("demo", tmp_path / "bad", "--progress", "none")
    assert result.exit_code == 1
    assert "do not agree" in result.stderr
    assert "NO" in result.stdout
    assert len(calls) == 1


@pytest.mark.parametrize(
    "options", [["--scan-shape", "8"], ["--scan-shape", "2x3x4"], ["--dose", "0"], ["--seed", "-1"]]
)
def test_wrong_options_are_exit_2(call, calls, options):
    """Scans have two axes, doses and seeds are numbers that make sense."""
    assert call("demo", *options).exit_code == 2
    assert calls == []
