"""A conversion on a cluster of dask: the jobs of a planned conversion as its tasks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from stemstore.conversion.parts import convert_partition, divide, finalise_conversion, plan_conversion
from stemstore.conversion.request import Request
from stemstore.conversion.steps import unfinished
from stemstore.progress import NoProgress
from stemstore.store.urls import open_storage
from stemstore.store.writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Client, Future

    from stemstore.conversion.report import ConversionReport
    from stemstore.progress import Progress

PathLike = str | os.PathLike[str]
RETRIES = 2  # of a partition whose worker was lost; what it had written is found and left alone


def convert_on_cluster(
    client: Client,
    source: PathLike | Sequence[PathLike],
    destination: PathLike,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> ConversionReport:
    """Convert raw data, or a store, on the workers of a cluster.

    Parameters
    ----------
    client
        Of `distributed`, connected to a cluster of any kind; its workers must reach source and destination by the same
        paths or URLs.
    source, destination
        As for `convert`.
    resume
        Go on with a conversion to this destination that was begun by `plan_conversion` or by this function.
    progress
        Receives the advance.
    **options
        Of `plan_conversion`. The number of ``workers`` is that of the threads of a task, one by default: a worker of
        dask runs as many tasks at a time as it has threads.

    Returns
    -------
    report
        Its time is that of the last step.

    Raises
    ------
    StemStoreError
        As for `convert`. Finished partitions stay, for `resume`.

    Notes
    -----
    Every task writes whole shards itself; nothing but numbers passes through the scheduler. A worker that is lost costs
    the shards that it was writing.
    """
    from distributed import as_completed

    options["workers"] = workers = options.get("workers") or 1
    if resume and unfinished(os.fspath(destination)):
        writer = StoreWriter.attach(destination)
        n_tasks = len(divide(writer.layout.n_partitions, Request.read(open_storage(writer.working)).tasks))
    else:
        n_tasks = plan_conversion(source, destination, **options).n_tasks
    shown = progress or NoProgress()
    shown.start("converting on the cluster", n_tasks)
    target = os.fspath(destination)
    futures: list[Future[list[int]]] = client.map(
        lambda task: convert_partition(target, task, workers=workers), range(n_tasks), pure=False, retries=RETRIES
    )
    try:
        for future in as_completed(futures):
            future.result()
            shown.advance()
    finally:
        client.cancel(futures)
    return finalise_conversion(destination)
