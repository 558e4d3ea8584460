"""An address on another machine: a text that anyone may see, and what is needed to get in, which nobody may.

User names with passwords, the query of a link (which may be a signature) and storage options are secrets. They travel
with the address when it is pickled to another process of the same person, and appear in no text: not in messages,
reprs, histories or names of tasks.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

from stemstore.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)(::[a-z0-9+.:-]+)?://", re.IGNORECASE)
"""A letter before a colon is a drive; a chain such as ``simplecache::s3://`` is a URL."""

_LINK = re.compile(r"::(?=[a-z][a-z0-9+.-]+://)", re.IGNORECASE)
"""What joins the URLs of a chain."""

_FALLEN = re.compile(r"^(s3a?|gcs|gs|az|abfss?|https?|ftp|sftp|file):/(?!/)", re.IGNORECASE)
"""A URL that has lost one of its slashes, as in a `pathlib.Path`."""

_LOCAL = ("file", "local")
_WEB = ("http", "https")

_USER = re.compile(r"(https?://)[^/\s'\"]*@|(://)[^/\s'\"@:]*:[^/\s'\"]*@", re.IGNORECASE)
"""Name and password before a host, in a sentence."""

_QUERY = re.compile(r"(https?://[^\s'\"?#]*)[?#][^\s'\"]*|(://[^\s'\"?]*)\?[^\s'\"/=]*=[^\s'\"]*", re.IGNORECASE)
"""What follows the path, in a sentence: signatures of links, tokens."""

_SHORTEST_SECRET = 4
"""Letters of a secret that is taken out of messages wherever it stands; shorter ones are flags and numbers."""

_SHORTEST_VALUE = 16
"""The same for one value of a query: signatures and tokens are longer, words are not."""

_PLAIN = ("anon", "region", "profile", "protocol", "version", "scheme", "account_name", "account_host", "project")
"""Options whose values are no secrets, by how their names begin."""

_PLAIN_URL = re.compile(r"[a-z][a-z0-9+.-]+://[^\s;@?]*", re.IGNORECASE)
"""An option that is a URL without anything in it that could be a secret."""


class Address(str):  # noqa: SLOT000 - the few addresses of a process may have a dict each
    """A URL without its secrets, as text; the secrets as attributes.

    Parameters
    ----------
    url
        As the user wrote it; an address keeps its secrets.
    options
        For fsspec's file system of the URL, such as ``{"anon": True}``; they replace those of an address.

    Attributes
    ----------
    full
        The URL as it was written.
    options
        As given, or of the address given.
    """

    full: str
    options: dict[str, Any]

    def __new__(cls, url: str, options: Mapping[str, Any] | None = None) -> Self:
        """Take the secrets out of the text."""
        known = url if isinstance(url, Address) else None
        path, query = divided(str.__str__(url) if known is None else known.full)
        path = path if path.endswith("://") else path.rstrip("/")
        self = super().__new__(cls, cls._shown(path, query))
        self.full = path + query
        self.options = dict((known.options if known is not None else {}) if options is None else options)
        return self

    @classmethod
    def _shown(cls, path: str, query: str) -> str:
        """Give the text of an address; the query is in none of it."""
        del query
        return "::".join(_without_user(divided(part)[0]) for part in _LINK.split(path))

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel with the secrets: the other process has to get in as well."""
        return type(self), (self.full, self.options)

    @property
    def query(self) -> str:
        """What follows the path of the URL, with the mark in front of it; often empty."""
        return divided(self.full)[1]

    def joined(self, name: str) -> str:
        """URL of what lies below, with the query of the address."""
        path, query = divided(self.full)
        return f"{path}/{name}{query}"

    def censor(self, text: str) -> str:
        """Take what is secret about this address out of a message of a library."""
        text = shown(text.replace(self.full, str.__str__(self)))
        for secret in sorted({*_secrets(self.options), *self._hidden()}, key=len, reverse=True):
            text = text.replace(secret, "…")
        return text

    def _hidden(self) -> Iterator[str]:
        """Give user, password and query of the URL, where they are not shown."""
        path, query = divided(self.full)
        user = path.partition("://")[2].partition("/")[0].rpartition("@")[0]
        values = [part.partition("=")[2] for part in query.split("&")]
        long = [value for value in (*values, *map(unquote, values)) if len(value) >= _SHORTEST_VALUE]
        for part in (user, user.partition(":")[2], query[1:], *long):
            if len(part) >= _SHORTEST_SECRET and part not in str.__str__(self):
                yield part


def is_url(text: str) -> bool:
    """Whether a text is an address of another place than the disks of this machine."""
    scheme = _SCHEME.match(text)
    return scheme is not None and (scheme[1].lower() not in _LOCAL or scheme[2] is not None)


def local_path(url: str) -> Path:
    """Path of a text that is no URL, or one such as ``file:///data``.

    Raises
    ------
    InputError
        It is a URL with one slash in place of two, which would become folders of this machine.
    """
    if _FALLEN.match(url):
        meant = url.replace(":/", "://", 1)
        msg = f"'{url}' has one slash where a URL has two; write '{meant}', as text: pathlib.Path takes one away"
        raise InputError(msg, url=url, expected=meant)
    path = url.partition("://")[2] if _SCHEME.match(url) else url
    return Path(os.path.expanduser(path))  # noqa: PTH111  # a name ~such, whose user is unknown, stays as it is


def is_web(url: str) -> bool:
    """Whether something lies on a web server; there, addresses may end in a query."""
    return url.partition("://")[0].lower() in _WEB


def divided(url: str) -> tuple[str, str]:
    """Divide a URL into its path and its query with the mark in front of it, often empty.

    Outside of the web a question mark is part of a name, unless an equals sign follows before the next slash.
    """
    mark = r"[?#]" if is_web(url) else r"\?(?=[^/=]*=)"
    at = re.search(mark, url) if is_url(url) else None
    return (url, "") if at is None else (url[: at.start()], url[at.start() :])


def _without_user(url: str) -> str:
    """Take name and password out; a lone name stays outside of the web: Azure writes its containers so."""
    scheme, sign, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    user, _, bare = host.rpartition("@")
    return f"{scheme}{sign}{bare if is_web(url) or ':' in user else host}{slash}{path}"


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
    elif isinstance(options, str) and not name.startswith(_PLAIN) and not _PLAIN_URL.fullmatch(options):
        parts = [part.partition("=")[2] for part in re.split("[;&]", options)]  # of a connection string or signature
        yield from (part for part in (options, *parts) if len(part) >= _SHORTEST_SECRET)
