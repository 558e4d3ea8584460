"""What to say when a device or a server refuses a read or a write."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from stemstore.config import format_size
from stemstore.errors import DestinationExistsError, NotFoundError, StorageError, TruncatedFileError


def refused(error: Exception, where: str | Path, verb: str) -> StorageError:
    """Describe a failed read or write of `where`, with the free space where that may be the reason."""
    free = ""
    if isinstance(where, Path) and verb == "write":
        with suppress(OSError):
            standing = next(parent for parent in where.parents if parent.exists())
            free = f"; {format_size(shutil.disk_usage(standing).free)} free there"
    reason = getattr(error, "strerror", None) or str(error)
    msg = f"cannot {verb} '{where}': {reason}{free}. Check space, quota and permissions, then run it again"
    raised = StorageError(msg, url=str(where))
    raised.errno = getattr(error, "errno", None)
    return raised


def begun(url: str) -> DestinationExistsError:
    """Describe a place that a conversion has taken and not finished."""
    msg = (
        f"a conversion to '{url}' is under way or was interrupted; go on with resume=True (--resume), remove what it "
        "wrote (stemstore repair --remove), or choose another name"
    )
    return DestinationExistsError(msg, url=url)


def absent(where: str | Path) -> NotFoundError:
    """Describe an object that is not there."""
    msg = f"'{where}' does not exist; check the path, or restore the store from a copy"
    return NotFoundError(msg, url=str(where))


def nowhere(where: str) -> NotFoundError:
    """Describe an object that cannot be written, because what is to hold it is not there."""
    msg = f"cannot write '{where}', for there is no such bucket or container; check its name, or make it first"
    return NotFoundError(msg, url=where)


def cut_short(where: str | Path, start: int, length: int, got: int) -> TruncatedFileError:
    """Describe an object that ends inside a wanted run of bytes."""
    msg = (
        f"'{where}' ends early: got {got} of {length} bytes at byte {start}; "
        "the object was cut after writing, so convert the scan again or restore it from a copy"
    )
    return TruncatedFileError(msg, url=str(where), byte=start, expected=length, found=got)


def taken(where: str) -> DestinationExistsError:
    """Describe an object that somebody else wrote first."""
    msg = f"'{where}' is there already: another conversion writes to this place; choose another name"
    return DestinationExistsError(msg, url=where)
