"""Results of the demonstration held against the truth of the synthetic scan."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import stemstore
from stemstore.errors import ScanWarning
from stemstore.ops.disks.table import table_of
from stemstore.testing import disk_limit
from stemstore.testing.scoring import matched_events

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

    from stemstore._types import Array, BoolArray, FloatArray
    from stemstore.testing import SyntheticScan, Truth

BRAGG_ORDERS = (
    (1, 0),
    (0, 1),
    (1, 1),
    (1, -1),
    (-1, 0),
    (0, -1),
    (-1, -1),
    (-1, 1),
)  # the second half opposes the first
REACH = 8.0  # pixels within which a found disk is taken for an expected one; disks lie 80 pixels apart
SIGMAS = 4.0  # a correlation further than this from its prediction is not chance
COMPLETE = 2  # state of a frame that has all its sectors


@dataclass(frozen=True, slots=True)
class Check:
    """One result: what was measured, what was expected, and whether it holds."""

    name: str
    measured: str
    expected: str
    holds: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "holds", bool(self.holds))  # comparisons of NumPy numbers give NumPy booleans


def counting_checks(counted: xr.Dataset, truth: Truth) -> list[Check]:
    """Recall and precision of the counted electrons against the true ones; lost sectors do not count."""
    from stemstore.scan.lazy import selection_of

    found_of = selection_of(counted.intensity.data)[0].read_events  # type: ignore[index, union-attr]  # a counted store
    shape = counted.intensity.shape[-2:]
    pairs = n_found = n_true = 0
    for number in range(truth.n_frames):
        events = found_of(number, number + 1).indices
        true = truth.electrons(number)
        true = true[~truth.lost_sectors[number][true // (shape[1] * shape[0] // truth.lost_sectors.shape[1])]]
        pairs += matched_events(events, true, shape)
        n_found, n_true = n_found + len(events), n_true + len(true)
    recall, precision = pairs / n_true, pairs / n_found
    return [
        Check("electrons found (recall)", f"{recall:.4f}", "≥ 0.96", recall >= 0.96),  # noqa: PLR2004
        Check("found events that are electrons (precision)", f"{precision:.4f}", "≥ 0.98", precision >= 0.98),  # noqa: PLR2004
    ]


def identity_checks(folder: Path, n_events: int) -> list[Check]:
    """Compare the dense store with the files pixel by pixel, and the counted one with the count, flyback included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScanWarning)  # the demo lost these sectors on purpose
        raw = stemstore.open(folder / "raw", flyback=True, flyback_columns=1)
    dense, counted = (stemstore.open(folder / name, flyback=True) for name in ("dense.zarr", "counted.zarr"))
    same = all(
        np.array_equal(dense.intensity.isel(y=row).values, raw.intensity.isel(y=row).values)
        for row in range(dense.sizes["y"])
    )
    everything = np.ones(counted.intensity.shape[-2:], bool)
    total = int(stemstore.virtual_image(counted, everything).sum())
    return [
        Check("dense store against the sector files", "identical" if same else "different", "identical", same),
        Check("electrons in the counted store", f"{total:,}", f"{n_events:,}", total == n_events),
    ]


def momentum_checks(name: str, com: xr.Dataset, truth: Truth) -> list[Check]:
    """Correlation of the centre of mass with the known phase gradient, against the noise-limited prediction."""
    complete = complete_frames(com)
    checks = []
    for axis, variable in enumerate(("com_y", "com_x")):
        measured = correlation(com[variable].values[complete], truth.deflection[..., axis][complete])
        predicted = truth.parameters["predicted_bright_field_com_correlation"][axis]
        title = f"{variable} of the {name} scan ~ phase gradient"
        checks.append(prediction_check(title, measured, predicted, int(complete.sum())))
    return checks


def image_checks(
    name: str, images: xr.Dataset, predictions: dict[str, tuple[FloatArray, float]], share: float | None = None
) -> list[Check]:
    """Correlation of virtual images with the expected ones, against the noise-limited prediction.

    Parameters
    ----------
    name
        Of the scan.
    images
        From `virtual_image`; partial frames are left out.
    predictions
        Name of an image, and what `stemstore.testing.predict_image` gives for its detector.
    share
        None: the measured correlation must be the predicted one. A number: it must reach at least this share of it.
    """
    complete = complete_frames(images)
    checks = []
    for variable, (expected, predicted) in predictions.items():
        measured = correlation(images[variable].values[complete], expected[complete])
        title = f"{variable.replace('_', ' ')} of the {name} scan ~ expected image"
        if share is None:
            checks.append(prediction_check(title, measured, predicted, int(complete.sum())))
        else:
            text = f"≥ {share * predicted:.3f} ({predicted:.3f} without noise of the deposited charge)"
            checks.append(Check(title, f"{measured:.3f}", text, measured >= share * predicted))
    return checks


def prediction_check(title: str, measured: float, predicted: float, n: int) -> Check:
    """Hold a correlation over n positions against its prediction; Fisher's z has the standard error 1/sqrt(n - 3)."""
    away = abs(np.arctanh(measured) - np.arctanh(predicted)) * np.sqrt(n - 3)
    return Check(title, f"{measured:.3f}", f"{predicted:.3f} predicted from the dose", away < SIGMAS)


def complete_frames(maps: xr.Dataset) -> BoolArray:
    """Mark the positions whose frame has all its sectors, shape (y, x)."""
    if "valid" not in maps.coords:
        return np.ones((maps.sizes["y"], maps.sizes["x"]), np.bool_)
    complete: BoolArray = maps.coords["valid"].values == COMPLETE
    return complete


def noise_free_checks(com: xr.Dataset, phase: Array, truth: Truth) -> list[Check]:
    """Correlate on noise-free patterns, where only the method can err."""
    checks = []
    for axis, variable in enumerate(("com_y", "com_x")):
        measured = correlation(com[variable].values, truth.deflection[..., axis])
        name = f"{variable} of noise-free patterns ~ phase gradient"
        checks.append(Check(name, f"{measured:.5f}", "> 0.99", measured > 0.99))  # noqa: PLR2004
    measured = correlation(phase, truth.phase)
    checks.append(Check("iDPC of noise-free patterns ~ projected phase", f"{measured:.5f}", "> 0.99", measured > 0.99))  # noqa: PLR2004
    return checks


def phase_check(name: str, phase: Array, truth: Truth) -> Check:
    """Integration averages the noise of many positions, so that the phase is better than its gradient."""
    measured = correlation(phase, truth.phase)
    return Check(f"iDPC of the {name} scan ~ projected phase", f"{measured:.3f}", "> 0.9", measured > 0.9)  # noqa: PLR2004


def disk_errors(disks: xr.Dataset, rows: slice, factors: tuple[int, int], truth: Truth) -> FloatArray:
    """Distance of the found disks of `BRAGG_ORDERS` from the known lattice.

    Parameters
    ----------
    disks
        From `find_disks` on groups of positions.
    rows
        Scan rows that were grouped.
    factors
        Positions per group along y and x.
    truth
        Of the scan.

    Returns
    -------
    errors : shape (n, 2), unit pixel
        NaN for an expected disk that was not found.
    """
    table = table_of(disks)
    found = np.stack([table.qy, table.qx], axis=-1)
    origin = np.array(truth.parameters["origin"])
    errors = []
    for group in np.ndindex(table.scan_shape):
        where = tuple(slice(g * f, (g + 1) * f) for g, f in zip(group, factors, strict=True))
        lattice = truth.lattice[rows][where].mean(axis=(0, 1))
        shift = truth.deflection[rows][where].mean(axis=(0, 1))
        for order in BRAGG_ORDERS:
            expected = origin + shift + np.array(order) @ lattice
            away = found[table.disks_of(group)] - expected
            distance = np.hypot(*away.T)
            near = distance.min(initial=np.inf) < REACH
            errors.append(away[distance.argmin()] if near else [np.nan, np.nan])
    return np.array(errors, np.float64)


def disk_checks(name: str, errors: FloatArray, limit: float | None) -> list[Check]:
    """Precision of the disk positions in absolute terms, and against the counting-statistics limit if one is given."""
    missing = int(np.isnan(errors).any(axis=1).sum())
    rms = float(np.sqrt(np.nanmean(errors**2)))
    checks = [
        Check(f"disks of the {name} scan: found", f"{len(errors) - missing} of {len(errors)}", "all", missing == 0),
        Check(f"disks of the {name} scan: RMS error per axis", f"{rms:.3f} px", "≤ 0.3 px", rms <= 0.3),  # noqa: PLR2004
    ]
    if limit is not None:
        text = f"≤ 1.5 (limit {limit:.3f} px)"
        checks.append(Check("… over the limit of counting statistics", f"{rms / limit:.2f}", text, rms <= 1.5 * limit))
    return checks


def counting_limit(scan: SyntheticScan, rows: slice, factors: tuple[int, int]) -> float:
    """Cramér-Rao limit of the `BRAGG_ORDERS` in one group of positions, RMS over orders and axes, in pixels."""
    numbers = [
        scan.frame_number(row, column)
        for row in range(rows.start, rows.start + factors[0])
        for column in range(factors[1])
    ]
    half = BRAGG_ORDERS[: len(BRAGG_ORDERS) // 2]  # opposite disks have the same limit
    limits = [disk_limit(scan, numbers, order) for order in half]
    return float(np.sqrt(np.mean(np.square(limits))))


def correlation(one: Any, other: Any) -> float:
    """Pearson correlation of two maps."""
    return float(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1])
