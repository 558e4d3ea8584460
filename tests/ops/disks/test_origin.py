"""Origins from disks: the right disk, its place on the axes, and models that go on from there."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.ops.calibration.origins import fit_origin
from stemstore.ops.disks.calibration import calibrate_disks
from stemstore.ops.disks.origin import disk_origin
from stemstore.ops.disks.views import select_disks
from stemstore.ops.geometry.detectors import annulus
from stemstore.scan.calibrate import calibrate
from stemstore.testing.arrays import ArrayFrames
from stemstore.testing.disks import lattice_disks

Y, X = np.indices((8, 9))
PLACES = np.stack([44.25 + 0.3 * Y - 0.1 * X, 54.5 + 0.2 * X], -1)


@pytest.fixture
def disks():
    """Disks of an uncalibrated scan whose origin is a plane."""
    return lattice_disks((8, 9), origin=PLACES)


def test_nearest(disks):
    """The disk nearest to the optic axis, or to a guess, in pixels with its expected precision."""
    found = disk_origin(disks)
    np.testing.assert_allclose(found.origin_ky, PLACES[..., 0], atol=1e-5)
    np.testing.assert_allclose(found.origin_kx, PLACES[..., 1], atol=1e-5)
    assert found.origin_ky.units == "pixel"
    np.testing.assert_allclose(found.origin_kx_sigma, 0.05)
    assert (found.quality == 1).all()
    other = disk_origin(disks, guess=(66, 58))
    np.testing.assert_allclose(other.origin_ky, PLACES[..., 0] + 20, atol=1e-5)
    np.testing.assert_allclose(other.quality, np.exp(-409 / 900), rtol=1e-5)
    per_position = disk_origin(disks, guess=(PLACES[..., 0] - 2, PLACES[..., 1] + 18))
    np.testing.assert_allclose(per_position.origin_kx, PLACES[..., 1] + 18, atol=1e-5)


def test_brightest_within_reach(disks):
    """The brightest disk, of all or within reach; nothing within reach is NaN of quality 0."""
    found = disk_origin(disks, guess=(70, 60), choose="brightest")
    np.testing.assert_allclose(found.origin_ky, PLACES[..., 0], atol=1e-5)
    near = disk_origin(disks, guess=(66, 58), reach=8, choose="brightest")
    np.testing.assert_allclose(near.origin_ky, PLACES[..., 0] + 20, atol=1e-5)
    far = disk_origin(disks, guess=(54.5, 54.5), reach=9)
    inside = np.hypot(*np.moveaxis(PLACES - 54.5, -1, 0)) <= 9
    assert inside.any()
    assert not inside.all()
    assert np.isfinite(far.origin_kx.values).tolist() == inside.tolist()
    assert (far.quality.values == inside).all()


def test_friedel_pairs_need_no_central_disk():
    """Behind a beam stop the centre of inversion of the others is found, better than single disks are known."""
    noisy = lattice_disks((8, 9), origin=PLACES, noise=0.1)
    hidden = select_disks(noisy, inside=annulus(5, 200), origin=(PLACES[..., 0], PLACES[..., 1]))
    found = disk_origin(hidden, guess=(45, 55), reach=4, choose="friedel")
    error = np.stack([found.origin_ky, found.origin_kx], -1) - PLACES
    assert np.abs(error).max() < 0.1
    pulls = error / np.stack([found.origin_ky_sigma, found.origin_kx_sigma], -1)
    assert pulls.std() == pytest.approx(1, abs=0.15)
    assert found.origin_ky_sigma.mean() < 0.03
    assert found.quality.min() > 0.7
    few = disk_origin(select_disks(noisy, max_peaks=2), guess=(45, 55), reach=4, choose="friedel")
    assert np.isnan(few.origin_kx).all()
    assert (few.quality == 0).all()


def test_on_to_calibrated_vectors(disks):
    """A plane through the measured origins, robust against a missed disk, centres all vectors."""
    weak = np.ones((8, 9), bool)
    weak[3, 3] = False
    holes = select_disks(disks, roi=weak)
    missed = holes.assign(qy=holes.qy.where(holes.correlation < 99.9, holes.qy + 20))
    measured = disk_origin(holes)
    assert np.isnan(measured.origin_ky.values[3, 3])
    assert not measured.processed.values[3, 3]
    for one in (measured, disk_origin(missed, guess=(44, 54))):
        assert "disk_origin" in fit_origin(one).history
    origin = fit_origin(measured, "plane")
    np.testing.assert_allclose(origin.origin_ky, PLACES[..., 0], atol=1e-4)
    found = calibrate_disks(disks, origin=origin)
    first = disks.offset.values[:-1]
    np.testing.assert_allclose(np.hypot(found.gy, found.gx).values[first], 0, atol=1e-4)


def test_partial_frames_take_no_part():
    """The state of the frames goes on with the origins, so that models leave partial ones out."""
    valid = np.full((8, 9), 2, np.uint8)
    valid[2, :4] = 1
    disks = lattice_disks((8, 9), origin=PLACES, coords={"valid": (("y", "x"), valid)})
    found = disk_origin(disks)
    assert found.valid.values.tolist() == valid.tolist()
    assert fit_origin(found).used.values.tolist() == (valid == 2).tolist()


def test_calibrated_axes(dataset_of):
    """Places, precision and reach are in the unit of the axes or the one that is named."""
    scan = dataset_of(ArrayFrames(np.zeros((8, 9, 90, 110), np.uint8)), detector_step=(0.5, 0.25))
    disks = lattice_disks((8, 9), origin=PLACES, coords=scan.coords, attrs=scan.intensity.attrs)
    found = disk_origin(disks, reach=3)
    np.testing.assert_allclose(found.origin_ky, (PLACES[..., 0] - 44.5) * 0.5, atol=1e-5)
    np.testing.assert_allclose(found.origin_kx_sigma, 0.05 * 0.25, rtol=1e-5)
    assert found.origin_kx.units == "mrad"
    pixels = disk_origin(disks, unit="pixel")
    np.testing.assert_allclose(pixels.origin_kx, PLACES[..., 1], atol=1e-5)
    again = calibrate(scan, origin=found)
    np.testing.assert_allclose(again.origin_kx, PLACES[..., 1], atol=1e-5)
    own = lattice_disks((8, 9), origin=PLACES, coords=again.coords, attrs=again.intensity.attrs)
    np.testing.assert_allclose(disk_origin(own, reach=0.01).origin_ky, found.origin_ky, atol=1e-6)


def test_without_precision(disks):
    """Disks without a stated precision leave it open."""
    found = disk_origin(disks.drop_vars("sigma_q"))
    assert np.isnan(found.origin_ky_sigma).all()


def test_refusals(disks):
    """Options that are not known and numbers that are no place are refused."""
    for options, text in [
        ({"choose": "largest"}, "choose='largest' is not known"),
        ({"reach": 0}, "reach = 0 is not a distance above zero"),
        ({"guess": (np.nan, 3)}, "the guess .* is not finite"),
        ({"tolerance": -1}, "tolerance = -1 is not a distance above zero"),
        ({"choose": "friedel"}, "less than a quarter of the shortest"),
        ({"guess": 5}, "an origin is a pair of maps"),
    ]:
        with pytest.raises(InputError, match=text):
            disk_origin(disks, **options)
