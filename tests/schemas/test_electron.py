"""Beam electrons."""

import pytest

from stemstore_schemas import energy_from_voltage, wavelength


@pytest.mark.parametrize(("energy", "expected"), [(80, 0.0417572), (200, 0.0250793), (300, 0.0196875)])
def test_wavelength_has_the_tabulated_values(energy, expected):
    """The relativistic wavelength agrees with published tables to their last digit."""
    assert wavelength(energy) == pytest.approx(expected, abs=5e-8)


@pytest.mark.parametrize("energy", [0, -1, float("nan"), float("inf")])
def test_wavelength_needs_an_energy(energy):
    """Energies that no beam has are refused."""
    with pytest.raises(ValueError, match=r"beam energy is .* keV, expected a positive finite number"):
        wavelength(energy)


def test_a_voltage_in_kilovolt_gives_the_energy_in_kiloelectronvolt():
    """The number stays, the quantity changes."""
    assert energy_from_voltage(300.0) == 300.0
