"""A conversion that is decided: source opened, frames sampled, layout and limits chosen; nothing is written."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast

from stemstore.config import memory_budget, n_workers, parse_size
from stemstore.conversion.counting.measures import check_columns
from stemstore.conversion.counting.settings import CountOptions
from stemstore.conversion.digests import check_asked
from stemstore.conversion.document import Oddities, describe
from stemstore.conversion.plan import CountedPlan, DensePlan, make_plan
from stemstore.conversion.stored import Carried, earlier_counting
from stemstore.errors import InputError
from stemstore.scan.calibration import Calibration
from stemstore.scan.corrected import Asked, CorrectedFrames
from stemstore.scan.opening import open_named
from stemstore.scan.stored import as_frames
from stemstore.sources.contract import EventSource
from stemstore.sources.references import references_of
from stemstore.store.cut import CUT, Cut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stemstore.conversion.digests import Asked as DigestsAsked
    from stemstore.conversion.kept import Kept
    from stemstore.sources.contract import FrameSource
    from stemstore.store.codecs import Profile
    from stemstore_schemas import ScanDocument

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Job:
    """A conversion that is decided but not begun.

    Attributes
    ----------
    plan
        Source, layout, thresholds, threads and memory.
    document
        Metadata of the new store.
    odd
        What is doubtful about the counting; grows while frames are counted.
    carried
        What goes over from a store that is converted, besides its frames or events.
    digests
        Which digests of the source files are taken, as in `stemstore.conversion.digests.Digests`.
    """

    plan: DensePlan | CountedPlan
    document: ScanDocument
    odd: Oddities = field(default_factory=Oddities)
    carried: Carried | Kept = field(default_factory=Carried)
    digests: DigestsAsked | None = None


def prepare(  # noqa: PLR0913  # what `convert` takes, but for the options of counting and of the cut
    source: PathLike | Sequence[PathLike],
    *,
    reader: str | None = None,
    count: bool | None = None,
    counting: CountOptions | None = None,
    profile: Profile = "fast",
    cut: Cut | None = None,
    workers: int | None = None,
    max_memory: str | int | None = None,
    digests: DigestsAsked | None = None,
    **options: Any,
) -> Job:
    """Open the source, sample its frames and decide everything about a conversion; nothing is written.

    Parameters and errors as in `stemstore.convert`.
    """
    check_asked(digests)
    cut = cut or Cut()
    counting = counting or CountOptions()
    calibration, reader_options = Calibration.split(options)
    opened, found = open_named(source, reader, **reader_options)
    if count is False and isinstance(opened, EventSource):
        opened = as_frames(opened)
    counted = isinstance(opened, EventSource) if count is None else count
    asked = None if counted else Asked.of(counting.pixels, opened.frame_shape, references_of(opened))
    if asked is not None:
        opened = cast("FrameSource", CorrectedFrames(cast("FrameSource", opened), asked))
    plan = make_plan(
        opened,
        counted=counted,
        counting=counting,
        profile=profile,
        workers=positive(workers) if workers is not None else n_workers(),
        budget=parse_size(max_memory) if max_memory is not None else memory_budget(),
        cut=cut,
    )
    parameters = {
        "reader": None if found is None else found.name,
        "count": count,
        "profile": profile,
        **cut.given,
        **counting.parameters(),
        **({} if asked is None else {"corrections": asked.described}),
        **earlier_counting(opened),
    }
    parameters |= {name: _plain(value) for name, value in options.items()}
    document = describe(plan, calibration, parameters, None if found is None else found.package)
    odd = Oddities(list(plan.doubts) if isinstance(plan, CountedPlan) else [])
    return Job(plan, document, odd, Carried.of(plan, calibration), digests)


def decide(source: Any, options: Mapping[str, Any]) -> Job:
    """Prepare a conversion from the keyword arguments of `stemstore.convert`.

    Raises
    ------
    StemStoreError
        As for `stemstore.convert`.
    """
    names = {one.name for one in fields(CountOptions)}
    counting = {name: value for name, value in options.items() if name in names}
    counting["event_columns"] = check_columns(counting.get("event_columns", ()))
    cut = Cut.of(*(options.get(name) for name in CUT))
    rest = {name: value for name, value in options.items() if name not in names and name not in CUT}
    return prepare(source, counting=CountOptions(**counting), cut=cut, **rest)


def positive(workers: int) -> int:
    """Give a number of threads back; `InputError` where it is none."""
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        msg = f"workers={workers!r}; expected a whole number of at least 1"
        raise InputError(msg, found=workers)
    return workers


def _plain(value: Any) -> Any:
    """Options as JSON values for the history."""
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)
