"""Where the objects of a store lie: a local folder, or any place that fsspec knows by its URL.

A store is a set of objects named by keys such as ``intensity/c/0/1/0/0``. Both back ends write an object whole or not
at all, so that a reader never meets half an object under its final name.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any, Protocol

from stemstore.places.address import divided, is_url, local_path
from stemstore.store.address import StoreUrl
from stemstore.store.local import LocalStorage
from stemstore.store.remote import RemoteStorage
from stemstore.store.zipped import ZippedStorage, is_packed

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from stemstore._types import Array
    from stemstore.store.extents import Extent


class Storage(Protocol):
    """The few things that a store asks of the place where it lies.

    Attributes
    ----------
    root
        Path or URL of the store, without trailing slash.
    """

    root: str

    @property
    def parallel(self) -> bool:
        """Whether threads may use it at the same time."""

    def expect(self, keys: Sequence[str]) -> None:
        """Prepare for `get` of small objects, where that saves time; those that are not there are no error."""

    def get(self, key: str) -> bytes:
        """Read a whole object; `NotFoundError` where there is none."""

    def put(self, key: str, parts: Sequence[Any]) -> int:
        """Write an object whole or not at all, durable on return; gives its size in bytes."""

    def create(self, key: str, parts: Sequence[Any]) -> None:
        """Write an object as `put` does; `DestinationExistsError` where there is one of other bytes."""

    def exists(self) -> bool:
        """Whether anything is there, a store or not."""

    def size(self, key: str) -> int | None:
        """Size of an object in bytes, or None where there is none."""

    def tails(self, keys: Sequence[str], length: int) -> list[bytes | None]:
        """Last `length` bytes of several objects, None where there is no such object."""

    def fetch(self, extents: Sequence[Extent], scratch: Array) -> Generator[Array, None, None]:
        """Give the bytes of each extent in turn, valid until the next one; `scratch` holds the longest."""

    def open(self, key: str) -> IO[bytes]:
        """Open an object for reading, seekable."""

    def keys(self, prefix: str) -> list[str]:
        """Keys of all objects below a prefix, sorted."""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Sizes of all objects below a prefix in bytes, by key."""

    def children(self, prefix: str) -> list[str]:
        """Names directly below a prefix, sorted; empty where there is nothing."""

    def move(self, source: str, target: str, last: str) -> None:
        """Bring all below one prefix below another, in place of what is there; the object `last` arrives last."""

    def sweep(self) -> None:
        """Remove what killed writers left behind; only while nobody writes."""

    def delete(self, prefix: str = "", *, last: str = "") -> None:
        """Remove everything below a prefix, the object `last` there after all others; nothing happens to nothing."""

    def stamp(self, key: str) -> object:
        """Cheap mark that changes when an object is replaced; None where the place has no cheap one."""


def is_local(url: str) -> bool:
    """Whether `url` is a path of this machine rather than a remote location."""
    return not is_url(url)


def open_storage(url: str | os.PathLike[str] | Storage) -> Storage:
    """Reach the objects below `url`, or in the ``.zip`` of that name, without touching any of them.

    A storage is given back as it is.
    """
    if isinstance(url, (LocalStorage, RemoteStorage, ZippedStorage)):
        return url
    text = os.fspath(url)  # type: ignore[arg-type]  # no storage any more
    if is_local(text):
        path = local_path(text)
        packed = is_packed(text) and not path.is_dir()
        return ZippedStorage(LocalStorage(path.parent), path.name) if packed else LocalStorage(path)
    address = StoreUrl(text)
    return ZippedStorage(*split(address)) if is_packed(address) else RemoteStorage(address)


def split(address: StoreUrl) -> tuple[RemoteStorage, str]:
    """Give the place that an object lies in, and its name there."""
    path, query = divided(address.full)
    parent, _, name = path.rpartition("/")
    return RemoteStorage(StoreUrl(f"{parent}{query}", address.options, address.cache)), name
