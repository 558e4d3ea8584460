"""The cut of a scan into pieces: timely, along the blocks of the source, and the disks of a piece."""

from __future__ import annotations

import math

import dask.array as da
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stemstore.ops.disks.pieces import PieceDisks, halved, in_timely_pieces, wanted_positions
from stemstore.scan.lazy import ScanArray, selection_of
from stemstore.selection import Selection


class Source:
    """Stands for a stored scan; nothing of it is read."""

    dtype, uuid = np.dtype(np.uint16), "source"

    def __init__(self, shape: tuple[int, ...], partition: tuple[int, ...], chunk: tuple[int, ...]) -> None:
        self.shape, self.partition, self.chunk = shape, partition, chunk

    def read(self, selection: Selection) -> np.ndarray:
        """Refuse."""
        raise NotImplementedError

    def run(self, *_: object) -> np.ndarray:
        """Refuse."""
        raise NotImplementedError


def cut(shape: tuple[int, ...], partition: tuple[int, ...], chunk: tuple[int, ...]) -> tuple[int, ...]:
    """Give the extents of the pieces of a scan."""
    found = selection_of(in_timely_pieces(ScanArray(Source(shape, partition, chunk), Selection.full(shape))))
    assert found is not None
    return tuple(found[0].partition)


def test_small_frames_are_taken_by_thousands_and_large_ones_by_dozens() -> None:
    """A piece holds about as many pixels whatever the frames; a small scan is cut finer."""
    assert wanted_positions((512, 512, 256, 256)) == (2048, 2048)
    assert wanted_positions((83, 558, 1792, 1920)) == (39, 39)
    assert wanted_positions((201, 50, 420, 422)) == (158, 757)
    assert wanted_positions((4, 4, 4096, 4096)) == (1, 8)


def test_blocks_of_the_source_stay_whole() -> None:
    """Pieces are whole blocks where blocks are short; a long block of sparse events is cut."""
    assert cut((256, 256, 256, 256), (32, 64), (4, 8)) == (16, 64)
    assert cut((256, 256, 256, 256), (64, 64), (64, 64)) == (32, 64)
    assert cut((100, 100, 576, 576), (100, 100), (100, 100)) == (4, 100)
    assert cut((2, 2, 16, 16), (2, 2), (1, 1)) == (2, 2)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 8)), min_size=1, max_size=3),
    st.integers(1, 500),
)
def test_halving_ends_at_the_size_or_at_the_blocks(axes: list[tuple[int, int]], positions: int) -> None:
    """Cut extents are multiples of the blocks, and few enough unless nothing is left to cut."""
    least = tuple(block for block, _ in axes)
    extents = tuple(block * n for block, n in axes)
    found = halved(extents, least, positions)
    assert all(n % block == 0 and n <= whole for n, block, whole in zip(found, least, extents, strict=True))
    assert math.prod(found) <= positions or found == least
    if math.prod(extents) <= positions:
        assert found == extents


def test_dask_blocks_are_cut_where_they_are_large() -> None:
    """Blocks of any other array are cut along the scan, each for itself."""
    array = da.zeros((10, 6, 1024, 1024), chunks=((7, 3), (6,), 1024, 1024), dtype=np.uint8)
    assert in_timely_pieces(array).chunks[:2] == ((1,) * 10, (6,))
    small = da.zeros((10, 6, 64, 64), chunks=(5, 6, 64, 64), dtype=np.uint8)
    assert in_timely_pieces(small).chunks == small.chunks


def test_disks_of_a_piece() -> None:
    """Lists that end in NaN become one list and counts."""
    lists = np.full((2, 2, 3, 4), np.nan, np.float32)
    lists[0, 1, :2] = np.arange(8).reshape(2, 4)
    lists[1, 1, :1] = 9
    piece = PieceDisks.of(lists)
    assert piece.counts.tolist() == [0, 2, 0, 1]
    np.testing.assert_array_equal(piece.rows, [[0, 1, 2, 3], [4, 5, 6, 7], [9, 9, 9, 9]])
