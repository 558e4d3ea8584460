"""How far a piece of work is: a bar on a terminal, lines now and then in a log, JSON lines for programs."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any, Self

from stemstore.errors import InputError
from stemstore.progress import NoProgress, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ("auto", "bar", "jsonl", "none")
EVERY = {"lines": 30.0, "jsonl": 0.5}  # seconds between reports; the first and the last one of a phase always come


@contextlib.contextmanager
def shown(kind: str) -> Iterator[Progress]:
    """Show progress on standard error while the block runs.

    Raises
    ------
    InputError
        There is no such kind.
    """
    if kind not in KINDS:
        msg = f"--progress {kind!r} is not known; expected one of {', '.join(KINDS)}"
        raise InputError(msg, key="--progress", found=kind, expected=KINDS)
    stream = sys.stderr
    if kind == "none" or stream is None:
        yield NoProgress()
    elif kind == "bar" or (kind == "auto" and stream.isatty()):
        with Bar(stream) as bar:
            yield bar
    else:
        write = json_line if kind == "jsonl" else text_line
        yield Reports(stream, write, EVERY["jsonl" if kind == "jsonl" else "lines"])


class Bar:
    """Progress as a bar with the time that is left."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Display

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._display = Display(*columns, console=Console(file=stream))
        self._task: Any = None

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    def start(self, what: str, total: int | None) -> None:
        """Begin a phase below the earlier ones."""
        self._task = self._display.add_task(what, total=total)

    def advance(self, steps: int = 1) -> None:
        """Report that `steps` more steps are done."""
        if self._task is not None:
            self._display.advance(self._task, steps)


class Reports:
    """Progress as one line every few seconds; steps may be reported by any thread.

    Parameters
    ----------
    stream
        Where lines go.
    write
        Makes a line of phase, steps done, steps in all and seconds.
    every : unit s
        Time between two lines.
    clock
        Gives the time in seconds.
    """

    def __init__(
        self,
        stream: IO[str],
        write: Callable[[str, int, int | None, float], str],
        every: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._write, self._every, self._clock = stream, write, every, clock
        self._lock = threading.Lock()
        self._what, self._done = "", 0
        self._total: int | None = None
        self._began = self._last = 0.0

    def start(self, what: str, total: int | None) -> None:
        """Begin a phase."""
        with self._lock:
            self._what, self._done, self._total = what, 0, total
            self._began = self._clock()
            self._report()

    def advance(self, steps: int = 1) -> None:
        """Report that `steps` more steps are done."""
        with self._lock:
            self._done += steps
            if self._done == self._total or self._clock() - self._last >= self._every:
                self._report()

    def _report(self) -> None:
        self._last = self._clock()
        self._stream.write(self._write(self._what, self._done, self._total, self._last - self._began) + "\n")
        self._stream.flush()


def text_line(what: str, done: int, total: int | None, seconds: float) -> str:
    """Write a report for people."""
    share = f"{done}" if total is None else f"{done} of {total}"
    return f"{what}: {share} after {seconds:.0f} s"


def json_line(what: str, done: int, total: int | None, seconds: float) -> str:
    """Write a report for programs."""
    return json.dumps({"phase": what, "done": done, "total": total, "seconds": round(seconds, 3)})
