"""The address of a remote file: a text that anyone may see, and what is needed to reach it, which nobody may.

Names with passwords, the query of a link (which may be a signature) and storage options are secrets. They travel with
the address when it is pickled, and appear in no message, no metadata and no name of a task.
"""

from __future__ import annotations

import hashlib
import re
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]+)://")
_LOCAL = ("file", "local")
_WEB = ("http", "https")
"""Schemes whose addresses may end in a query; elsewhere a question mark may be part of a name."""

_SHORTEST_SECRET = 4
"""Letters of a value among storage options that is taken out of messages; shorter ones are flags and numbers."""

_known: dict[str, list[weakref.ref[Location]]] = {}
"""Addresses in use by their text, oldest first: one met as plain text, in metadata, is reached as it was opened."""


class Location(str):  # noqa: SLOT000 (addresses are referenced weakly, and are few)
    """A URL without its secrets, as text; the secrets as attributes.

    Of a query a mark is left, so that addresses that differ in it stay apart.

    Parameters
    ----------
    url
        As the user wrote it, or another text with the attributes `full` and `options`, which are taken over.
    options
        For fsspec's file system of the URL.

    Attributes
    ----------
    full
        The URL as it was written.
    options
        As given.
    """

    full: str
    options: dict[str, Any]

    def __new__(cls, url: str, options: Mapping[str, Any] | None = None) -> Self:
        """Take the secrets out of the text."""
        full = str.__str__(getattr(url, "full", url))
        full = full if full.endswith("://") else full.rstrip("/")
        self = super().__new__(cls, _shown(full))
        self.full = full
        self.options = dict(getattr(url, "options", None) or {} if options is None else options)
        for text in {str.__str__(self), as_ascii(self)}:
            _known.setdefault(text, []).append(weakref.ref(self, partial(_forget, text)))
        return self

    def __str__(self) -> str:
        """Give the address itself: what is made a text stays an address."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel with the secrets: the other process has to get in as well."""
        return Location, (self.full, self.options)

    @property
    def path(self) -> str:
        """The text without the mark of a query."""
        return str.__str__(self).partition("?")[0] if is_web(self) else str.__str__(self)

    def at(self, path: str) -> Location:
        """Address another file of the same place, for the same user; a query belongs to one file only."""
        known = _in_use(path)
        if known is not None:
            return known
        scheme, _, rest = path.partition("://")
        user, sign, _ = self.full.partition("://")[2].partition("/")[0].rpartition("@")
        return Location(f"{scheme}://{user}{sign}{rest}" if user and "@" not in rest else path, self.options)

    def censor(self, text: str) -> str:
        """Take what is secret about this address out of a message of a library."""
        text = text.replace(self.full, str.__str__(self))
        for secret in sorted({*_secrets(self.options), *self._parts()}, key=len, reverse=True):
            text = text.replace(secret, "…")
        return text

    def _parts(self) -> Iterator[str]:
        user = self.full.partition("://")[2].partition("/")[0].rpartition("@")[0]
        query = self.full.partition("?")[2] if is_web(self) else ""
        yield from (part for part in (user, user.partition(":")[2], query) if len(part) >= _SHORTEST_SECRET)


def location_of(url: str) -> Location | None:
    """Give the address that a text is; None for a path of this machine."""
    if isinstance(url, Location):
        return url
    scheme = _SCHEME.match(url)
    if scheme is None or scheme.group(1).lower() in _LOCAL:
        return None
    if not hasattr(url, "full"):
        known = _in_use(url.rstrip("/"))
        if known is not None:
            return known
    return Location(url)


def _in_use(text: str) -> Location | None:
    return next((found for one in _known.get(text, ()) if (found := one()) is not None), None)


def _forget(text: str, gone: weakref.ref[Location]) -> None:
    left = [one for one in _known.get(text, ()) if one is not gone]
    if left:
        _known[text] = left
    else:
        _known.pop(text, None)


def shown(text: str) -> str:
    """Give a path or URL as a text without secrets."""
    location = location_of(text)
    return str.__str__(text if location is None else location)


def is_web(url: str) -> bool:
    """Whether a file lies on a web server."""
    scheme = _SCHEME.match(url)
    return scheme is not None and scheme.group(1).lower() in _WEB


def as_ascii(url: str) -> str:
    """Give the text as HDF5 hands it back."""
    return str.__str__(url).encode("ascii", "replace").decode()


def _shown(full: str) -> str:
    scheme, sign, rest = full.partition("://")
    host, slash, path = rest.partition("/")
    user, _, bare = host.rpartition("@")
    # a lone name is part of some addresses (Azure writes its containers so); on the web it is a user
    host = bare if is_web(full) or ":" in user else host
    path, mark, query = path.partition("?") if is_web(full) else (path, "", "")
    digest = hashlib.blake2b(query.encode(), digest_size=4).hexdigest() if query else ""
    return f"{scheme}{sign}{host}{slash}{path}{mark if query else ''}{digest}"


def _secrets(options: Any) -> Iterator[str]:
    """Every text among nested options that may be a secret."""
    if isinstance(options, dict):
        options = list(options.values())
    if isinstance(options, (list, tuple)):
        for value in options:
            yield from _secrets(value)
    elif isinstance(options, str) and len(options) >= _SHORTEST_SECRET and "://" not in options:
        yield options
