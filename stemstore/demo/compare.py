"""Results of the demonstration held against the truth of the synthetic scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import stemstore
from stemstore.testing import disk_limit
from stemstore.testing.scoring import matched_events

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

    from stemstore._types import Array, FloatArray
    from stemstore.testing import SyntheticScan, Truth

FIRST_ORDER = ((1, 0), (0, 1), (-1, 0), (0, -1))
REACH = 8.0  # pixels within which a found disk is taken for an expected one; disks lie 80 pixels apart
SIGMAS = 4.0  # a correlation further than this from its prediction is not chance


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

    found_of = selection_of(counted.intensity.data)[0].read_events  # type: ignore[index]  # a store just opened
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
    raw, dense, counted = (
        stemstore.open(folder / name, flyback=True) for name in ("raw", "dense.zarr", "counted.zarr")
    )
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
    complete = np.ones(truth.scan_shape, bool) if "valid" not in com.coords else com.coords["valid"].values == 2  # noqa: PLR2004
    checks = []
    for axis, variable in enumerate(("com_y", "com_x")):
        measured = correlation(com[variable].values[complete], truth.deflection[..., axis][complete])
        predicted = truth.parameters["predicted_bright_field_com_correlation"][axis]
        away = abs(np.arctanh(measured) - np.arctanh(predicted)) * np.sqrt(complete.sum() - 3)
        text = f"{predicted:.3f} predicted from the dose"
        checks.append(Check(f"{variable} of the {name} scan ~ phase gradient", f"{measured:.3f}", text, away < SIGMAS))
    return checks


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
    """Distance of the found first-order disks from the known lattice.

    Parameters
    ----------
    disks
        From `find_disks` on groups of positions; pixel columns are used.
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
    found = np.stack([disks.disk_ky_pixel.values, disks.disk_kx_pixel.values], axis=-1)
    origin = np.array(truth.parameters["origin"])
    errors = []
    for group in np.ndindex(found.shape[:2]):
        where = tuple(slice(g * f, (g + 1) * f) for g, f in zip(group, factors, strict=True))
        lattice = truth.lattice[rows][where].mean(axis=(0, 1))
        shift = truth.deflection[rows][where].mean(axis=(0, 1))
        for order in FIRST_ORDER:
            expected = origin + shift + np.array(order) @ lattice
            away = found[group] - expected
            distance = np.nan_to_num(np.hypot(*away.T), nan=np.inf)
            nearest = int(distance.argmin())
            errors.append(away[nearest] if distance[nearest] < REACH else [np.nan, np.nan])
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
    """Cramér-Rao limit of the first-order disks in one group of positions, RMS over orders and axes, in pixels."""
    numbers = [
        scan.frame_number(row, column)
        for row in range(rows.start, rows.start + factors[0])
        for column in range(factors[1])
    ]
    limits = [disk_limit(scan, numbers, order) for order in FIRST_ORDER[:2]]
    return float(np.sqrt(np.mean(np.square(limits))))


def correlation(one: Any, other: Any) -> float:
    """Pearson correlation of two maps."""
    return float(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1])
