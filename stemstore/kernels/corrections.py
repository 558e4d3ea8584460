"""Frames corrected for the detector: dark, gain, bad pixels, and pixels that are left out.

A corrected frame is ``(raw - dark) x gain``; then bad pixels are replaced by the mean of their good neighbours, then
pixels outside the mask are zero. Linear operations put all of this into their weights (`Corrections.fold`), which costs
no pass over the pixels; others see corrected frames (`CorrectedKernel`). Both give the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.arguments import check_local, frozen, pixels_of
from stemstore.kernels.contract import DetectorRegion
from stemstore.kernels.densified import densified

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stemstore._types import Array, BoolArray, FloatArray, Int64Array, UInt16Array

BATCH_BYTES = 4 * 2**20  # corrected pixels at a time; the frames they come from stay in the cache
NEIGHBOURS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]


@dataclass(frozen=True, slots=True, eq=False)
class Repair:
    """Flat numbers of bad pixels, (n,), of their neighbours, (n, 8), and the shares that these have in them."""

    bad: Int64Array
    neighbours: Int64Array
    shares: FloatArray

    @classmethod
    def of(cls, bad: BoolArray) -> Repair:
        """Find the good neighbours of bad pixels.

        Raises
        ------
        InputError
            A bad pixel has none.
        """
        place = np.argwhere(bad)
        around = place[:, None, :] + np.array(NEIGHBOURS)[None, :, :]
        inside = ((around >= 0) & (around < bad.shape)).all(axis=2)
        flat = np.ravel_multi_index(tuple(np.moveaxis(around, 2, 0)), bad.shape, mode="clip")
        usable = inside & ~bad.reshape(-1)[flat]
        lonely = ~usable.any(axis=1)
        if lonely.any():
            first = tuple(place[lonely][0].tolist())
            msg = (
                f"bad pixel {first} (ky, kx) has no good neighbour to be replaced by, like {int(lonely.sum())} of "
                f"{len(place)}; leave such pixels out with mask=…"
            )
            raise InputError(msg, key="bad_pixels", found=first)
        numbers = np.flatnonzero(bad).astype(np.int64)
        return cls(numbers, flat.astype(np.int64), usable / usable.sum(axis=1, keepdims=True))


@dataclass(frozen=True, slots=True, eq=False)
class Corrections:
    """What is done to every frame before an operation sees it; None where nothing.

    Attributes
    ----------
    dark, gain : shape (ky, kx)
        Subtracted first, multiplied second.
    repair
        Bad pixels and what replaces them.
    mask : shape (ky, kx)
        False for pixels that count as zero, last of all.
    """

    dark: FloatArray | None
    gain: FloatArray | None
    repair: Repair | None
    mask: BoolArray | None

    @property
    def only_mask(self) -> bool:
        """Whether pixels are left out and nothing else is done."""
        return self.dark is None and self.gain is None and self.repair is None

    def apply(self, frames: Array) -> FloatArray:
        """Correct frames of shape (…, ky, kx), in float64."""
        out = frames.astype(np.float64)
        if self.dark is not None:
            out -= self.dark
        if self.gain is not None:
            out *= self.gain
        if self.repair is not None:
            flat = out.reshape(*out.shape[:-2], -1)
            flat[..., self.repair.bad] = (flat[..., self.repair.neighbours] * self.repair.shares).sum(axis=-1)
        if self.mask is not None:
            out[..., ~self.mask] = 0.0
        return out

    def of_block(self, block: Array, local: Int64Array, dtype: np.dtype[Any]) -> FloatArray:
        """Correct frames ``block[local[i]]`` in one pass over their pixels; as `apply` does, rounded to `dtype`.

        Parameters
        ----------
        block : shape (n, ky, kx)
        local : shape (m,)
        dtype
            float32 or float64.

        Returns
        -------
        frames : shape (m, ky, kx)
        """
        if block.dtype == np.float16:  # which compiled code does not know
            return self.apply(block[local]).astype(dtype, copy=False)
        pixels = pixels_of(block, exact=True)
        out: FloatArray = np.empty((len(local), pixels.shape[1]), dtype)
        flat = [np.empty(0) if one is None else one.reshape(-1) for one in (self.dark, self.gain)]
        _correct(pixels, check_local(local, len(pixels)), frozen(flat[0]), frozen(flat[1]), out)
        if self.repair is not None:
            out[:, self.repair.bad] = (out[:, self.repair.neighbours] * self.repair.shares).sum(axis=-1)
        if self.mask is not None:
            out[:, np.flatnonzero(~self.mask)] = 0.0
        return out.reshape(-1, *block.shape[1:])

    def fold(self, weights: Array) -> tuple[Array, FloatArray | None]:
        """Put the corrections into weights.

        Parameters
        ----------
        weights : shape (Q, ky, kx)
            Real.

        Returns
        -------
        weights : shape (Q, ky, kx)
            For raw frames; still boolean where pixels are only left out.
        offsets : shape (Q,)
            To be subtracted from the sums: sum w (x - d) g = sum (w g) x - sum (w g) d. None without a dark reference.
        """
        if self.only_mask and weights.dtype == bool:
            return weights & self.mask, None
        out = weights.astype(np.float64)
        if self.mask is not None:
            out[:, ~self.mask] = 0.0
        if self.repair is not None:
            flat = out.reshape(len(out), -1)
            moved = flat[:, self.repair.bad, None] * self.repair.shares
            flat[:, self.repair.bad] = 0.0
            for image, more in zip(flat, moved, strict=True):
                np.add.at(image, self.repair.neighbours, more)
        if self.gain is not None:
            out *= self.gain
        return out, None if self.dark is None else (out * self.dark).sum(axis=(1, 2))


@dataclass(frozen=True, slots=True, eq=False)
class CorrectedKernel:
    """Kernel: another kernel, on corrected frames of the visible detector."""

    kernel: Any
    corrections: Corrections

    @property
    def reduces(self) -> Any:
        """What the other kernel takes away."""
        return self.kernel.reduces

    @property
    def combine(self) -> np.ufunc:
        """How partial results of the other kernel are merged."""
        return self.kernel.combine

    def at(self, values: Any) -> CorrectedKernel:
        """Give the kernel for positions with these values, where the other one takes any."""
        return CorrectedKernel(self.kernel.at(values), self.corrections)

    def prepare(self, region: DetectorRegion) -> tuple[DetectorRegion, Any]:
        """Prepare the other kernel for frames of the visible detector."""
        return region, self.kernel.prepare(_visible(region))

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Give what the other kernel makes of float64 pixels."""
        del dtype
        shape, kind = self.kernel.output(np.dtype(np.float64), _visible(region))
        return shape, kind

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the output of the other kernel."""
        del dtype
        out: Array = self.kernel.allocate(n_positions, np.dtype(np.float64), _visible(region))
        return out

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Correct some frames at a time and hand them on."""
        region, own = prepared
        for some in _batches(len(local), region.shape):
            frames = self.corrections.apply(region.crop(block[local[some]]))
            rows = np.arange(len(frames), dtype=np.int64)
            self.kernel.frames(np.ascontiguousarray(frames), rows, out, place[some], own)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Make some frames dense at a time, correct them and hand them on."""
        for frames, rows, some in densified(gap, offsets, local, prepared[0].stored):
            self.frames(frames, rows, out, place[some], prepared)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Let the other kernel finish."""
        done: Array = self.kernel.finish(out, _visible(region))
        return done


@numba.njit(nogil=True, cache=True)
def _correct(pixels, local, dark, gain, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 (typed by numba)
    for i in range(local.size):
        frame, corrected = pixels[local[i]], out[i]
        if dark.size and gain.size:
            for p in range(frame.size):
                corrected[p] = (np.float64(frame[p]) - dark[p]) * gain[p]
        elif dark.size:
            for p in range(frame.size):
                corrected[p] = np.float64(frame[p]) - dark[p]
        elif gain.size:
            for p in range(frame.size):
                corrected[p] = np.float64(frame[p]) * gain[p]
        else:
            for p in range(frame.size):
                corrected[p] = frame[p]


def _visible(region: DetectorRegion) -> DetectorRegion:
    """Region of a detector that is stored as it is visible."""
    rows, columns = region.shape
    return DetectorRegion((rows, columns), range(rows), range(columns))


def _batches(n: int, shape: tuple[int, int]) -> Iterator[slice]:
    step = max(1, BATCH_BYTES // max(1, 8 * shape[0] * shape[1]))
    for first in range(0, n, step):
        yield slice(first, first + step)
