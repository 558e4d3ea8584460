"""Threads over many small pieces of work, in order and with bounded memory."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from stemstore.config import n_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 2  # results per thread that may wait for the consumer


def map_ordered(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Apply a function in threads and give the results in the order of the items.

    Unlike ``Executor.map`` it never runs far ahead of the consumer, so that a stream of frames of any length stays
    within memory.
    """
    threads = n_workers()
    with ThreadPoolExecutor(threads, thread_name_prefix="stemstore-testing") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
