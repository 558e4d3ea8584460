"""What verbs print: results on standard output, as text for people or as one JSON document; the rest goes elsewhere.

A JSON document is one object with ``schema_version`` and ``verb``. It knows neither NaN nor infinity, which are
written as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
import warnings
from typing import IO, TYPE_CHECKING, Any

from stemstore.errors import ScanWarning

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.table import Table

SCHEMA_VERSION = 1
"""Version of the JSON documents; grows when a key changes its meaning or goes away, not when one is added."""

WIDE = 4096  # columns where no terminal sets a limit, so that a line of a table stays one line for grep


def plain(value: Any) -> Any:
    """Turn a value into what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if hasattr(value, "tolist"):  # NumPy
        return plain(value.tolist())
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def print_json(verb: str, document: dict[str, Any], file: IO[str] | None = None) -> None:
    """Print one JSON document."""
    stream = sys.stdout if file is None else file
    if stream is None:  # the caller closed the stream
        return
    whole = {"schema_version": SCHEMA_VERSION, "verb": verb, **plain(document)}
    stream.write(json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    stream.flush()


def print_facts(rows: Iterable[tuple[str, str]]) -> None:
    """Print labels and texts in two columns."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in rows:
        grid.add_row(label, text)
    _print(grid)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table with a head line."""
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    _print(table)


def _print(table: Table) -> None:
    """Print a table as its texts are, without the spaces that fill its lines."""
    from rich.console import Console

    if sys.stdout is None:
        return
    width = None if sys.stdout.isatty() else WIDE
    console = Console(file=sys.stdout, width=width, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print_line(line.rstrip())


def times_text(ratio: float) -> str:
    """Write how many times smaller something is, without an exponent."""
    return f"{ratio:.3g} times" if ratio < 100 else f"{ratio:.0f} times"  # noqa: PLR2004  # three digits


def print_line(text: str = "") -> None:
    """Print a line of a result."""
    if sys.stdout is not None:
        sys.stdout.write(text + "\n")


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Tell warnings about raw files on stderr, in the tone of errors, instead of Python's."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ScanWarning)
        yield
    for warning in caught:
        notify(f"warning: {warning.message}")


def notify(text: str) -> None:
    """Tell something that is no result."""
    if sys.stderr is not None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
