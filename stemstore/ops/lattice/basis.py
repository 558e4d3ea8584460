"""The lattice of Bragg vectors: two basis vectors, found among the disks of a whole scan or given and refined."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.lattice import ASTRAY, LOW_ORDER
from stemstore.ops.disks.calibration import VECTORS, calibrate_disks, calibrated
from stemstore.ops.disks.plane import scan_of
from stemstore.ops.disks.table import table_of
from stemstore.ops.geometry.plane import DIMS, SIDE
from stemstore.ops.lattice.basis_search import search_basis
from stemstore.ops.roi import map_of
from stemstore.scan.origins import ORIGIN

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import BoolArray, FloatArray
    from stemstore.ops.disks.table import DiskTable

Vector = tuple[float, float]

PARALLEL = 0.1  # |sin| of the angle between two given vectors below which they span no lattice
LARGEST = 31  # |h|, |k| of the disks in a refinement
ROUNDS = 2  # of a refinement on all orders


@dataclass(frozen=True, slots=True)
class LatticeBasis:
    """Two vectors that span a reciprocal lattice.

    Attributes
    ----------
    g1, g2 : unit `unit`
        (row, column), or (y, x) for vectors along the axes of the scan.
    unit
        As that of the vectors of the disks.
    axes
        What the components lie along: ``"detector"``, rows and columns, or ``"scan"``, y and x. None where it is not
        known.
    share
        Share of the disks that lie within a quarter of a cell of the lattice, along both vectors; chance gives 0.25.
        NaN for a basis that was not compared with disks.
    """

    g1: Vector
    g2: Vector
    unit: str
    axes: str | None = None
    share: float = math.nan

    def __post_init__(self) -> None:
        matrix = np.array([self.g1, self.g2], np.float64)
        if matrix.shape != (SIDE, SIDE) or not np.isfinite(matrix).all():
            msg = f"g1 and g2 are pairs of finite numbers (row, column), got {self.g1!r} and {self.g2!r}; correct them"
            raise InputError(msg, key="g1", found=(self.g1, self.g2))
        lengths = np.hypot(*matrix.T)
        if not lengths.all() or abs(np.linalg.det(matrix)) < PARALLEL * math.prod(lengths):
            msg = f"g1 = {self.g1} and g2 = {self.g2} are (nearly) parallel and span no lattice; choose another g2"
            raise InputError(msg, key="g2", found=(self.g1, self.g2))

    @property
    def matrix(self) -> FloatArray:
        """g1 and g2 as columns, (2, 2)."""
        return np.array([self.g1, self.g2], np.float64).T

    @property
    def lengths(self) -> tuple[float, float]:
        """Lengths of g1 and g2."""
        return math.hypot(*self.g1), math.hypot(*self.g2)

    @property
    def angle(self) -> float:
        """Angle from g1 to g2 in degrees, row towards column positive, between -180 and 180."""
        (y, x), (v, u) = self.g1, self.g2
        return math.degrees(math.atan2(y * u - x * v, y * v + x * u))

    def __str__(self) -> str:
        one, two = (f"({g[0]:.5g}, {g[1]:.5g})" for g in (self.g1, self.g2))
        known = "" if math.isnan(self.share) else f"; {self.share:.0%} of the disks lie on it"
        return f"g1 {one}, g2 {two} {self.unit}, {self.angle:.2f} deg{known}"


def find_basis(
    disks: Any,
    *,
    origin: Any = None,
    g1: Vector | None = None,
    g2: Vector | None = None,
    roi: Any = None,
    refine: bool = True,
) -> LatticeBasis:
    """Find the two shortest vectors of the lattice that most Bragg disks of a scan lie on.

    Parameters
    ----------
    disks
        What `find_disks` returned; with the vectors of `calibrate_disks`, which say in which unit and along which axes
        the basis is.
    origin
        Where the optic axis is at each position, as in `calibrate_disks`; for disks without calibrated vectors.
    g1, g2 : unit of the vectors
        (row, column) of a known basis, roughly: within an eighth of a cell. Without them the basis is found.
    roi : shape of the scan, bool
        Positions to look at, such as one grain or the unstrained substrate.
    refine
        Fit the basis to all disks on the lattice; else it is taken as given, or as the means of the disks' clusters.

    Returns
    -------
    basis
        `LatticeBasis`. One that is found is reduced (g1 and g2 are the shortest), and g2 is turned from g1 in the sense
        from row towards column. Among vectors of the same length g1 is the one that points most in the direction of
        increasing rows, and g2 the one closest to it. A given basis keeps its order and its sense.

    Raises
    ------
    InputError
        The vectors are not centred; g1 and g2 are parallel, or only one of them is given; there are too few disks; no
        lattice explains half of the disks' clusters.

    Notes
    -----
    Clusters are the maxima of the map of all vectors, which hold at least 0.3 times as many disks as the largest one
    beside the direct beam. Of all pairs of the 16 shortest that are not nearly parallel the one is taken whose lattice
    explains most disks, and of those that explain as many the one with the largest cell: clusters of noise give smaller
    ones. Memory: about 110 bytes per disk.

    Examples
    --------
    >>> import stemstore
    >>> disks = stemstore.find_disks(ds, radius=8)  # doctest: +SKIP
    >>> basis = stemstore.find_basis(disks, origin=stemstore.disk_origin(disks))  # doctest: +SKIP
    """
    disks, table = centred(disks, origin)
    unit, axes = unit_of(disks), axes_of(disks)
    used = _wanted(disks, table, roi)
    q = vectors_of(disks)[used[table.position]]
    if (g1 is None) != (g2 is None):
        msg = "g1 and g2 belong together: give both, or neither"
        raise InputError(msg, key="g1")
    if g1 is None or g2 is None:
        found = search_basis(q, np.where(used, table.n_disks.reshape(-1), 0))
        basis = LatticeBasis(_pair(found[:, 0]), _pair(found[:, 1]), unit)
    else:
        basis = LatticeBasis(_pair(g1), _pair(g2), unit)
    if refine:
        basis = _refined(basis, q)
    return replace(basis, axes=axes, share=_share(basis, q))


def centred(disks: Any, origin: Any = None) -> tuple[xr.Dataset, DiskTable]:
    """Give disks with calibrated vectors, and their table.

    Parameters
    ----------
    disks
        What `find_disks` or `calibrate_disks` returned.
    origin
        As in `calibrate_disks`, for disks without calibrated vectors.

    Raises
    ------
    InputError
        The vectors are not centred: there are none, no origin is given and the scan has none; or they are centred
        already and an origin is given all the same.
    """
    table = table_of(disks)
    if all(name in disks for name in VECTORS):
        if origin is not None:
            msg = "the disks have calibrated vectors already, so that origin= has no meaning; leave it out"
            raise InputError(msg, key="origin")
        return calibrated(disks), table
    if origin is None and not _knows_axis(disks):
        msg = (
            "the vectors are not centred: the disks are in pixels of the detector, and neither they nor the detector "
            "tell where the optic axis is; pass origin=disk_origin(disks), or the result of calibrate_disks"
        )
        raise InputError(msg, key="origin")
    return calibrate_disks(disks, origin=origin), table


def vectors_of(disks: xr.Dataset) -> FloatArray:
    """Give the calibrated vectors of all disks, (P, 2), row first."""
    return np.stack([np.asarray(disks[name].values, np.float64) for name in VECTORS], axis=1)


def unit_of(disks: xr.Dataset) -> str:
    """Give the unit of calibrated vectors."""
    return str(disks[VECTORS[0]].attrs["units"])


def axes_of(disks: xr.Dataset) -> str:
    """Tell what calibrated vectors lie along: ``"detector"`` or ``"scan"``."""
    return "scan" if "rotation_deg" in disks[VECTORS[0]].attrs else "detector"


def as_basis(given: Any, unit: str, axes: str | None) -> LatticeBasis:
    """Give a basis for vectors in a unit and along some axes.

    Parameters
    ----------
    given
        `LatticeBasis`, or a pair (g1, g2) in that unit.
    unit, axes
        Of the vectors.

    Raises
    ------
    InputError
        Units or axes differ, or it is no basis.
    """
    if isinstance(given, LatticeBasis):
        if given.unit != unit:
            msg = f"the basis is in {given.unit!r} and the vectors are in {unit!r}; find the basis of these disks"
            raise InputError(msg, key="basis", found=given.unit, expected=unit)
        if given.axes not in (None, axes):
            msg = (
                f"the basis lies along the axes of the {given.axes}, the vectors along those of the {axes}; find the "
                "basis of these vectors"
            )
            raise InputError(msg, key="basis", found=given.axes, expected=axes)
        return given
    if not isinstance(given, (tuple, list, np.ndarray)) or len(given) != SIDE:
        msg = f"a basis is what find_basis returns, or a pair (g1, g2) of vectors, not {type(given).__name__}"
        raise InputError(msg, key="basis", found=type(given).__name__)
    return LatticeBasis(_pair(given[0]), _pair(given[1]), unit, axes)


def _pair(given: Any) -> Vector:
    values = np.asarray(given)
    if values.shape != (SIDE,) or values.dtype.kind not in "iuf":
        msg = f"a basis vector is a pair of numbers (row, column), got {given!r}; correct it"
        raise InputError(msg, key="g1", found=values.shape, expected=(SIDE,))
    return float(values[0]), float(values[1])


def _knows_axis(disks: xr.Dataset) -> bool:
    """Whether the disks carry an origin, or the detector axes count from the optic axis or name its pixel."""
    if all(name in disks.coords for name in ORIGIN):
        return True
    about = [disks.coords[name].attrs for name in DIMS if name in disks.coords]
    return len(about) == SIDE and all(one.get("units", "pixel") != "pixel" or "optic_axis" in one for one in about)


def _wanted(disks: xr.Dataset, table: DiskTable, roi: Any) -> BoolArray:
    """Positions that take part, flat."""
    used = table.processed.reshape(-1)
    inside: BoolArray = used if roi is None else used & map_of(scan_of(disks, table), roi, "roi", bool).reshape(-1)
    return inside


def _share(basis: LatticeBasis, q: FloatArray) -> float:
    m = np.linalg.solve(basis.matrix, q.T)
    return float((np.abs(m - np.rint(m)) <= ASTRAY).all(axis=0).mean()) if len(q) else math.nan


def _refined(basis: LatticeBasis, q: FloatArray) -> LatticeBasis:
    """Fit a basis to the vectors on its lattice: low orders first, which tell where to expect the others."""
    matrix, zero = basis.matrix, np.zeros(SIDE)
    reach = min(basis.lengths) / 4
    for limit in (LOW_ORDER, *[LARGEST] * ROUNDS):
        m = np.rint(np.linalg.solve(matrix, (q - zero).T))
        near = (np.abs(m) <= limit).all(axis=0) & (np.hypot(*(q.T - zero[:, None] - matrix @ m)) <= reach)
        design = np.concatenate([np.ones((1, near.sum())), m[:, near]]).T
        found, _, rank, _ = np.linalg.lstsq(design, q[near], rcond=None)
        if rank < len(found):
            msg = (
                f"the {int(near.sum())} disks near the lattice of g1 = {basis.g1} and g2 = {basis.g2} do not tell both "
                "vectors; correct g1 and g2, find more disks, or pass refine=False"
            )
            raise InputError(msg, key="g1", found=int(near.sum()))
        zero, matrix = found[0], found[1:].T
    return LatticeBasis(_pair(matrix[:, 0]), _pair(matrix[:, 1]), basis.unit)
