"""The address of a store: a text that anyone may see, and what is needed to reach it, which nobody may.

User names with passwords, the query of a signed link and storage options are secrets. They travel with the address when
it is pickled to another process of the same person, and appear in no text: not in messages, reprs, histories or names
of tasks.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Self

from stemstore.config import cache_limit, parse_size
from stemstore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stemstore.store.blocks import CacheSettings

_USER = re.compile(r"(https?://)[^/\s'\"]*@|(://)[^/\s'\"@:]*:[^/\s'\"]*@", re.IGNORECASE)
"""Name and password before a host; a lone name stays outside of the web: Azure writes its containers so."""

_QUERY = re.compile(r"(https?://[^\s'\"?#]*)[?#][^\s'\"]*|(://[^\s'\"?#]*)\?[^\s'\"/=]*=[^\s'\"]*", re.IGNORECASE)
"""What follows the path: signatures of links, tokens. A bare question mark may be part of a key of an object store."""

_SHORTEST_SECRET = 4
_PLAIN = ("anon", "region", "profile", "protocol", "version", "scheme")
"""Options whose values are no secrets, by how their names begin."""


class StoreUrl(str):  # noqa: SLOT000 - the few addresses of a process may have a dict each
    """A URL without its secrets, as text; the secrets as attributes.

    Parameters
    ----------
    url
        As the user wrote it; an address keeps its secrets.
    options
        For fsspec's file system of the URL, such as ``{"anon": True}``; they replace those of an address.
    cache
        Where blocks are kept on a local disk; replaces that of an address.

    Attributes
    ----------
    full
        The URL as it was written.
    options, cache
        As given, or of the address given.
    """

    full: str
    options: dict[str, Any]
    cache: CacheSettings | None

    def __new__(cls, url: str, options: Mapping[str, Any] | None = None, cache: CacheSettings | None = None) -> Self:
        """Take the secrets out of the text."""
        full = url.full if isinstance(url, StoreUrl) else str(url)
        path, mark, query = full.partition("?") if full.lower().startswith("http") else (full, "", "")
        full = f"{path.rstrip('/')}{mark}{query}"
        self = super().__new__(cls, shown(full))
        self.full = full
        known = url if isinstance(url, StoreUrl) else None
        self.options = dict(known.options if options is None and known is not None else options or {})
        self.cache = known.cache if cache is None and known is not None else cache
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel with the secrets: the other process has to get in as well."""
        return StoreUrl, (self.full, self.options, self.cache)

    def censor(self, text: str) -> str:
        """Remove what is secret about this address from a message of a library."""
        text = shown(text.replace(self.full, str(self)))
        for secret in sorted({*_secrets(self.options), *self._hidden()}, key=len, reverse=True):
            text = text.replace(secret, "…")
        return text

    def _hidden(self) -> Iterator[str]:
        """Give the password and the query of the URL, where they are not shown."""
        password = self.full.partition("://")[2].partition("/")[0].rpartition("@")[0].partition(":")[2]
        for part in (password, self.full.partition("?")[2]):
            if len(part) >= _SHORTEST_SECRET and part not in str(self):
                yield part


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
    if storage_options and not _is_url(text):
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
    from stemstore.store.blocks import cache_settings

    if cache is None and cache_size is not None:
        msg = f"cache_size={cache_size!r} without a folder; name one with cache="
        raise InputError(msg, found=cache_size)
    if storage_options is not None:
        if not isinstance(url, (str, os.PathLike)):
            msg = "storage_options= is for one URL; give addresses made by stemstore.remote instead"
            raise InputError(msg)
        url = remote(url, **storage_options)
    if cache is None or not isinstance(url, str) or not _is_url(url):
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
    if not any(isinstance(url, str) and _is_url(url) for url in urls):
        msg = "storage_options= without a URL; leave them out, or name a place such as s3://bucket/scan.zarr"
        raise InputError(msg, found=sorted(storage_options))
    bare = [isinstance(url, str) and _is_url(url) and not getattr(url, "options", None) for url in urls]
    return [remote(url, **storage_options) if alone else url for url, alone in zip(urls, bare, strict=True)]


def _is_url(text: str) -> bool:
    return "://" in text and not text.startswith(("file://", "local://"))


def shown(text: str) -> str:
    """Give a text without the secrets of the URLs in it."""
    return _QUERY.sub(r"\1\2", _USER.sub(r"\1\2", text))


def _secrets(options: Any, name: str = "") -> Iterator[str]:
    """Every text among nested options that may be a secret."""
    if isinstance(options, dict):
        for key, value in options.items():
            yield from _secrets(value, str(key))
    elif isinstance(options, (list, tuple)):
        for value in options:
            yield from _secrets(value, name)
    elif isinstance(options, str):
        told = name.startswith(_PLAIN) or "://" in options or len(options) < _SHORTEST_SECRET
        yield from () if told else (options,)
