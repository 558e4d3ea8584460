"""Chunks of bitshuffle and LZ4: what an encoder written from the description packs is unpacked, and nothing else."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import lz4, zstd

from stemstore.kernels.bitshuffle import is_sound, room_for, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from stemstore.kernels.bitshuffle import Packing

PACKINGS: list[Packing] = ["bitshuffle-lz4", "bitshuffle-zstd", "lz4"]


def shuffled(elements: np.ndarray) -> bytes:
    """The lowest bits of all elements, then the next ones, and so on."""
    octets = elements.view(np.uint8).reshape(len(elements), -1)
    return np.packbits(np.unpackbits(octets, axis=1, bitorder="little").T, bitorder="little").tobytes()


def pack(elements: np.ndarray, packing: Packing, block: int) -> bytes:
    """One chunk, from the description in the module; `block` in elements, a multiple of eight."""
    n = len(elements) - (0 if packing == "lz4" else len(elements) % 8)
    out = struct.pack(">QI", elements.nbytes, block * elements.itemsize)
    for start in range(0, n, block):
        part = elements[start : min(start + block, n)]
        plain = part.tobytes() if packing == "lz4" else shuffled(part)
        packed = zstd.compress(plain) if packing == "bitshuffle-zstd" else lz4.compress(plain)[4:]
        packed = plain if packing == "lz4" and len(packed) >= len(plain) else packed
        out += struct.pack(">I", len(packed)) + packed
    return out + elements[n:].tobytes()


def decode(chunks: list[bytes], packing: Packing, dtype: str, n: int) -> np.ndarray | None:
    """Unpack chunks of n elements; None where that is refused. Bytes around the result must not change."""
    room, sizes = room_for(sum(map(len, chunks))), np.array([len(chunk) for chunk in chunks])
    buffer = np.frombuffer(bytearray(room) + b"".join(chunks), np.uint8)
    stops = room + np.cumsum(sizes)
    guarded = np.full(len(chunks) * n * np.dtype(dtype).itemsize + 128, 0xA5, np.uint8)
    out = guarded[64:-64].reshape(len(chunks), -1)
    sound = unpack(buffer, stops - sizes, stops, packing, np.dtype(dtype).itemsize, out)
    assert (guarded[:64] == 0xA5).all()
    assert (guarded[-64:] == 0xA5).all()
    return out.view(dtype) if sound else None


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4", "<f8"])
@given(sizes=st.tuples(st.integers(1, 200), st.integers(1, 8), st.integers(1, 4)), seed=st.integers(0, 99))
def test_what_was_packed(packing: Packing, dtype: str, sizes: tuple[int, int, int], seed: int) -> None:
    """Chunks of any length, of whole blocks, of a shorter one or none, and of elements beyond a multiple of eight."""
    n, blocks, n_chunks = sizes
    elements = np.random.default_rng(seed).poisson(2, (n_chunks, n)).astype(dtype)
    chunks = [pack(one, packing, 8 * blocks) for one in elements]
    np.testing.assert_array_equal(decode(chunks, packing, dtype, n), elements)
    assert all(is_sound(np.frombuffer(one, np.uint8), packing, elements.itemsize, elements[0].nbytes) for one in chunks)


@pytest.mark.parametrize("packing", PACKINGS)
def test_packed_as_long_as_plain(packing: Packing) -> None:
    """A packed block may be as long as what it decodes to: only LZ4 alone means a stored block by that."""
    random, found = np.random.default_rng(5), 0
    for _ in range(3000):
        elements = random.integers(0, 256, 64, dtype=np.uint8)
        repeated = random.integers(4, 24)
        elements[25 : 25 + repeated] = elements[:repeated]
        if packing != "lz4":  # so that what is packed repeats itself
            planes = np.unpackbits(elements, bitorder="little").reshape(8, -1)
            elements = np.packbits(planes.T, axis=1, bitorder="little").reshape(-1)
        chunk = pack(elements, packing, 64)
        found += len(chunk) == 12 + 4 + 64
        np.testing.assert_array_equal(decode([chunk, chunk], packing, "u1", 64), [elements, elements])
    assert found


@pytest.mark.parametrize("name", ["lz4", "zstd"])
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4"])
@pytest.mark.parametrize("shape", [(1, 3), (1, 8), (61, 77), (96, 96), (192, 192)])
def test_chunks_of_the_filter(tmp_path: Path, name: str, dtype: str, shape: tuple[int, int]) -> None:
    """What HDF5's own filter wrote is read as it reads it itself."""
    plugin = pytest.importorskip("hdf5plugin", reason="needs hdf5plugin")
    frames = np.random.default_rng(1).poisson(3, (4, *shape)).astype(dtype)
    frames[3] = np.iinfo(dtype).max
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = file.create_dataset("frames", data=frames, chunks=(1, *shape), **plugin.Bitshuffle(cname=name))
        chunks = [stored.id.read_direct_chunk((i, 0, 0))[1] for i in range(4)]
    packing: Packing = "bitshuffle-lz4" if name == "lz4" else "bitshuffle-zstd"
    np.testing.assert_array_equal(decode(chunks, packing, dtype, shape[0] * shape[1]), frames.reshape(4, -1))


def test_chunks_of_the_lz4_filter(tmp_path: Path) -> None:
    """LZ4 without a shuffle, as its own filter writes it, incompressible blocks included."""
    plugin = pytest.importorskip("hdf5plugin", reason="needs hdf5plugin")
    frames = np.random.default_rng(1).integers(0, 2**16, (2, 30, 41), dtype="<u2")
    frames[1] //= 4096
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = file.create_dataset("frames", data=frames, chunks=(1, 30, 41), **plugin.LZ4(nbytes=512))
        chunks = [stored.id.read_direct_chunk((i, 0, 0))[1] for i in range(2)]
    np.testing.assert_array_equal(decode(chunks, "lz4", "<u2", 30 * 41), frames.reshape(2, -1))


def test_other_blocks_are_refused_together() -> None:
    """Chunks of different block lengths are decoded one by one only."""
    elements = np.arange(64, dtype="<u2")
    chunks = [pack(elements, "bitshuffle-lz4", block) for block in (16, 32)]
    assert decode(chunks, "bitshuffle-lz4", "<u2", 64) is None
    assert all(decode([chunk], "bitshuffle-lz4", "<u2", 64) is not None for chunk in chunks)


SMALL = np.arange(0, 84, 2, dtype="<u2")  # two blocks of 16, one of 8, and two elements beyond


@pytest.mark.parametrize("place", range(16))
def test_every_damaged_size_is_refused(place: int) -> None:
    """No byte of the header or of a block's length can change unnoticed."""
    content = bytearray(pack(SMALL, "bitshuffle-lz4", 16))
    content[place] ^= 0x81
    assert not is_sound(np.frombuffer(content, np.uint8), "bitshuffle-lz4", 2, SMALL.nbytes)
    assert decode([bytes(content)], "bitshuffle-lz4", "<u2", len(SMALL)) is None


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_cut_is_refused(packing: Packing) -> None:
    """A chunk that ends anywhere else than at its end is none, and no other length fits it."""
    content = pack(SMALL, packing, 16)
    assert all(decode([content[:end]], packing, "<u2", len(SMALL)) is None for end in range(len(content)))
    assert decode([content + b"\0"], packing, "<u2", len(SMALL)) is None
    assert decode([content], packing, "<u2", len(SMALL) + 8) is None


@pytest.mark.parametrize("packing", PACKINGS)
@given(data=st.data())
def test_hostile_chunks(packing: Packing, data: st.DataObject) -> None:
    """Changed bytes, foreign blocks and plain garbage give pixels or a refusal, and nothing beyond them changes."""
    content = bytearray(pack(SMALL, packing, 16))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)))):
        content[place] = value
    garbage = data.draw(st.binary(max_size=64))
    body = struct.pack(">QII", 32, 32, len(garbage)) + garbage
    good = pack(SMALL, packing, 16)
    decode([good, bytes(content), good], packing, "<u2", len(SMALL))
    decode([body], packing, "<u2", 16)
    decode([garbage], packing, "<u2", 16)
