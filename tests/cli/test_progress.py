"""Kinds of progress."""

import io
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from stemstore.cli.progress import Bar, Reports, json_line, shown, text_line
from stemstore.errors import InputError
from stemstore.progress import NoProgress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("kind", "stream", "cls"),
    [
        ("auto", Terminal(), Bar),
        ("auto", io.StringIO(), Reports),
        ("bar", io.StringIO(), Bar),
        ("jsonl", Terminal(), Reports),
        ("none", Terminal(), NoProgress),
        ("auto", None, NoProgress),
    ],
)
def test_kind_and_terminal_choose(monkeypatch, kind, stream, cls):
    """A bar needs a terminal or the wish for one; without standard error there is nothing."""
    monkeypatch.setattr("sys.stderr", stream)
    with shown(kind) as progress:
        assert type(progress) is cls


def test_unknown_kind():
    """A kind that does not exist names those that do."""
    with pytest.raises(InputError, match="expected one of auto, bar, jsonl, none"), shown("loud"):
        pass


def test_lines_come_first_last_and_every_so_often():
    """Between the first and the last step of a phase a line waits its time."""
    stream, now = io.StringIO(), [0.0]
    reports = Reports(stream, text_line, 30.0, lambda: now[0])
    reports.start("counting", 100)
    for second in range(1, 101):
        now[0] = float(second)
        reports.advance()
    assert stream.getvalue().splitlines() == [
        "counting: 0 of 100 after 0 s",
        "counting: 30 of 100 after 30 s",
        "counting: 60 of 100 after 60 s",
        "counting: 90 of 100 after 90 s",
        "counting: 100 of 100 after 100 s",
    ]


def test_unknown_total():
    """A phase of unknown length counts up."""
    stream = io.StringIO()
    reports = Reports(stream, text_line, 0.0, lambda: 0.0)
    reports.start("reading", None)
    reports.advance(7)
    assert stream.getvalue() == "reading: 0 after 0 s\nreading: 7 after 0 s\n"


def test_json_lines_from_many_threads():
    """Lines of several threads do not mix, and no step is lost."""
    stream = io.StringIO()
    reports = Reports(stream, json_line, 0.0)
    reports.start("writing", 200)
    with ThreadPoolExecutor(8) as executor:
        list(executor.map(lambda _: reports.advance(), range(200)))
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [entry["done"] for entry in found] == list(range(201))
    assert {(entry["phase"], entry["total"]) for entry in found} == {("writing", 200)}


def test_bar_shows_phase_and_steps():
    """A bar ends with what was done; steps before the first phase are no error."""
    stream = io.StringIO()
    with Bar(stream) as bar:
        bar.advance()
        bar.start("counting", 4)
        bar.advance(4)
    assert "counting" in stream.getvalue()
    assert "4/4" in stream.getvalue()
