"""Every error that stemstore raises, arranged by what the caller can do about it.

::

    StemStoreError
    ├── InputError (ValueError)             an argument or option is wrong
    │   ├── UnknownFormatError              no reader recognises the data
    │   ├── AmbiguousFormatError            several readers claim the data equally
    │   ├── CalibrationMissingError         a unit was asked for that the scan cannot give
    │   └── ChunkingError                   a layout or chunking cannot work
    ├── NotFoundError (FileNotFoundError)   a file, folder or companion file is missing
    ├── DestinationExistsError (FileExistsError)   the output is already there
    ├── StorageError (OSError)              the device refused: full, unreadable, unwritable
    ├── CorruptDataError                    the bytes contradict the format
    │   ├── TruncatedFileError
    │   ├── ChecksumError
    │   └── SectorMismatchError
    ├── FormatVersionError                  written by a newer or an unknown version
    ├── ConversionIncompleteError           a store without its commit object
    │   └── SeriesIncompleteError           a series, some scans of which could not be converted
    ├── StaleStoreError                     the data behind an open scan were replaced
    ├── MemoryBudgetError                   the work does not fit the stated budget
    ├── ReaderError                         a reader plug-in failed
    └── OptionalDependencyError (ImportError)      an extra is not installed

A message says what is wrong, where, what was got and expected, and one thing to do next. The context is also kept as
attributes, so that a program can act on it: ``error.context["frame"]``.
"""

from __future__ import annotations

from typing import Any, ClassVar


class StemStoreError(Exception):
    """Base of all errors of stemstore.

    Parameters
    ----------
    message
        What is wrong, where, got and expected, what to do next.
    **context
        The same facts for programs (``url``, ``frame``, ``byte``, ``key``, ``expected``, ``found`` …).

    Attributes
    ----------
    kind
        Stable name of the error; never renamed once released.
    context
        The facts given at construction.
    """

    kind: ClassVar[str] = "error"

    def __init__(self, message: str, **context: Any) -> None:
        super().__init__(message)
        self.context = context

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the context when the error crosses a process border."""
        return (_rebuild, (type(self), str(self), self.context))


class ScanWarning(UserWarning):
    """Something about raw files is odd or was guessed; the scan opens all the same."""


def _rebuild(cls: type[StemStoreError], message: str, context: dict[str, Any]) -> StemStoreError:
    return cls(message, **context)


class InputError(StemStoreError, ValueError):
    """An argument or option cannot be used as given."""

    kind = "input"


class UnknownFormatError(InputError):
    """No reader recognises the data."""

    kind = "unknown-format"


class AmbiguousFormatError(InputError):
    """Several readers claim the data with equal confidence."""

    kind = "ambiguous-format"


class CalibrationMissingError(InputError):
    """A physical unit was asked for, but the scan carries no such calibration."""

    kind = "calibration-missing"


class ChunkingError(InputError):
    """A layout or chunking cannot work for this scan."""

    kind = "chunking"


class NotFoundError(StemStoreError, FileNotFoundError):
    """A file, folder or companion file does not exist."""

    kind = "not-found"


class DestinationExistsError(StemStoreError, FileExistsError):
    """The output exists and overwriting was not asked for."""

    kind = "destination-exists"


class StorageError(StemStoreError, OSError):
    """The storage device refused a read or a write (full, unreadable, unwritable)."""

    kind = "storage"


class CorruptDataError(StemStoreError):
    """The bytes of a file contradict its format."""

    kind = "corrupt"


class TruncatedFileError(CorruptDataError):
    """A file ends before its content does."""

    kind = "truncated"


class ChecksumError(CorruptDataError):
    """Stored bytes do not have the checksum that was stored with them."""

    kind = "checksum"


class SectorMismatchError(CorruptDataError):
    """The sector files of one scan do not belong together."""

    kind = "sector-mismatch"


class FormatVersionError(StemStoreError):
    """The data were written by a version that this release does not know."""

    kind = "format-version"


class ConversionIncompleteError(StemStoreError):
    """A store carries no commit object: its conversion did not finish."""

    kind = "incomplete"


class SeriesIncompleteError(ConversionIncompleteError):
    """Scans of a series could not be converted; the others are in it."""

    kind = "series-incomplete"


class StaleStoreError(StemStoreError):
    """The store or the raw files under an open scan were replaced or changed."""

    kind = "stale"


class MemoryBudgetError(StemStoreError):
    """The projected memory exceeds the stated budget."""

    kind = "memory-budget"


class ReaderError(StemStoreError):
    """A reader plug-in failed in a way that it did not foresee."""

    kind = "reader"


class OptionalDependencyError(StemStoreError, ImportError):
    """A feature needs an extra that is not installed."""

    kind = "optional-dependency"
