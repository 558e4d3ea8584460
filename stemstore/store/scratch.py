"""Buffers that are used again instead of being allocated for each chunk.

Decoding into memory that the process already owns runs several times faster than into fresh pages. A buffer is leased
from a stack that belongs to the calling thread, so that two reads which interleave on one thread get different ones.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stemstore._types import Array

KEPT = 8
"""Idle buffers kept by a thread: a detector-split read holds three, and two reads may interleave."""

LARGEST_KEPT = 64 * 2**20
"""Bytes above which a buffer goes back to the system instead of the stack."""

_idle = threading.local()

Value = TypeVar("Value")


@contextmanager
def lease(n_bytes: int) -> Iterator[Array]:
    """Lend a uint8 buffer of at least `n_bytes`, cut to that length, for the time of a ``with`` block."""
    stack: list[Array] = _idle.__dict__.setdefault("stack", [])
    fitting = [number for number, buffer in enumerate(stack) if n_bytes <= len(buffer)]
    if fitting:
        buffer = stack.pop(min(fitting, key=lambda number: len(stack[number])))
    else:
        buffer = np.empty(max(n_bytes, 1), np.uint8)
    try:
        yield buffer[:n_bytes]
    finally:
        if len(buffer) <= LARGEST_KEPT:
            stack.append(buffer)
            del stack[:-KEPT]


class BoundedCache(Generic[Value]):
    """The values used last, up to a number of bytes; safe for threads.

    Parameters
    ----------
    max_bytes
        Sum of the sizes that is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._values: OrderedDict[object, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object) -> Value | None:
        """Value of `key`, or None."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: object, value: Value, n_bytes: int) -> None:
        """Keep a value, letting go of those not used for longest."""
        with self._lock:
            old = self._values.pop(key, None)
            self.n_bytes += n_bytes - (old[1] if old else 0)
            self._values[key] = (value, n_bytes)
            while self.n_bytes > self.max_bytes and len(self._values) > 1:
                _, (_, freed) = self._values.popitem(last=False)
                self.n_bytes -= freed

    def get_or_make(self, key: object, make: Callable[[], tuple[Value, int]]) -> Value:
        """Value of `key`, made and kept where it is not there; `make` gives the value and its bytes."""
        found = self.get(key)
        if found is None:
            found, n_bytes = make()
            self.put(key, found, n_bytes)
        return found
