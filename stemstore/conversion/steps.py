"""The steps of a conversion, which one process or many may take: begin or resume, write partitions, finish."""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING, Any

from stemstore.conversion.counting.seen import Seen
from stemstore.conversion.digests import Digests
from stemstore.conversion.document import with_findings
from stemstore.conversion.images import applied, handed_on
from stemstore.conversion.plan import CountedPlan, DensePlan
from stemstore.conversion.write import write_events, write_frames
from stemstore.errors import ConversionIncompleteError, DestinationExistsError, InputError
from stemstore.progress import NoProgress
from stemstore.store.destination import parts_of
from stemstore.store.journal import PLAN
from stemstore.store.refusal import begun
from stemstore.store.urls import is_local, open_storage
from stemstore.store.writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stemstore.conversion.job import Job
    from stemstore.conversion.request import Request
    from stemstore.progress import Progress
    from stemstore_schemas import ScanDocument

RESUMABLE = (KeyboardInterrupt, SystemExit, OSError, MemoryError)
"""What stops a conversion without saying that its data or options are wrong."""

_MEETINGS, _MEETING_PAUSE = 8, 0.1
"""How often conversions to one place that begin together step back, and seconds until they look again."""

GO_ON = "go on with resume=True (--resume)"


def begin_writing(job: Job, destination: str, request: Request | None, overwrite: bool = False) -> StoreWriter:
    """Claim the destination.

    Parameters
    ----------
    job
        What is to be written.
    destination
        Path or URL of the store.
    request
        What was asked for, kept beside the work so that other processes can take part; None where it cannot be kept.
    overwrite
        Whether a store is replaced.

    Raises
    ------
    DestinationExistsError
        It is taken, or a conversion to it is under way or was interrupted.
    """
    writer = _claim(job, destination, overwrite)
    if request is not None:
        with keeping(writer, remove=True):
            request.write(open_storage(writer.working))
    return writer


def _claim(job: Job, destination: str, overwrite: bool) -> StoreWriter:
    """Begin where nobody else does: of those who begin together on this machine, all but one step back."""
    root = open_storage(destination).root
    for attempt in range(1, _MEETINGS + 1):
        if parts_of(root):
            break
        writer = StoreWriter.init(destination, job.document, job.plan.layout, overwrite=overwrite)
        with keeping(writer, remove=True):
            others = [part for part in parts_of(root) if part != writer.working]
        if not others:
            return writer
        writer.abort()
        time.sleep(random.uniform(0.5, 1.0) * _MEETING_PAUSE * attempt)
    raise begun(root)


def unfinished(destination: str) -> bool:
    """Tell whether a conversion to this place was begun and not finished."""
    storage = open_storage(destination)
    if is_local(storage.root):
        return bool(parts_of(storage.root)) or storage.size(PLAN) is not None
    return storage.size(PLAN) is not None


def resume_writing(job: Job, destination: str) -> StoreWriter | None:
    """Take up a conversion that was begun; None where there is none.

    Raises
    ------
    InputError
        It was begun with another source, other options or another release.
    """
    if not unfinished(destination):
        return None
    writer = StoreWriter.attach(destination)
    check_same(job, writer)
    return writer


def check_same(job: Job, writer: StoreWriter) -> None:
    """Make sure that a conversion under way is this one.

    Raises
    ------
    InputError
        It was begun with another source, other options or another release.
    """
    if writer.layout != job.plan.layout:
        _refuse(writer, "layout", "choose the memory budget, profile and options of that time")
    before, now = _essence(writer.document), _essence(job.document)
    for name, value in before.items():
        if now.get(name) != value:
            _refuse(writer, name, "repeat the call of that time, with the same source")


def _refuse(writer: StoreWriter, what: str, advice: str) -> None:
    msg = (
        f"the conversion in '{writer.working}' was begun with another {what}; {advice}, or remove it "
        "(stemstore repair --remove) and convert again"
    )
    raise InputError(msg, url=writer.working, key=what)


def _essence(document: ScanDocument) -> dict[str, Any]:
    """Give what the same source and options make the same, whoever converts and when."""
    facts = document.model_dump(mode="json", exclude={"uuid", "history"})
    last = document.history[-1]
    facts["source"] = [(entry.path.rpartition("/")[2], entry.size, entry.mtime) for entry in last.inputs]
    facts["parameters"] = last.model_dump(mode="json")["parameters"]
    facts["release"] = last.software.get("stemstore")
    return facts


def write_all(job: Job, writer: StoreWriter, progress: Progress, *, fresh: bool = True) -> ScanDocument:
    """Write the partitions that are missing, and finish the store.

    Parameters
    ----------
    job, writer, progress
        What is converted, where to, and who is told.
    fresh
        Whether the conversion was begun in this call; one that others began is never removed.

    Returns
    -------
    document
        As stored.

    Notes
    -----
    Where something took the destination's name meanwhile, the finished store stays beside it.
    """
    with keeping(writer, remove=fresh):
        if writer.committed() is None:  # else its journal may be gone in part
            done = writer.finished()
            write_some(job, writer, [n for n in range(writer.layout.n_partitions) if n not in done], progress)
        return finish(job, writer, progress)


def write_some(
    job: Job, writer: StoreWriter, indices: Sequence[int], progress: Progress, *, share: tuple[int, int] = (0, 1)
) -> None:
    """Write partitions, whoever writes the others, and take digests of source files beside it.

    Parameters
    ----------
    job, writer
        The conversion.
    indices
        Numbers of the partitions.
    progress
        Told about every partition.
    share
        Number of this job, and how many there are: they divide the source files among themselves.
    """
    plan = job.plan
    progress.start("writing frames" if isinstance(plan, DensePlan) else "writing events", len(indices))
    with Digests.of(writer.document, job.digests, open_storage(writer.working)).beside(progress, share=share):
        if isinstance(plan, DensePlan):
            write_frames(plan, writer, indices, progress)
        else:
            write_events(plan, writer, indices, progress)


def finish(job: Job, writer: StoreWriter, progress: Progress | None = None) -> ScanDocument:
    """Put together what all partitions have found, take the digests that are left, and finish the store.

    Raises
    ------
    ConversionIncompleteError
        Partitions are missing; the message lists them.
    """
    committed = writer.committed()
    if committed is not None:  # somebody was stopped after that
        writer.publish()
        return committed
    plan, document = job.plan, writer.document
    if isinstance(plan, CountedPlan):
        document = with_findings(document, plan.counter, _gather(plan, writer), job.odd)
    digests = Digests.of(document, job.digests, open_storage(writer.working))
    if digests.files and len(writer.finished(check=False)) == writer.layout.n_partitions:  # else it is refused below
        with digests.beside(progress or NoProgress()):
            pass  # what no job has taken, as the number of jobs is not known beforehand
        document = digests.into(document)
    arrays = handed_on(plan) | applied(plan) | job.carried.images()
    job.carried.bring(open_storage(writer.working), document.uuid)  # before the commit: a store that opens has it all
    writer.finalise(document, attributes=plan.summary_attributes(), arrays=arrays)
    return document


def _gather(plan: CountedPlan, writer: StoreWriter) -> int:
    """Count the electrons of all partitions, and let the watch know what others have seen."""
    n_events = 0
    for index in sorted(writer.finished(check=False)):
        entry, notes = writer.recorded(index)
        n_events += entry.n_events
        if plan.watch is not None and notes and index not in plan.watch.parts:
            plan.watch.parts[index] = Seen.of(notes)
    return n_events


@contextlib.contextmanager
def deciding(destination: str, advice: str = GO_ON) -> Iterator[None]:
    """Say of an interruption before any work that what earlier calls have finished is still there."""
    try:
        yield
    except RESUMABLE as error:
        with contextlib.suppress(Exception):  # the first error is the one to report
            if unfinished(destination):
                error.add_note(f"what was finished before is kept; {advice}")
        raise


@contextlib.contextmanager
def keeping(writer: StoreWriter, *, remove: bool, advice: str = GO_ON) -> Iterator[None]:
    """Decide what stays of a conversion that fails.

    Parameters
    ----------
    writer
        The conversion.
    remove
        Whether it was begun in this call, so that nothing of it stays where it cannot or need not be resumed.
    advice
        How to go on.
    """
    try:
        yield
    except (DestinationExistsError, ConversionIncompleteError):
        raise  # finished but for its name, or others are at work; the message tells
    except BaseException as error:
        done = 0
        with contextlib.suppress(Exception):  # the first error is the one to report
            done = len(writer.finished(check=False)) if isinstance(error, RESUMABLE) else 0
        if done or (not remove and isinstance(error, RESUMABLE)):
            error.add_note(f"{done} of {writer.layout.n_partitions} partitions are kept; {advice}")
        elif remove:
            with contextlib.suppress(Exception):
                writer.abort()
        raise
