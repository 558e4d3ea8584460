"""Ask the readers whose format a file or folder is, having read at most its first 4096 bytes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stemstore.errors import AmbiguousFormatError, UnknownFormatError
from stemstore.sources.files import exists, list_folder, unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stemstore.sources.contract import Reader
    from stemstore.sources.remote import Place

FIRST_BYTES = 4096
"""Bytes shown to the readers: one page, enough for every magic number and for the head of an HDF5 file."""

SHOWN_BYTES = 16
"""Bytes quoted in a message: the longest magic number in use."""

SHOWN_ENTRIES = 5
"""Entries of a folder quoted in a message."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one reader said about one file or folder.

    Attributes
    ----------
    reader
        Name of the reader.
    confidence
        0 = not mine, 0.5 = the name fits, 1 = the content proves it.
    error
        What went wrong when the reader was asked; None otherwise.
    """

    reader: str
    confidence: float
    error: str | None = None


def first_bytes(path: Place) -> bytes:
    """Read the first 4096 bytes of a file; nothing of a folder.

    Raises
    ------
    NotFoundError
        There is no such file or folder.
    StorageError
        It cannot be read.
    """
    if not exists(path):
        raise unreadable(path, FileNotFoundError())
    if path.is_dir():
        list_folder(path)  # an unreadable folder must not pass for one of unknown format
        return b""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(FIRST_BYTES) or b""
    except OSError as error:
        raise unreadable(path, error) from error


def ask(readers: Mapping[str, type[Reader]], path: Place) -> list[Claim]:
    """Ask every reader about a file or folder.

    Returns
    -------
    claims
        The most confident first, equal ones by name. A reader that raises claims nothing and its error is kept.
    """
    content = first_bytes(path)
    claims = []
    for name, reader in readers.items():
        try:
            confidence = min(max(float(reader.matches(str(path), content)), 0.0), 1.0)
        except Exception as error:  # a plug-in may raise anything; the other readers still count
            _logger.warning("reader %r failed to look at %s: %r", name, path, error)
            claims.append(Claim(name, 0.0, f"{type(error).__name__}: {error}"))
        else:
            claims.append(Claim(name, confidence))
    return sorted(claims, key=lambda claim: (-claim.confidence, claim.reader))


def choose(claims: list[Claim], path: Place) -> str:
    """Name the reader with the best claim.

    Raises
    ------
    UnknownFormatError
        No reader claims the data.
    AmbiguousFormatError
        Two readers claim them with equal confidence.
    """
    best = [claim.reader for claim in claims if claim.confidence > 0 and claim.confidence == claims[0].confidence]
    if not best:
        asked = ", ".join(claim.reader + (f" (failed: {claim.error})" if claim.error else "") for claim in claims)
        msg = (
            f"no reader recognises {str(path)!r} ({_appearance(path)}); asked: {asked or 'none is installed'}; "
            "name the format with reader='…', or read any fixed-size frames with "
            "reader='raw_binary', shape=(ny, nx, rows, columns), dtype='<u2'"
        )
        raise UnknownFormatError(msg, url=str(path), readers=[claim.reader for claim in claims])
    if len(best) > 1:
        names = " and ".join(repr(name) for name in best)
        msg = (
            f"{names} claim {str(path)!r} with equal confidence {claims[0].confidence:g}; "
            f"name the one you mean with reader={best[0]!r}"
        )
        raise AmbiguousFormatError(msg, url=str(path), readers=best)
    return best[0]


def _appearance(path: Place) -> str:
    if path.is_dir():
        names = [entry.name for entry in list_folder(path)]
        shown = ", ".join(repr(name) for name in names[:SHOWN_ENTRIES])
        return f"a folder of {len(names)} entries: {shown}" if names else "an empty folder"
    content = first_bytes(path)
    return f"first bytes {content[:SHOWN_BYTES]!r}" if content else "an empty file"
