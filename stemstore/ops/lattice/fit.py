"""The lattice at every position of a scan: disks are indexed and the vectors fitted, with their uncertainties."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.lattice import USED, FitSettings, fit_lattices
from stemstore.ops.disks.calibration import VECTORS
from stemstore.ops.disks.table import PEAK
from stemstore.ops.geometry.plane import SIDE
from stemstore.ops.labels import INHERITED, parameters_text
from stemstore.ops.lattice.basis import LARGEST, LatticeBasis, as_basis, axes_of, centred, unit_of, vectors_of

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, FloatArray
    from stemstore.kernels.lattice import LatticeFits
    from stemstore.ops.disks.table import DiskTable

Weights = Literal["intensity", "sigma", "py4dstem"]
WEIGHTS = ("intensity", "sigma", "py4dstem", None)
COMPONENTS = tuple(f"{name}_{axis}" for name in ("x0", "g1", "g2") for axis in ("y", "x"))
"""Variables of a lattice that hold its vectors."""
FEWEST = 4  # disks that leave a residual: three vectors of two components, and one more
ASTRAY = 0.5  # share of all disks off the lattice above which something is wrong; 0.75 is chance


class LatticeWarning(UserWarning):
    """Disks were indexed on a lattice that hardly fits them."""


def fit_lattice(
    disks: Any,
    basis: LatticeBasis | Any,
    *,
    origin: Any = None,
    weights: Weights | None = "intensity",
    max_distance: float | None = None,
    min_peaks: int = 5,
    min_share: float = 0.5,
    outliers: float = 3.0,
) -> xr.Dataset:
    """Fit origin and basis vectors of the lattice to the Bragg disks of every position.

    Parameters
    ----------
    disks
        What `find_disks` returned, with the vectors of `calibrate_disks`. Distortion, rectangular pixels and the
        rotation between detector and scan are taken into account where these vectors do.
    basis
        From `find_basis`, or a pair (g1, g2) in the unit of the vectors.
    origin
        Where the optic axis is at each position, as in `calibrate_disks`; for disks without calibrated vectors. It need
        not be exact: what is left of it is fitted.
    weights
        ``"intensity"``: what electrons allow, because the variance of a disk's position goes with one over its
        electrons. ``"sigma"``: one over `sigma_q` squared. ``"py4dstem"``: the correlation squared, the weights of
        py4DSTEM. None: all alike. Disks without a positive weight take no part.
    max_distance : unit of the vectors
        Of a disk from its lattice point; default: a quarter of the shorter basis vector.
    min_peaks
        Disks that a fit needs at least, not all on one line.
    min_share
        Share of a position's disks that has to be in the fit; among other grains or in vacuum there are fewer.
    outliers
        Disks that lie further from the fit than so many (robust) standard deviations per axis are left out, and the fit
        is made once more.

    Returns
    -------
    lattice : dims of the scan, float64
        ``x0_y``, ``x0_x`` (place of the direct beam), ``g1_y``, ``g1_x``, ``g2_y``, ``g2_x`` in the unit of the
        vectors. ``sigma_x0``, ``sigma_g1``, ``sigma_g2``: standard errors of each component, ``covariance`` that of the
        same components of g1 and g2 (unit squared). ``residual``: RMS distance per component, weighted. ``n_used``,
        ``n_outliers``; ``off_lattice``: share of the disks whose indices are more than 1/4 from whole numbers.
        ``fitted`` is False, and the vectors are NaN, where there is no fit. The attribute ``off_lattice`` is the share
        among all disks, ``axes`` tells whether vectors lie along detector or scan axes.

    Raises
    ------
    InputError
        The vectors are not centred, basis and vectors differ in unit, or an option is out of range.

    Warns
    -----
    LatticeWarning
        More than half of all disks are off the lattice.

    Notes
    -----
    Weighted least squares for q = x0 + h g1 + k g2. Orders up to 2 are indexed with the basis, the others with the fit
    to these: a lattice may differ from the basis by 10 % and 6 degrees. Of two disks at one lattice point the nearer is
    taken. Standard errors are those of least squares with the variance from the residuals, sum(w r²) / (2 n - 6); the
    error of a position is taken to be alike along detector rows and columns *in pixels*, so that errors along the two
    axes differ for rectangular pixels: sigma is then their quadratic mean. Memory: 29 bytes per disk, 200 per position.

    Examples
    --------
    >>> import stemstore
    >>> disks = stemstore.calibrate_disks(stemstore.find_disks(ds, radius=8))  # doctest: +SKIP
    >>> lattice = stemstore.fit_lattice(disks, stemstore.find_basis(disks))  # doctest: +SKIP
    >>> strain = stemstore.strain_map(lattice)  # doctest: +SKIP
    """
    fit = _fit(disks, basis, origin, _Options(weights, max_distance, min_peaks, min_share, outliers))
    n_disks, counts = np.diff(fit.table.offset), fit.found.counts
    with np.errstate(invalid="ignore"):
        astray = np.where(n_disks > 0, counts[:, 2] / n_disks, np.nan)
    total = float(counts[:, 2].sum() / max(1, len(fit.table.qy)))
    if total > ASTRAY:
        msg = (
            f"{total:.0%} of the disks lie off the lattice (chance gives 75 %): check the origin and the basis, or "
            "look at the map off_lattice for other grains"
        )
        warnings.warn(msg, LatticeWarning, stacklevel=2)
    vectors = fit.found.vectors.reshape(-1, len(COMPONENTS))
    x0, g1, g2, both = fit.found.variances.T
    columns: dict[str, tuple[Array, str, str]] = {
        name: (values, fit.unit, text) for name, values, text in zip(COMPONENTS, vectors.T, _texts(), strict=True)
    }
    columns |= {
        "sigma_x0": (np.sqrt(x0), fit.unit, "standard error of each component of x0"),
        "sigma_g1": (np.sqrt(g1), fit.unit, "standard error of each component of g1"),
        "sigma_g2": (np.sqrt(g2), fit.unit, "standard error of each component of g2"),
        "covariance": (both, f"{fit.unit}^2", "covariance of the same components of g1 and g2"),
        "residual": (fit.found.residual, fit.unit, "RMS distance of the disks from the lattice, per component"),
        "n_used": (counts[:, 0], "count", "disks in the fit"),
        "n_outliers": (counts[:, 1], "count", "disks left out as outliers"),
        "off_lattice": (astray, "1", "share of the disks more than 1/4 of a cell off the lattice"),
        "fitted": (fit.found.fitted, "1", "whether there is a fit"),
    }
    return fit.dataset(columns, {"off_lattice": total, "n_fitted": int(fit.found.fitted.sum())})


def index_disks(
    disks: Any, basis: LatticeBasis | Any, *, origin: Any = None, max_distance: float | None = None
) -> xr.Dataset:
    """Give every Bragg disk the lattice point that it belongs to.

    Parameters
    ----------
    disks, basis, origin, max_distance
        As in `fit_lattice`, whose fit at each position (with its defaults) the indices belong to.

    Returns
    -------
    index : dim peak
        ``h``, ``k`` (int16): the nearest lattice point, q = x0 + h g1 + k g2. ``accepted``: whether the disk is close
        enough to it, the nearest one there, no outlier, and at a position with a fit. The attribute ``accepted`` is the
        share of such disks. The result fits beside the disks: ``disks.merge(index)``.

    Raises
    ------
    InputError
        As for `fit_lattice`.
    """
    import xarray as xr

    fit = _fit(disks, basis, origin, _Options(max_distance=max_distance))
    marks = fit.found.marks
    accepted = (marks.state == USED) & fit.found.fitted[fit.table.position]
    variables = {
        "h": (PEAK, marks.h, {"units": "1", "long_name": "order along g1"}),
        "k": (PEAK, marks.k, {"units": "1", "long_name": "order along g2"}),
        "accepted": (PEAK, accepted, {"long_name": "whether the disk lies on the lattice"}),
    }
    share = float(accepted.mean()) if len(accepted) else math.nan
    return xr.Dataset(variables, attrs={"accepted": share, "g1": list(fit.basis.g1), "g2": list(fit.basis.g2)})


class _Options(NamedTuple):
    """As the arguments of `fit_lattice`, with its defaults."""

    weights: Weights | None = "intensity"
    max_distance: float | None = None
    min_peaks: int = 5
    min_share: float = 0.5
    outliers: float = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """What was fitted, and how."""

    disks: xr.Dataset
    table: DiskTable
    basis: LatticeBasis
    noise: FloatArray
    found: LatticeFits
    parameters: dict[str, Any]

    @property
    def unit(self) -> str:
        """Of the vectors."""
        return self.basis.unit

    def dataset(self, columns: dict[str, tuple[Any, str, str]], attrs: dict[str, Any]) -> xr.Dataset:
        """Label columns of all positions."""
        import xarray as xr

        dims, shape = self.table.scan_dims, self.table.scan_shape
        variables = {
            name: (dims, values.reshape(shape), {"units": units, "long_name": text})
            for name, (values, units, text) in columns.items()
        }
        coords = {name: one for name, one in self.disks.coords.items() if set(one.dims) <= set(dims)}
        kept = {key: self.disks.attrs[key] for key in INHERITED if key in self.disks.attrs}
        line = parameters_text("fit_lattice", **self.parameters)
        attrs = kept | self.parameters | attrs | {"noise": self.noise.ravel().tolist()}
        attrs["axes"] = axes_of(self.disks)
        attrs["history"] = "\n".join([self.disks.attrs.get("history", ""), line]).strip()
        return xr.Dataset(variables, coords, attrs)


def _fit(disks: Any, basis: Any, origin: Any, options: _Options) -> _Fit:
    """Check what was asked for and fit all positions."""
    disks, table = centred(disks, origin)
    about = disks[VECTORS[0]].attrs
    basis = as_basis(basis, unit_of(disks), axes_of(disks))
    reach = min(basis.lengths) / 4 if options.max_distance is None else float(options.max_distance)
    _check(reach, options)
    matrix = np.reshape(about["matrix"], (SIDE, SIDE))
    step = math.sqrt((matrix**2).sum() / SIDE)  # quadratic mean of the errors of the components, for 1 pixel
    numbers = float(options.outliers), int(options.min_peaks), float(options.min_share)
    settings = FitSettings(reach, LARGEST, *numbers, np.linalg.inv(matrix) * step)
    weights = _weights(table, options.weights)
    wanted = table.processed.reshape(-1)
    found = fit_lattices(vectors_of(disks), weights, table.offset, wanted, basis.matrix, settings)
    parameters = {"g1": list(basis.g1), "g2": list(basis.g2), "unit": basis.unit, "weights": str(options.weights)}
    parameters |= {"max_distance": reach, **dict(zip(("outliers", "min_peaks", "min_share"), numbers, strict=True))}
    return _Fit(disks, table, basis, matrix @ matrix.T / step**2, found, parameters)


def _check(reach: float, options: _Options) -> None:
    """Refuse options out of range."""
    if options.weights not in WEIGHTS:
        msg = f"weights {options.weights!r} are not known; use one of {WEIGHTS}"
        raise InputError(msg, key="weights", found=options.weights, expected=WEIGHTS)
    if options.min_peaks != int(options.min_peaks) or options.min_peaks < FEWEST:
        msg = f"min_peaks = {options.min_peaks!r}; a fit with an error needs at least {FEWEST} disks, 5 are advisable"
        raise InputError(msg, key="min_peaks", found=options.min_peaks, expected=FEWEST)
    if not 0 <= options.min_share <= 1:
        msg = f"min_share = {options.min_share!r} is no share; give a number from 0 to 1"
        raise InputError(msg, key="min_share", found=options.min_share)
    for name, value in (("max_distance", reach), ("outliers", options.outliers)):
        if not value > 0:
            msg = f"{name} = {value!r} is out of range; give a number above 0"
            raise InputError(msg, key=name, found=value)


def _weights(table: DiskTable, weights: str | None) -> FloatArray:
    """Inverse variances of the disks, up to a factor."""
    if weights is None:
        return np.ones(len(table.qy))
    if weights == "intensity":
        return np.asarray(table.intensity, np.float64)
    if weights == "py4dstem":
        return np.asarray(table.correlation, np.float64) ** 2
    if table.sigma_q is None:
        msg = "the disks have no sigma_q, so they cannot be weighted with it; use weights='intensity'"
        raise InputError(msg, key="weights", found=weights)
    with np.errstate(divide="ignore"):
        return np.where(table.sigma_q > 0, 1 / np.asarray(table.sigma_q, np.float64) ** 2, 0.0)


def _texts() -> list[str]:
    named = {"x0": "direct beam", "g1": "first basis vector", "g2": "second basis vector"}
    return [f"{named[name[:2]]}, {name[3:]}" for name in COMPONENTS]
