"""Detector shapes have half-open edges and partition the detector."""

import numpy as np
import pytest

import stemstore
from stemstore.errors import InputError


def test_adjoining_rings_partition_the_disk(scan):
    """Rings that touch share no pixel and leave none out."""
    weights = [stemstore.annulus(a, b).weights(scan.intensity) for a, b in [(0, 2), (2, 3.5), (3.5, 5)]]
    np.testing.assert_array_equal(sum(w.astype(int) for w in weights), stemstore.disk(5).weights(scan.intensity))


def test_disk_leaves_out_its_radius_and_ring_takes_its_inner_one(scan):
    """A pixel at exactly the radius is outside the disk and inside the ring that begins there."""
    image = scan.intensity
    center = (6.0, 4.0)
    assert not stemstore.disk(2, center=center).weights(image)[8, 4]
    assert stemstore.annulus(2, 3, center=center).weights(image)[8, 4]


def test_default_centre_is_the_middle_of_the_stored_frame(scan):
    """Cropping the detector does not move the optic axis."""
    full = stemstore.disk(3).weights(scan.intensity)
    part = stemstore.disk(3).weights(scan.intensity.isel(ky=slice(3, None)))
    np.testing.assert_array_equal(part, full[3:])
    np.testing.assert_array_equal(full, full[::-1, ::-1])


def test_rectangle_and_point_are_exact(scan):
    """A rectangle is half-open; a point is one pixel."""
    box = stemstore.rectangle((2, 5), (1, 3)).weights(scan.intensity)
    assert box.sum() == 6
    assert box[2:5, 1:3].all()
    spot = stemstore.point(4.4, 7.6).weights(scan.intensity)
    assert spot.sum() == 1
    assert spot[4, 8]


@pytest.mark.parametrize("radii", [(3, 3), (4, 2), (-1, 2), (0, np.nan), (0, np.inf)], ids=str)
def test_impossible_radii_are_refused(radii):
    """Inner must be below outer, and both finite."""
    with pytest.raises(InputError, match="inner < outer"):
        stemstore.annulus(*radii)


def test_empty_rectangles_are_refused():
    """A range that ends before it begins names its axis."""
    with pytest.raises(InputError, match="along kx"):
        stemstore.rectangle((0, 1), (3, 3))
