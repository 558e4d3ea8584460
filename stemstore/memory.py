"""Memory that work will need, stated before it starts and held against a budget."""

from __future__ import annotations

from stemstore.config import format_size
from stemstore.errors import MemoryBudgetError


def fitting_workers(wanted: int, per_worker: int, budget: int, *, shared: int = 0) -> int:
    """Reduce the number of workers until their memory fits the budget.

    Parameters
    ----------
    wanted
        Workers asked for, at least 1.
    per_worker, shared : unit bytes
        What each worker holds at once, and what all of them share.
    budget : unit bytes
        Limit for all workers together.

    Raises
    ------
    MemoryBudgetError
        Not even one worker fits.
    """
    if per_worker + shared > budget:
        msg = (
            f"one worker needs {format_size(per_worker + shared)}, which exceeds the budget of {format_size(budget)}; "
            "raise it with max_memory= (or STEMSTORE_MAX_MEMORY)"
        )
        raise MemoryBudgetError(msg, needed=per_worker + shared, budget=budget)
    return max(1, min(wanted, (budget - shared) // max(1, per_worker)))
