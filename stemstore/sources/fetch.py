"""Ranges of bytes of remote files: many at once, tried again where a failure may pass, errors without secrets."""

from __future__ import annotations

from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from stemstore.errors import InputError, NotFoundError, StemStoreError, TruncatedFileError
from stemstore.places.address import is_web
from stemstore.places.failure import says_absent, told_by, unanswered
from stemstore.places.link import answer, link_to
from stemstore.places.retry import Patience, ShortBodyError, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from stemstore.places.link import Link
    from stemstore.sources.location import Location

MAX_GAP = 64 * 1024
"""Bytes between two blocks that are read and dropped: what a line carries in the time of a round trip, and more."""

BATCH = 32 * 2**20
"""Bytes that are asked for at once."""

REQUEST = 4 * 2**20
"""Longest range of one request: several at once fill a line better than one."""

_ranging: set[str] = set()
"""Web servers that were seen to send parts of files."""


def read_ranges(location: Location, blocks: Sequence[tuple[int, int]], length: int, target: memoryview) -> None:
    """Read equally long blocks of a remote file into places of a buffer.

    Parameters
    ----------
    location
        The file.
    blocks
        Ascending pairs: where a block starts in the file, and where it goes in `target`.
    length : unit byte
        Length of every block.
    target
        Writeable bytes.

    Raises
    ------
    TruncatedFileError
        The file ends inside a block.
    NotFoundError, StorageError
        It is gone or cannot be read.

    Notes
    -----
    Memory: twice `BATCH` bytes, or a block where it is longer.
    """
    for runs in _batches(_runs(blocks, length), length):
        borders = [(run[0][0], run[-1][0] + length) for run in runs]
        answers = iter(fetch(location, [part for border in borders for part in cut(*border)]))
        for run, border in zip(runs, borders, strict=True):
            content = memoryview(b"".join(next(answers) for _ in cut(*border)))
            for start, goal in run:
                target[goal : goal + length] = content[start - border[0] : start - border[0] + length]


def _runs(blocks: Sequence[tuple[int, int]], length: int) -> Iterator[list[tuple[int, int]]]:
    """Put blocks together that lie close to each other."""
    run: list[tuple[int, int]] = []
    for start, goal in blocks:
        if run and not (0 <= start - run[-1][0] - length <= MAX_GAP and start + length - run[0][0] <= BATCH):
            yield run
            run = []
        run.append((start, goal))
    if run:
        yield run


def _batches(runs: Iterator[list[tuple[int, int]]], length: int) -> Iterator[list[list[tuple[int, int]]]]:
    """Put runs together that are asked for at once."""
    batch: list[list[tuple[int, int]]] = []
    held = 0
    for run in runs:
        size = run[-1][0] + length - run[0][0]
        if batch and held + size > BATCH:
            yield batch
            batch, held = [], 0
        batch.append(run)
        held += size
    if batch:
        yield batch


def cut(start: int, stop: int) -> list[tuple[int, int]]:
    """Cut a range of bytes into ranges for single requests."""
    return [(first, min(first + REQUEST, stop)) for first in range(start, stop, REQUEST)]


def fetch(location: Location, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Read ranges of bytes of a remote file, all at once where its file system can.

    Raises
    ------
    TruncatedFileError
        The file ends inside a range.
    NotFoundError, StorageError
        It is gone or cannot be read.
    """
    with asking(location):
        link = link_to(location)
        _make_sure_of_ranges(location, link)
        asked: list[Future[bytes]] = []
        try:
            asked.extend(link.read("", start, stop) for start, stop in ranges)
            return [_part(location, one, *border) for one, border in zip(asked, ranges, strict=True)]
        finally:
            for one in asked:
                one.cancel()


def _part(location: Location, asked: Future[bytes], start: int, stop: int) -> bytes:
    """Wait for one range; where the file ends inside of it, say so."""
    try:
        return answer(asked)
    except ShortBodyError as error:
        got = error.got
    except Exception as error:
        if status_of(error) != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        got = 0
    name, end = str.__str__(location), f"at byte {start + got}" if got else f"at byte {start} or before"
    msg = (
        f"file {name!r} ends {end}, expected at least {stop - start - got} more bytes; it was shortened after it was "
        "opened, open it again"
    )
    raise TruncatedFileError(msg, url=name, byte=start + got)


def _make_sure_of_ranges(location: Location, link: Link) -> None:
    """Ask a web server for one byte, once, in a way that does not wait for the whole file where ranges are ignored."""
    host = location.partition("://")[2].partition("/")[0]
    if not is_web(location) or host in _ranging:
        return

    def read() -> None:
        with link.fs.open(link.at(""), "rb", block_size=1, cache_type="none") as file:
            file.seek(1)
            file.read(1)

    try:
        link.patiently(read)
    except ValueError:
        raise without_parts(location) from None  # the text of the original error may hold secrets
    _ranging.add(host)


def without_parts(location: Location) -> InputError:
    """Make the error for a server from which no part of a file can be had."""
    name = str.__str__(location)
    msg = f"the server of {name!r} does not send parts of files; copy the file first"
    return InputError(msg, url=name)


@contextmanager
def asking(location: Location) -> Iterator[None]:
    """Turn what a file system throws into errors of stemstore, without secrets."""
    failure: StemStoreError | None = None
    try:
        yield
    except StemStoreError:
        raise
    except Exception as error:  # file systems raise what their libraries raise
        failure = told_by(_failure(location, error), error, location)
    if failure is not None:  # outside of the handler: there the first error, which may tell secrets, is its context
        raise failure


def _failure(location: Location, error: Exception) -> StemStoreError:
    """Make the error for a remote file that cannot be read."""
    name, reason = str.__str__(location), location.censor(str(error)) or type(error).__name__
    if says_absent(error):
        return NotFoundError(f"{name!r} does not exist or cannot be reached; check the address", url=name)
    if isinstance(error, NotImplementedError):
        return without_parts(location)
    if isinstance(error, ValueError):
        msg = f"{name!r} cannot be reached: {reason}; give a path or a URL that fsspec knows, such as s3://…"
        return InputError(msg, url=name)
    return unanswered(error, name, "read", reason=reason, status=status_of(error), patience=Patience.configured())
