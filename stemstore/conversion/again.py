"""Deciding once more what a journal tells was asked for, in another process or at another time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stemstore.conversion.job import decide
from stemstore.conversion.rechunk import OPERATION, decide_rechunk

if TYPE_CHECKING:
    from stemstore.conversion.job import Job
    from stemstore.conversion.request import Request


def decide_again(request: Request, workers: int | None = None) -> Job:
    """Prepare the job of a request; nothing is written.

    Raises
    ------
    StemStoreError
        As for `stemstore.convert` or `stemstore.rechunk_store`, whichever was called.
    """
    given = {**request.given, "workers": workers}
    return decide_rechunk(request.origin, given) if request.operation == OPERATION else decide(request.origin, given)
