"""Spellings, multiples and conversions of units."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore_schemas import UNITS, UnitError, convert_value, parse_quantity, parse_scaled_unit, parse_unit

SYNONYMS = {
    "angstrom": ["A", "\u00c5", "\u212b", "Angstrom", "angstrom", "[A]", "A\N{COMBINING RING ABOVE}"],
    "1/angstrom": ["A^-1", "1/A", "\u00c5^-1", "1/\u212b", "1 / \u00c5", "$A^{-1}$", "\u00c5\u207b\u00b9", "[A^-1]"],
    "1/nm": ["1/nm", "nm^-1", "1 / nm", "[n_m^-1]", "n_m^-1", "nm\u207b\u00b9"],
    "nm": ["[n_m]", "n_m", " nm "],
    "mrad": ["mrad", "mrads", "[m_rad]"],
    "rad": ["Angle", "[rad]"],
    "pixel": ["pixels", "px", "", "[]"],
    "deg": ["°", "degrees"],
    "s": ["sec", "[s]"],
    "count": ["counts"],
}
PAIRS = [(text, unit) for unit, texts in SYNONYMS.items() for text in texts]


def test_the_list_of_units_is_closed():
    """The stored units are exactly these thirteen."""
    assert set(UNITS) == {
        "nm", "angstrom", "1/angstrom", "1/nm", "mrad", "rad", "pixel", "keV", "kV", "mm", "s", "deg", "count"
    }  # fmt: skip


@pytest.mark.parametrize(("text", "unit"), PAIRS)
def test_synonyms_are_read(text, unit):
    """Spellings of other programs become listed units."""
    assert parse_unit(text) == unit


@pytest.mark.parametrize("unit", UNITS)
def test_listed_units_are_themselves(unit):
    """A listed unit is read as itself."""
    assert parse_unit(unit) == unit


@pytest.mark.parametrize("text", ["A^-1", "A", "$A^{-1}$", "px"])
def test_spellings_that_pint_misreads_are_never_listed(text):
    """What unit libraries read as ampere or CSS pixel is understood but not stored."""
    assert text not in UNITS
    assert parse_unit(text) in UNITS


@pytest.mark.parametrize("text", ["furlong", "e", "electron", "e_per_A2", "NM", "Mrad", "a.u.", "nm^2", "K"])
def test_unknown_units_are_refused(text):
    """A foreign unit is refused with its text and the list."""
    with pytest.raises(UnitError, match=r"unknown unit .* expected one of nm, angstrom, 1/angstrom") as caught:
        parse_unit(text)
    assert caught.value.text == text
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["um", "\u00b5m", "\u03bcm", "m", "pm", "V", "eV", "ms", "1/m"])
def test_multiples_are_refused_where_values_would_need_rescaling(text):
    """A multiple is no spelling of a listed unit; the message gives the factor."""
    with pytest.raises(UnitError, match="rescale the values by"):
        parse_unit(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u00b5m", (1000.0, "nm")), ("\u03bcm", (1000.0, "nm")), ("[u_m]", (1000.0, "nm")), ("m", (1000.0, "mm")),
        ("pm", (0.001, "nm")), ("1/m", (1e-9, "1/nm")), ("\u00b5s", (1e-6, "s")), ("V", (0.001, "kV")),
        ("eV", (0.001, "keV")), ("nm", (1.0, "nm")),
    ],
)  # fmt: skip
def test_scaled_units(text, expected):
    """Multiples lead to a listed unit with the factor of the values."""
    assert parse_scaled_unit(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5nm", (0.5, "nm")), ("300 keV", (300.0, "keV")), ("21.4 mrad", (21.4, "mrad")), ("-3deg", (-3.0, "deg")),
        ("0.02 1/angstrom", (0.02, "1/angstrom")), ("55 um", (55000.0, "nm")), ("0.1 \u00b5m", (100.0, "nm")),
        ("7us", (7e-6, "s")), ("300000 V", (300.0, "kV")), ("1.1e2 mm", (110.0, "mm")), (".5 A", (0.5, "angstrom")),
        ("2 1/nm", (2.0, "1/nm")),
    ],
)  # fmt: skip
def test_quantities(text, expected):
    """A number with a unit is read, and rescaled exactly where it is a multiple."""
    assert parse_quantity(text) == expected


def test_bare_numbers_need_a_default_unit():
    """A number alone is taken only where the unit was agreed."""
    assert parse_quantity(" 300 ", "keV") == (300.0, "keV")
    with pytest.raises(UnitError, match="'300' has no unit; append one of nm"):
        parse_quantity("300")


@pytest.mark.parametrize("text", ["", "nm", "nan nm", "1/nm", "0,5 nm", "1 2 nm", "0.02/nm", "5 e-"])
def test_quantities_that_are_none(text):
    """Text without a leading number or with another rest is refused."""
    with pytest.raises(UnitError, match=r"does not start with a number|unknown unit"):
        parse_quantity(text, "nm" if text else None)


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (1.0, "nm", "angstrom", 10.0), (3.0, "angstrom", "nm", 0.3), (1.0, "1/angstrom", "1/nm", 10.0),
        (3.0, "1/nm", "1/angstrom", 0.3), (1.0, "mm", "nm", 1e6), (21.4, "mrad", "rad", 0.0214),
        (180.0, "deg", "rad", 3.141592653589793), (90.0, "deg", "mrad", 1570.7963267948966), (2.5, "s", "s", 2.5),
    ],
)  # fmt: skip
def test_conversions(value, source, target, expected):
    """Units of one dimension convert by their ratio."""
    assert convert_value(value, source, target) == pytest.approx(expected, rel=1e-15)


@given(st.floats(-1e9, 1e9), st.sampled_from(UNITS), st.sampled_from(UNITS))
def test_conversion_and_back_is_identity_or_refused(value, source, target):
    """Conversion either returns or refuses, and in both directions alike."""
    try:
        there = convert_value(value, source, target)
    except UnitError:
        with pytest.raises(UnitError, match="cannot convert"):
            convert_value(value, target, source)
    else:
        assert convert_value(there, target, source) == pytest.approx(value, rel=1e-15, abs=1e-300)


def test_voltage_is_no_energy():
    """Volts do not become electronvolts silently."""
    with pytest.raises(UnitError, match=r"'kV'.*'keV'.*energy_from_voltage"):
        convert_value(300.0, "kV", "keV")


def test_conversion_refuses_unlisted_units():
    """Conversion speaks of listed units only."""
    with pytest.raises(UnitError, match=r"unknown unit 'A'.*parse_unit"):
        convert_value(1.0, "A", "nm")


def test_unit_errors_cross_processes():
    """The offending text survives pickling."""
    error = pickle.loads(pickle.dumps(UnitError("wrong", "um")))  # our own object, made on this line
    assert (str(error), error.text) == ("wrong", "um")
