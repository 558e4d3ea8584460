"""A conversion as many jobs: plan it once, write its partitions anywhere and in any order, finalise it once.

Nothing passes between the jobs but the destination: what was asked for lies in its journal, and every job finds the
same limits from it, because frames are sampled by the same rule.
"""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stemstore.conversion.again import decide_again
from stemstore.conversion.job import decide
from stemstore.conversion.plan import CountedPlan
from stemstore.conversion.report import ConversionReport, report_of
from stemstore.conversion.request import Request
from stemstore.conversion.steps import begin_writing, check_same, deciding, finish, keeping, write_some
from stemstore.errors import InputError
from stemstore.progress import NoProgress
from stemstore.scan.addresses import check_apart
from stemstore.store.urls import open_storage
from stemstore.store.writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.conversion.job import Job
    from stemstore.progress import Progress

PathLike = str | os.PathLike[str]
AGAIN = "repeat the job"


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """A conversion that was begun.

    Attributes
    ----------
    url, working
        Where the store will be, and where it grows.
    profile
        ``"dense"`` or ``"counted"``.
    shape
        Scan axes, ky, kx.
    n_partitions
        Shards of the scan; each is written once and whole.
    n_tasks
        Jobs that `convert_partition` divides them into.
    workers, memory
        Threads of a job, and their projected working memory in bytes.
    thresholds
        What electrons are counted with; None where nothing is counted.
    warnings
        What is odd about the source.
    """

    url: str
    working: str
    profile: str
    shape: tuple[int, ...]
    n_partitions: int
    n_tasks: int
    workers: int
    memory: int
    thresholds: dict[str, Any] | None
    warnings: list[str]


def plan_conversion(
    source: PathLike | Sequence[PathLike],
    destination: PathLike,
    *,
    tasks: int | None = None,
    overwrite: bool = False,
    **options: Any,
) -> ConversionPlan:
    """Begin a conversion that other processes write.

    Parameters
    ----------
    source, destination, overwrite
        As for `convert`; every job must reach both by the same path or URL.
    tasks
        Jobs to divide the partitions into; one job for each partition by default, and never more.
    **options
        Of `convert`, but for ``progress`` and ``resume``.

    Returns
    -------
    plan
        How many jobs there are, and what each of them needs.

    Raises
    ------
    InputError
        An option can be kept for other processes neither as a JSON value nor as an array, or as for `convert`.
    DestinationExistsError, UnknownFormatError, CorruptDataError, MemoryBudgetError
        As for `convert`.

    Examples
    --------
    >>> import stemstore
    >>> plan = stemstore.plan_conversion("scan_42/", "scan_42.zarr", count=True)  # doctest: +SKIP
    >>> for task in range(plan.n_tasks):  # anywhere, in any order
    ...     stemstore.convert_partition("scan_42.zarr", task)  # doctest: +SKIP
    >>> stemstore.finalise_conversion("scan_42.zarr")  # doctest: +SKIP
    """
    if tasks is not None and (isinstance(tasks, bool) or not isinstance(tasks, int) or tasks < 1):
        msg = f"tasks={tasks!r}; expected a whole number of at least 1"
        raise InputError(msg, key="tasks", found=tasks)
    check_apart(source, destination)
    request = Request.of(source, {name: value for name, value in options.items() if name != "workers"}, tasks)
    if request is None:
        msg = f"an option cannot be kept for other processes; give JSON values, arrays or paths: {sorted(options)}"
        raise InputError(msg, found=sorted(options))
    job = decide(request.origin, {**request.given, "workers": options.get("workers")})
    writer = begin_writing(job, os.fspath(destination), request, overwrite)
    counter = job.plan.counter if isinstance(job.plan, CountedPlan) else None
    return ConversionPlan(
        url=writer.url,
        working=writer.working,
        profile=writer.document.profile,
        shape=writer.document.shape,
        n_partitions=writer.layout.n_partitions,
        n_tasks=len(divide(writer.layout.n_partitions, tasks)),
        workers=job.plan.workers,
        memory=job.plan.memory,
        thresholds=None if counter is None else asdict(counter.thresholds),
        warnings=[*job.plan.source.metadata.warnings, *job.odd.all],
    )


def convert_partition(
    destination: PathLike, task: int, *, workers: int | None = None, progress: Progress | None = None
) -> list[int]:
    """Write the partitions of one job; those that are there and whole are not written again.

    Parameters
    ----------
    destination
        As in `plan_conversion`.
    task
        Number of the job, from 0.
    workers
        Threads.
    progress
        Receives the advance.

    Returns
    -------
    written
        Numbers of the partitions that were written now.

    Raises
    ------
    NotFoundError
        No conversion to the destination was planned.
    InputError
        There is no such job, or the source is not the one that was planned.
    """
    with deciding(os.fspath(destination), AGAIN):
        writer, request, job = _join(destination, workers)
    jobs = divide(writer.layout.n_partitions, request.tasks)
    if isinstance(task, bool) or not isinstance(task, int) or not 0 <= task < len(jobs):
        msg = f"task={task!r}; the conversion to '{writer.url}' was planned as jobs 0 to {len(jobs) - 1}"
        raise InputError(msg, key="task", found=task, expected=len(jobs))
    with keeping(writer, remove=False, advice=AGAIN):
        done = set(jobs[task]) if writer.committed() is not None else writer.finished(jobs[task])
        todo = [index for index in jobs[task] if index not in done]
        write_some(job, writer, todo, progress or NoProgress(), share=(task, len(jobs)))
    return todo


def finalise_conversion(destination: PathLike) -> ConversionReport:
    """Finish a conversion whose partitions are all written.

    Parameters
    ----------
    destination
        As in `plan_conversion`.

    Returns
    -------
    report
        Its time is that of this call.

    Raises
    ------
    NotFoundError
        No conversion to the destination was planned.
    ConversionIncompleteError
        Partitions are missing; the message lists them, and nothing is lost.
    """
    started = time.perf_counter()
    with deciding(os.fspath(destination), AGAIN):
        writer, _, job = _join(destination, None)
    with keeping(writer, remove=False, advice=AGAIN):
        document = finish(job, writer)
    return report_of(job, document, writer.url, time.perf_counter() - started)


def divide(n_partitions: int, tasks: int | None) -> list[range]:
    """Divide partitions into runs of nearly equal length, none empty."""
    n = n_partitions if tasks is None else min(tasks, n_partitions)
    borders = [n_partitions * number // n for number in range(n + 1)]
    return [range(*pair) for pair in itertools.pairwise(borders)]


def _join(destination: PathLike, workers: int | None) -> tuple[StoreWriter, Request, Job]:
    """Take part in a conversion by what its journal tells."""
    writer = StoreWriter.attach(destination)
    request = Request.read(open_storage(writer.working))
    job = decide_again(request, workers)
    check_same(job, writer)
    return writer, request, job
