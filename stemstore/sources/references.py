"""Images of the detector that raw files know: dark, gain and mask, handed on and never applied by themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError
from stemstore.sources.contract import VALID, ReferencedSource
from stemstore.sources.files import check_unchanged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stemstore._types import Array, FloatArray
    from stemstore.sources.contract import DetectorImage, FrameSource

NAMES = ("dark", "gain", "mask")
"""What the images of a source are called."""

BATCH_BYTES = 8 * 2**20
"""Frames that are averaged at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownImage:
    """An image that is in memory: small, or made of numbers in a header."""

    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Detector rows and columns."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self.values.dtype

    def read(self) -> Array:
        """Give a copy."""
        return self.values.copy()


@dataclass(frozen=True, slots=True, eq=False)
class MeanFrame:
    """The mean of the complete frames of a source, of a dark measurement for example."""

    source: FrameSource

    @property
    def shape(self) -> tuple[int, ...]:
        """Detector rows and columns."""
        return self.source.frame_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Means are floats."""
        return np.dtype(np.float64)

    def read(self) -> FloatArray:
        """Average the frames; errors as for `mean_frame`."""
        return mean_frame(self.source)


def mean_frame(source: FrameSource) -> FloatArray:
    """Average the complete frames of a source in one pass.

    Returns
    -------
    mean : shape (ky, kx), float64

    Raises
    ------
    CorruptDataError
        It has no complete frame.
    StaleStoreError, TruncatedFileError, StorageError, NotFoundError
        Its files changed or cannot be read.

    Notes
    -----
    Memory: a batch of frames (8 MiB) and their sum.
    """
    check_unchanged(source.metadata.files)
    n_frames = math.prod(source.scan_shape)
    total, count = np.zeros(source.frame_shape), 0
    batch = max(1, BATCH_BYTES // max(1, math.prod(source.frame_shape) * source.dtype.itemsize))
    for start in range(0, n_frames, batch):
        frames = source.read_frames(start, min(start + batch, n_frames))
        if source.validity is not None:
            frames = frames[source.validity[start : start + len(frames)] == VALID]
        total += frames.sum(axis=0, dtype=np.float64)
        count += len(frames)
    if not count:
        path = source.metadata.files[0].path if source.metadata.files else source.identity
        msg = f"{path!r} has no complete frame to average; record it again"
        raise CorruptDataError(msg, url=path)
    return total / count


def references_of(source: object) -> Mapping[str, DetectorImage]:
    """List the images of the detector that a source knows; none for most."""
    return source.references if isinstance(source, ReferencedSource) else {}
