"""Scans at a lower dose: counted electrons kept or left out by chance, and halves that share none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.detector_sums import DetectorSums
from stemstore.ops.labels import intensity_of, parameters_text, recorded
from stemstore.scan.altered import is_counted
from stemstore.scan.blocks import map_kernel
from stemstore.scan.coordinates import pixel_step
from stemstore.scan.lazy import ScanArray, selection_of
from stemstore.scan.thinned import thinned

if TYPE_CHECKING:
    import xarray as xr

    from stemstore.scan.lazy import ScanSource
    from stemstore.selection import Selection

Per = Literal["frame", "angstrom^2"]
PER = ("frame", "angstrom^2")
SEEDS = 2**64


def thin(
    scan: Any,
    fraction: float | None = None,
    *,
    dose: float | None = None,
    per: Per = "frame",
    seed: int = 0,
    counting: bool = False,
) -> Any:
    """Keep every electron of a counted scan with a probability, which gives the scan at that share of its dose.

    Independent choices turn Poisson statistics into Poisson statistics (binomial thinning): the result is what the
    microscope would have recorded at the lower dose, which no dense format gives as simply.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or that variable; any selection of a counted scan.
    fraction
        Probability from 0 to 1 with which an electron is kept.
    dose
        Mean number of detected electrons to be left, in place of `fraction`; those of `scan` are counted at once, in
        one pass over its recorded frames.
    per
        What the dose is for: ``"frame"``, or ``"angstrom^2"`` of the specimen, which needs the scan step. Repeated
        frames of a position add up.
    seed
        Which electrons: 0 to 2^64 - 1.
    counting
        The pixels of a dense integer scan are numbers of electrons, as of a counting detector, so that it may be
        thinned, too.

    Returns
    -------
    thinned
        The same Dataset or DataArray with another lazy ``intensity``, on which every operation streams as before.

    Raises
    ------
    InputError
        The fraction is not a number from 0 to 1, or a dose is higher than that of the scan; both or neither are given;
        the scan is not counted, or no longer a plain selection. When computed: a dense pixel is negative.
    CalibrationMissingError
        A dose per area is asked for and the scan has no step.

    Notes
    -----
    Random numbers belong to the electrons, by their place in the stored scan (see `stemstore.kernels.thinning`): any
    selection, chunking or number of threads gives the same electrons, thinning selections and selecting from thinned
    scans are the same, and of one seed the electrons kept at a lower fraction are among those kept at a higher one.
    Electrons that are thinned again are chosen independently. Memory per thread: that of the operation and a megabyte.

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> low = stemstore.thin(ds, dose=20, per="angstrom^2")  # doctest: +SKIP
    >>> stemstore.center_of_mass(low)  # doctest: +SKIP
    """
    image = intensity_of(scan)
    source, selection = _electrons(image, "thin", counting=counting)
    if (fraction is None) == (dose is None):
        msg = f"thin takes either a fraction or a dose, got fraction={fraction!r} and dose={dose!r}; give one of them"
        raise InputError(msg, key="fraction")
    share = _share(fraction) if dose is None else _share_of_dose(image, dose, per)
    array = ScanArray(thinned(source, _seed(seed), 0.0, share), selection, image.data.chunks)
    text = parameters_text("thin", fraction=share, dose=dose, per=None if dose is None else per, seed=seed)
    return _with(scan, image, array, text)


def split_halves(scan: Any, *, seed: int = 0, counting: bool = False) -> tuple[Any, Any]:
    """Split the electrons of a counted scan by chance into two scans that share none and together hold all.

    Two independent measurements at half the dose: what both show is signal (Fourier ring correlation, noise of maps).

    Parameters
    ----------
    scan, seed, counting
        As in `thin`.

    Returns
    -------
    first, second
        Like `scan`, lazy. The first is ``thin(scan, 0.5)`` of the same seed; frame by frame both add up to the scan.

    Raises
    ------
    InputError
        As in `thin`.
    """
    image = intensity_of(scan)
    source, selection = _electrons(image, "split_halves", counting=counting)
    halves = []
    for number, (begin, end) in enumerate(((0.0, 0.5), (0.5, 1.0))):
        array = ScanArray(thinned(source, _seed(seed), begin, end), selection, image.data.chunks)
        halves.append(_with(scan, image, array, parameters_text("split_halves", half=number, seed=seed)))
    return halves[0], halves[1]


def _electrons(image: xr.DataArray, operation: str, *, counting: bool) -> tuple[ScanSource, Selection]:
    """Give source and selection of a scan whose electrons can be told apart."""
    found = selection_of(image.data)
    if found is None:
        msg = (
            f"{operation} works on the electrons of a scan, but the intensity is no plain selection of one (its values "
            f"or axes were changed, or it was computed); apply {operation} right after opening and selecting"
        )
        raise InputError(msg, key="scan")
    if is_counted(found[0]):
        return found
    if not counting:
        msg = (
            f"{operation} takes electrons one by one, but this scan is dense: its pixels ({image.dtype}) may be no "
            "numbers of electrons. Count it (stemstore.convert(…, count=True)), or pass counting=True where a counting "
            "detector wrote it"
        )
        raise InputError(msg, key="counting", found=str(image.dtype))
    if image.dtype.kind not in "ui":
        msg = f"a scan of {image.dtype} holds no numbers of electrons; count it (stemstore.convert(…, count=True))"
        raise InputError(msg, key="counting", found=str(image.dtype))
    return found


def _share(fraction: Any) -> float:
    """Check a probability."""
    number = isinstance(fraction, (int, float, np.integer, np.floating)) and not isinstance(fraction, bool)
    if not number or not 0 <= fraction <= 1:
        msg = f"fraction is {fraction!r}; expected a probability from 0 to 1 with which electrons are kept"
        raise InputError(msg, key="fraction", found=fraction)
    return float(fraction)


def _share_of_dose(image: xr.DataArray, dose: Any, per: str) -> float:
    """Count the electrons of a scan and give the share that makes a dose of them."""
    if per not in PER:
        msg = f"per is {per!r}; expected one of {', '.join(PER)}"
        raise InputError(msg, key="per", found=per, expected=PER)
    if not isinstance(dose, (int, float, np.integer, np.floating)) or isinstance(dose, bool) or not 0 <= dose < np.inf:
        msg = f"dose is {dose!r}; expected a number of electrons from 0 on"
        raise InputError(msg, key="dose", found=dose)
    area = _area_of_frame(image) if per == "angstrom^2" else 1.0
    mean = _mean_count(image) / area
    if dose > mean:
        msg = (
            f"a dose of {dose:.6g} electrons per {per} was asked for, but the scan has {mean:.6g}; thinning can only "
            "take electrons away, so give at most that"
        )
        raise InputError(msg, key="dose", found=dose, expected=mean)
    return float(dose) / mean if mean else 1.0


def _mean_count(image: xr.DataArray) -> float:
    """Count the electrons of a scan: the mean over its recorded frames."""
    known = recorded(image)
    kernel = DetectorSums(np.ones((1, *image.shape[-2:]), bool))
    total = int(map_kernel(image.data, kernel, known).sum().compute())
    n = int(np.prod(image.shape[:-2])) if known is None else int(known.sum())
    return total / n if n else 0.0


def _area_of_frame(image: xr.DataArray) -> float:
    """Area in square angstrom per frame: that of a scan pixel, shared by the frames recorded there."""
    if not {"y", "x"} <= set(image.dims):
        msg = f"a dose per area needs the scan axes y and x, got dims {image.dims}; give a dose per frame"
        raise InputError(msg, key="per", found=image.dims)
    repeats = int(np.prod([image.sizes[dim] for dim in image.dims[:-2] if dim not in {"y", "x"}]))
    return abs(pixel_step(image, "y", "angstrom") * pixel_step(image, "x", "angstrom")) / repeats


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < SEEDS:
        msg = f"seed is {seed!r}; expected a whole number from 0 to 2^64 - 1"
        raise InputError(msg, key="seed", found=seed)
    return int(seed)


def _with(scan: Any, image: xr.DataArray, array: ScanArray, text: str) -> Any:
    """Give the scan with other pixels, which its history tells of."""
    import xarray as xr

    result = image.copy(data=array)
    result.attrs["history"] = "\n".join(line for line in (image.attrs.get("history"), text) if line)
    return scan.assign(intensity=result) if isinstance(scan, xr.Dataset) else result
