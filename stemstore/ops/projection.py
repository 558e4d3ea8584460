"""What computing lazy results will take: passes over the data, tasks, and memory, before anything is read."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask.base import is_dask_collection

from stemstore.config import format_size
from stemstore.errors import MemoryBudgetError
from stemstore.scan.blocks import Layer

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Projection:
    """What computing some results together takes.

    Attributes
    ----------
    passes
        How often data are gone through: once for all results over the same positions of a scan.
    streamed
        Whether all of that streams from sources (``fused``); otherwise some of it goes by dask blocks.
    n_tasks, n_positions
        Tasks of the passes, and positions that they go through.
    per_worker, shared, results : unit bytes
        What every thread holds at once, what all of them share, and the results themselves.
    """

    passes: int
    streamed: bool
    n_tasks: int
    n_positions: int
    per_worker: int
    shared: int
    results: int

    @classmethod
    def of(cls, results: Iterable[Any]) -> Projection:
        """Project what `results` take; those that are in memory already take nothing."""
        lazy = [result for result in results if is_dask_collection(result)]
        passes = passes_of(result.__dask_graph__() for result in lazy)
        return cls(
            passes=len(passes),
            streamed=all(layers[0].source is not None for layers in passes),
            n_tasks=sum(len(layers[0].pieces) for layers in passes),
            n_positions=sum(layers[0].n_positions for layers in passes),
            per_worker=max((_held(layers) for layers in passes), default=0),
            shared=sum(layer.shared_bytes for layers in passes for layer in layers),
            results=sum(_lazy_bytes(result) for result in lazy),
        )

    def workers(self, wanted: int, budget: int) -> int:
        """Give the number of threads, at most `wanted`, that the budget allows.

        Raises
        ------
        MemoryBudgetError
            The results and one thread do not fit.
        """
        fixed = self.shared + self.results
        if fixed + self.per_worker > budget:
            needed = format_size(fixed + self.per_worker)
            msg = (
                f"these results need {needed}: {format_size(self.results)} for themselves and "
                f"{format_size(self.per_worker)} for one thread; the budget is {format_size(budget)}. Select or bin "
                "more, save the results into a store instead (stemstore.save), or raise STEMSTORE_MAX_MEMORY"
            )
            raise MemoryBudgetError(msg, needed=fixed + self.per_worker, budget=budget)
        return max(1, min(wanted, (budget - fixed) // max(1, self.per_worker)))


def passes_of(graphs: Iterable[Any]) -> list[list[Layer]]:
    """Gather the operations of graphs by what they read; those that stream the same positions share a list."""
    found: dict[tuple[bool, str], dict[str, Layer]] = defaultdict(dict)
    for graph in graphs:
        for layer in graph.layers.values():
            mapping = getattr(layer, "mapping", layer)
            if isinstance(mapping, Layer):
                alone = "" if mapping.source is not None else mapping.name  # dask blocks are read by dask
                found[mapping.source is not None, mapping.reads + alone][mapping.name] = mapping
    return [list(members.values()) for members in found.values()]


def _lazy_bytes(result: Any) -> int:
    """Bytes that a lazy array, or the lazy variables of a dataset, will take."""
    variables = getattr(result, "variables", None)
    if variables is None:
        return int(getattr(result, "nbytes", 0))
    return sum(variable.nbytes for variable in variables.values() if is_dask_collection(variable.data))


def _held(layers: list[Layer]) -> int:
    """Bytes of one task that runs some operations: the pixels once, and the results of each."""
    return max(layer.piece_bytes for layer in layers) + sum(layer.result_bytes for layer in layers)
