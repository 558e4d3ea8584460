"""Sources of scans that are an array in an archive of NumPy arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.sources.files import identity
from stemstore.sources.geometry import check_range
from stemstore.sources.records import RecordSource, frame_buffer

if TYPE_CHECKING:
    from stemstore._types import Array
    from stemstore.sources.geometry import ValidityArray
    from stemstore.sources.remote import Place
    from stemstore_readers.npy_archive import Member
    from stemstore_readers.stored_arrays import Findings
    from stemstore_schemas import SourceMetadata

LARGE = 2**30
"""Bytes of a deflated array from which on its size is reported: all of it is held in memory."""


def member_source(
    reader: str,
    path: Place,
    member: Member,
    order: tuple[int, ...],
    found: Findings,
    scan_shape: tuple[int, ...] | None,
) -> RecordSource | MemberSource:
    """Make the source of a scan that is one array of an archive.

    Parameters
    ----------
    order
        Axes of the array: those of the scan from slow to fast, detector rows, detector columns.
    found
        The scan in this order; receives notes.
    scan_shape
        The user's; None for the shape of the array.
    """
    if not member.stored and member.nbytes > LARGE:
        found.notes.append(f"{member.name} is compressed as a whole; reading holds its {member.nbytes} bytes in memory")
    metadata, validity = found.describe([path], scan_shape)
    shape = found.shape
    scan = metadata.acquisition.scan_shape or scan_shape or shape[:-2]
    text = identity(reader, metadata.files, (member.name, scan))
    if not _frame_by_frame(member, order):
        return MemberSource(text, scan, metadata, validity, member, order)
    return RecordSource(
        identity=text,
        scan_shape=scan,
        frame_shape=(shape[-2], shape[-1]),
        metadata=metadata,
        validity=validity,
        files=(member.path,),
        counts=(math.prod(shape[:-2]),),
        offset=member.start,
        stride=math.prod(shape[-2:]) * member.dtype.itemsize,
        file_dtype=member.dtype,
    )


@dataclass(frozen=True, eq=False)
class MemberSource:
    """Frames of an array in another order, or of a compressed one, which is inflated once per process."""

    identity: str
    scan_shape: tuple[int, ...]
    metadata: SourceMetadata
    validity: ValidityArray | None
    member: Member
    order: tuple[int, ...]

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.member.shape[self.order[-2]], self.member.shape[self.order[-1]]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Pixel type in native byte order."""
        return self.member.dtype.newbyteorder("=")

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``; missing ones are zero, NaN for floats.

        Raises
        ------
        IndexError
            The range leaves the scan.
        CorruptDataError, TruncatedFileError, StorageError
            The archive cannot be read.
        """
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        stored = tuple(self.member.shape[axis] for axis in self.order[:-2])
        present = min(max(math.prod(stored) - start, 0), stop - start)
        if present:
            dropped = [axis for axis in range(len(self.member.shape)) if axis not in self.order]
            array = self.member.array(self.identity).transpose(*dropped, *self.order)[(0,) * len(dropped)]
            frames[:present] = array[np.unravel_index(np.arange(start, start + present), stored)]
        frames[present:] = np.nan if self.dtype.kind == "f" else 0
        return frames


def _frame_by_frame(member: Member, order: tuple[int, ...]) -> bool:
    """Whether frames lie one after the other, uncompressed, in the order of the scan; axes of length 1 do not count."""
    kept = [axis for axis in order if member.shape[axis] > 1]
    return member.stored and not member.fortran_order and kept == sorted(kept)
