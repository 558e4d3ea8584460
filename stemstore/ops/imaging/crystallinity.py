"""Periodicity within diffraction patterns: crystallinity of every frame, and the mean power spectrum of a scan."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.densified import densified
from stemstore.ops.corrections import PixelCorrections, corrected, corrections_of, corrections_text
from stemstore.ops.functions import FunctionKernel
from stemstore.ops.geometry.detectors import as_detector
from stemstore.ops.imaging.frequencies import Frequencies, Window, factors, transforms
from stemstore.ops.labels import intensity_of, labelled, parameters_text, recorded, scan_dims, without_missing
from stemstore.ops.roi import within
from stemstore.scan.blocks import map_kernel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, FloatArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion


def crystallinity(
    scan: Any,
    inner: float,
    outer: float,
    *,
    unit: str | None = None,
    exclude: Any = None,
    normalise: bool = False,
    window: Window | None = None,
    roi: Any = None,
    **corrections: Unpack[PixelCorrections],
) -> xr.DataArray:
    """Measure how periodic every diffraction pattern is: the modulus of its Fourier transform, summed over a ring.

    Bragg disks at equal distances g give terms at the frequency 1 / g and its multiples; a diffuse halo gives none.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx.
    inner, outer : `unit`
        Ring of spatial frequencies, inner <= f < outer; 1 / g should lie in it.
    unit
        Of the frequencies: ``"1/pixel"``, ``"1/mrad"``, ``"angstrom"`` or ``"nm"``; default: that which belongs to the
        detector axes (1/pixel for pixel, angstrom for 1/angstrom).
    exclude
        Virtual detector whose pixels are set to zero first, such as ``disk(…)`` over the central beam, which would
        outshine the rest. ``antialias=True`` gives it a softer edge.
    normalise
        Divide by the number of terms and by the term of frequency zero, which is the intensity that is left: a mean
        modulus from 0 to 1 that does not grow with the dose.
    window
        ``"hann"``: let patterns fall to zero towards the borders of the detector.
    roi : shape (y, x), boolean
        Positions to look at; the others are not read, and count as missing frames.
    **corrections
        ``dark``, ``gain`` and ``bad_pixels``, as in `virtual_image`.

    Returns
    -------
    image : dims (y, x), float64, lazy
        In counts, or without unit if normalised. Missing frames are NaN, also frames without intensity if normalised.

    Raises
    ------
    InputError
        Radii that are no ring or hold no term, an unknown unit or window, pixels at unlike distances, shares beyond
        0 … 1 in `exclude`, or a region or correction that does not fit.
    CalibrationMissingError
        The unit needs a calibration that the scan lacks.

    Notes
    -----
    C = sum of abs(F(f)) over inner <= abs(f) < outer, F(f) = sum of w(k) I(k) exp(-2 pi i f k), over positive and
    negative frequencies; the idea is that of the crystallinity map of LiberTEM. Counting N electrons leaves about
    sqrt(pi N) / 2 in a term that has no signal, so that N should not vary much over a map, normalised or not.

    The transform continues a pattern periodically. Where it does not fade at the borders of the detector, the jumps
    there give terms along the axes (a cross); a Hann window removes them and makes lines two terms wider. It has a mean
    square of 1, which keeps the noise. The hole of `exclude` is a jump, too: its terms fall off as f^(-3/2).

    Counted frames are made dense, some at a time. Memory per thread: one decoded piece of the scan (about 8 MB) and its
    copy, and 12 MB, or four frames in double precision where that is more.
    """
    image = within(intensity_of(scan), roi)
    frequencies = Frequencies.of(image, unit)
    if not (math.isfinite(inner) and math.isfinite(outer)) or not 0 <= inner < outer:
        msg = f"a ring of frequencies needs 0 <= inner < outer, got inner={inner!r} and outer={outer!r}"
        raise InputError(msg, inner=inner, outer=outer)
    ring = (frequencies.squares >= inner**2) & (frequencies.squares < outer**2)
    if not ring.any():
        most = float(np.sqrt(frequencies.squares.max()))
        msg = (
            f"no term of the transform has a frequency from {inner:g} to {outer:g} {frequencies.unit}; the detector "
            f"has frequencies up to {most:.4g}, and is {image.shape[-2:]} pixels wide"
        )
        raise InputError(msg, found=(inner, outer), expected=most)
    number = np.broadcast_to(frequencies.number, ring.shape)[ring]
    function = RingModulus(factors(image, exclude, window), np.flatnonzero(ring), number, normalise)
    kernel = FunctionKernel(function, (), np.dtype(np.float64), per_block=True, n_scan=image.ndim - 2)
    data = map_kernel(image.data, corrected(kernel, corrections_of(image, corrections)), recorded(image))
    history = parameters_text(
        "crystallinity",
        inner=float(inner),
        outer=float(outer),
        unit=frequencies.unit,
        exclude=None if exclude is None else as_detector(exclude).describe(),
        normalise=normalise,
        window=window,
        **corrections_text(corrections),
    )
    result = labelled(without_missing(data, image), image, scan_dims(image), history).rename("crystallinity")
    result.attrs |= {"units": "1" if normalise else image.attrs.get("units", "count"), "long_name": "crystallinity"}
    return result


def power_spectrum(
    scan: Any,
    *,
    unit: str | None = None,
    exclude: Any = None,
    window: Window | None = None,
    roi: Any = None,
    **corrections: Unpack[PixelCorrections],
) -> xr.DataArray:
    """Average the power spectra of all diffraction patterns of a scan.

    It shows which distances within patterns repeat, whatever the position of the pattern on the detector: where to put
    the ring of `crystallinity`.

    Parameters
    ----------
    scan, unit, exclude, window, roi, **corrections
        As in `crystallinity`.

    Returns
    -------
    spectrum : dims (fy, fx), float64, lazy
        Mean over the recorded frames of the squared modulus, abs(F)^2, in counts squared. Coordinates are spatial
        frequencies along ky and kx, zero in the middle (at index n // 2). ``n_frames`` is the number of frames.

    Raises
    ------
    InputError
        No frame is recorded; or as in `crystallinity`.
    CalibrationMissingError
        As in `crystallinity`.

    Notes
    -----
    The squared modulus is averaged, not the modulus: the sum over all frequencies is then the number of pixels times
    the sum of the squared intensities (Parseval), the transform back is the mean autocorrelation of the patterns
    (Wiener-Khinchin), and counting noise of N electrons adds N to every term. On windows and borders see
    `crystallinity`; memory is the same and a spectrum.
    """
    image = within(intensity_of(scan), roi)
    frequencies = Frequencies.of(image, unit)
    keep = recorded(image)
    n_frames = math.prod(image.shape[:-2]) if keep is None else int(keep.sum())
    if n_frames == 0:
        msg = "the selection holds no recorded frame, so it has no power spectrum; select other positions"
        raise InputError(msg, found=image.shape)
    kernel = SpectrumSum(factors(image, exclude, window))
    half = map_kernel(image.data, corrected(kernel, corrections_of(image, corrections)), keep) / n_frames
    settle: Any = frequencies.whole  # dask's annotations know no NumPy arrays
    chunks = tuple((n,) for n in image.shape[-2:])
    data = half.map_blocks(settle, dtype=np.float64, chunks=chunks, meta=np.empty((0, 0)))
    shown = None if exclude is None else as_detector(exclude).describe()
    text = corrections_text(corrections)
    history = parameters_text("power_spectrum", n_frames=n_frames, exclude=shown, window=window, **text)
    result = labelled(data, image, ("fy", "fx"), history).assign_coords(frequencies.coordinates())
    units = f"{image.attrs.get('units', 'count')}^2"
    result.attrs |= {"units": units, "long_name": "mean power spectrum of patterns", "n_frames": n_frames}
    return result.rename("power_spectrum")


@dataclass(frozen=True, slots=True, eq=False)
class RingModulus:
    """Function of a stack of frames: the modulus of their transforms, summed over some terms.

    Attributes
    ----------
    pixels : shape (ky, kx)
        Factors on the pixels.
    terms, number : shape (n_terms,)
        Flat numbers of the terms among those of `transforms`, and how many of the full transform each stands for.
    normalise
        Whether to divide by the number of terms and the intensity.
    """

    pixels: FloatArray
    terms: Int64Array
    number: FloatArray
    normalise: bool

    def __call__(self, frames: Array) -> FloatArray:
        """Give one number per frame."""
        out = np.empty(len(frames))
        for some, spectra in transforms(frames, self.pixels):
            flat = spectra.reshape(len(spectra), -1)
            out[some] = np.abs(flat[:, self.terms]) @ self.number
            if self.normalise:
                total = flat[:, 0].real
                out[some] /= np.where(total > 0, total, np.nan) * self.number.sum()
        return out


@dataclass(frozen=True, slots=True, eq=False)
class SpectrumSum:
    """Kernel: the sum over all frames of the squared modulus of their transforms."""

    pixels: FloatArray
    reduces: Literal["scan"] = "scan"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> DetectorRegion:
        """Keep the region: the visible detector is transformed."""
        return region

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One number per term of zero or positive frequency along kx."""
        del dtype
        return (region.shape[0], region.shape[1] // 2 + 1), np.dtype(np.float64)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the zeroed spectrum."""
        del n_positions
        return np.zeros(*self.output(dtype, region))

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: DetectorRegion) -> None:
        """Add dense frames."""
        for _, spectra in transforms(prepared.crop(block[local]), self.pixels):
            out += (spectra.real**2 + spectra.imag**2).sum(axis=0)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Add counted frames, some of them made dense at a time."""
        for frames, rows, some in densified(gap, offsets, local, prepared.stored):
            self.frames(frames, rows, out, place[some], prepared)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the sum as it is."""
        del region
        return out
