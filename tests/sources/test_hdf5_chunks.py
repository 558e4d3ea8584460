"""Chunks of bitshuffle: sizes that add up are let through, every other is refused before anything decodes it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from stemstore.errors import CorruptDataError
from stemstore.sources.hdf5_chunks import check_chunks, is_sound

if TYPE_CHECKING:
    from pathlib import Path


def chunk(blocks: list[int], length: int, block: int = 64, left: int = 0) -> bytes:
    """A chunk whose blocks have the given compressed lengths."""
    body = b"".join(struct.pack(">I", size) + b"\1" * size for size in blocks)
    return struct.pack(">QI", length, block) + body + b"\2" * left


@pytest.mark.parametrize(
    ("blocks", "length", "left"),
    [([5, 7], 128, 0), ([5], 64, 0), ([5, 7, 3], 128 + 32, 0), ([5, 6], 64 + 32 + 4, 4), ([5], 64 + 12, 12)],
)
def test_sizes_that_add_up(blocks: list[int], length: int, left: int) -> None:
    """Whole blocks, a shorter last one, and elements beyond a multiple of eight, for elements of 4 bytes."""
    content = chunk(blocks, length, left=left)
    assert is_sound(content, len(content), length, 4)
    assert not is_sound(content[:-1], len(content) - 1, length, 4)
    assert not is_sound(content + b"\0", len(content) + 1, length, 4)
    assert not is_sound(content, len(content), length + 4, 4)


@pytest.mark.parametrize("place", range(16))
def test_every_damaged_size_is_refused(place: int) -> None:
    """No byte of the header or of a block's length can change unnoticed."""
    content = bytearray(chunk([5, 7], 128))
    content[place] ^= 0x81
    assert not is_sound(bytes(content), len(content), 128, 4)


def test_short_content() -> None:
    """What ends inside its header is refused."""
    assert not is_sound(b"", 0, 128, 4)
    assert not is_sound(b"\0" * 11, 11, 128, 4)


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("name", ["none", "lz4", "zstd"])
def test_every_kind_of_bitshuffle_passes(tmp_path: Path, name: str, *, checksum: bool) -> None:
    """Shuffled only, LZ4 and Zstandard, with a checksum behind; elements beyond a multiple of eight included."""
    plugin = pytest.importorskip("hdf5plugin", reason="needs hdf5plugin")
    frames = np.arange(3 * 77 * 61, dtype=np.uint16).reshape(3, 77, 61)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        filters = {**plugin.Bitshuffle(cname=name), "fletcher32": checksum}
        stored = file.create_dataset("frames", data=frames, chunks=(2, 77, 61), **filters)
        check_chunks(stored, (slice(0, 3), slice(0, 77), slice(0, 61)))
        np.testing.assert_array_equal(stored[...], frames)


def test_damaged_chunk_is_named(tmp_path: Path) -> None:
    """A chunk that would crash the decoder is an error that names its place; the others are read."""
    plugin = pytest.importorskip("hdf5plugin", reason="needs hdf5plugin")
    path, frames = tmp_path / "a.h5", np.arange(144, dtype=np.uint32).reshape(3, 6, 8)
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", data=frames, chunks=(1, 6, 8), **plugin.Bitshuffle(cname="lz4"))
        place = file["frames"].id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 5] ^= 0x88
    path.write_bytes(content)
    with h5py.File(path) as file:
        check_chunks(file["frames"], (0, slice(0, 6), slice(0, 8)))
        check_chunks(file["frames"], (slice(2, 3), slice(None), slice(None)))
        with pytest.raises(CorruptDataError, match=rf"/frames at \(1, 0, 0\) \(byte {place} of"):
            check_chunks(file["frames"], (slice(0, 3), slice(None), slice(None)))
