"""Digests of the files that a conversion reads, taken beside it.

A reader takes pieces of its files in whatever order their format asks for, so that a digest cannot grow from what it
reads. Threads of their own go through the files from beginning to end while the conversion is at work; pages that one
of the two has read the other finds in memory. What they found lies in the journal, where every job of a conversion
leaves its share.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, get_args

import numpy as np

from stemstore.errors import InputError, StorageError
from stemstore.sources.files import check_unchanged, unreadable
from stemstore.sources.location import location_of
from stemstore.sources.remote import place
from stemstore.store.journal import JOURNAL, PLAN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from stemstore.progress import Progress
    from stemstore.store.urls import Storage
    from stemstore_schemas import ScanDocument, SourceFile

log = logging.getLogger(__name__)

Algorithm = Literal["crc32c", "sha256"]
Asked = Literal["crc32c", "sha256", "none"]
"""What the user may ask for; without it CRC-32C of the files on this machine."""

PREFIX = f"{JOURNAL}/digests-"
THREADS = {"crc32c": 1, "sha256": 4}  # one CRC keeps up with most disks; more of them take turns with the conversion
BLOCK = 2**20  # bytes read at once; larger ones leave the processor's cache before they are digested
REMOTE_BLOCK = 2**24  # each is a request or a few
_ESCAPED = re.compile(r"\\udc[89a-f][0-9a-f]")  # how metadata write bytes of a name that are no text

Known = tuple[str, int, str | None]
"""Path, size and modification time of a file, by which its digest is found again."""


def check_asked(asked: Asked | None) -> None:
    """Refuse what is no algorithm.

    Raises
    ------
    InputError
        It is another value.
    """
    if asked is not None and asked not in get_args(Asked):
        msg = f"digests={asked!r} is not known; choose 'crc32c', 'sha256' or 'none'"
        raise InputError(msg, key="digests", found=asked)


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of the source files of one conversion.

    Attributes
    ----------
    files
        Whose digests are wanted; without stores, which have one already, and without files whose names are no text:
        metadata cannot tell where they are.
    algorithm
        CRC-32C, which costs little more than reading and finds damage and mistaken files, or SHA-256, which nobody can
        forge.
    storage
        Of the unfinished store.
    """

    files: list[SourceFile]
    algorithm: Algorithm
    storage: Storage

    @classmethod
    def of(cls, document: ScanDocument, asked: Asked | None, storage: Storage) -> Self:
        """Find out whose digests are wanted.

        Parameters
        ----------
        document
            Of the new store; its last operation is the conversion.
        asked
            None for CRC-32C of files that are read like local ones, an algorithm for those on servers as well,
            ``"none"`` for no file.
        storage
            Of the unfinished store.
        """
        if asked == "none":
            return cls([], "crc32c", storage)
        files = [file for file in document.history[-1].inputs if file.digest is None and file.uuid is None]
        files = [file for file in files if not _ESCAPED.search(file.path)]
        if asked is None:
            return cls([file for file in files if location_of(file.path) is None], "crc32c", storage)
        return cls(files, asked, storage)

    def taken(self) -> dict[Known, str]:
        """Read the digests that all jobs have left in the journal."""
        keys = [key for key in self.storage.keys(JOURNAL) if key.startswith(PREFIX)]
        found = {file: text for key in keys for file, text in _read(self.storage, key).items()}
        return {file: text for file, text in found.items() if text.startswith(f"{self.algorithm}:")}

    @contextlib.contextmanager
    def beside(self, progress: Progress, *, share: tuple[int, int] = (0, 1)) -> Iterator[None]:
        """Take digests while the body is at work, wait for the last ones at its end, and keep them in the journal.

        Parameters
        ----------
        progress
            Told about the files that are left when the body is done.
        share
            Number of this job, and how many jobs divide the files among themselves.

        Raises
        ------
        StaleStoreError, NotFoundError, StorageError
            A file has changed or cannot be read.

        Notes
        -----
        Where the body fails, the threads stop after a block, and the digests that they have are kept. Memory per
        thread: 1 MiB, or 16 MiB for files on servers; one thread for CRC-32C, at most four for SHA-256.
        """
        number, n_jobs = share
        done = self.taken()
        mine = [file for file in self.files[number::n_jobs] if _known(file) not in done]
        if not mine:
            yield
            return
        stopped = threading.Event()
        taken: dict[Known, str] = {}

        def take(file: SourceFile) -> None:
            text = None if stopped.is_set() else digest_file(file, self.algorithm, stopped)
            if text is not None:
                taken[_known(file)] = text

        with ThreadPoolExecutor(min(THREADS[self.algorithm], len(mine)), thread_name_prefix="digest") as executor:
            pending = [executor.submit(take, file) for file in mine]
            try:
                yield
                _wait(pending, progress)
            finally:
                stopped.set()
                executor.shutdown(wait=True, cancel_futures=True)
                _keep(self.storage, f"{PREFIX}{number:08d}.json", taken)

    def into(self, document: ScanDocument) -> ScanDocument:
        """Complete the inputs of the conversion, which is the last operation of a document."""
        done = self.taken()
        *before, last = document.history
        inputs = [file.model_copy(update={"digest": done.get(_known(file), file.digest)}) for file in last.inputs]
        return document.model_copy(update={"history": [*before, last.model_copy(update={"inputs": inputs})]})


def digest_file(file: SourceFile, algorithm: Algorithm, stopped: threading.Event | None = None) -> str | None:
    """Take the digest of a file, as ``algorithm:hexadecimal``; None where it is stopped.

    Parameters
    ----------
    file
        As it was when its reader described it.
    algorithm
        CRC-32C (Castagnoli; RFC 3720, appendix B.4) or SHA-256 (FIPS 180-4).
    stopped
        Looked at after every block.

    Raises
    ------
    StaleStoreError
        It has changed since it was described.
    NotFoundError, StorageError
        It cannot be read.
    """
    path = place(file.path)
    found = _Crc32c() if algorithm == "crc32c" else hashlib.sha256()
    block = memoryview(bytearray(BLOCK if isinstance(path, Path) else REMOTE_BLOCK))
    try:
        with path.open("rb", buffering=0) as opened:
            while count := opened.readinto(block):
                if stopped is not None and stopped.is_set():
                    return None
                found.update(block[:count])
    except OSError as error:
        raise unreadable(path, error) from error
    check_unchanged([file])
    return f"{algorithm}:{found.hexdigest()}"


class _Crc32c:
    """CRC-32C with the methods of hashlib."""

    def __init__(self) -> None:
        self.value = 0

    def update(self, block: memoryview) -> None:
        """Go on with more bytes."""
        import google_crc32c

        self.value = google_crc32c.extend(self.value, np.frombuffer(block, np.uint8))

    def hexdigest(self) -> str:
        """Give the sum as eight hexadecimal digits."""
        return f"{self.value:08x}"


def _wait(pending: Sequence[Future[None]], progress: Progress) -> None:
    """Wait for the files that are left, and raise what went wrong with any."""
    left = {future for future in pending if not future.done()}
    if left:
        log.info("taking digests of %d more source files", len(left))
        progress.start("taking digests", len(left))
    for future in pending:
        future.result()
        if future in left:
            progress.advance()


def _keep(storage: Storage, key: str, taken: dict[Known, str]) -> None:
    """Write down what a job has found, beside what it found when it ran before."""
    if not taken or storage.size(PLAN) is None:  # without its plan the conversion was removed meanwhile
        return
    lines = [[*file, text] for file, text in (_read(storage, key) | taken).items()]
    try:
        storage.put(key, [json.dumps(lines).encode()])
    except StorageError as error:  # they can be taken again; what made the device refuse is told elsewhere
        log.warning("the digests of %d source files could not be kept: %s", len(taken), error)


def _read(storage: Storage, key: str) -> dict[Known, str]:
    """Read what one job has left; what is not there or damaged is taken anew."""
    if storage.size(key) is None:
        return {}
    try:
        return {(path, size, mtime): str(text) for path, size, mtime, text in json.loads(storage.get(key))}
    except (ValueError, TypeError):
        return {}


def _known(file: SourceFile) -> Known:
    return file.path, file.size, file.mtime
