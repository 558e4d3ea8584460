"""A Timepix3 stream on disk: read once for its trigger edges and an index of times, then piece by piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stemstore.sources.files import file_size
from stemstore.sources.records import as_bytes, read_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore._types import Array, Int64Array
    from stemstore.sources.remote import Place

BLOCK_WORDS = 2**18
"""Words of a piece that is indexed and read as one: 2 MiB."""

WORD = 8


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a file, and the state in which the stream enters it.

    Attributes
    ----------
    start, stop
        Words of the file.
    behind
        Words of the file behind the piece.
    left, chip
        Payload words that the piece before left over, and their chip.
    clock : unit 25 ns
        Time reached before.
    earliest, latest
        Times of its hits, in units of the kernels; earliest exceeds latest where it has none.
    """

    path: str
    start: int
    stop: int
    behind: int
    left: int
    chip: int
    clock: int
    earliest: int = 0
    latest: int = 0

    def read(self) -> tuple[Array, Int64Array]:
        """Read the words and find the chunks in them.

        Raises
        ------
        TruncatedFileError, StorageError
            The file was shortened after opening, or cannot be read.
        """
        from stemstore.kernels.tpx3 import find_chunks

        words = _read_words(self.path, self.start, self.stop)
        chunks = np.empty((len(words) + 1, 3), np.int64)
        found, *_ = find_chunks(words, self.left, self.chip, self.behind, chunks)
        return words, chunks[:found]


@dataclass(slots=True)
class Index:
    """What a pass over a stream finds.

    Attributes
    ----------
    blocks
        In the order of the files.
    edges : shape (n, 3)
        Kind, number and time of every trigger edge, as reported, repetitions included.
    counts : shape (18,)
        As `stemstore.kernels.tpx3.index` counts.
    chips
        Numbers of the chips that sent chunks.
    warnings
        What was odd.
    """

    blocks: list[Block] = field(default_factory=list)
    edges: Int64Array = field(default_factory=lambda: np.empty((0, 3), np.int64))
    counts: Int64Array = field(default_factory=lambda: np.zeros(18, np.int64))
    chips: set[int] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)


def build_index(files: Sequence[Place]) -> Index:
    """Pass over the files once, block by block.

    Raises
    ------
    TruncatedFileError, StorageError
        A file cannot be read.

    Notes
    -----
    Memory: a block, its chunks and edges (16 MiB), and 24 bytes per trigger edge.
    """
    index = Index()
    edges: list[Int64Array] = []
    clock = _first_clock(files)
    for path in files:
        clock = _index_file(path, clock, index, edges)
    index.edges = np.concatenate([index.edges, *edges])
    return index


def _index_file(path: Place, clock: int, index: Index, edges: list[Int64Array]) -> int:
    from stemstore.kernels import tpx3

    n_words, rest = divmod(file_size(path), WORD)
    if rest:
        index.warnings.append(f"file {str(path)!r} ends with {rest} bytes that make no word of {WORD}; left out")
    left = chip = lost = short = 0
    chunks, found = np.empty((BLOCK_WORDS + 1, 3), np.int64), np.empty((BLOCK_WORDS, 3), np.int64)
    for start in range(0, n_words, BLOCK_WORDS):
        stop = min(start + BLOCK_WORDS, n_words)
        words, entry = _read_words(str(path), start, stop), (left, chip, clock)
        n, left, chip, skipped, short = tpx3.find_chunks(words, left, chip, n_words - stop, chunks)
        n_edges, clock, earliest, latest = tpx3.index(words, chunks[:n], clock, index.counts, found)
        index.blocks.append(Block(str(path), start, stop, n_words - stop, *entry, earliest, latest))
        index.chips.update(np.unique(chunks[:n, 2]).tolist())
        edges.append(found[:n_edges].copy())
        lost += skipped
    if lost:
        index.warnings.append(f"{lost} words of {str(path)!r} belong to no chunk and are left out; a length was wrong")
    if short:
        index.warnings.append(f"file {str(path)!r} ends {short * WORD} bytes before its last chunk does")
    return clock


def _first_clock(files: Sequence[Place]) -> int:
    """Find a time to continue from: that of the first packet with a long counter, else of the first hit."""
    from stemstore.kernels import tpx3

    chunks, best = np.empty((BLOCK_WORDS + 1, 3), np.int64), (0, 0)
    for path in files:
        n_words, left, chip = file_size(path) // WORD, 0, 0
        for start in range(0, n_words, BLOCK_WORDS):
            stop = min(start + BLOCK_WORDS, n_words)
            words = _read_words(str(path), start, stop)
            n, left, chip, _, _ = tpx3.find_chunks(words, left, chip, n_words - stop, chunks)
            found = tpx3.first_clock(words, chunks[:n])
            if found[0] > 1:
                return found[1]
            best = best if best[0] else found
    return best[1]


def _read_words(path: str, start: int, stop: int) -> Array:
    words = np.empty(stop - start, "<u8")
    place = np.zeros(1, np.int64)
    read_blocks(path, place + start * WORD, words.nbytes, as_bytes(words), place)
    return words.astype(np.uint64, copy=False)
