"""Strain of a simulated gold specimen (multislice, counted): from patterns to maps, against what was put in."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from stemstore.ops.disks.find import find_disks
from stemstore.ops.lattice.basis import find_basis
from stemstore.ops.lattice.fit import fit_lattice
from stemstore.ops.lattice.strain import strain_map

STEP, STRAIN, CELL = 48.0, 0.02, 96.0  # angstrom: place of the step, strain below it, width of the periodic cell
ABOVE, BELOW = slice(0, 8), slice(16, 24)  # rows away from the step


@pytest.fixture(scope="module")
def gold(sample):
    """Load the scan; the origin is at pixel (64, 64)."""
    counts = np.load(sample("sim/au_strain_nanobeam_counts_u16.npz"))["counts"]
    about = json.loads(sample("sim/au_strain_nanobeam.json").read_text(encoding="utf-8"))
    step = about["detector_sampling_invA"][0]
    axis = (np.arange(128) - 64) * step, {"units": "1/angstrom", "step": step, "origin": -64 * step}
    return xr.Dataset({"intensity": (("y", "x", "ky", "kx"), counts)}, {name: (name, *axis) for name in ("ky", "kx")})


def seen_by_the_probe(sample):
    """Strain along y averaged over the intensity of the probe, at the rows of the scan."""
    truth = np.load(sample("sim/au_strain_nanobeam_truth.npz"))
    probe = np.fft.ifftshift((np.abs(truth["probe_complex"]) ** 2).sum(axis=1))
    place = CELL / len(probe) * np.arange(len(probe))
    field = np.where(place >= STEP, STRAIN, 0.0)
    mean = np.fft.ifft(np.fft.fft(field) * np.fft.fft(probe / probe.sum())).real
    return np.interp(truth["scan_x_A"], place, mean)


def test_a_known_strain_is_measured(gold, sample):
    """Lattice parameter, strain and rotation of both halves are those of the specimen within 0.0005.

    The edges of these disks are distorted by the tails of the probe across the step. What counts is the middle of each
    disk: its smoothed correlation, not its edges.
    """
    disks = find_disks(gold, radius=9.75, subpixel="poly")
    basis = find_basis(disks)
    lattice = fit_lattice(disks, basis)
    assert lattice.fitted.all()
    assert 2 / np.mean([float(lattice.g1_y[ABOVE].mean()), float(lattice.g2_x.mean())]) == pytest.approx(
        4.078, rel=2e-3
    )
    region = np.zeros(lattice.fitted.shape, bool)
    region[ABOVE] = True
    strain = strain_map(lattice, reference=region)
    expected = seen_by_the_probe(sample)
    found = float(strain.e_yy[BELOW].mean() - strain.e_yy[ABOVE].mean())
    assert found == pytest.approx(expected[BELOW].mean() - expected[ABOVE].mean(), abs=5e-4)
    assert found == pytest.approx(STRAIN, abs=5e-4)
    for name in ("e_xx", "e_xy", "theta"):
        for half in (ABOVE, BELOW):
            assert abs(float(strain[name][half].mean())) < 5e-4


def test_standard_errors_are_those_of_the_scatter(gold):
    """Where the specimen is uniform the maps scatter by what sigma says, within a third: there are only 9 disks."""
    disks = find_disks(gold.isel(y=ABOVE), radius=9.75, subpixel="newton")
    strain = strain_map(fit_lattice(disks, find_basis(disks)))
    for name in ("e_yy", "e_xx", "e_xy", "theta"):
        ratio = float(strain[name].std()) / np.sqrt(float((strain[f"sigma_{name}"] ** 2).mean()))
        assert 2 / 3 < ratio < 4 / 3
