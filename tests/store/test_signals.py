"""Signals at random moments of the command line: exit codes that say what to do, and a journal that is right."""

import signal
import sys

import pytest
from processes import Processes
from sweeps import LIMIT, content, convert, opens, write_scan

from stemstore.store.urls import open_storage

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's"),
    pytest.mark.slow,
    pytest.mark.timeout(900),
]
MAIN = """
import sys
from stemstore.cli.main import main
from stemstore.cli.verb import Verb

invoke = Verb.invoke
def told(self, ctx):
    print("verb begun", flush=True)
    return invoke(self, ctx)

Verb.invoke = told
sys.argv = ["stemstore", *job["arguments"]]
main()
"""
SIGNALS = {signal.SIGTERM: (75, 143), signal.SIGUSR1: (75, 143), signal.SIGINT: (130, 130)}
"""Exit codes where something is kept, and where nothing is."""

COMMON = ["--workers", "1", "--progress", "none"]
ARGUMENTS = {
    "dense": [*COMMON, "--no-count", "--profile", "raw", "--max-memory", "16KiB"],
    "counted": [*COMMON, "--count", "--background-threshold", "40", "--xray-threshold", "500"],
}


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr("stemstore.store.layout.MAX_RAW_BYTES", LIMIT)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A small scan."""
    return write_scan(tmp_path_factory.mktemp("raw") / "scan.npy")


@pytest.fixture(scope="module")
def processes(raw, tmp_path_factory):
    """Give processes that can be stopped."""
    with Processes(raw, tmp_path_factory.mktemp("processes"), LIMIT, "signals") as found:
        yield found


def begun(place):
    """Tell whether a conversion to a local place is unfinished."""
    return bool(list(place.parent.glob(f"{place.name}.part-*")))


@pytest.mark.parametrize("kind", sorted(ARGUMENTS))
@pytest.mark.parametrize("number", SIGNALS)
def test_conversions(raw, tmp_path, processes, number, kind):
    """What is finished is kept with exit code 75 or 130, nothing is left otherwise, and the end is the same bytes."""
    convert(raw, tmp_path / "undisturbed.zarr", kind)
    expected = content(open_storage(tmp_path / "undisturbed.zarr"))
    arguments = ["convert", str(raw), "PLACE", "--resume", *ARGUMENTS[kind]]
    _, seconds = processes.run(MAIN, arguments=[*arguments[:2], str(tmp_path / "first.zarr"), *arguments[3:]])
    stops, turn, seen = 0, 0, set()
    while stops < 20:
        turn += 1
        place, entered, finished = tmp_path / f"{turn}.zarr", [], False
        arguments[2] = str(place)
        for _ in range(12):
            status, _ = processes.run(MAIN, within=0.8 * seconds, number=number, arguments=arguments)
            entered += processes.told("entry")
            if status == 0:
                finished = True
                break
            stops += 1
            seen.add((status, begun(place)))
            whole = opens(place)
            kept = begun(place) or (whole and open_storage(place).size(".journal/plan.json") is not None)
            code = SIGNALS[number][0 if kept and processes.told("verb") else 1]
            assert status == code or whole or status == -number, (status, kept, processes.text)
            assert status != -number or not processes.told("verb")  # before there was anybody to hear it
            assert "unforeseen" not in processes.text
        if not finished:
            status, _ = processes.run(MAIN, arguments=arguments)
            entered += processes.told("entry")
            assert status == 0 or opens(place), processes.text
        assert len(entered) == len(set(entered)), "a finished partition was written again"
        assert content(open_storage(place)) == expected
    assert {status for status, _ in seen} >= {SIGNALS[number][0]}
    assert not list(tmp_path.glob("*.part-*"))


@pytest.mark.parametrize("number", SIGNALS)
def test_jobs(raw, tmp_path, processes, number):
    """Jobs of a planned conversion that are stopped are repeated, and so is its end."""
    convert(raw, tmp_path / "undisturbed.zarr", "dense")
    expected = content(open_storage(tmp_path / "undisturbed.zarr"))
    place, stops, entered = str(tmp_path / "a.zarr"), 0, []
    plan = ["plan", str(raw), place, "--tasks", "4", *(one for one in ARGUMENTS["dense"] if one not in COMMON[2:])]
    _, seconds = processes.run(MAIN, arguments=[*plan[:2], str(tmp_path / "first.zarr"), *plan[3:]])
    while not begun(tmp_path / "a.zarr"):
        status, _ = processes.run(MAIN, within=seconds, number=number, arguments=plan)
        assert status in {0, -number, SIGNALS[number][1]}, processes.text
    for job in [["partition", place, str(task), "--progress", "none"] for task in range(4)] + [["finalise", place]]:
        for _ in range(8):
            status, _ = processes.run(MAIN, within=seconds / 2, number=number, arguments=job)
            entered += processes.told("entry")
            if status == 0 or opens(place):
                break
            stops += 1
            early = {-number, SIGNALS[number][1]} if not processes.told("verb") else set()
            assert status in {SIGNALS[number][0], *early}, (status, processes.text)
        else:
            status, _ = processes.run(MAIN, arguments=job)
            entered += processes.told("entry")
            assert status == 0, processes.text
    assert stops > 3
    assert len(entered) == len(set(entered))
    assert content(open_storage(place)) == expected
