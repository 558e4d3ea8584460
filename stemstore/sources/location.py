"""The address of a remote file, known again wherever its text turns up.

Names of files travel as plain text through HDF5, metadata and readers. As long as an address is in use, its text leads
back to it, and so to what is needed to reach it.
"""

from __future__ import annotations

import hashlib
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from stemstore.places.address import Address, is_url

if TYPE_CHECKING:
    from collections.abc import Mapping

_known: dict[str, list[weakref.ref[Location]]] = {}
"""Addresses in use by their text, oldest first: one met as plain text, in metadata, is reached as it was opened."""


class Location(Address):
    """The address of a file: a URL without its secrets, as text; the secrets as attributes.

    Of a query a mark is left, so that addresses that differ in it stay apart.

    Parameters
    ----------
    url, options
        As of an `Address`.
    """

    def __new__(cls, url: str, options: Mapping[str, Any] | None = None) -> Self:
        """Take the secrets out of the text, and note the address."""
        self = super().__new__(cls, url, options)
        for text in {str.__str__(self), as_ascii(self)}:
            _known.setdefault(text, []).append(weakref.ref(self, partial(_forget, text)))
        return self

    @classmethod
    def _shown(cls, path: str, query: str) -> str:
        mark = f"?{hashlib.blake2b(query[1:].encode(), digest_size=4).hexdigest()}" if query else ""
        return super()._shown(path, query) + mark

    def __str__(self) -> str:
        """Give the address itself: what is made a text stays an address."""
        return self

    @property
    def path(self) -> str:
        """The text without the mark of a query."""
        text = str.__str__(self)
        return text.rpartition("?")[0] if self.query else text

    def at(self, path: str) -> Location:
        """Address another file of the same place, for the same user; a query belongs to one file only."""
        known = _in_use(path)
        if known is not None:
            return known
        scheme, _, rest = path.partition("://")
        user, sign, _ = self.full.partition("://")[2].partition("/")[0].rpartition("@")
        return Location(f"{scheme}://{user}{sign}{rest}" if user and "@" not in rest else path, self.options)


def location_of(url: str) -> Location | None:
    """Give the address that a text is; None for a path of this machine."""
    if isinstance(url, Location):
        return url
    if not is_url(url):
        return None
    known = None if isinstance(url, Address) else _in_use(url.rstrip("/"))
    return Location(url) if known is None else known


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


def as_ascii(url: str) -> str:
    """Give the text as HDF5 hands it back."""
    return str.__str__(url).encode("ascii", "replace").decode()
