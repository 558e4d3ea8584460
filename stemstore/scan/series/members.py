"""Which scans are meant: those of a group, a folder, a pattern or a list, each with a name."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from stemstore.errors import InputError, NotFoundError
from stemstore.places.address import is_web, local_path
from stemstore.scan.addresses import addresses
from stemstore.store.address import StoreUrl, reach
from stemstore.store.open import is_store
from stemstore.store.series.entry import SUFFIXES, in_parallel, natural, without_ending
from stemstore.store.series.index import Series, child_url, series_at
from stemstore.store.urls import is_local, open_storage, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore_schemas import SeriesScan

_WILD = "*?["


@dataclass(frozen=True, slots=True)
class Named:
    """A scan that is meant.

    Attributes
    ----------
    name
        Its label along the series.
    url
        Where it lies: a path, a URL, or several files.
    entry
        What the index of a series says about it; None where there is no index.
    """

    name: str
    url: Any
    entry: SeriesScan | None = None


@dataclass(frozen=True, slots=True)
class Meant:
    """Scans that are meant together.

    Attributes
    ----------
    scans
        In order.
    series
        The group that they belong to, if any.
    """

    scans: list[Named]
    series: Series | None = None


def meant(urls: Any, options: Mapping[str, Any]) -> Meant:
    """Find out which scans are meant; nothing of them is read but the index of a group, or the list of a folder.

    Parameters
    ----------
    urls
        A series, a folder of stores, a pattern, or scans one by one: a list, or a mapping from names.
    options
        ``storage_options``, ``cache`` and ``cache_size`` as of `stemstore.open`.

    Raises
    ------
    NotFoundError
        There is nothing, or no scan in it.
    InputError
        Two scans would have the same name.
    StemStoreError
        As for `stemstore.store.series.index.open_series_group`.
    """
    if isinstance(urls, Mapping):
        if odd := [name for name in urls if not isinstance(name, str) or not name or "/" in name]:
            msg = f"a scan cannot be called {odd[0]!r}; choose a text without '/'"
            raise InputError(msg, found=odd[0])
        return Meant([Named(name, _reached(url, options)) for name, url in urls.items()])
    if not isinstance(urls, (str, os.PathLike)):
        if not isinstance(urls, Iterable):
            msg = f"a series is a path, a list of scans or a mapping from names, not {type(urls).__name__}"
            raise InputError(msg, found=type(urls).__name__)
        return Meant(_named([_reached(url, options) for url in urls]))
    url = addresses(_reached(urls, options))[0]
    if (series := series_at(url)) is not None:
        return Meant([Named(scan.name, child_url(url, scan.path), scan) for scan in series.document.scans], series)
    if any(mark in url for mark in _WILD) and not open_storage(url).exists():
        return Meant(_named(_matches(url)))
    if is_store(url):
        return Meant(_named([url]))
    return Meant(_named(_stores_below(url)))


def label(url: Any) -> str:
    """Name a scan by where it lies: the last part of its path, of a file without ending; of several files the first."""
    first = addresses(url)[0]
    name = PurePosixPath(str(first).replace("\\", "/")).name
    name = unquote(name).replace("/", "_") if is_web(first) else name
    folder = is_local(first) and local_path(first).is_dir()
    return without_ending(name) if folder or name.endswith(SUFFIXES) else PurePosixPath(name).stem


def refuse_namesakes(scans: Iterable[tuple[str, Any]]) -> None:
    """Refuse scans of one name.

    Parameters
    ----------
    scans
        Names, and where they lie.

    Raises
    ------
    InputError
        There are such.
    """
    known: dict[str, Any] = {}
    for name, url in scans:
        if name in known:
            msg = (
                f"two scans are called {name!r}: {known[name]!s} and {url!s}; name them yourself, "
                "{'first': …, 'second': …}"
            )
            raise InputError(msg, scan=name, found=str(url))
        known[name] = url


def _reached(url: Any, options: Mapping[str, Any]) -> Any:
    return reach(url, **options) if isinstance(url, (str, os.PathLike)) else url


def _named(urls: Sequence[Any]) -> list[Named]:
    if not urls:
        msg = "no scans are named; give a series, a folder of stores, a pattern, or a list of scans"
        raise InputError(msg)
    scans = [Named(label(url), url) for url in urls]
    refuse_namesakes((scan.name, scan.url) for scan in scans)
    return scans


def _matches(pattern: str) -> list[str]:
    """Find what a pattern matches; on a server only its last part may be one."""
    if is_local(pattern):
        found = glob.glob(os.path.expanduser(pattern))  # noqa: PTH111, PTH207  # also absolute patterns
        found = [path for path in found if not os.path.basename(path).startswith(".")]  # noqa: PTH119  # texts
    else:
        folder, last = split(StoreUrl(pattern))
        found = [child_url(folder.root, name) for name in fnmatch.filter(folder.children(""), last)]
    if not found:
        why = "web servers do not list what they hold; name the scans one by one"
        msg = f"nothing matches '{pattern}'; {why if is_web(pattern) else 'check the pattern and the path'}"
        raise NotFoundError(msg, url=pattern)
    return sorted(found, key=natural)


def _stores_below(url: str) -> list[str]:
    """Find the stores in a folder."""
    storage = open_storage(url)
    names = sorted((name for name in storage.children("") if not name.startswith((".", "__"))), key=natural)
    places = [child_url(url, name) for name in names]
    found = [place for place, known in zip(places, in_parallel(is_store, places), strict=True) if known]
    if not found:
        there = "no store lies in it" if storage.exists() else "there is no such place"
        msg = (
            f"'{url}' is no series of scans: {there}; give a series, a folder of stores, a pattern, or a list of raw "
            "scans"
        )
        raise NotFoundError(msg, url=url)
    return found
