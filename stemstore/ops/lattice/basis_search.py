"""The search for a lattice: clusters of Bragg vectors, and the pair of them that explains most disks."""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.lattice import nearest_neighbours
from stemstore.kernels.peaks import space_out

if TYPE_CHECKING:
    from stemstore._types import FloatArray, Int64Array

SIDE = 2
STEEP = 0.3  # |sin| of the angle between vectors that are tried; reduced bases are steeper than 0.86
BINS = 16  # of the map of vectors in the distance of neighbouring disks
MOST = 20_000  # positions whose disks are looked at, spread over the scan
SAMPLE = 2000  # positions whose disks tell that distance
TRIED = 16  # shortest clusters among which the basis is looked for
EXPLAINED = 0.15  # distance from whole numbers up to which a cluster is on a lattice that is tried
EQUAL = 0.05  # difference in the share of explained disks below which the larger cell is right
CLOSEST = 0.8  # a basis vector in the smallest distance of disks; shorter ones belong to vectors that are not centred
LOWEST = 0.5  # share of the disks in clusters that a lattice explains at least; chance explains 0.09
ALIKE = 0.02  # relative difference of lengths, and of a projection, that noise can reverse


def search_basis(q: FloatArray, n_disks: Int64Array) -> FloatArray:
    """Find the two shortest vectors of the lattice that explains most disks.

    Parameters
    ----------
    q : shape (P, 2)
        Vectors (row, column) from the direct beam, position after position.
    n_disks : shape (N,)
        Disks of every position, P in all.

    Returns
    -------
    basis : shape (2, 2)
        g1 and g2 as columns, see `stemstore.ops.lattice.basis.find_basis`.

    Raises
    ------
    InputError
        Too few disks or clusters of them, all on one line, or no lattice that explains half of them.
    """
    if len(n_disks) > MOST:
        kept = np.arange(len(n_disks)) % -(-len(n_disks) // MOST) == 0
        q, n_disks = q[np.repeat(kept, n_disks)], n_disks * kept
    sample = np.flatnonzero(n_disks > 1)
    sample = sample[:: max(1, len(sample) // SAMPLE)]
    offset = np.concatenate([[0], np.cumsum(n_disks)])
    apart = nearest_neighbours(q, offset, sample)
    apart = apart[apart > 0]  # a disk that is there twice tells nothing
    if not len(apart):
        msg = "no position has two disks, so that there is no lattice; look at n_disks, and find more of them"
        raise InputError(msg, key="disks")
    places, counts = _clusters(q, float(np.median(apart)))
    if len(places) < SIDE:
        msg = (
            f"the disks make {len(places)} clusters beside the direct beam, too few for a lattice; find more disks, or "
            "give g1 and g2"
        )
        raise InputError(msg, key="disks", found=len(places), expected=SIDE)
    order = np.argsort(np.hypot(*places.T), kind="stable")[:TRIED]
    tried = [(places[i], places[j]) for i, j in combinations(order, 2) if _sine(places[i], places[j]) > STEEP]
    if not tried:
        msg = "all clusters of disks lie on one line through the direct beam, which spans no lattice; give g1 and g2"
        raise InputError(msg, key="disks")
    bases = [_reduced(*pair) for pair in tried]
    shortest = CLOSEST * float(np.quantile(apart, 0.05))
    explained = np.array([_explained(one, places, counts) if np.hypot(*one[:, 0]) > shortest else 0.0 for one in bases])
    if explained.max() < LOWEST:
        msg = (
            f"no lattice explains more than {explained.max():.0%} of the disks' clusters: the vectors are not centred, "
            "or there are several grains; check the origin, choose one grain with roi=, or give g1 and g2"
        )
        raise InputError(msg, key="disks", found=float(explained.max()), expected=LOWEST)
    areas = np.array([abs(np.linalg.det(basis)) for basis in bases])
    best = int(np.argmax(np.where(explained >= explained.max() - EQUAL, np.round(areas / areas.max(), 6), 0.0)))
    return _ordered(bases[best])


def _clusters(q: FloatArray, apart: float) -> tuple[FloatArray, FloatArray]:
    """Means of the clusters of vectors beside the direct beam, and how many disks each has, largest first."""
    from scipy.ndimage import gaussian_filter, maximum_filter
    from scipy.spatial import KDTree

    finite = q[np.isfinite(q).all(axis=1)]
    width = apart / BINS
    half = np.ceil(np.abs(finite).max(axis=0) / width).astype(np.int64) + 1
    index = np.rint(finite / width).astype(np.int64) + half
    shape = tuple(2 * half + 1)
    plane = np.bincount(np.ravel_multi_index(tuple(index.T), shape), minlength=math.prod(shape)).reshape(shape)
    smooth = gaussian_filter(plane.astype(np.float64), 1.0)
    index = np.argwhere((smooth == maximum_filter(smooth, BINS // 2)) & (smooth > 0))
    index = index[np.argsort(-smooth[tuple(index.T)], kind="stable")]
    tops = (index - half) * width
    tops = tops[np.hypot(*tops.T) > apart / 2]
    if not len(tops):
        return np.empty((0, SIDE)), np.empty(0)
    tops = tops[space_out(tops, apart / 4)]  # equal bins side by side are one cluster
    distance, number = KDTree(tops).query(finite, distance_upper_bound=apart / 3)
    near, number = finite[np.isfinite(distance)], number[np.isfinite(distance)]
    counts = np.bincount(number, minlength=len(tops)).astype(np.float64)
    sums = np.stack([np.bincount(number, part, len(tops)) for part in near.T], axis=1)
    large = np.flatnonzero(counts >= 0.3 * counts.max())
    large = large[np.argsort(-counts[large], kind="stable")]
    return sums[large] / counts[large, None], counts[large]


def _sine(one: FloatArray, two: FloatArray) -> float:
    return float(abs(one[0] * two[1] - one[1] * two[0]) / (np.hypot(*one) * np.hypot(*two)))


def _reduced(one: FloatArray, two: FloatArray) -> FloatArray:
    """Give the two shortest vectors of a lattice as columns (Lagrange and Gauss)."""
    one, two = (one, two) if one @ one <= two @ two else (two, one)
    while (steps := np.rint(one @ two / (one @ one))) != 0:
        two = two - steps * one
        if two @ two >= one @ one:
            break
        one, two = two, one
    return np.stack([one, two], axis=1)


def _ordered(matrix: FloatArray) -> FloatArray:
    """Choose among the equal bases of a lattice one that noise does not change."""
    one, two = matrix.T
    tried = np.array([sign * g for g in (one, two, one + two, one - two) for sign in (1, -1)])
    lengths = np.hypot(*tried.T)
    short = tried[lengths < lengths.min() * (1 + ALIKE)]
    down = short[short[:, 0] > short[:, 0].max() - ALIKE * lengths.min()]
    first = down[np.argmax(down[:, 1])]
    areas = first[0] * tried[:, 1] - first[1] * tried[:, 0]
    right = (areas > 0) & (areas < 1.5 * abs(np.linalg.det(matrix)))  # 1.5: the sum and difference span two cells
    others = tried[right & (np.abs(tried @ first) < (0.5 + ALIKE) * (first @ first))]
    return np.stack([first, others[np.argmax(others @ first)]], axis=1)


def _explained(basis: FloatArray, places: FloatArray, counts: FloatArray) -> float:
    """Share of the disks in clusters that lie on a lattice."""
    m = np.linalg.solve(basis, places.T)
    return float(counts[(np.abs(m - np.rint(m)) < EXPLAINED).all(axis=0)].sum() / counts.sum())
