"""Size of a detector pixel from what is known about a pattern: lattice spacings, or the convergence angle."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import InputError
from stemstore.ops.calibration.beam import Beam
from stemstore_schemas import Quantity, convert_value, parse_quantity, wavelength

if TYPE_CHECKING:
    from stemstore._types import FloatArray, Int64Array
    from stemstore_schemas import Unit

AMBIGUOUS = 4.0  # by how much chi^2 of the best indexing is smaller than that of the next one, at least: two sigma
MOST_INDEXINGS = 200_000


@dataclass(frozen=True, slots=True, eq=False)
class RingScale:
    """Size of a detector pixel from rings of known spacings.

    Attributes
    ----------
    step
        Quantity in 1/angstrom per pixel, with its standard uncertainty (None for a single ring of unknown error).
    spacings : shape (n,), unit angstrom
        Spacing of each measured ring, in the order of the radii.
    residuals : shape (n,), unit pixel
        Measured minus expected radius.
    chi_square
        Of the radii, with the given uncertainties; with equal ones of 1 pixel where none are given.
    runner_up
        The same for the second best indexing; infinite where there is none.
    """

    step: Quantity
    spacings: FloatArray
    residuals: FloatArray
    chi_square: float
    runner_up: float


def detector_step_from_rings(
    radii: Any, spacings: Any, *, uncertainties: Any = None, unit: Unit = "angstrom"
) -> RingScale:
    """Measure the size of a detector pixel from the radii of rings with known lattice spacings.

    Parameters
    ----------
    radii : shape (n,), unit pixel
        Measured radii of n rings, from `find_rings` for example.
    spacings : shape (m,), m >= n
        Known spacings. With m = n each ring has one; with m > n the assignment (in order, each spacing once) with the
        smallest chi^2 is taken.
    uncertainties : shape (n,), unit pixel
        Standard uncertainties of the radii. Without them the radii count equally and the scatter of the rings about the
        fit is their error.
    unit
        Of the spacings: ``"angstrom"`` or ``"nm"``.

    Returns
    -------
    scale

    Raises
    ------
    InputError
        Numbers that are not positive, fewer spacings than rings, or an indexing that chi^2 does not decide.

    Notes
    -----
    Weighted least squares through the origin, radius = k / step with k = 1 / spacing: 1 / step =
    sum(w k r) / sum(w k^2) with w = 1 / sigma^2. k means 1/d, without 2 pi.
    """
    measured, known = _positive(radii, "radii"), _positive(spacings, "spacings")
    sigma = np.ones_like(measured) if uncertainties is None else _positive(uncertainties, "uncertainties")
    if sigma.shape != measured.shape:
        msg = f"{len(measured)} radii have {len(sigma)} uncertainties; give one for each"
        raise InputError(msg, key="uncertainties", expected=len(measured), found=len(sigma))
    if len(known) < len(measured):
        msg = f"{len(measured)} rings were measured but only {len(known)} spacings are given; leave out the others"
        raise InputError(msg, key="spacings", expected=len(measured), found=len(known))
    length = convert_value(1.0, unit, "angstrom")
    order = np.argsort(measured)
    k = np.sort(1 / (known * length))
    choice, chi, runner_up = _index(measured[order], sigma[order], k, decide=uncertainties is not None)
    chosen = np.empty(len(measured))
    chosen[order] = k[choice]
    weight = sigma**-2.0
    slope = float((weight * chosen * measured).sum() / (weight * chosen**2).sum())
    residuals = measured - slope * chosen
    error = float((weight * chosen**2).sum() ** -0.5)
    spread: float | None = error / slope**2
    if uncertainties is None:
        free = len(measured) - 1
        spread = None if free == 0 else error * math.sqrt(chi / free) / slope**2
    step = Quantity(value=1 / slope, unit="1/angstrom", source="measured", uncertainty=spread)
    return RingScale(step, 1 / chosen, residuals, chi, runner_up)


def detector_step_from_angle(
    radius: Beam | float,
    semi_convergence_angle: Quantity | float | str,
    beam_energy: Quantity | float | str | None = None,
    *,
    radius_uncertainty: float | None = None,
) -> Quantity:
    """Measure the size of a detector pixel from the radius of the bright-field disk and the convergence angle.

    Parameters
    ----------
    radius : unit pixel
        Of the disk, or the result of `find_beam`, which knows its uncertainty.
    semi_convergence_angle : unit mrad
        Half opening angle of the probe; a Quantity may carry an uncertainty.
    beam_energy : unit keV
        Turns the angle into a reciprocal length; without it the step is in mrad.
    radius_uncertainty : unit pixel
        Standard uncertainty of a radius given as a number.

    Returns
    -------
    step
        Per pixel, in 1/angstrom (in mrad without `beam_energy`). The uncertainty is None where the radius has none.

    Raises
    ------
    InputError
        A number is not positive, or a text is no quantity.

    Notes
    -----
    step = angle / (wavelength radius), small angles; relative uncertainties add in squares.
    """
    size: Any = radius
    if isinstance(radius, Beam):
        size, radius_uncertainty = radius.pixel.radius, radius.pixel.radius_sigma
    angle = _quantity(semi_convergence_angle, "mrad", "semi_convergence_angle")
    pixels = float(_positive([size], "radius")[0])
    value, unit, shares = angle.value / pixels, "mrad", [(angle.uncertainty or 0.0) / angle.value]
    if beam_energy is not None:
        energy = _quantity(beam_energy, "keV", "beam_energy")
        value, unit = value * 1e-3 / wavelength(energy.value), "1/angstrom"
        if energy.uncertainty:
            lengths = [wavelength(energy.value + sign * energy.uncertainty / 2) for sign in (-1, 1)]
            shares.append((lengths[0] - lengths[1]) / wavelength(energy.value))
    spread = None
    if radius_uncertainty is not None:
        spread = value * math.hypot(radius_uncertainty / pixels, *shares)
    return Quantity.model_validate({"value": value, "unit": unit, "source": "measured", "uncertainty": spread})


def _positive(values: Any, name: str) -> FloatArray:
    found = np.atleast_1d(np.asarray(getattr(values, "values", values), dtype=np.float64))
    if found.ndim != 1 or not found.size or not (np.isfinite(found).all() and (found > 0).all()):
        msg = f"{name} must be positive and finite numbers, got {found}"
        raise InputError(msg, key=name, found=str(found))
    return found


def _quantity(value: Quantity | float | str, unit: Unit, name: str) -> Quantity:
    """Give a quantity in a unit."""
    try:
        if isinstance(value, str):
            number, own = parse_quantity(value, unit)
            value = Quantity(value=number, unit=own, source="user")
        found = value.to(unit) if isinstance(value, Quantity) else Quantity(value=value, unit=unit, source="user")
    except (TypeError, ValueError) as error:
        msg = f"{name} = {value!r} is not understood; give a number in {unit}, or a text such as '1.5 {unit}'"
        raise InputError(msg, key=name, found=str(value)) from error
    _positive([found.value], name)
    return found


def _index(radii: FloatArray, sigma: FloatArray, k: FloatArray, *, decide: bool) -> tuple[Int64Array, float, float]:
    """Assign rising k to rising radii by the smallest chi^2; gives the choice, its chi^2 and that of the next one."""
    n_ways = math.comb(len(k), len(radii))
    if n_ways > MOST_INDEXINGS:
        msg = f"{len(k)} spacings for {len(radii)} rings can be assigned in {n_ways} ways; leave out unlikely spacings"
        raise InputError(msg, key="spacings", found=n_ways, expected=MOST_INDEXINGS)
    ways = np.array(list(itertools.combinations(range(len(k)), len(radii))), dtype=np.int64)
    weight = sigma**-2.0
    lines = k[ways]
    slopes = (weight * lines * radii).sum(axis=1) / (weight * lines**2).sum(axis=1)
    chi = (weight * (radii - slopes[:, None] * lines) ** 2).sum(axis=1)
    order = np.argsort(chi)
    best = float(chi[order[0]])
    if len(ways) == 1:
        return ways[0], best, math.inf
    second = float(chi[order[1]])
    # without uncertainties the scatter of the best indexing is the measure
    scale = 1.0 if decide else max(best / max(1, len(radii) - 1), 1e-12 * float((weight * radii**2).sum()))
    if not second - best > AMBIGUOUS * scale:
        shown = [[f"{1 / one:.4g}" for one in lines[number]] for number in order[:2]]
        msg = (
            f"the rings may be {shown[0]} or {shown[1]} angstrom (chi^2 {best:.3g} and {second:.3g}); give the "
            "spacings of these rings alone, or measure more rings"
        )
        raise InputError(msg, key="spacings", found=shown)
    return ways[order[0]], best, second
