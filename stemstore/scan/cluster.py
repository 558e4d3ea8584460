"""Clusters of dask whose workers suit large frames: memory that stays with the process, and a budget for each."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from stemstore.config import n_workers, parse_size
from stemstore.errors import InputError, OptionalDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import LocalCluster

ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": 256 * 2**20, "MALLOC_MMAP_THRESHOLD_": 32 * 2**20}
"""dask starts workers so that glibc gives every large buffer back at once, to get it again page by page; with these
limits it keeps them. They have to be in the environment before the process starts."""

NO_DASHBOARD = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
"""Options of a scheduler; without a dashboard it would still listen, on port 8787 of all interfaces."""

SHARE = 0.6
"""Share of a worker's memory that our work may take; the rest is for interpreter, libraries and results."""


def worker_environment(*, threads: int = 1, memory: str | int | None = None) -> dict[str, str]:
    """Give the environment variables that a worker should be started with.

    Parameters
    ----------
    threads
        Of one worker.
    memory
        Of one worker, such as ``"8GiB"``; operations and conversions on it then stay within 60 % of it.

    Returns
    -------
    variables
        By name. For dask-jobqueue: ``job_script_prologue=[f"export {name}={value}" for name, value in …]``.

    Raises
    ------
    InputError
        The memory is not a size.
    """
    variables = {name: str(value) for name, value in ALLOCATOR.items()}
    variables["STEMSTORE_WORKERS"] = str(threads)
    if memory is not None:
        variables["STEMSTORE_MAX_MEMORY"] = str(int(SHARE * parse_size(memory)))
    return variables


def local_cluster(
    workers: int | None = None, *, threads: int = 1, memory: str | int | None = None, **options: Any
) -> LocalCluster:
    """Start a cluster on this machine.

    Parameters
    ----------
    workers
        Processes; by default one for each processor and `threads`.
    threads
        Threads of each process.
    memory
        Of each process, such as ``"4GiB"``; dask's own choice by default.
    **options
        Of `distributed.LocalCluster`. With ``dashboard_address=None`` there is no dashboard, and no port that other
        machines could reach.

    Returns
    -------
    cluster
        To be used as ``with stemstore.local_cluster() as cluster, Client(cluster): …``.

    Raises
    ------
    InputError
        A number is below one, or the memory is not a size.
    OptionalDependencyError
        dask.distributed is not installed.

    Notes
    -----
    Sharing images among processes needs no more memory than threads do: workers read the store themselves.
    """
    try:
        from distributed import LocalCluster
    except ImportError as error:
        msg = "clusters need dask.distributed; install it with pip install 'stemstore[cluster]'"
        raise OptionalDependencyError(msg, package="distributed") from error
    for name, value in (("workers", workers), ("threads", threads)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            msg = f"{name}={value!r}; expected a whole number of at least 1"
            raise InputError(msg, key=name, found=value)
    if memory is not None:
        options["memory_limit"] = parse_size(memory)
    if options.get("dashboard_address", ...) is None:
        options["scheduler_kwargs"] = NO_DASHBOARD | (options.get("scheduler_kwargs") or {})
    if options.get("processes", True):
        ours = worker_environment(threads=threads, memory=memory)
        options["env"] = {name: text for name, text in ours.items() if name not in ALLOCATOR} | options.get("env", {})
    with _allocator():
        return LocalCluster(n_workers=workers or max(1, n_workers() // threads), threads_per_worker=threads, **options)


@contextlib.contextmanager
def _allocator() -> Iterator[None]:
    """Let workers that are started now have our limits of the allocator.

    dask copies what a worker is started with into the environment of its own process and leaves it there, where it
    outweighs the configuration of the next cluster. So the variables are set here as well, and put back.
    """
    import dask

    key, before = "distributed.nanny.pre-spawn-environ", {name: os.environ.get(name) for name in ALLOCATOR}
    limits = {name: str(value) for name, value in ALLOCATOR.items()}
    os.environ.update(limits)
    try:
        with dask.config.set({key: {**dask.config.get(key, {}), **limits}}):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
