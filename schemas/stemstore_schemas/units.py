"""The closed list of units, the spellings met in the wild, and the conversions between listed units.

Every stored value carries one of the texts of `Unit`; unit libraries read each of them as meant. Importers turn foreign
spellings into listed units here and nowhere else. Spellings that unit libraries misread (``A`` is an ampere to pint,
``px`` a CSS length) are understood on import and never written.
"""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import Decimal
from typing import Literal, get_args

Unit = Literal[
    "nm", "angstrom", "1/angstrom", "1/nm", "mrad", "rad", "pixel", "keV", "kV", "mm", "s", "deg", "count"
]  # fmt: skip
"""Units that a store may contain."""

UNITS: tuple[Unit, ...] = get_args(Unit)

_SYNONYMS: dict[str, Unit] = {
    **{unit: unit for unit in UNITS},
    **dict.fromkeys(("A", "Å", "Angstrom", "angstroms", "Angstroms", "ångström", "Ångström"), "angstrom"),
    **dict.fromkeys(("1/A", "1/Å", "1/Angstrom", "A^-1", "Å^-1", "A-1", "Å-1"), "1/angstrom"),
    **dict.fromkeys(("A**-1", "Å**-1", "angstrom^-1", "Angstrom^-1", "angstrom**-1"), "1/angstrom"),
    **dict.fromkeys(("nm^-1", "nm-1", "nm**-1"), "1/nm"),
    **dict.fromkeys(("nanometer", "nanometers", "nanometre", "nanometres"), "nm"),
    **dict.fromkeys(("millimeter", "millimeters", "millimetre", "millimetres"), "mm"),
    **dict.fromkeys(("mrads", "milliradian", "milliradians"), "mrad"),
    **dict.fromkeys(("Angle", "rads", "radian", "radians"), "rad"),
    **dict.fromkeys(("°", "degree", "degrees", "degs"), "deg"),
    **dict.fromkeys(("", "px", "pixels", "Pixels"), "pixel"),
    **dict.fromkeys(("sec", "second", "seconds"), "s"),
    **dict.fromkeys(("counts", "Counts"), "count"),
}
"""Normalised spelling -> listed unit of the same size."""

_MULTIPLES: dict[str, tuple[str, Unit]] = {
    "m": ("1e3", "mm"), "cm": ("10", "mm"), "μm": ("1e3", "nm"), "um": ("1e3", "nm"), "micron": ("1e3", "nm"),
    "pm": ("1e-3", "nm"), "1/m": ("1e-9", "1/nm"), "m^-1": ("1e-9", "1/nm"), "m-1": ("1e-9", "1/nm"),
    "1/pm": ("1e3", "1/nm"), "μrad": ("1e-3", "mrad"), "urad": ("1e-3", "mrad"),
    "ms": ("1e-3", "s"), "μs": ("1e-6", "s"), "us": ("1e-6", "s"), "ns": ("1e-9", "s"),
    "V": ("1e-3", "kV"), "MV": ("1e3", "kV"), "eV": ("1e-3", "keV"), "MeV": ("1e3", "keV"),
}  # fmt: skip
"""Normalised spelling -> exact decimal factor and the listed unit it leads to."""

_SCALES: dict[Unit, tuple[str, float]] = {
    "angstrom": ("length", 1.0), "nm": ("length", 10.0), "mm": ("length", 1e7),
    "1/nm": ("inverse length", 1.0), "1/angstrom": ("inverse length", 10.0),
    "mrad": ("angle", 1.0), "rad": ("angle", 1000.0), "deg": ("angle", 1000.0 * math.pi / 180.0),
    "keV": ("energy", 1.0), "kV": ("voltage", 1.0), "s": ("time", 1.0), "pixel": ("pixel", 1.0),
    "count": ("count", 1.0),
}  # fmt: skip
"""Listed unit -> dimension and its size in the smallest listed unit of that dimension (so that factors stay exact)."""

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(.*)", re.DOTALL)


class UnitError(ValueError):
    """A unit is not known, not listed, or does not fit.

    Attributes
    ----------
    text
        What was given.
    """

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text

    def __reduce__(self) -> tuple[type[UnitError], tuple[str, str]]:
        """Keep the text when the error crosses a process border."""
        return (type(self), (str(self), self.text))


def parse_unit(text: str) -> Unit:
    """Read one spelling of a listed unit.

    Synonyms of the same size are accepted (``A^-1``, ``1 / Å``, ``$A^{-1}$``, bracketed ``[n_m^-1]``, ``pixels``, the
    empty text). Multiples such as micrometre are refused, because their values have to be rescaled as well.

    Raises
    ------
    UnitError
        The text means no listed unit; the message names the text and the list.
    """
    factor, unit = parse_scaled_unit(text)
    if factor != 1.0:
        msg = (
            f"unit {text!r} is not stored as such, expected one of {_listed()}; "
            f"rescale the values by {factor:g} to {unit!r} (parse_scaled_unit or parse_quantity do this)"
        )
        raise UnitError(msg, text)
    return unit


def parse_scaled_unit(text: str) -> tuple[float, Unit]:
    """Read a spelling of a listed unit or of a decimal multiple of one.

    Returns
    -------
    factor, unit
        ``value * factor`` is in `unit`: ``"um"`` gives ``(1000.0, "nm")``, ``"ms"`` gives ``(0.001, "s")``.

    Raises
    ------
    UnitError
        The text means no unit of that kind; the message names the text and the list.
    """
    factor, unit = _look_up(text)
    return float(factor), unit


def parse_quantity(text: str, default_unit: Unit | None = None) -> tuple[float, Unit]:
    """Read a number with its unit, rescaled to a listed unit where it is a multiple.

    Parameters
    ----------
    text
        ``"0.5nm"``, ``"300 keV"``, ``"21.4 mrad"``, ``"0.02 1/angstrom"``, ``"55 um"`` (55000 nm).
    default_unit
        Unit of a bare number; without it a bare number is refused.

    Raises
    ------
    UnitError
        No number, no unit, or an unknown unit.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        msg = f"quantity {text!r} does not start with a number; expected a number and a unit such as '0.5 nm'"
        raise UnitError(msg, text)
    number, rest = match.groups()
    if not rest.strip():
        if default_unit is None:
            msg = f"quantity {text!r} has no unit; append one of {_listed()}"
            raise UnitError(msg, text)
        return float(number), default_unit
    factor, unit = _look_up(rest)
    return float(Decimal(number) * factor), unit


def convert_value(value: float, from_unit: Unit, to_unit: Unit) -> float:
    """Convert a number between two listed units of the same dimension.

    Energy (keV) and voltage (kV) are different dimensions: see `energy_from_voltage`.

    Raises
    ------
    UnitError
        The units have different dimensions, or one of them is not listed.
    """
    for unit in (from_unit, to_unit):
        if unit not in _SCALES:
            msg = f"unknown unit {unit!r}, expected one of {_listed()}; read foreign spellings with parse_unit"
            raise UnitError(msg, unit)
    (dimension, scale), (wanted, target) = _SCALES[from_unit], _SCALES[to_unit]
    if dimension != wanted:
        hint = "use energy_from_voltage" if {dimension, wanted} == {"energy", "voltage"} else "give a value"
        msg = f"cannot convert {from_unit!r} ({dimension}) to {to_unit!r} ({wanted}); {hint} in {to_unit!r}"
        raise UnitError(msg, from_unit)
    if scale == target:
        return value
    # the ratio of the two scales is exact in one direction; divide in the other, so that decimals stay clean
    return value * (scale / target) if scale > target else value / (target / scale)


def _look_up(text: str) -> tuple[Decimal, Unit]:
    key = _normalise(text)
    if key in _SYNONYMS:
        return Decimal(1), _SYNONYMS[key]
    if key in _MULTIPLES:
        factor, unit = _MULTIPLES[key]
        return Decimal(factor), unit
    msg = f"unknown unit {text!r}, expected one of {_listed()}, a synonym or a decimal multiple; state the unit by hand"
    raise UnitError(msg, text)


def _normalise(text: str) -> str:
    """Bring LaTeX, bracketed and Unicode variants of one spelling to one text."""
    # NFKC joins the two code points of micro, those of the angstrom sign, and turns superscripts into digits
    folded = unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-")
    folded = re.sub(r"[\s${}]", "", folded)
    if folded.startswith("[") and folded.endswith("]"):
        folded = folded[1:-1]
    return folded.replace("_", "")


def _listed() -> str:
    return ", ".join(UNITS)
