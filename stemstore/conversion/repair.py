"""What to do with a conversion that somebody began and nobody finished: look at it, finish it, or remove it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stemstore.conversion.again import decide_again
from stemstore.conversion.report import ConversionReport, report_of
from stemstore.conversion.request import Request
from stemstore.conversion.steps import check_same, write_all
from stemstore.errors import InputError
from stemstore.progress import NoProgress
from stemstore.store.urls import open_storage
from stemstore.store.writer import StoreWriter

if TYPE_CHECKING:
    import os

    from stemstore.progress import Progress


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A conversion that was begun.

    Attributes
    ----------
    url, working
        Where the store will be, and where it grows.
    source
        What it is made from; empty where that was not kept.
    began
        When, ISO 8601.
    n_partitions, done
        Shards of the scan, and how many are there and whole.
    """

    url: str
    working: str
    source: list[str]
    began: str
    n_partitions: int
    done: int


def look_at(destination: str | os.PathLike[str]) -> Unfinished:
    """Tell how far a conversion came; shards are read and compared with their checksums.

    Raises
    ------
    NotFoundError
        None to this place is unfinished.
    """
    writer = StoreWriter.attach(destination)
    try:
        source = Request.read(open_storage(writer.working)).source
    except InputError:
        source = []
    began = writer.document.history[-1].time if writer.document.history else ""
    return Unfinished(writer.url, writer.working, source, began, writer.layout.n_partitions, len(writer.finished()))


def repair(
    destination: str | os.PathLike[str], *, remove: bool = False, progress: Progress | None = None
) -> ConversionReport | None:
    """Finish a conversion that was interrupted, by what its journal tells, or remove it.

    Parameters
    ----------
    destination
        Path or URL of the store that was to be; or the folder in which it grows, where there are several.
    remove
        Remove what was written, instead of finishing it. Make sure that nobody is at work on it.
    progress
        Receives the advance.

    Returns
    -------
    report
        What the conversion did; None where it was removed.

    Raises
    ------
    NotFoundError
        No conversion to this place is unfinished, or the source is gone.
    InputError
        The journal does not tell what was asked for, the source has changed, or several conversions are unfinished.
    """
    writer = StoreWriter.attach(destination)
    if remove:
        writer.abort()
        return None
    request = Request.read(open_storage(writer.working))
    job = decide_again(request)
    check_same(job, writer)
    document = write_all(job, writer, progress or NoProgress(), fresh=False)
    return report_of(job, document, writer.url, 0.0)
