"""Running tasks on whatever scheduler dask is set to, and taking each result as soon as it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask import threaded
from dask.base import get_scheduler
from dask.callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Callable

    Take = Callable[[int, Any], None]


def run_tasks(graph: Any, keys: list[tuple[str, int]], take: Take, workers: int | None = None) -> None:
    """Run tasks and hand over their results one by one, in the order in which they end.

    Parameters
    ----------
    graph, keys
        Tasks; those of `keys` are named ``(name, number)`` and give a list of one result.
    take
        Called in this thread with the number and the result. The list is emptied first: local schedulers hold what
        tasks gave until the last one has ended.
    workers
        Threads or processes of a local scheduler; None for as many as dask would take. A cluster has its own.

    Raises
    ------
    BaseException
        Whatever a task or `take` raises; tasks that have not begun do not run any more.
    """
    get = get_scheduler() or threaded.get
    client = getattr(get, "__self__", None)
    if client is not None and hasattr(client, "cancel"):
        _run_on_cluster(client, graph, keys, take)
        return
    with _Taking(set(keys), take):
        get(graph, keys, chunksize=1, **({} if workers is None else {"num_workers": workers}))


def runs_here() -> bool:
    """Whether tasks run on this machine, where the number of workers can be chosen."""
    return not hasattr(getattr(get_scheduler(), "__self__", None), "cancel")


class _Taking(Callback):
    """Takes results from a local scheduler."""

    def __init__(self, keys: set[tuple[str, int]], take: Take) -> None:
        self.keys, self.take = keys, take
        super().__init__(posttask=self._ended)

    def _ended(self, key: Any, result: Any, *_: Any) -> None:
        if key in self.keys:
            self.take(key[1], result.pop())


def _run_on_cluster(client: Any, graph: Any, keys: list[tuple[str, int]], take: Take) -> None:
    from distributed import as_completed

    futures = client.get(graph, keys, sync=False)
    try:
        for future, result in as_completed(futures, with_results=True):
            take(future.key[1], result.pop())
            future.release()
    except BaseException:
        client.cancel(futures)
        raise
