"""Electrons of a given beam energy."""

from __future__ import annotations

import math

# CODATA 2018 (Tiesinga et al., Rev. Mod. Phys. 93, 025010, 2021)
_HC = 12398.419843320026  # Planck constant times speed of light, eV angstrom (exact by definition of the SI)
_REST_ENERGY = 510998.95000  # electron mass times speed of light squared, eV


def wavelength(beam_energy: float) -> float:
    """Relativistic wavelength of beam electrons.

    Parameters
    ----------
    beam_energy : unit keV
        Kinetic energy of the electrons.

    Returns
    -------
    wavelength : unit angstrom

    Raises
    ------
    ValueError
        The energy is not a positive finite number.

    Notes
    -----
    ``lambda = h c / sqrt(E (E + 2 m c^2))``, from the relativistic relation of energy and momentum (L. de Broglie 1924;
    E. J. Kirkland, Advanced Computing in Electron Microscopy, 2nd edition 2010, chapter 2).
    """
    if not (math.isfinite(beam_energy) and beam_energy > 0):
        msg = f"beam energy is {beam_energy!r} keV, expected a positive finite number; state the energy in keV"
        raise ValueError(msg)
    energy = 1000.0 * beam_energy
    return _HC / math.sqrt(energy * (energy + 2 * _REST_ENERGY))


def energy_from_voltage(voltage: float) -> float:
    """Energy (keV) of an electron that was accelerated by `voltage` (kV): the same number, another quantity."""
    return voltage
