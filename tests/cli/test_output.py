"""What is printed: JSON values and columns."""

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stemstore.cli.output import plain, print_facts, print_json, print_table, times_text


@dataclass
class Pair:
    """A value with fields."""

    name: str
    shape: tuple[int, ...]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Pair("a", (1, 2)), {"name": "a", "shape": [1, 2]}),
        (float("nan"), "NaN"),
        ([float("inf"), -np.inf, 1.5], ["Infinity", "-Infinity", 1.5]),
        (np.float32("nan"), "NaN"),
        (np.uint64(2**63), 2**63),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        ({1: Path("a/b")}, {"1": str(Path("a/b"))}),
        ((True, None), [True, None]),
    ],
)
def test_plain_values(value, expected):
    """Whatever the library hands over becomes a JSON value."""
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


def test_json_keeps_letters():
    """Names beyond ASCII are written as they are, and one line ends the document."""
    stream = io.StringIO()
    print_json("info", {"url": "Größe.zarr"}, stream)
    assert "Größe.zarr" in stream.getvalue()
    assert stream.getvalue().endswith("}\n")
    assert json.loads(stream.getvalue()) == {"schema_version": 1, "verb": "info", "url": "Größe.zarr"}


def test_texts_are_printed_as_they_are(capsys):
    """Brackets are no markup, colons no pictures, and long texts stay on one line outside a terminal."""
    text = "[bold]x[/bold] :smile: " + "w" * 200
    print_facts([("a", text), ("longer", "b")])
    assert capsys.readouterr().out == f"a       {text}\nlonger  b\n"


def test_table_has_a_head(capsys):
    """Columns are aligned below their names."""
    print_table(("NAME", "N"), [("a", "1"), ("long name", "22")])
    assert capsys.readouterr().out.splitlines() == ["NAME       N", "a          1", "long name  22"]


@pytest.mark.parametrize(("ratio", "text"), [(0.5, "0.5 times"), (12.34, "12.3 times"), (1560.4, "1560 times")])
def test_ratios_have_no_exponent(ratio, text):
    """Large ratios are whole numbers."""
    assert times_text(ratio) == text


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize("columns", ["40", "80"])
def test_terminals_wrap(monkeypatch, columns):
    """On a terminal long texts are folded to its width, and NO_COLOR keeps colours out."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    print_facts([("store", "w" * 100)])
    assert set(re.findall(r"\x1b\[([0-9;]*)m", stream.getvalue())) == {"1", "0"}, "bold and its end only"
    lines = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()
    assert max(len(line) for line in lines) <= int(columns)
    assert "".join(line.removeprefix("store").strip() for line in lines) == "w" * 100
