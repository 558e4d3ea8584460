"""Chunks compressed by bitshuffle, looked at before HDF5 decodes them.

The decoder believes the sizes that a chunk states about itself, and a damaged chunk ends the process. Each chunk is
therefore read and its sizes are added up first, which costs little: compressed frames are short.

=======  ==================================================================
bytes    content, big-endian
=======  ==================================================================
0-7      length of the decoded chunk
8-11     length of a decoded block
12-…     for each block its compressed length (4 bytes) and its bytes; the last one may be shorter; then, as
         they are, the bytes of the elements beyond a multiple of eight
=======  ==================================================================

Source: kiyo-masui/bitshuffle (``src/bshuf_h5filter.c``, ``src/bitshuffle.c``).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from stemstore.errors import CorruptDataError
from stemstore.sources.records import open_unbuffered

if TYPE_CHECKING:
    from collections.abc import Sequence

BITSHUFFLE = 32008
HEADER = 12
COMPRESSED = ((2,), (3,))
"""Fifth option of the filter: LZ4 or Zstandard; 0, or none, where elements are only shuffled."""

GROUP = 8
"""Elements that are shuffled together."""


def check_chunks(dataset: Any, selection: Sequence[slice | int]) -> None:
    """Make sure that the chunks of a selection can be decoded; other filters than bitshuffle look after themselves.

    Parameters
    ----------
    dataset
        An ``h5py.Dataset``.
    selection
        For each axis a slice with both ends, or an index.

    Raises
    ------
    CorruptDataError
        Sizes in a chunk contradict each other.
    """
    options = _options(dataset)
    if options is None:
        return
    path, size = dataset.file.filename, dataset.dtype.itemsize
    length = math.prod(dataset.chunks) * size
    if options[2:3] != (size,):  # behind two numbers of the version
        msg = f"{dataset.name} in {path!r} has elements of {size} bytes, but its filter says {options}; it is damaged"
        raise CorruptDataError(msg, url=path, key=dataset.name)
    if options[4:5] not in COMPRESSED:
        return
    with open_unbuffered(path) as file:
        for place in itertools.product(*map(_chunks, selection, dataset.shape, dataset.chunks)):
            stored = dataset.id.get_chunk_info_by_coord(place)
            if stored.byte_offset is None or stored.filter_mask:  # nothing written, or not compressed
                continue
            file.seek(stored.byte_offset)
            if not is_sound(file.read(stored.size) or b"", stored.size, length, size):
                msg = (
                    f"the chunk of {dataset.name} at {place} (byte {stored.byte_offset} of {path!r}) contradicts its "
                    "own sizes; the file is damaged, copy it again"
                )
                raise CorruptDataError(msg, url=path, key=dataset.name, byte=stored.byte_offset)


def is_sound(content: bytes, stored: int, length: int, size: int) -> bool:
    """Whether the sizes in a chunk add up.

    Parameters
    ----------
    content
        The chunk.
    stored, length : unit byte
        How long it is stated to be, and how long its decoded elements are.
    size : unit byte
        Of an element.
    """
    if len(content) != stored or stored < HEADER or int.from_bytes(content[:8], "big") != length:
        return False
    block = int.from_bytes(content[8:HEADER], "big")
    if not block or block % (GROUP * size):
        return False
    whole, rest = divmod(length, block)
    left = rest % (GROUP * size)
    at = HEADER
    for _ in range(whole + (rest > left)):
        if at + 4 > stored:
            return False
        at += 4 + int.from_bytes(content[at : at + 4], "big")
    return at + left == stored


def _options(dataset: Any) -> tuple[int, ...] | None:
    """Options of the bitshuffle filter; None where it is not used, or not alone (a checksum finds damage itself)."""
    if dataset.chunks is None or dataset.is_virtual:
        return None
    listed = dataset.id.get_create_plist()
    if listed.get_nfilters() != 1:
        return None
    code, _, options, _ = listed.get_filter(0)
    return options if code == BITSHUFFLE else None


def _chunks(chosen: slice | int, extent: int, chunk: int) -> range:
    """First indices of the chunks that a selection along one axis touches."""
    start, stop, _ = (slice(chosen, chosen + 1) if isinstance(chosen, int) else chosen).indices(extent)
    return range(start - start % chunk, stop, chunk)
