"""The way to a server: a file system of fsspec with our limits; requests are sent again where that may help."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from stemstore.config import concurrency
from stemstore.places.address import divided, is_web
from stemstore.places.filesystem import environment, file_system, knows_tails
from stemstore.places.retry import Patience, ShortBodyError, status_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stemstore.places.address import Address

T = TypeVar("T")

log = logging.getLogger(__name__)

UNKNOWN_BYTES = 64 * 2**20
"""Size that a request is given time for where nobody knows it: half a shard."""

_KEPT = 32
"""Connections that a process keeps: each holds sockets and, for object stores, credentials."""

_links: OrderedDict[tuple[Any, ...], Link] = OrderedDict()
_lock = threading.Lock()


class Link:
    """Requests to the file system of one address; safe for threads.

    Attributes
    ----------
    fs, path
        Of fsspec.
    query
        What follows the path of a signed link.
    """

    def __init__(self, address: Address) -> None:
        self.patience = Patience.configured()
        self.concurrency = concurrency()
        self.fs, path = file_system(address, self.patience, self.concurrency)
        path, self.query = divided(path) if is_web(address) else (path, "")
        self.path: str = path.rstrip("/")
        self._size_first = self.fs.async_impl and not knows_tails(address, self.fs)
        self._gate: asyncio.Semaphore | None = None

    def at(self, key: str) -> str:
        """Path of an object."""
        return f"{self.path}/{key}{self.query}" if key else f"{self.path}{self.query}"

    def ask(self, method: str, *arguments: Any, n_bytes: int = 0, **options: Any) -> Any:
        """Call a method of the file system, again where its failure may pass; the last error is raised as it came."""
        return answer(self.send(method, *arguments, n_bytes=n_bytes, **options))

    def read(self, key: str, start: int, stop: int | None) -> Future[bytes]:
        """Ask for bytes of an object; a negative `start` counts from its end.

        The bytes are as many as were asked for, or `ShortBodyError` is raised. More of them than were asked for are no
        answer either: the server does not know ranges, and `NotImplementedError` is raised.
        """
        n_bytes = UNKNOWN_BYTES if stop is None and start >= 0 else -start if stop is None else stop - start

        def check(body: bytes) -> bytes:
            body = bytes(body)
            exact = stop is not None or start < 0
            if exact and len(body) > n_bytes:
                msg = (
                    f"the server answers a request for {n_bytes} bytes with {len(body)}: it does not serve byte ranges"
                )
                raise NotImplementedError(msg)
            if stop is not None and len(body) < n_bytes:
                raise ShortBodyError(len(body))
            return body

        if start < 0 and self._size_first:
            return self._begin(partial(self._tail, self.at(key), n_bytes), check, n_bytes)
        return self.send("cat_file", self.at(key), n_bytes=n_bytes, check=check, start=start, end=stop)

    async def _tail(self, path: str, length: int) -> bytes:
        size = int((await self.fs._info(path))["size"])
        tail: bytes = await self.fs._cat_file(path, start=max(0, size - length), end=size)
        return tail

    def send(
        self, method: str, *arguments: Any, n_bytes: int = 0, check: Callable[[Any], Any] | None = None, **options: Any
    ) -> Future[Any]:
        """Begin a call; file systems that cannot do several at a time finish it at once."""
        if not self.fs.async_impl:
            return self._now(method, arguments, options, check)
        return self._begin(partial(getattr(self.fs, f"_{method}"), *arguments, **options), check, n_bytes)

    def _begin(
        self, call: Callable[[], Awaitable[Any]], check: Callable[[Any], Any] | None, n_bytes: int
    ) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(self._send(call, check, n_bytes), self.fs.loop)

    async def _send(self, call: Callable[[], Awaitable[Any]], check: Callable[[Any], Any] | None, n_bytes: int) -> Any:
        attempt = 0
        if self._gate is None:
            self._gate = asyncio.Semaphore(self.concurrency)
        while True:
            attempt += 1
            try:
                async with self._gate:
                    found = await asyncio.wait_for(call(), self.patience.limit(n_bytes))
                return found if check is None else check(found)
            except Exception as error:
                pause = self._pause(attempt, error)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    def _now(self, method: str, arguments: Any, options: Any, check: Callable[[Any], Any] | None) -> Future[Any]:
        def call() -> Any:
            found = getattr(self.fs, method)(*arguments, **options)
            return found if check is None else check(found)

        done: Future[Any] = Future()
        try:
            done.set_result(self.patiently(call))
        except Exception as error:
            done.set_exception(error)
        return done

    def patiently(self, call: Callable[[], T]) -> T:
        """Do something that is no single call of the file system, again where its failure may pass."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return call()
            except Exception as error:
                pause = self._pause(attempt, error)
                if pause is None:
                    raise
            time.sleep(pause)

    def _pause(self, attempt: int, error: Exception) -> float | None:
        pause = self.patience.pause(attempt, error)
        if pause is not None:  # neither the text of the error nor the address, which may hold secrets
            log.info("%s (status %s), trying again in %.1f s", type(error).__name__, status_of(error), pause)
        return pause


def answer(future: Future[Any]) -> Any:
    """Wait for a call; an interrupted wait ends the call as well."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def link_to(address: Address) -> Link:
    """Give the way to an address, shared by all who use the same one: connections stay open.

    Raises
    ------
    InputError
        fsspec does not know such URLs, or refuses the options.
    OptionalDependencyError
        The package for them is not installed.
    """
    settings = (request_settings(), environment(), os.getpid())
    key = (address.full, repr(sorted(address.options.items())), *settings)
    with _lock:
        found = _links.get(key)
        if found is not None:
            _links.move_to_end(key)
            return found
    made = Link(address)
    if not made.fs.async_impl:
        return made  # such file systems need not be safe for threads
    with _lock:
        made = _links.setdefault(key, made)
        while len(_links) > _KEPT:
            _links.popitem(last=False)
    return made


def request_settings() -> tuple[Any, ...]:
    """Give the settings that a link is made with."""
    return Patience.configured(), concurrency()
