"""Calibrated vectors of disks: what is applied, in which order, and that raw positions stay."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.errors import CalibrationMissingError, InputError
from stemstore.ops.disks.calibration import calibrate_disks, calibrated
from stemstore.ops.disks.plane import scan_of, stored, visible
from stemstore.ops.disks.table import table_of
from stemstore.scan.calibrate import calibrate
from stemstore.testing.arrays import ArrayFrames
from stemstore.testing.disks import lattice_disks


@pytest.fixture
def labels(dataset_of):
    """Coordinates and attributes of a calibrated scan whose detector is cut, as its disks carry them."""
    scan = dataset_of(ArrayFrames(np.zeros((4, 5, 96, 120), np.uint8)), detector_step=(0.5, 0.25), scan_step=2)
    y, x = np.indices((4, 5))
    scan = calibrate(scan, detector_center=(45, 60), scan_rotation=30, detector_transpose=True)
    scan = calibrate(scan, origin=(0.1 * y - 0.2, 0.3 * x), ellipse=[[1, 0.02], [0.02, 0.97]])
    scan = scan.isel(ky=slice(4, 94), kx=slice(8, 118))
    return {"coords": scan.coords, "attrs": scan.intensity.attrs}


def expected(disks, origin, ellipse, steps):
    """Vectors by the formula, disk by disk, without rotation."""
    out = []
    raw = np.column_stack([disks.qy, disks.qx]).astype(float) + np.array([4, 8])
    for i in range(20):
        mine = slice(*disks.offset.values[i : i + 2])
        out.append((raw[mine] - origin[i]) @ np.asarray(ellipse).T * steps)
    return np.concatenate(out)


def test_everything_that_the_scan_carries(labels):
    """Centre, ellipse and size of a pixel come from the scan, in this order; the pixels stay."""
    disks = lattice_disks(**labels, noise=0.3)
    found = calibrate_disks(disks)
    y, x = np.indices((4, 5)).reshape(2, -1)
    origin = np.column_stack([45 + (0.1 * y - 0.2) / 0.5, 60 + 0.3 * x / 0.25])
    want = expected(disks, origin, [[1, 0.02], [0.02, 0.97]], [0.5, 0.25])
    np.testing.assert_allclose(np.column_stack([found.gy, found.gx]), want, atol=2e-5)
    assert found.gy.units == found.gx.units == "mrad"
    assert found.qy.equals(disks.qy)
    assert found.gy.origin == "of every position"
    assert found.gx.ellipse_matrix == [1, 0.02, 0.02, 0.97]
    assert found.gy.step == [0.5, 0.25]
    assert "calibrate_disks(unit='mrad'" in found.history


def test_scan_axes(labels):
    """Along the scan axes components are swapped first and rotated then; arguments come before the scan's own."""
    disks = lattice_disks(**labels)
    plain, turned = calibrate_disks(disks), calibrate_disks(disks, axes="scan")
    c, s = np.cos(np.radians(30)), np.sin(np.radians(30))
    np.testing.assert_allclose(turned.gy, c * plain.gx - s * plain.gy, atol=1e-12)
    np.testing.assert_allclose(turned.gx, s * plain.gx + c * plain.gy, atol=1e-12)
    assert (turned.gy.rotation_deg, turned.gy.attrs["transpose"]) == (30.0, 1)
    own = calibrate_disks(disks, axes="scan", rotation=90, transpose=False)
    np.testing.assert_allclose(own.gy, -plain.gx, atol=1e-12)
    np.testing.assert_allclose(own.gy.step, [0.25, 0.5])


def test_nothing(labels):
    """Without origin and ellipse, in pixels, vectors are distances from the optic axis of the detector."""
    disks = lattice_disks(**labels)
    found = calibrate_disks(disks, origin=False, ellipse=False, unit="pixel")
    np.testing.assert_allclose(found.gy, disks.qy + 4.0 - 45, atol=1e-5)
    np.testing.assert_allclose(found.gx, disks.qx + 8.0 - 60, atol=1e-5)
    assert "ellipse_matrix" not in found.gy.attrs
    bare = calibrate_disks(lattice_disks())
    np.testing.assert_allclose(bare.gy, disks.qy - 44.5, atol=1e-5)
    assert bare.gy.units == "pixel"


def test_given_origin_and_ellipse(labels):
    """Maps of places and any form of ellipse take the place of the scan's own."""
    disks = lattice_disks(**labels)
    given = np.full((4, 5), 0.75), np.full((4, 5), -0.5)
    found = calibrate_disks(disks, origin=given, ellipse={"a": 50, "b": 40, "theta": 0})
    np.testing.assert_allclose(found.gy, ((disks.qy + 4.0 - 45) * 0.5 - 0.75) * 0.8, atol=1e-5)
    np.testing.assert_allclose(found.gx, (disks.qx + 8.0 - 60) * 0.25 + 0.5, atol=1e-5)
    assert found.gy.origin == "of every position"


def test_what_was_given_is_carried_on(labels):
    """Origin, ellipse and rotation that were given are those of whatever is done with the result; False takes away."""
    disks = lattice_disks(**labels)
    y, x = np.indices((4, 5))
    given = {"origin": (0.1 * y, 0.2 * x), "ellipse": {"a": 50, "b": 40, "theta": 10}}
    found = calibrate_disks(disks, **given, axes="scan", rotation=7, transpose=False)
    again = calibrate_disks(found.drop_vars(["gy", "gx"]), axes="scan")
    assert again.gy.identical(found.gy)
    assert (again.gx == found.gx).all()
    assert (found.scan_rotation_deg, found.detector_transpose, found.ellipse_b) == (7, 0, 40)
    np.testing.assert_allclose(found.origin_ky, 45 + 0.2 * y)
    assert found.origin_ky.units == "pixel"
    bare = calibrate_disks(found, origin=False, ellipse=False)
    assert not {"origin_ky", "origin_kx"} & set(bare.coords)
    assert "ellipse_matrix" not in bare.attrs
    assert disks.attrs["scan_rotation_deg"] == 30


def test_what_is_known_later(dataset_of):
    """Steps, energy and centre that are known after the disks were found give what a calibrated scan would have."""
    known = {"detector_step": (0.5, 0.25), "detector_center": (40, 60), "beam_energy": 300, "scan_step": 2}
    scan = dataset_of(ArrayFrames(np.zeros((4, 5, 90, 110), np.uint8)))
    ready = calibrate(scan, **known)
    late = calibrate_disks(lattice_disks(coords=scan.coords), **known)
    soon = calibrate_disks(lattice_disks(coords=ready.coords, attrs={"beam_energy_keV": 300.0}))
    np.testing.assert_allclose(late.gy, soon.gy, atol=1e-12)
    for name in ("y", "x", "ky", "kx"):
        assert late[name].variable.identical(ready[name].variable)
    assert late.gx.units == "1/angstrom"
    assert late.beam_energy_keV == 300
    with pytest.raises(InputError, match="'detector_size' is no calibration"):
        calibrate_disks(soon, detector_size=3)


def test_own_vectors_are_kept(labels):
    """Vectors that were calibrated on purpose are used; foreign ones of that name are refused."""
    disks = lattice_disks(**labels)
    mine = calibrate_disks(disks, ellipse=False)
    assert calibrated(mine) is mine
    assert "gy" in calibrated(disks)
    with pytest.raises(InputError, match="not those of calibrate_disks"):
        calibrated(disks.assign(gy=disks.qy, gx=disks.qx))


def test_origin_has_to_be_known_where_disks_are(labels):
    """NaN is refused at a position with disks, and does no harm at one without."""
    disks = lattice_disks(**labels)
    places = np.zeros((2, 4, 5))
    places[0, 1, 2] = np.nan
    with pytest.raises(InputError, match=r"not finite at 1 positions, first at \(1, 2\)"):
        calibrate_disks(disks, origin=tuple(places))
    from stemstore.ops.disks.views import select_disks

    roi = np.isfinite(places[0])
    assert np.isfinite(calibrate_disks(select_disks(disks, roi=roi), origin=tuple(places)).gy).all()


def test_refusals(labels):
    """Unknown axes, a rotation that turns nothing, an unknown rotation and units that differ are refused."""
    disks = lattice_disks(**labels)
    with pytest.raises(InputError, match="axes='sky' is not known"):
        calibrate_disks(disks, axes="sky")
    with pytest.raises(InputError, match="pass axes='scan' with it"):
        calibrate_disks(disks, rotation=30)
    with pytest.raises(InputError, match="scan_rotation = nan is not finite"):
        calibrate_disks(disks, axes="scan", rotation=np.nan)
    with pytest.raises(CalibrationMissingError, match="rotation between detector and scan is not known"):
        calibrate_disks(lattice_disks(), axes="scan")
    mixed = lattice_disks(coords={"kx": ("kx", np.arange(110.0), {"units": "mrad"})})
    with pytest.raises(InputError, match="the detector axes are in 'pixel' and 'mrad'"):
        calibrate_disks(mixed)
    with pytest.raises(CalibrationMissingError, match="cannot be expressed in 'mrad'"):
        calibrate_disks(lattice_disks(), unit="mrad")


@pytest.mark.parametrize("rows", [[3, 4, 5, 6], [9, 7, 5], [1, 2, 5, 6, 9], [4]], ids=["plain", "back", "gaps", "one"])
def test_stored_pixels(rows, frames_of):
    """Rows of a cut detector and stored pixels are each other's inverse, between and beyond pixels too."""
    scan = frames_of(np.zeros((1, 1, 12, 3), np.uint8)).isel(ky=rows)
    disks = lattice_disks((1, 1), (len(rows), 3), coords=scan.coords)
    image = scan_of(disks, table_of(disks))
    assert stored(image, "ky", np.arange(len(rows))).tolist() == rows
    index = np.linspace(-1, len(rows), 13)
    np.testing.assert_allclose(visible(image, "ky", stored(image, "ky", index)), index, atol=1e-12)


def test_pixel_numbers_are_worked_out(labels):
    """Without stored pixel numbers the step and origin of an axis tell them."""
    labels["coords"] = {name: labels["coords"][name] for name in ("ky", "kx", "origin_ky", "origin_kx")}
    disks = lattice_disks(**labels)
    image = scan_of(disks, table_of(disks))
    np.testing.assert_allclose(image.ky_pixel, np.arange(4, 94))
    np.testing.assert_allclose(image.kx_pixel, np.arange(8, 118))
