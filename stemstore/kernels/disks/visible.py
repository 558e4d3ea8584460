"""Which part of a disk the detector shows: borders of the frame, beam stops, dead sectors and single bad pixels.

A correlation with hidden pixels taken as zero would find too little of a disk beside a beam stop, and an edge where
there is only the end of the detector. So both parts of the kernel are divided by the share of them that is visible:
the map compares the mean over the visible part of the disk with the mean over the visible part of its surroundings.
Times the root of the visible share of the disk this is its ratio to the noise, whose maximum is where the disk is; the
mean alone would be as high for any place further under the stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft, ndimage

from stemstore.kernels.disks.filters import footprint

if TYPE_CHECKING:
    from stemstore._types import Array, BoolArray
    from stemstore.kernels.disks.filters import Kernel
    from stemstore.kernels.disks.options import DiskParameters
    from stemstore.kernels.disks.probe import Template

LEAST_WINDOW = 0.1  # of the surroundings; below it there is nothing to compare a disk with, and it is not divided more


@dataclass(frozen=True, slots=True, eq=False)
class Visibility:
    """What is visible, for one detector and one probe.

    Attributes
    ----------
    good : frame + 2 margins, bool
        Pixels that count; False in the rim.
    partial : shape of the frame, bool
        Whether a window of half-width `margin` around the pixel holds any hidden pixel.
    bins : shape of the binned frame, float32
        Visible share of every bin; below 1 also where a bin ends beyond the frame.
    share : shape of the binned frame, float32
        Visible share of a disk centred on the bin.
    gains : shape (2, binned rows, binned columns), float32, or None
        One over the visible shares of the kernel's signal and window, times the root of the share of the disk. None
        where the whole detector counts and disks at its border are left out: the level of the frame stands for what is
        beyond.
    margin : px
        Half-width of the window in which the likelihood looks at a disk.
    """

    good: BoolArray
    partial: BoolArray
    bins: Array
    share: Array
    gains: Array | None
    margin: int

    @classmethod
    def of(
        cls,
        bad: BoolArray,
        template: Template,
        parameters: DiskParameters,
        kernel: Kernel,
        transform: tuple[int, int],
        margin: int,
    ) -> Visibility:
        """Correlate the mask of good pixels with disk and kernel, once."""
        good = np.pad(~bad, margin)
        inside = slice(margin, good.shape[0] - margin), slice(margin, good.shape[1] - margin)
        partial = ndimage.maximum_filter(~good, size=2 * margin + 1, mode="constant", cval=True)[inside]
        size = parameters.binning
        counts = _binned(~bad, size)
        padded = np.zeros(transform)
        padded[: counts.shape[0], : counts.shape[1]] = counts
        spectrum = fft.rfft2(padded)
        shown = [
            fft.irfft2(spectrum * part, s=transform)[: counts.shape[0], : counts.shape[1]]
            for part in (footprint(template, parameters, transform), kernel.signal, kernel.window)
        ]
        needed = bool(bad.any()) or parameters.edge_boundary < template.radius
        gains = np.stack(
            [
                1 / np.maximum(shown[1], parameters.min_visible / 2),
                1 / np.maximum(shown[2], LEAST_WINDOW),
            ]
        )
        share = np.clip(shown[0], 0, 1)
        gains *= np.sqrt(share)
        return cls(
            good=good,
            partial=partial,
            bins=(counts / size**2).astype(np.float32),
            share=share.astype(np.float32),
            gains=gains.astype(np.float32) if needed else None,
            margin=margin,
        )


def _binned(image: BoolArray, size: int) -> Array:
    rows, columns = (-(-n // size) for n in image.shape)
    padded = np.pad(image, ((0, rows * size - image.shape[0]), (0, columns * size - image.shape[1])))
    return padded.reshape(rows, size, columns, size).sum(axis=(1, 3)).astype(np.float64)
