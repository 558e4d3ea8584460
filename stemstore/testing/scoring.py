"""How well counted electrons agree with the true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stemstore._types import Array

REACH = 1.5  # pixels: the true pixel and its eight neighbours


def matched_events(found: Array, true: Array, frame_shape: tuple[int, int]) -> int:
    """Count how many found events can be paired with true ones, one to one, within one pixel (diagonals included).

    Parameters
    ----------
    found, true : shape (n,), (m,)
        Flat detector indices of one frame.
    frame_shape
        Detector rows and columns.

    Returns
    -------
    n_pairs
        Size of the largest pairing; recall is ``n_pairs / m`` and precision ``n_pairs / n``.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching
    from scipy.spatial import cKDTree

    if len(found) == 0 or len(true) == 0:
        return 0
    trees = [cKDTree(np.stack(np.divmod(np.asarray(flat, np.int64), frame_shape[1]), 1)) for flat in (found, true)]
    near = trees[0].query_ball_tree(trees[1], REACH)
    rows = np.repeat(np.arange(len(near), dtype=np.int32), [len(partners) for partners in near])
    columns = np.array([partner for partners in near for partner in partners], np.int32)  # SciPy < 1.15 wants 32 bits
    graph = csr_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(len(found), len(true)))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
