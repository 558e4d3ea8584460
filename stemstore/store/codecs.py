"""How one chunk becomes bytes: little-endian values, Blosc, and a CRC-32C behind them.

The chain is plain Zarr format 3 (``bytes``, ``blosc``, ``crc32c``), so that any Zarr library reads it; here numcodecs
is called directly, because it lets go of the interpreter lock and decodes into a buffer that the caller owns.
"""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import ChecksumError, CorruptDataError, InputError, UnknownFormatError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array

Profile = Literal["fast", "balanced", "small", "raw"]

CRC_BYTES = 4
_BLOSC_HEADER = 16
SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
"""Shuffles of Blosc in the order of their numbers."""

# Chosen by size and speed on low-dose frames and on gaps between sorted events; see also the blocks below
_FRAMES = {
    "fast": ("lz4", 1, "shuffle"),
    "balanced": ("zstd", 3, "bitshuffle"),
    "small": ("zstd", 3, "shuffle"),
    "raw": (None, 0, "noshuffle"),
}
_EVENTS = {
    "fast": ("lz4", 5, "bitshuffle"),
    "balanced": ("zstd", 1, "bitshuffle"),
    "small": ("zstd", 9, "bitshuffle"),
    "raw": (None, 0, "noshuffle"),
}
# Bytes among which Blosc looks for repeats. LZ4: with its own choice up to 10 % more of a bright disk, with 2**15 and
# level 9 read 10 % and written 20 % slower. The lowest level of zstd with large blocks is as small as level 5 with
# Blosc's choice, read 1.3 and written 2 to 9 times as fast
_EVENT_BLOCKS = {"fast": 2**17, "balanced": 2**19, "small": 2**18}
# Large blocks with the lowest level of LZ4 against level 5: read 15 % faster, written 35 % faster, 2 to 5 % larger
_FRAME_BLOCKS = {"fast": 2**17}


@dataclass(frozen=True, slots=True)
class ChunkCodec:
    """Encoder and decoder of one chunk.

    Attributes
    ----------
    itemsize
        Bytes of one value, the unit of the shuffle.
    cname
        Compressor inside Blosc, or None for plain bytes.
    clevel
        Its level, 0 to 9.
    shuffle
        ``"noshuffle"``, ``"shuffle"`` (bytes) or ``"bitshuffle"``.
    blocksize
        Bytes that Blosc compresses at once; 0 leaves the choice to it. Reading does not depend on it.
    """

    itemsize: int
    cname: str | None
    clevel: int
    shuffle: str
    blocksize: int = 0

    def encode(self, values: Array) -> bytes:
        """Encode contiguous little-endian values; the last four bytes are the checksum of those before."""
        plain = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        if self.cname is None:
            body = plain.tobytes()
        else:
            shuffle = SHUFFLES.index(self.shuffle)
            body = _blosc().compress(plain, self.cname.encode(), self.clevel, shuffle, self.blocksize, self.itemsize)
        return body + checksum(body).to_bytes(CRC_BYTES, "little")

    def decode(self, encoded: Array, out: Array, where: str) -> None:
        """Check and decode a chunk into `out`.

        Parameters
        ----------
        encoded, out
            uint8; `out` has exactly the bytes of the chunk and receives little-endian values.
        where
            Object and chunk, for the error message.

        Raises
        ------
        ChecksumError
            The bytes are not those that were written.
        CorruptDataError
            The checksum holds, but the chunk does not decode to its size.
        """
        body = encoded[:-CRC_BYTES]
        stored = int.from_bytes(encoded[-CRC_BYTES:].tobytes(), "little")
        verify(body, stored, where)
        size = len(body)
        if self.cname is not None:
            size = int.from_bytes(body[4:8].tobytes(), "little") if len(body) >= _BLOSC_HEADER else -1
        if size != len(out):
            msg = f"{where} holds a chunk of {size} bytes, expected {len(out)}; convert the scan again"
            raise CorruptDataError(msg, where=where, expected=len(out), found=size)
        if self.cname is None:
            out[:] = body
            return
        try:
            _blosc().decompress(body, out)
        except (RuntimeError, ValueError) as error:
            msg = f"{where} does not decompress ({error}); convert the scan again or restore it from a copy"
            raise CorruptDataError(msg, where=where) from error

    def to_zarr(self) -> list[dict[str, Any]]:
        """Codec chain as it stands in ``zarr.json``."""
        plain: dict[str, Any] = {"name": "bytes"}
        if self.itemsize > 1:
            plain["configuration"] = {"endian": "little"}
        chain = [plain]
        if self.cname is not None:
            settings = {
                "typesize": self.itemsize,
                "cname": self.cname,
                "clevel": self.clevel,
                "shuffle": self.shuffle,
                "blocksize": self.blocksize,
            }
            chain.append({"name": "blosc", "configuration": settings})
        return [*chain, {"name": "crc32c"}]

    @classmethod
    def from_zarr(cls, chain: list[dict[str, Any]], itemsize: int, where: str) -> ChunkCodec:
        """Read the codec chain of ``zarr.json``.

        Raises
        ------
        UnknownFormatError
            The chain is not one that this room writes.
        """
        names = [codec.get("name") for codec in chain]
        endian = chain[0].get("configuration", {}).get("endian", "little") if chain else None
        if names not in (["bytes", "crc32c"], ["bytes", "blosc", "crc32c"]) or endian != "little":
            msg = (
                f"array '{where}' is coded as {names} ({endian}-endian); this release reads little-endian bytes, blosc "
                "and crc32c. Open it with zarr.open and convert it"
            )
            raise UnknownFormatError(msg, key=where, found=names)
        if len(chain) == 2:  # noqa: PLR2004 - bytes and crc32c
            return cls(itemsize, None, 0, "noshuffle")
        settings = chain[1]["configuration"]
        blocksize = settings.get("blocksize", 0)
        return cls(itemsize, settings["cname"], settings["clevel"], settings["shuffle"], blocksize)


def frame_codec(profile: str, itemsize: int) -> ChunkCodec:
    """Codec for detector frames of values of `itemsize` bytes.

    Bytes shuffled in units of one byte stay as they are, so one-byte values are always bit-shuffled.
    """
    cname, clevel, shuffle = _choose(_FRAMES, profile)
    if itemsize == 1 and cname is not None:
        shuffle = "bitshuffle"
    return ChunkCodec(itemsize, cname, clevel, shuffle, _FRAME_BLOCKS.get(profile, 0))


def gap_codec(profile: str) -> ChunkCodec:
    """Codec for the gaps between events (uint16)."""
    return ChunkCodec(2, *_choose(_EVENTS, profile), _EVENT_BLOCKS.get(profile, 0))


def checksum(body: Any) -> int:
    """CRC-32C (Castagnoli) of bytes or of a contiguous uint8 array."""
    import google_crc32c

    return int(google_crc32c.value(body))


def object_checksum(parts: Sequence[bytes]) -> int:
    """CRC-32 (IEEE 802.3) of a whole object, given in parts.

    Another polynomial than that of the chunks, on purpose: bytes followed by their own CRC-32C bring any CRC-32C to a
    value that depends on their length alone, so that all shards of equal chunk lengths would have the same one.
    """
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def verify(body: Array, stored: int, where: str) -> None:
    """Compare bytes with the checksum that was stored with them.

    Raises
    ------
    ChecksumError
        They differ.
    """
    computed = checksum(body)
    if computed != stored:
        msg = (
            f"{where} is damaged: its checksum is {computed:#010x}, expected {stored:#010x}; "
            "restore the object from a copy or convert the scan again"
        )
        raise ChecksumError(msg, where=where, expected=stored, found=computed)


def to_native(values: Array) -> Array:
    """Swap freshly decoded values in place where this machine is big-endian."""
    if sys.byteorder == "big" and values.dtype.itemsize > 1:
        values.byteswap(inplace=True)
    return values


def _choose(table: dict[str, tuple[str | None, int, str]], profile: str) -> tuple[str | None, int, str]:
    if profile not in table:
        msg = f"profile {profile!r} is not known here; choose one of {', '.join(table)}"
        raise InputError(msg, found=profile, expected=list(table))
    return table[profile]


def _blosc() -> Any:
    from numcodecs import blosc

    # The pool of the global Blosc context would serialise our threads; zarr switches it off at import as well
    blosc.use_threads = False
    return blosc
