"""Results that were filled position by position, turned into maps: one image after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.arguments import frozen

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array

TILE = 64
"""Rows and columns that are turned at a time: both their ends stay in the cache."""


def place_columns(rows: Array, out: Array, place: Int64Array) -> None:
    """Write row i of `rows` into column ``place[i]`` of `out`.

    Scattering single values over images costs many times more than filling rows and turning them in tiles.

    Parameters
    ----------
    rows : shape (m, K), C-contiguous
    out : shape (K, P), C-contiguous, dtype of `rows`
    place : shape (m,)

    Raises
    ------
    InputError
        Shapes, dtypes or columns that do not belong together.
    """
    columns = frozen(np.asarray(place, np.int64))
    fits = rows.ndim == out.ndim == 2 and rows.shape == (len(columns), len(out)) and rows.dtype == out.dtype  # noqa: PLR2004 (axes)
    if not fits or not out.flags.c_contiguous or columns.min(initial=0) < 0 or columns.max(initial=-1) >= out.shape[-1]:
        msg = f"{len(columns)} rows {rows.shape} of {rows.dtype} do not fit as columns into {out.shape} of {out.dtype}"
        raise InputError(msg, found=rows.shape, expected=out.shape)
    _place_columns(frozen(rows), out, columns)


@numba.njit(nogil=True, cache=True)
def _place_columns(rows, out, place):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    n, width = rows.shape
    for i0 in range(0, n, TILE):
        last = min(i0 + TILE, n)
        for k0 in range(0, width, TILE):
            for k in range(k0, min(k0 + TILE, width)):
                for i in range(i0, last):
                    out[k, place[i]] = rows[i, k]
