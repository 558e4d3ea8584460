"""A finished remote store whose blocks are kept on a local disk."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from stemstore.store.remote import RemoteStorage

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from stemstore._types import Array
    from stemstore.store.blocks import BlockCache
    from stemstore.store.extents import Extent

_SETTLED = ("intensity/", "events/", "summary/", "valid/")
"""Where the arrays lie that never change."""


class CachedStorage(RemoteStorage):
    """The objects of a finished remote store, whose blocks are read from the server once.

    Parameters
    ----------
    storage
        Where the store lies.
    cache
        Where blocks are kept.
    identity
        Of the store.
    """

    def __init__(self, storage: RemoteStorage, cache: BlockCache, identity: str) -> None:
        super().__init__(storage.address)
        self._expected = storage._expected  # what was asked for already
        self._cache, self._identity = cache, identity

    def expect(self, keys: Sequence[str]) -> None:
        """Begin to read those objects that are not kept."""
        super().expect([key for key in keys if not self._cache.path(self._identity, key, 0, 0).exists()])

    def get(self, key: str) -> bytes:
        """Read an object; chunks of small arrays of the scan are kept."""
        if "/c/" not in key or not key.startswith(_SETTLED):
            return super().get(key)  # metadata, coordinates that may be edited, and what may be saved anew
        path = self._cache.path(self._identity, key, 0, 0)
        body = self._cache.get(path)
        if body is None:
            body = super().get(key)
            self._cache.put(path, body)
        return body

    def tails(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        """Last bytes of several objects; those not kept are read in one round."""
        paths = [self._cache.path(self._identity, key, -length, length) for key in keys]
        found = [self._cache.get(path, length) for path in paths]
        absent = [number for number, body in enumerate(found) if body is None]
        if absent:
            for number, body in zip(absent, super().tails([keys[n] for n in absent], length), strict=True):
                found[number] = body
                if body is not None and len(body) == length:
                    self._cache.put(paths[number], body)
        return found

    def fetch(self, extents: Sequence[Extent], scratch: Array) -> Generator[Array, None, None]:
        """Give the bytes of each extent, from the disk or from the server."""
        paths = [self._cache.path(self._identity, *extent) for extent in extents]
        held = [path.exists() for path in paths]
        absent = [extent for extent, here in zip(extents, held, strict=True) if not here]
        with closing(super().fetch(absent, scratch)) as parts:
            for extent, path, here in zip(extents, paths, held, strict=True):
                body = self._cache.get(path, extent.length) if here else None
                if body is not None:
                    yield np.frombuffer(body, np.uint8)
                    continue
                part = next(super().fetch([extent], scratch)) if here else next(parts)  # removed meanwhile, or damaged
                self._cache.put(path, part.data)
                yield part
