"""Shards and codecs against the format and against zarr."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import ChecksumError, CorruptDataError, UnknownFormatError
from stemstore.store.codecs import ChunkCodec, checksum, frame_codec, object_checksum
from stemstore.store.extents import MERGE_GAP, Extent, merge
from stemstore.store.scratch import BoundedCache, lease
from stemstore.store.shards import ABSENT, decode_index, encode_shard, gather


def test_index_is_the_one_of_the_format():
    """Two chunks with an absent one between: offsets, lengths and the checksum stand where the format puts them."""
    body = b"".join(encode_shard([b"abc", None, b"de"]))
    index = np.frombuffer(body[5:-4], "<u8")
    assert body[:5] == b"abcde"
    assert index.tolist() == [0, 3, 2**64 - 1, 2**64 - 1, 3, 2]
    assert int.from_bytes(body[-4:], "little") == checksum(body[5:-4])


def test_checksums_are_those_of_the_standards():
    """Over '123456789' CRC-32C gives 0xe3069283 (RFC 3720), CRC-32 gives 0xcbf43926 (IEEE 802.3)."""
    assert checksum(b"123456789") == 0xE3069283
    assert object_checksum([b"1234", b"", b"56789"]) == 0xCBF43926


def test_damaged_index_is_found():
    """A flipped bit in the index is a checksum error that names the shard."""
    tail = bytearray(b"".join(encode_shard([b"", None])))
    tail[3] ^= 1
    with pytest.raises(ChecksumError, match="index of shard 'here'"):
        decode_index(bytes(tail), 2, "here")


def test_short_object_is_found():
    """An object shorter than its index is corrupt."""
    with pytest.raises(CorruptDataError, match="has 3 bytes, fewer than its index of 36"):
        decode_index(b"abc", 2, "here")


@given(st.lists(st.none() | st.binary(max_size=40), min_size=1, max_size=20))
def test_index_finds_every_chunk(chunks):
    """Chunks read back by their index are the ones put in."""
    body = b"".join(encode_shard(chunks))
    index = decode_index(body[-(16 * len(chunks) + 4) :], len(chunks), "x")
    for chunk, (start, length) in zip(chunks, index.tolist(), strict=True):
        assert (None if start == ABSENT else body[start : start + length]) == chunk


@pytest.mark.parametrize("profile", ["fast", "balanced", "small", "raw"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f4", "f8"])
def test_codec_round_trip(profile, dtype):
    """What is encoded decodes to the same bytes, and the Zarr form of a codec reads back as the codec."""
    values = np.random.default_rng(1).poisson(3, 5000).astype(dtype)
    codec = frame_codec(profile, values.itemsize)
    out = np.empty(values.nbytes, np.uint8)
    codec.decode(np.frombuffer(codec.encode(values), np.uint8), out, "x")
    assert out.tobytes() == values.tobytes()
    assert ChunkCodec.from_zarr(codec.to_zarr(), values.itemsize, "x") == codec


def test_every_damaged_byte_is_found():
    """No byte of an encoded chunk may change unnoticed."""
    codec = frame_codec("fast", 2)
    good = codec.encode(np.arange(64, dtype="<u2"))
    out = np.empty(128, np.uint8)
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 0x40
        with pytest.raises(ChecksumError, match="chunk 7 is damaged"):
            codec.decode(np.frombuffer(bytes(bad), np.uint8), out, "chunk 7")


@pytest.mark.parametrize("profile", ["fast", "raw"])
def test_wrong_size_is_found(profile):
    """A chunk with a right checksum but of another size is corrupt, and writes nothing beyond its buffer."""
    codec = frame_codec(profile, 2)
    encoded = np.frombuffer(codec.encode(np.zeros(100, "<u2")), np.uint8)
    with pytest.raises(CorruptDataError, match="chunk of 200 bytes, expected 60"):
        codec.decode(encoded, np.empty(60, np.uint8), "x")


def test_undecodable_chunk_is_found():
    """Rubbish with a right checksum and size is corrupt, not a crash."""
    codec = frame_codec("fast", 2)
    body = bytearray(codec.encode(np.arange(4000, dtype="<u2"))[:-4])
    body[16:] = b"\xff" * (len(body) - 16)
    rubbish = bytes(body) + checksum(bytes(body)).to_bytes(4, "little")
    with pytest.raises(CorruptDataError, match="does not decompress"):
        codec.decode(np.frombuffer(rubbish, np.uint8), np.empty(8000, np.uint8), "x")


@pytest.mark.parametrize(
    "chain",
    [
        [{"name": "bytes", "configuration": {"endian": "big"}}, {"name": "crc32c"}],
        [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd"}],
    ],
)
def test_foreign_codecs_are_refused(chain):
    """A chain that this room does not write is named."""
    with pytest.raises(UnknownFormatError, match="array 'a' is coded as"):
        ChunkCodec.from_zarr(chain, 2, "a")


def test_gather_pads_and_swaps():
    """A chunk over the edge is padded with zeros, big-endian values keep their value, outside is None."""
    frames = np.arange(6, dtype=">u2").reshape(2, 3)
    piece = gather(frames, (0, 2), (2, 2), np.dtype("<u2"))
    assert piece.tolist() == [[2, 0], [5, 0]]
    assert piece.dtype == np.dtype("<u2")
    assert gather(frames, (2, 0), (2, 2), np.dtype("<u2")) is None


def test_close_extents_are_merged():
    """Neighbours of one object become one request; far ones and other objects stay apart."""
    far = 10 + MERGE_GAP + 1
    extents = [Extent("a", 5, 5), Extent("b", 0, 4), Extent("a", 0, 5), Extent("a", far, 3)]
    merged, home = merge(extents)
    assert merged == [Extent("a", 0, 10), Extent("a", far, 3), Extent("b", 0, 4)]
    assert home == [(0, 5), (2, 0), (0, 0), (1, 0)]


def test_leased_buffers_never_overlap():
    """Two leases at once are different memory; afterwards the memory is used again."""

    def borrow():
        with lease(1000) as outer, lease(1000) as inner:
            found = {outer.ctypes.data, inner.ctypes.data}
        with lease(900) as one, lease(900) as two:
            return found, {one.ctypes.data, two.ctypes.data}

    with ThreadPoolExecutor(1) as fresh:  # a thread without buffers of its own yet
        first, again = fresh.submit(borrow).result()
    assert len(first) == 2
    assert again == first


def test_cache_keeps_its_bound():
    """The oldest values leave when the sum of the sizes passes the bound."""
    cache = BoundedCache(10)
    for number in range(4):
        cache.put(number, str(number), 4)
    assert cache.n_bytes == 8
    assert [cache.get(number) for number in range(4)] == [None, None, "2", "3"]
