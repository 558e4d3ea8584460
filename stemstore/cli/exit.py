"""Exit codes, and what the command line adds to an error: which option helps."""

from __future__ import annotations

import errno

from stemstore.errors import (
    AmbiguousFormatError,
    CalibrationMissingError,
    ChecksumError,
    ConversionIncompleteError,
    CorruptDataError,
    DestinationExistsError,
    FormatVersionError,
    InputError,
    MemoryBudgetError,
    NotFoundError,
    OptionalDependencyError,
    ReaderError,
    SeriesIncompleteError,
    UnknownFormatError,
)

SERIES = "stemstore.series"
"""What the document of a series calls itself; the room that knows it is not loaded for every error."""

OK, FAILED, USAGE, UNREADABLE, EXISTS, MISMATCH, BUDGET = range(7)
RESUMABLE = 75  # EX_TEMPFAIL of sysexits: the same command goes on where it was
INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143  # 128 and the number of the signal, as shells report it

CODES: dict[type[BaseException], int] = {
    InputError: USAGE,
    UnknownFormatError: UNREADABLE,
    AmbiguousFormatError: UNREADABLE,
    NotFoundError: UNREADABLE,
    CorruptDataError: UNREADABLE,
    FormatVersionError: UNREADABLE,
    ConversionIncompleteError: UNREADABLE,
    SeriesIncompleteError: FAILED,
    ReaderError: UNREADABLE,
    DestinationExistsError: EXISTS,
    ChecksumError: MISMATCH,
    MemoryBudgetError: BUDGET,
    MemoryError: BUDGET,
    KeyboardInterrupt: INTERRUPTED,
    BrokenPipeError: PIPE_CLOSED,
}
"""Exit code of every error class; the most special class of an error counts, and what is not listed is 1."""

FULL = {errno.ENOSPC, errno.EDQUOT}
"""Refusals of a device that mean: no space, or none within the quota."""

MEANING = {
    OK: "done",
    FAILED: "failed",
    USAGE: "wrong arguments",
    UNREADABLE: "input not recognised or unreadable",
    EXISTS: "output exists",
    MISMATCH: "checksum mismatch",
    BUDGET: "out of memory budget or disk space",
    RESUMABLE: "terminated, what was finished is kept for --resume",
    INTERRUPTED: "interrupted",
    TERMINATED: "terminated",
}

HINTS: dict[type[BaseException], str] = {
    UnknownFormatError: "'stemstore readers' lists the formats; name one with --reader",
    AmbiguousFormatError: "name the format with --reader",
    CalibrationMissingError: "state the calibration, for example --detector-step '0.5 mrad' --beam-energy '300 keV'",
    MemoryBudgetError: "--max-memory sets the budget",
    ConversionIncompleteError: "'stemstore repair' shows how far it came, and finishes it",
    SeriesIncompleteError: "the same command with --resume leaves alone what is done",
    OptionalDependencyError: "'stemstore doctor' lists the extras",
}
"""The option or verb that helps, by error class."""


def exit_code(error: BaseException) -> int:
    """Give the exit code of an error."""
    if isinstance(error, OSError) and error.errno in FULL:
        return BUDGET
    return next((CODES[cls] for cls in type(error).__mro__ if cls in CODES), FAILED)


def hint(error: BaseException) -> str | None:
    """Name the option or verb that helps against an error; None where there is no special one."""
    if isinstance(error, DestinationExistsError):  # a message that does not offer it knows why
        return "--overwrite replaces it" if str(error).endswith("pass overwrite=True") else None
    if isinstance(error, UnknownFormatError) and "readers" not in error.context:  # no reader was asked
        return "'stemstore info' lists its scans" if error.context.get("found") == SERIES else None
    return next((HINTS[cls] for cls in type(error).__mro__ if cls in HINTS), None)
