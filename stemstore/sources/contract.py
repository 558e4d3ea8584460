"""What a reader gives: frames or events of one scan, addressed by flat scan position.

Third parties implement these protocols without importing a base class; `stemstore.testing.ReaderTests` checks that an
implementation keeps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from stemstore.kernels.contract import Events

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from stemstore._types import Array
    from stemstore.sources.frame_extents import FrameExtents
    from stemstore_schemas import SourceMetadata

__all__ = [
    "MISSING",
    "PARTIAL",
    "VALID",
    "DetectorImage",
    "EventSource",
    "Events",
    "FrameSource",
    "LocatedSource",
    "Reader",
    "ReferencedSource",
    "Source",
    "ViewableSource",
]

MISSING, PARTIAL, VALID = 0, 1, 2
"""State of a frame in a validity array: nothing was recorded, some sectors were lost, complete."""


@runtime_checkable
class FrameSource(Protocol):
    """Frames of one scan, lazy and picklable; no file stays open between calls.

    Attributes
    ----------
    identity
        Text that changes when the data change (paths, sizes and modification times); part of every cache key.
    scan_shape
        Extents of the scan axes, slow first, flyback columns included: ``(y, x)``, ``(frame, y, x)`` for repeated
        frames, or ``(frame,)`` for a stack whose scan shape is unknown.
    frame_shape
        Detector rows and columns.
    dtype
        Pixel type in native byte order, as the detector wrote it.
    metadata
        What the files say about acquisition and detector.
    validity
        uint8 per flat scan position (`MISSING`, `PARTIAL`, `VALID`), or None when every frame is valid.
    """

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    dtype: np.dtype[Any]
    metadata: SourceMetadata
    validity: np.ndarray[Any, np.dtype[np.uint8]] | None

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read the frames of flat scan positions ``start <= i < stop``.

        Missing frames and sectors are zero (NaN for floats); `validity` tells which they are.

        Parameters
        ----------
        start, stop
            Half-open range of flat scan positions.
        out : shape (stop - start, ky, kx), optional
            Buffer of the source's dtype to fill; a new one is made otherwise.

        Raises
        ------
        IndexError
            The range leaves the scan.
        """


@runtime_checkable
class ViewableSource(FrameSource, Protocol):
    """Frames that may be looked at where they lie; a source that has the method below is one."""

    def view_frames(self, start: int, stop: int) -> Array | None:
        """Show the frames of flat scan positions ``start <= i < stop`` without copying them, where that is possible.

        The array is used at once and dropped: it holds what it shows (a mapping, its file handle) while it lives. A
        mapped file that another program shortens meanwhile ends the process, so a source maps nothing that it would
        have to wait for and nothing on network file systems (see `stemstore.sources.mapped`).

        Returns
        -------
        frames : shape (stop - start, ky, kx)
            Read-only, C-contiguous, of the source's dtype, and equal to what `read_frames` gives. None where the
            frames have to be read: the layout of the file differs, frames are missing, or they are not in memory.

        Raises
        ------
        IndexError
            The range leaves the scan.
        """


@runtime_checkable
class LocatedSource(FrameSource, Protocol):
    """Frames that other programs may read where they lie; a source that has the method below is one."""

    def frame_extents(self, start: int, stop: int) -> FrameExtents:
        """Tell where the frames of flat scan positions ``start <= i < stop`` lie in the files; no pixel is read.

        Raises
        ------
        IndexError
            The range leaves the scan.
        InputError
            These frames do not lie in the files as they are: packed, compressed, spread.
        """


@runtime_checkable
class EventSource(Protocol):
    """Counted electron events of one scan, lazy and picklable; attributes as in `FrameSource`."""

    identity: str
    scan_shape: tuple[int, ...]
    frame_shape: tuple[int, int]
    metadata: SourceMetadata
    validity: np.ndarray[Any, np.dtype[np.uint8]] | None

    def read_events(self, start: int, stop: int) -> Events:
        """Read the events of flat scan positions ``start <= i < stop``, ascending inside each frame."""


class DetectorImage(Protocol):
    """An image of the detector that the files know, read when it is asked for; picklable.

    `stemstore.sources.references` has two: an image that is known already, and the mean of the frames of a source.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Detector rows and columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""

    def read(self) -> Array:
        """Read the image, of `shape` and `dtype`."""


@runtime_checkable
class ReferencedSource(Protocol):
    """A source that knows images of its detector; a frame or event source with the attribute below is one.

    Nothing of them has been applied to its frames, and nothing will be unless the user asks for it.

    Attributes
    ----------
    references
        By name: ``"dark"`` (to be subtracted), ``"gain"`` (multiplies what is left) and ``"mask"`` (bool, true at
        usable pixels); those that the files know.
    """

    references: Mapping[str, DetectorImage]


Source = FrameSource | EventSource


class Reader(Protocol):
    """One format. Its options are arguments of its constructor.

    Attributes
    ----------
    name
        Name of the format as used by ``reader="…"``; equal to the entry point's name.
    description
        One line for people.
    extensions
        Usual file extensions with their dot, lower case; a hint for people, detection looks at content.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    extensions: ClassVar[tuple[str, ...]]

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Tell how sure this reader is that `url` is its format.

        Parameters
        ----------
        url
            A file or a folder.
        first_bytes
            The first 4096 bytes of the file; empty for a folder.

        Returns
        -------
        confidence
            0 = not mine, 0.5 = the name fits, 1 = the content proves it. Never raises.
        """

    def __call__(self, url: str | list[str]) -> Source:
        """Open the data: headers only, no pixel."""
