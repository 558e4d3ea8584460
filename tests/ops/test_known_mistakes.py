"""Mistakes that other programs have made with the same data: each has the right answer here.

Most were reported or measured for py4DSTEM 0.14.18, one for pyxem 0.21, one for LiberTEM 0.16.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.ops.lattice.fit import fit_lattice
from stemstore.ops.lattice.strain import strain_map

STEP = 0.02  # 1/angstrom per pixel
CENTRE = (121.3, 132.8)


@pytest.fixture(scope="module")
def frames():
    """Patterns of 256 x 256 pixels whose beam is off the middle."""
    return np.random.default_rng(0).poisson(3, (2, 3, 256, 256)).astype(np.uint16)


def test_centred_and_calibrated_is_the_same_annulus_as_in_pixels(frames, frames_of):
    """An origin in pixels is never added to radii in 1/angstrom: both descriptions hold the same pixels."""
    plain = frames_of(frames)
    step = f"{STEP} 1/angstrom"
    calibrated = stemstore.calibrate(plain, detector_step=step, detector_center=CENTRE)
    in_pixels = stemstore.virtual_image(plain, stemstore.annulus(20.25, 60.25, center=CENTRE, unit="pixel"))
    for detector in (
        stemstore.annulus(20.25 * STEP, 60.25 * STEP),
        stemstore.annulus(20.25, 60.25, unit="pixel"),
        stemstore.annulus(202.5 * STEP, 602.5 * STEP, unit="1/nm"),
    ):
        np.testing.assert_array_equal(stemstore.virtual_image(calibrated, detector), in_pixels)


def test_axes_after_centring_are_in_one_unit(frames, frames_of):
    """Coordinates run from -origin to size - 1 - origin in pixels, times the step; nothing is mixed."""
    ds = stemstore.calibrate(frames_of(frames), detector_step=f"{STEP} 1/angstrom", detector_center=(128, 128))
    for dim in ("ky", "kx"):
        assert ds[dim].attrs["units"] == "1/angstrom"
        np.testing.assert_allclose(ds[dim].values[[0, 128, 255]], [-2.56, 0.0, 2.54], atol=1e-12)


def test_binning_bright_pixels_does_not_overflow(frames_of):
    """Four pixels of 20 000 counts make 80 000, not 14 464."""
    ds = frames_of(np.full((1, 1, 4, 4), 20_000, np.uint16))
    assert (stemstore.bin_detector(ds, 2) == 80_000).all()
    assert (stemstore.bin_scan(ds, 1) == 20_000).all()


def test_every_frame_of_a_vacuum_region_counts_alike(frames_of):
    """The first frame has the same weight as the others in a mean."""
    frames = np.zeros((1, 4, 3, 3), np.uint16)
    frames[0, 0] = 100
    assert (stemstore.mean_pattern(frames_of(frames)) == 25).all()


def test_a_region_is_where_it_was_asked_for(frames_of):
    """Rows 2 to 4 and columns 1 to 3 are that region, not one of its size in the corner."""
    frames = np.arange(30, dtype=np.uint16).reshape(5, 6, 1, 1) * np.ones((1, 1, 2, 2), np.uint16)
    ds = frames_of(frames)
    expected = frames[2:4, 1:3].mean((0, 1))
    np.testing.assert_array_equal(stemstore.mean_pattern(ds.isel(y=slice(2, 4), x=slice(1, 3))), expected)
    roi = np.zeros((5, 6), bool)
    roi[2:4, 1:3] = True
    np.testing.assert_array_equal(stemstore.mean_pattern(ds, roi=roi), expected)


def test_rectangular_pixels_have_two_steps(frames_of):
    """A disk in physical units is an ellipse of pixels where rows and columns differ in size."""
    rows, columns = np.indices((41, 41)) - 20
    ds = frames_of(np.ones((1, 1, 41, 41), np.uint16), detector_step=("1 mrad", "2 mrad"))
    expected = int((rows**2 + (2 * columns) ** 2 < 12**2).sum())
    assert int(stemstore.virtual_image(ds, stemstore.disk(12)).values[0, 0]) == expected
    com = stemstore.center_of_mass(ds, mask=stemstore.rectangle((2.5, 3.5), (3, 5)))
    np.testing.assert_allclose([com.com_y.values[0, 0], com.com_x.values[0, 0]], [3, 4])


def test_no_template_means_a_synthetic_disk(frames_of):
    """Disks are found without an image of the probe, where they are."""
    rows, columns = np.indices((48, 48))
    frame = 500 * (np.hypot(rows - 15, columns - 30) < 5)
    disks = stemstore.find_disks(frames_of(frame[None, None].astype(np.uint16)), radius=5)
    assert disks.n_disks.values.item() == 1
    np.testing.assert_allclose([disks.qy.item(), disks.qx.item()], [15, 30], atol=0.05)


def test_the_phase_is_in_radians(dataset_of):
    """The integral of the deflection is the phase itself: no factor of 2 pi, no gain below one."""
    size, step = 24, 0.5  # nm
    cosines = [np.cos(np.pi * 2 * (np.arange(size) + 0.5) / size), np.cos(np.pi * 3 * (np.arange(size) + 0.5) / size)]
    phase = 0.7 * np.outer(*cosines)
    slopes = [np.sin(np.pi * m * (np.arange(size) + 0.5) / size) * -np.pi * m / (size * step * 10) for m in (2, 3)]
    com_y, com_x = 0.7 * np.outer(slopes[0], cosines[1]), 0.7 * np.outer(cosines[0], slopes[1])
    along = np.arange(size) * step
    axes = {dim: xr.Variable(dim, along, {"units": "nm", "step": step}) for dim in ("y", "x")}
    about = {"units": "1/angstrom"}
    com = xr.Dataset(
        {"com_y": (("y", "x"), com_y / (2 * np.pi), about), "com_x": (("y", "x"), com_x / (2 * np.pi), about)}, axes
    )
    np.testing.assert_allclose(stemstore.dpc(com, descan="none").phase, phase, atol=1e-12)


def test_rows_come_first_in_every_vector(frames_of):
    """A beam that moved down has a positive com_y; sign and order need no table of conventions."""
    frame = np.zeros((1, 1, 9, 11), np.uint16)
    frame[0, 0, 7, 2] = 5
    com = stemstore.center_of_mass(frames_of(frame))
    assert (float(com.com_y[0, 0]), float(com.com_x[0, 0])) == (3.0, -3.0)


def test_large_integers_are_summed_exactly(frames_of):
    """Sums beyond 2^24 keep their last digit, which single precision would lose."""
    frames = np.full((1, 1, 300, 300), 60_001, np.uint16)
    total = stemstore.virtual_image(frames_of(frames), np.ones((300, 300), bool))
    assert int(total.values[0, 0]) == 300 * 300 * 60_001


def test_an_odd_detector_has_its_middle_in_the_middle(frames_of):
    """The default centre is (n - 1) / 2: a symmetric frame has no deflection, whether n is odd or even."""
    for size in (8, 9):
        com = stemstore.center_of_mass(frames_of(np.ones((1, 1, size, size), np.uint8)))
        assert float(com.com_y[0, 0]) == float(com.com_x[0, 0]) == 0.0


G1, G2 = np.array([24.0, 1.0]), np.array([-2.0, 23.0])


def test_strain_is_returned_and_has_errors(disks_on):
    """The maps are what strain_map returns, before and without any picture; their errors are numbers, not zeros."""
    lattice = fit_lattice(disks_on(np.broadcast_to(np.stack([G1, G2], axis=1), (4, 4, 2, 2)), sigma=0.1), (G1, G2))
    strain = strain_map(lattice, reference=(tuple(G1), tuple(G2)))
    assert list(strain.data_vars)[:4] == ["e_yy", "e_xx", "e_xy", "theta"]
    for name in ("e_yy", "e_xx", "e_xy", "theta"):
        assert 1e-5 < float(strain[f"sigma_{name}"].mean()) < 1e-2
        assert float(abs(strain[name]).max()) < 6 * float(strain[f"sigma_{name}"].max())


def test_turned_strain_keeps_its_names(disks_on):
    """After a quarter turn of the axes e_yy is what was along x, whatever the order of the variables."""
    stretched = np.diag([1 / 1.01, 1 / 1.03]) @ np.stack([G1, G2], axis=1)
    lattice = fit_lattice(disks_on(stretched[None, None]), (G1, G2))
    for angle, along_y, along_x in ((0, 0.01, 0.03), (90, 0.03, 0.01)):
        strain = strain_map(lattice, reference=(tuple(G1), tuple(G2)), axes_rotation=angle)
        np.testing.assert_allclose([strain.e_yy.values, strain.e_xx.values], [[[along_y]], [[along_x]]], atol=1e-6)


def test_tension_of_the_crystal_is_positive(disks_on):
    """Shorter reciprocal vectors are a longer crystal: strain is that of the specimen, not of its pattern."""
    lattice = fit_lattice(disks_on((0.98 * np.stack([G1, G2], axis=1))[None, None]), (G1, G2))
    strain = strain_map(lattice, reference=(tuple(G1), tuple(G2)))
    np.testing.assert_allclose([strain.e_yy.values, strain.e_xx.values], 1 / 0.98 - 1, atol=1e-6)


def test_a_disk_counts_with_its_electrons_not_with_their_square(disks_on):
    """A displaced disk of a tenth of the electrons pulls the lattice a tenth as much as one among equals."""
    pulls = []
    for electrons in (10.0, 100.0):
        counts = np.full(81, 100.0)
        counts[3] = electrons
        disks = disks_on(np.stack([G1, G2], axis=1)[None, None], intensity=counts)
        disks["qy"] = disks.qy + np.where(np.arange(disks.sizes["peak"]) == 3, 2.0, 0.0).astype(np.float32)
        pulls.append(float(fit_lattice(disks, (G1, G2), outliers=np.inf).g1_y[0, 0]) - 24)
    assert pulls[0] / pulls[1] == pytest.approx(0.1, rel=0.1)


def test_a_lattice_point_has_one_disk(disks_on):
    """Of two disks at one lattice point the nearer is fitted; the other does not pull."""
    basis = np.stack([G1, G2], axis=1)
    disks = disks_on(basis[None, None], reach=3)
    columns = {
        name: ("peak", np.append(disks[name], disks[name][3])) for name in ("qy", "qx", "intensity", "correlation")
    }
    columns["qy"][1][-1] += 3
    bounds = {"offset": ("bound", np.array([0, 50])), "n_disks": (("y", "x"), np.array([[50]]))}
    lattice = fit_lattice(disks.drop_dims(["peak", "bound"]).assign(columns | bounds), (G1, G2))
    assert int(lattice.n_used[0, 0]) == 49
    np.testing.assert_allclose(lattice.g1_y, 24, atol=1e-5)
