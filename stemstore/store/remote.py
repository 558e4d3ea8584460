"""Objects of a store at any URL that fsspec knows."""

from __future__ import annotations

import random
import time
from collections import deque
from contextlib import contextmanager, suppress
from http import HTTPStatus
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import DestinationExistsError, NotFoundError, StemStoreError
from stemstore.places.failure import says_absent, told_by, unanswered
from stemstore.places.link import Link, answer, link_to
from stemstore.places.retry import ShortBodyError, status_of
from stemstore.store.address import StoreUrl
from stemstore.store.extents import batches, merge
from stemstore.store.refusal import absent, cut_short, nowhere, taken

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from concurrent.futures import Future

    from stemstore._types import Array
    from stemstore.store.extents import Extent

_AHEAD = 2
"""Batches that are held at a time: one is decoded while the server works on the next."""

_EXPECTED = 5.0
"""Seconds for which an answer that was asked for early counts as new."""

_CONFLICTS = 5
"""Conditional writes of an object that meet others, before somebody else is said to have it."""

_CONFLICT_PAUSE = 0.1
"""Seconds, a little more each time."""

_TAKEN = (HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED)
"""Statuses of a conditional write whose condition does not hold."""


class RemoteStorage:
    """Objects at a URL that fsspec knows; writes of one object are whole or nothing there."""

    def __init__(self, url: str) -> None:
        self.address = StoreUrl(url)
        self.root: str = self.address
        self._link: Link = link_to(self.address)
        self._expected: dict[str, tuple[float, Future[bytes]]] = {}

    @property
    def parallel(self) -> bool:
        """Whether the file system is made for many calls at once."""
        return bool(self._link.fs.async_impl)

    def expect(self, keys: Sequence[str]) -> None:
        """Begin to read objects that `get` will be asked for next, in one round of requests."""
        if self._link.fs.async_impl:
            now = time.monotonic()
            self._expected |= {key: (now, self._link.read(key, 0, None)) for key in keys}

    def get(self, key: str) -> bytes:
        """Read an object."""
        sent, early = self._expected.pop(key, (0.0, None))
        if early is None or time.monotonic() - sent > _EXPECTED:
            early = self._link.read(key, 0, None)
        with self._asking(key):
            return bytes(answer(early))

    def open(self, key: str) -> IO[bytes]:
        """Read an object and open it."""
        return BytesIO(self.get(key))

    def exists(self) -> bool:
        """Whether anything is below the url."""
        try:
            self._about("")
        except NotFoundError:
            return False
        return True

    def size(self, key: str) -> int | None:
        """Size of an object, None where there is none."""
        try:
            found = self._about(key)
        except NotFoundError:
            return None
        return int(found["size"]) if found.get("type") == "file" and found.get("size") is not None else None

    def _about(self, key: str) -> dict[str, Any]:
        self._link.fs.invalidate_cache()
        with self._asking(key):
            found: dict[str, Any] = self._link.ask("info", self._link.at(key))
            return found

    def put(self, key: str, parts: Sequence[Any]) -> int:
        """Write an object whole; the same bytes again where an answer was lost."""
        body = b"".join(bytes(part) for part in parts)
        with self._asking(key, "write"):
            self._link.ask("pipe_file", self._link.at(key), body, n_bytes=len(body))
        return len(body)

    def create(self, key: str, parts: Sequence[Any]) -> None:
        """Write an object unless there is one, in one step where the server can (``If-None-Match: *``)."""
        body = b"".join(bytes(part) for part in parts)
        for attempt in range(1, _CONFLICTS + 1):
            try:
                with self._asking(key, "write"):
                    if self._create(key, body):
                        return
                break
            except DestinationExistsError:
                found = self._held(key)
                if found == body:
                    return  # of an attempt whose answer was lost
                if found is not None or attempt == _CONFLICTS:
                    raise
            time.sleep(random.uniform(0.5, 1.0) * _CONFLICT_PAUSE * attempt)  # two met, and neither was written
        if self.size(key) is not None:
            where = f"{self.root}/{key}"
            raise taken(where)
        self.put(key, [body])

    def _create(self, key: str, body: bytes) -> bool:
        """Write an object unless there is one; False where the server, or its file system, knows no conditions."""
        try:
            self._link.ask("pipe_file", self._link.at(key), body, n_bytes=len(body), mode="create")
        except (NotImplementedError, TypeError):
            return False
        except Exception as error:
            if status_of(error) != HTTPStatus.NOT_IMPLEMENTED:
                raise
            return False
        return True

    def _held(self, key: str) -> bytes | None:
        """Read an object; None where there is none."""
        try:
            return self.get(key)
        except NotFoundError:
            return None

    def tails(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        """Last bytes of several objects, in one round of concurrent requests."""
        found: list[bytes | None] = []
        asked = [self._link.read(key, -length, None) for key in keys]
        try:
            for key, future in zip(keys, asked, strict=True):
                try:
                    with self._asking(key):
                        found.append(future.result())
                except NotFoundError:
                    found.append(None)
        finally:
            cancel(asked)
        return found

    def fetch(self, extents: Sequence[Extent], scratch: Array) -> Generator[Array, None, None]:
        """Ask for merged extents, many at once and some ahead of what is used, and give back each one's part."""
        del scratch  # fsspec hands out buffers of its own
        todo = batches(extents)
        ahead: deque[Batch] = deque()
        try:
            for _ in range(_AHEAD):
                ahead.extend(Batch(self._link, part) for part in [next(todo, None)] if part)
            while ahead:
                batch = ahead[0]
                for number, extent in enumerate(batch.extents):
                    with self._reading(batch, number):
                        part = batch.part(number)
                    if len(part) != extent.length:
                        where = f"{self.root}/{extent.key}"
                        raise cut_short(where, extent.start, extent.length, len(part))
                    yield part
                ahead.popleft()
                ahead.extend(Batch(self._link, part) for part in [next(todo, None)] if part)
        finally:
            for batch in ahead:
                cancel(batch.asked)

    @contextmanager
    def _reading(self, batch: Batch, number: int) -> Iterator[None]:
        """Say of a short answer at which byte the object ends."""
        extent, merged = batch.extents[number], batch.merged[batch.home[number][0]]
        short: StemStoreError | None = None
        try:
            with self._asking(extent.key):
                yield
        except StemStoreError as error:
            cause = error.__cause__
            if (
                not isinstance(cause, ShortBodyError)
                and status_of(cause or error) != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            ):
                raise
            got = cause.got if isinstance(cause, ShortBodyError) else 0
            short = cut_short(f"{self.root}/{merged.key}", merged.start, merged.length, got)
        if short is not None:
            raise short

    def keys(self, prefix: str) -> list[str]:
        """Keys of all objects below a prefix."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Sizes of all objects below a prefix by key, in one listing."""
        self._link.fs.invalidate_cache()
        with self._asking(prefix):
            found = self._link.ask("find", self._link.at(prefix), detail=True)
        strip = len(self._link.path) + 1
        return {path[strip:]: int(about["size"] or 0) for path, about in found.items()}

    def children(self, prefix: str) -> list[str]:
        """Names directly below a prefix."""
        self._link.fs.invalidate_cache()
        try:
            with self._asking(prefix):
                found = self._link.ask("ls", self._link.at(prefix), detail=False)
        except NotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def move(self, source: str, target: str, last: str) -> None:
        """Copy all objects on the server's side and remove the first ones; `last` is removed first and copied last."""
        keys = sorted(self.keys(source), key=lambda key: key == f"{source}/{last}")
        self.delete(f"{target}/{last}")
        self.delete(target)
        with self._asking(target, "write"):
            for key in keys:
                self._link.ask("cp_file", self._link.at(key), self._link.at(f"{target}{key.removeprefix(source)}"))
        self.delete(source)

    def sweep(self) -> None:
        """Do nothing: unfinished uploads have no name here."""

    def delete(self, prefix: str = "", *, last: str = "") -> None:
        """Remove all objects below a prefix, one of them after all others."""
        self._link.fs.invalidate_cache()
        path = self._link.at(prefix)
        if last:
            others = [self._link.at(key) for key in self.sizes(prefix) if key != f"{prefix}/{last}"]
            with suppress(NotFoundError), self._asking(prefix, "remove"):
                if others:
                    self._link.ask("rm", others)
        with suppress(NotFoundError), self._asking(prefix, "remove"):
            self._link.ask("info", path)
            self._link.ask("rm", path, recursive=True)

    def stamp(self, key: str) -> object:
        """Give no mark: a look would cost a round trip at each read."""
        del key
        return None

    @contextmanager
    def _asking(self, key: str, verb: str = "read") -> Iterator[None]:
        """Turn what a file system throws into our errors, without the secrets of the address."""
        failure: StemStoreError | None = None
        try:
            yield
        except StemStoreError:
            raise
        except Exception as error:  # libraries of object stores have errors of any kind
            failure = self._failure(error, key, verb)
        if failure is not None:  # outside of the handler: there the first error, which may tell secrets, is its context
            raise failure

    def _failure(self, error: Exception, key: str, verb: str) -> StemStoreError:
        where = f"{self.root}/{key}" if key else str(self.root)
        text, status = str(error), status_of(error)
        censored = self.address.censor(text)
        if says_absent(error):
            failure: StemStoreError = nowhere(where) if verb == "write" else absent(where)
        elif isinstance(error, FileExistsError) or (verb == "write" and status in _TAKEN):
            failure = taken(where)
        else:
            failure = unanswered(error, where, verb, reason=censored, status=status, patience=self._link.patience)
        return told_by(failure, error, self.address)


class Batch:
    """Requests for some extents, sent at once.

    Attributes
    ----------
    extents
        What is wanted, in the order in which it is used.
    merged, home
        As of `merge`.
    asked
        One answer per merged extent.
    """

    def __init__(self, link: Link, extents: Sequence[Extent]) -> None:
        self.extents = extents
        self.merged, self.home = merge(extents)
        self.asked = [link.read(one.key, one.start, one.stop) for one in self.merged]

    def part(self, number: int) -> Array:
        """Wait for an extent."""
        at, offset = self.home[number]
        return np.frombuffer(answer(self.asked[at]), np.uint8)[offset : offset + self.extents[number].length]


def cancel(asked: Sequence[Future[Any]]) -> None:
    """Give up requests that nobody waits for any more."""
    for future in asked:
        future.cancel()
