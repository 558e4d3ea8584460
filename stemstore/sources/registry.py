"""Which readers are installed, which one fits the data at hand, and how it is called.

Readers come from the entry-point group ``stemstore.readers``; the built-in ones use the same door as plug-ins.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

from stemstore.errors import InputError, ReaderError, StemStoreError
from stemstore.sources import sniff
from stemstore.sources.files import expand, unreadable
from stemstore.sources.location import location_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stemstore.sources.contract import Reader, Source

GROUP = "stemstore.readers"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReaderInfo:
    """One installed reader.

    Attributes
    ----------
    name
        As used by ``reader="…"``.
    description
        One line for people; empty for a reader that did not load.
    extensions
        Usual file extensions.
    options
        Names and defaults of the constructor's arguments; ``inspect.Parameter.empty`` where one must be given.
    package
        Distribution that brings the reader; None where it is unknown.
    cls
        The reader itself; None where it did not load.
    error
        Why it did not load; None where it did.
    """

    name: str
    description: str = ""
    extensions: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    package: str | None = None
    cls: type[Reader] | None = None
    error: str | None = None


def readers() -> dict[str, ReaderInfo]:
    """List the installed readers by name.

    A plug-in that cannot be loaded is listed with its error and logged as a warning; the others work on. Of two
    plug-ins with one name the first found counts.

    Returns
    -------
    readers
        By name, in alphabetical order.
    """
    found: dict[str, ReaderInfo] = {}
    packages: dict[int, str] = {}  # a package parses its description every time that it is asked for its name
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        known = found.get(entry.name)
        if entry.dist is not None and id(entry.dist) not in packages:
            packages[id(entry.dist)] = entry.dist.name
        if known is None:
            found[entry.name] = _load(entry, packages.get(id(entry.dist)))
        elif known.cls is not None and entry.value != f"{known.cls.__module__}:{known.cls.__qualname__}":
            _logger.warning("reader %r of %s is hidden by the one of %s", entry.name, entry.value, known.package)
    return found


def _load(entry: metadata.EntryPoint, package: str | None) -> ReaderInfo:
    try:
        cls = entry.load()
        return ReaderInfo(entry.name, cls.description, tuple(cls.extensions), _options(cls), package, cls)
    except Exception as error:  # a plug-in may fail in any way; it must not take the others along
        _logger.warning("reader %r of package %s did not load: %r", entry.name, package, error)
        return ReaderInfo(entry.name, package=package, error=f"{type(error).__name__}: {error}")


def _options(cls: type[Reader]) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters.values()
    return {
        parameter.name: parameter.default for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL
    }


def explain(url: str | Path | list[str]) -> list[sniff.Claim]:
    """Tell how sure every reader is about the data, the most confident first.

    Raises
    ------
    NotFoundError
        There is no such file or folder.
    StorageError
        It cannot be read.
    """
    loaded = {name: info.cls for name, info in readers().items() if info.cls is not None}
    return sniff.ask(loaded, expand(url)[0])


def find_reader(url: str | Path | list[str], reader: str | None = None) -> type[Reader]:
    """Find the reader for the data, or the one that is asked for.

    Parameters
    ----------
    url
        A file, a folder, a pattern, or a list of these, of which the first is looked at.
    reader
        Name of the reader; nothing is looked at then.

    Returns
    -------
    cls
        The reader class; its constructor takes the format's options.

    Raises
    ------
    UnknownFormatError
        No reader recognises the data.
    AmbiguousFormatError
        Two readers claim the data with equal confidence.
    InputError
        There is no reader of that name.
    ReaderError
        The reader asked for did not load.
    NotFoundError, StorageError
        The data are missing or cannot be read.
    """
    installed = readers()
    if reader is None:
        loaded = {name: info.cls for name, info in installed.items() if info.cls is not None}
        path = expand(_addresses(url))[0]
        return loaded[sniff.choose(sniff.ask(loaded, path), path)]
    info = installed.get(reader)
    if info is None:
        msg = f"no reader is called {reader!r}; installed are {', '.join(installed) or 'none'}"
        raise InputError(msg, key="reader", found=reader, expected=list(installed))
    if info.cls is None:
        msg = f"reader {reader!r} of package {info.package} did not load: {info.error}; repair or update that package"
        raise ReaderError(msg, reader=reader)
    return info.cls


def open_source(url: str | Path | list[str], reader: str | None = None, **options: Any) -> Source:
    """Open raw data as frames or events; headers only, no pixel is read.

    Parameters
    ----------
    url
        A file, a folder, a pattern, or a list of these, as the reader takes them; paths, or URLs that fsspec knows.
    reader
        Name of the reader; found by looking at the data otherwise.
    **options
        Options of the reader, see `readers`.

    Returns
    -------
    source
        A `FrameSource` or an `EventSource`.

    Raises
    ------
    InputError
        The reader has no such option, or cannot use its value; also as in `find_reader`.
    ReaderError
        The reader failed in a way it did not foresee; the original error is chained.
    NotFoundError, StorageError, CorruptDataError, FormatVersionError
        As the reader reports.
    """
    given = _addresses(url)
    cls = find_reader(given, reader)
    _check_options(cls, options)
    try:
        return cls(**options)(given)
    except StemStoreError:
        raise
    except OSError as error:
        raise unreadable(str(error.filename or given), error) from error
    except Exception as error:
        msg = (
            f"reader {cls.name!r} failed on {given!r}: {type(error).__name__}: {error}; "
            "report this to the author of the reader"
        )
        raise ReaderError(msg, reader=cls.name, url=str(given)) from error


def _addresses(url: str | Path | list[str]) -> str | list[str]:
    """Give paths or URLs as text; URLs without their secrets, which stay with them."""
    if isinstance(url, list):
        return [location_of(one) or one for one in url]
    return (location_of(url) or url) if isinstance(url, str) else str(url)


def _check_options(cls: type[Reader], options: dict[str, Any]) -> None:
    parameters = inspect.signature(cls).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    accepted = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL]
    unknown = [name for name in options if name not in accepted]
    if unknown:
        msg = (
            f"reader {cls.name!r} has no option {', '.join(map(repr, unknown))}; "
            f"it accepts {', '.join(accepted) or 'no options'}"
        )
        raise InputError(msg, reader=cls.name, found=unknown, expected=accepted)
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in options and p.kind not in _VARIADIC]
    if missing:
        msg = f"reader {cls.name!r} needs the option {', '.join(map(repr, missing))}; pass it as a keyword"
        raise InputError(msg, reader=cls.name, expected=missing)


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
