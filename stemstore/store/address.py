"""The address of a store: that of a place, and where its blocks are kept on a local disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

from stemstore.config import cache_limit, parse_size
from stemstore.errors import InputError
from stemstore.places.address import Address, is_url
from stemstore.store.blocks import CacheSettings, cache_settings

if TYPE_CHECKING:
    from collections.abc import Mapping


class StoreUrl(Address):
    """The address of a store: a URL without its secrets, as text; the secrets as attributes.

    Parameters
    ----------
    url, options
        As of an `Address`.
    cache
        Where blocks are kept on a local disk; replaces that of an address.

    Attributes
    ----------
    cache
        As given, or of the address given.
    """

    cache: CacheSettings | None

    def __new__(cls, url: str, options: Mapping[str, Any] | None = None, cache: CacheSettings | None = None) -> Self:
        """Take the secrets out of the text."""
        self = super().__new__(cls, url, options)
        self.cache = url.cache if cache is None and isinstance(url, StoreUrl) else cache
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel with the secrets and the cache."""
        return type(self), (self.full, self.options, self.cache)


def remote(url: str | os.PathLike[str], **storage_options: Any) -> StoreUrl:
    """Say how a URL is reached, once, for everything that takes the address of a store.

    Parameters
    ----------
    url
        A URL that fsspec knows, such as ``s3://bucket/scan.zarr``.
    **storage_options
        For its file system: ``anon=True``, ``endpoint_url="https://…"``, ``profile="lab"``. What can be in the
        environment is better there.

    Returns
    -------
    url
        A text like any other; the options, a password or a signature in the URL are not part of it.

    Raises
    ------
    InputError
        It is a path of this machine, which takes no options.

    Examples
    --------
    >>> url = remote("https://me:secret@example.org/scan.zarr?signature=abc")
    >>> url
    'https://example.org/scan.zarr'
    """
    text = os.fspath(url)
    if storage_options and not is_url(text):
        msg = (
            f"'{text}' is a path of this machine and takes no storage options {sorted(storage_options)}; leave them out"
        )
        raise InputError(msg, url=text, found=sorted(storage_options))
    return StoreUrl(text, storage_options or None)


def reach(
    url: Any,
    storage_options: Mapping[str, Any] | None,
    cache: str | os.PathLike[str] | None = None,
    cache_size: str | int | None = None,
) -> Any:
    """Put options and a cache into a URL; a path of this machine needs no cache and is given back as it is.

    Raises
    ------
    InputError
        Options for something that is no URL, or a size without a cache.
    StorageError
        The folder of the cache cannot be made.
    """
    if cache is None and cache_size is not None:
        msg = f"cache_size={cache_size!r} without a folder; name one with cache="
        raise InputError(msg, found=cache_size)
    if storage_options is not None:
        if not isinstance(url, (str, os.PathLike)):
            msg = "storage_options= is for one URL; give addresses made by stemstore.remote instead"
            raise InputError(msg)
        url = remote(url, **storage_options)
    if cache is None or not isinstance(url, str) or not is_url(url):
        return url
    limit = cache_limit() if cache_size is None else parse_size(cache_size)
    return StoreUrl(url, cache=cache_settings(cache, limit))


def reach_urls(*urls: Any, storage_options: Mapping[str, Any]) -> list[Any]:
    """Put options into those of some arguments that are URLs and bring none of their own.

    Raises
    ------
    InputError
        None of them is a URL.
    """
    if not any(isinstance(url, str) and is_url(url) for url in urls):
        msg = "storage_options= without a URL; leave them out, or name a place such as s3://bucket/scan.zarr"
        raise InputError(msg, found=sorted(storage_options))
    bare = [isinstance(url, str) and is_url(url) and not getattr(url, "options", None) for url in urls]
    return [remote(url, **storage_options) if alone else url for url, alone in zip(urls, bare, strict=True)]
