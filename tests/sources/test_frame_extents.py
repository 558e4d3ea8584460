"""Offsets of frames are those of their records, and lead to their pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import TruncatedFileError
from stemstore.sources.frame_extents import (
    NOWHERE,
    FrameExtents,
    Run,
    extents_of_runs,
    not_as_they_are,
    positions,
)
from stemstore.testing.extents import read_extents

U2 = np.dtype("<u2")


def test_records_of_several_files():
    """A record's offset counts from the first one of its file; records that no file has are nowhere."""
    runs = [Run("a", 0, 3, 100, 50), Run("b", 3, 2, 7, 50), Run("c", 6, 1, 0, 50)]
    found = extents_of_runs(np.array([-1, 0, 2, 3, 4, 5, 6, 7]), runs, (2, 3), U2)
    assert found.offset[:, 0].tolist() == [NOWHERE, 100, 200, 7, 57, NOWHERE, 0, NOWHERE]
    assert found.number[[1, 2, 3, 4, 6], 0].tolist() == [0, 0, 1, 1, 2]
    assert (found.files, found.tile_bytes) == (("a", "b", "c"), 12)


@given(st.data())
def test_tiles_are_put_where_they_belong(tmp_path_factory, data):
    """Tiles of any shape, stored in any order in two files, make up the frames; lost ones are zero."""
    rows, columns = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    down, across, n = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)), data.draw(st.integers(0, 4))
    frames = np.arange(1, 1 + n * down * rows * across * columns, dtype=U2).reshape(n, down * rows, across * columns)
    tiles = frames.reshape(n, down, rows, across, columns).swapaxes(2, 3).reshape(n * down * across, rows, columns)
    order = np.array(data.draw(st.permutations(range(len(tiles)))), np.int64)
    lost = np.array(data.draw(st.lists(st.booleans(), min_size=len(tiles), max_size=len(tiles))), bool)
    folder, half = tmp_path_factory.mktemp("tiles"), len(tiles) // 2
    place = np.empty(len(tiles), np.int64)
    place[order] = np.arange(len(tiles))
    (folder / "a").write_bytes(tiles[order[:half]].tobytes())
    (folder / "b").write_bytes(b"head" + tiles[order[half:]].tobytes())
    size = rows * columns * 2
    offset = np.where(place < half, place * size, 4 + (place - half) * size)
    offset[lost] = NOWHERE
    shape = (n, down * across)
    number = (place >= half).astype(np.int64)
    found = FrameExtents(
        (str(folder / "a"), str(folder / "b")), number.reshape(shape), offset.reshape(shape), (rows, columns), U2
    )
    tiles[lost] = 0
    expected = tiles.reshape(n, down, across, rows, columns).swapaxes(2, 3).reshape(frames.shape)
    np.testing.assert_array_equal(read_extents(found, frames.shape[1:]), expected)


def test_lost_floats_are_nan(tmp_path):
    """Of floats, what is lost reads as NaN."""
    found = FrameExtents(("a",), np.zeros((1, 1), np.int64), np.array([[NOWHERE]]), (2, 2), np.dtype(">f4"))
    assert np.isnan(read_extents(found, (2, 2))).all()


def test_shortened_file(tmp_path):
    """A file that ends before a frame does is an error and never old bytes."""
    (tmp_path / "a").write_bytes(bytes(10))
    found = extents_of_runs(np.arange(1), [Run(str(tmp_path / "a"), 0, 1, 0, 12)], (2, 3), U2)
    with pytest.raises(TruncatedFileError, match="ends at byte 10"):
        read_extents(found, (2, 3))


def test_positions_stay_inside_the_scan():
    """A range that leaves the scan is refused."""
    assert positions(2, 5, 5).tolist() == [2, 3, 4]
    with pytest.raises(IndexError, match="leave the scan of 5"):
        positions(2, 6, 5)


def test_refusal_says_what_to_do():
    """Frames that cannot be pointed at are refused with the way out."""
    error = not_as_they_are(["a.mib"], "are RAW")
    assert "frames of 'a.mib' are RAW" in str(error)
    assert "stemstore.convert" in str(error)
    assert error.context["url"] == "a.mib"
