"""Virtual images from disks: where a disk counts, what it counts, and how detectors follow the origin."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.ops.disks.calibration import calibrate_disks
from stemstore.ops.disks.image import disk_image
from stemstore.ops.disks.views import select_disks
from stemstore.ops.geometry.detectors import annulus, disk, point, rectangle, sector
from stemstore.scan.calibrate import calibrate
from stemstore.testing.arrays import ArrayFrames
from stemstore.testing.disks import lattice_disks


@pytest.fixture
def moving():
    """Disks whose origin moves, and the origin."""
    y, x = np.indices((4, 5))
    places = np.stack([44.25 + y, 54.5 - 0.5 * x], -1)
    return lattice_disks(origin=places), (places[..., 0], places[..., 1])


def test_the_central_disk(moving):
    """A detector that follows the origin has the unscattered disk inside everywhere; one at rest does not."""
    disks, origin = moving
    image = disk_image(disks, disk(1), origin=origin)
    np.testing.assert_allclose(image, 1000)
    assert image.dims == ("y", "x")
    assert image.units == "count"
    y, x = np.indices((4, 5))
    at_rest = disk_image(disks, disk(1), weights=None)
    np.testing.assert_array_equal(at_rest, np.hypot(y - 0.25, 0.5 * x) < 1)
    np.testing.assert_allclose(disk_image(disks, disk(1), weights="correlation", origin=origin), 100)


@pytest.mark.parametrize(
    ("shape", "inside"),
    [
        (annulus(15, 25), lambda y, x: (np.hypot(y, x) >= 15) & (np.hypot(y, x) < 25)),
        (
            sector(0, 40, -30, 45),
            lambda y, x: (np.hypot(y, x) < 40) & (np.abs(np.degrees(np.arctan2(y, x)) - 7.5) < 37),
        ),
        (disk(12, center=(60, 70)), lambda y, x: np.hypot(y - 15.5, x - 15.5) < 12),
        (rectangle((30, 50), (50, 110)), lambda y, x: (y >= -14.5) & (y < 5.5) & (x >= -4.5) & (x < 55.5)),
    ],
)
def test_shapes(moving, shape, inside):
    """Shapes are compared with the exact place of a disk."""
    disks, origin = moving
    vectors = calibrate_disks(disks, origin=origin)
    counted = inside(vectors.gy.values, vectors.gx.values)
    expected = np.add.reduceat(np.where(counted, disks.intensity, 0.0), disks.offset.values[:-1]).reshape(4, 5)
    assert (expected > 0).all()
    np.testing.assert_allclose(disk_image(disks, shape, origin=origin), expected, rtol=1e-6)


def test_points_and_arrays(moving):
    """Of points and arrays the pixel counts in which a disk lies; outside of an array it counts nothing."""
    disks, origin = moving
    y, x = np.indices((4, 5))
    there = disk_image(disks, point(46, 54), weights=None)
    np.testing.assert_array_equal(there, (y == 2) & (x <= 2))  # of x = 0 and 2 the even column is the nearest
    weights = np.zeros((90, 110))
    weights[44, 54] = 0.5
    image = disk_image(disks, weights, origin=origin)
    assert image.values[0, 0] == 500
    far = disk_image(disks, np.ones((90, 110), bool), weights=None, origin=(np.full((4, 5), 300.0), origin[1]))
    assert (far == 0).all()


def test_several_detectors_and_positions_without_disks(moving):
    """A dict gives a dataset; where no disks were looked for there is no number."""
    disks, origin = moving
    roi = np.ones((4, 5), bool)
    roi[2, 2] = False
    found = disk_image(select_disks(disks, roi=roi), {"bf": disk(5), "df": annulus(5, 30)}, origin=origin)
    assert set(found.data_vars) == {"bf", "df"}
    assert np.isnan(found.df.values).tolist() == (~roi).tolist()
    assert found.processed.values.tolist() == roi.tolist()
    assert "annulus(inner=5, outer=30)" in found.df.history


def test_units_and_ellipse(dataset_of):
    """Radii are in the unit of the axes or the one that is named, and round where the scan has an ellipse."""
    scan = dataset_of(ArrayFrames(np.zeros((4, 5, 90, 110), np.uint8)), detector_step=0.5)
    scan = calibrate(scan, ellipse={"a": 2, "b": 1, "theta": 0})
    bent = lattice_disks(
        lattice=((20, 0), (0, 20)), distortion=[[2, 0], [0, 1]], coords=scan.coords, attrs=scan.intensity.attrs
    )
    one = disk_image(bent, annulus(9, 11), weights=None)
    assert (one == 4).all()
    assert disk_image(bent, annulus(19, 21, unit="pixel"), weights=None).equals(one)


def test_refusals(moving):
    """Weights on pixels, complex ones, and what is no detector are refused."""
    disks, origin = moving
    for shape, text in [
        (disk(5, antialias=True), "a disk is a point; leave out antialias"),
        (np.ones((90, 110), complex), "is complex; give real weights"),
        (np.ones((9, 9)), "detector weights have shape"),
        ({}, "the dict of detectors is empty"),
    ]:
        with pytest.raises(InputError, match=text):
            disk_image(disks, shape)
    with pytest.raises(InputError, match="weights 'gy' are not known"):
        disk_image(disks, disk(3), weights="gy")
    with pytest.raises(InputError, match="not finite at 20 positions"):
        disk_image(disks, disk(3), origin=(origin[0] * np.nan, origin[1]))
