"""What a conversion did, in figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from stemstore.conversion.plan import CountedPlan
from stemstore.sources.geometry import raw_bytes

if TYPE_CHECKING:
    from stemstore.conversion.job import Job
    from stemstore_schemas import ScanDocument


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion did.

    Attributes
    ----------
    url
        The finished store.
    profile
        ``"dense"`` or ``"counted"``.
    shape
        Scan axes, ky, kx, flyback included.
    raw_bytes, stored_bytes
        Pixels of the source (uncompressed) and size of the store's shards.
    frames
        Numbers of valid, partial and missing frames.
    n_events
        Electrons; None for a dense store.
    thresholds
        What the electrons were counted with; None when nothing was counted.
    workers, memory
        Threads used, and their projected working memory in bytes.
    seconds
        Wall time.
    warnings
        What was odd about the source.
    """

    url: str
    profile: str
    shape: tuple[int, ...]
    raw_bytes: int
    stored_bytes: int
    frames: dict[str, int]
    n_events: int | None
    thresholds: dict[str, Any] | None
    workers: int
    memory: int
    seconds: float
    warnings: list[str] = field(default_factory=list)


def report_of(job: Job, document: ScanDocument, url: str, seconds: float) -> ConversionReport:
    """Tell what a finished conversion did."""
    from stemstore.store.commit import read_commit
    from stemstore.store.urls import open_storage

    plan, source = job.plan, job.plan.source
    commit = read_commit(open_storage(url))
    counter = plan.counter if isinstance(plan, CountedPlan) else None
    return ConversionReport(
        url=url,
        profile=document.profile,
        shape=document.shape,
        raw_bytes=raw_bytes(document.shape, getattr(source, "dtype", None)),
        stored_bytes=0 if commit is None else commit.n_bytes,
        frames=document.frames.model_dump(),
        n_events=None if document.counting is None else document.counting.n_events,
        thresholds=None if counter is None else asdict(counter.thresholds),
        workers=plan.workers,
        memory=plan.memory,
        seconds=seconds,
        warnings=[*source.metadata.warnings, *job.odd.all, *job.carried.warnings],
    )
