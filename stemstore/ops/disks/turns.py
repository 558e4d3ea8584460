"""Short turns at the interpreter lock while threads look for disks.

A frame is a few compiled calls of 50 to 100 µs, with some Python between them. A thread that wants the lock back asks
for it after Python's switch interval, 5 ms: long against the whole frame. With 50 µs two threads find 1.9 times as many
disks as one, in place of 1.6 times (measured on two processors, frames of 256 x 256 pixels).
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL = 50e-6
"""Seconds."""

_lock = threading.Lock()
_usual: list[float] = []
"""One entry for every thread inside: the interval that was there when the first of them came."""


@contextmanager
def short_turns() -> Iterator[None]:
    """Shorten the switch interval of this process; the last thread that leaves puts it back."""
    with _lock:
        _usual.append(_usual[0] if _usual else sys.getswitchinterval())
        sys.setswitchinterval(min(INTERVAL, _usual[0]))
    try:
        yield
    finally:
        with _lock:
            usual = _usual.pop()
            if not _usual:
                sys.setswitchinterval(usual)
