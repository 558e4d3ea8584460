"""The centre of mass has the right value, order, sign and unit."""

import numpy as np
import pytest
import scipy.ndimage

import stemstore
from stemstore.errors import InputError
from stemstore.testing.arrays import ArrayEvents, ArrayFrames


def spots(rows, columns):
    """3 x 3 scan of 3 x 3 frames with one bright pixel each."""
    frames = np.zeros((3, 3, 3, 3), np.uint16)
    y, x = np.indices((3, 3))
    frames[y, x, rows(y, x), columns(y, x)] = 5
    return frames


@pytest.mark.parametrize("source", [ArrayFrames, ArrayEvents])
@pytest.mark.parametrize(
    ("rows", "columns", "com_y", "com_x"),
    [
        (lambda y, x: y, lambda y, x: x, lambda y, x: y - 1, lambda y, x: x - 1),
        (lambda y, x: 2 - y, lambda y, x: 2 - x, lambda y, x: 1 - y, lambda y, x: 1 - x),
        (lambda y, x: x, lambda y, x: 2 - y, lambda y, x: x - 1, lambda y, x: 1 - y),
    ],
    ids=["along", "against", "turned"],
)
def test_exact_vectors(dataset_of, source, rows, columns, com_y, com_x):
    """One bright pixel: com_y is its row and com_x its column, relative to the middle."""
    com = stemstore.center_of_mass(dataset_of(source(spots(rows, columns))))
    y, x = np.indices((3, 3))
    np.testing.assert_array_equal(com.com_y, com_y(y, x))
    np.testing.assert_array_equal(com.com_x, com_x(y, x))


@pytest.mark.parametrize("detector", [None, stemstore.disk(4)], ids=["whole", "disk"])
def test_agrees_with_scipy(scan, counts, detector):
    """Every frame agrees with an independent implementation, masked or not."""
    com = stemstore.center_of_mass(scan, mask=detector, center=(0, 0)).compute()
    mask = np.ones((14, 10)) if detector is None else detector.weights(scan.intensity)
    expected = np.array([[scipy.ndimage.center_of_mass(f * mask) for f in row] for row in counts])
    np.testing.assert_allclose(np.stack([com.com_y, com.com_x], -1), expected, rtol=1e-12)
    np.testing.assert_array_equal(com.total, (counts * mask).sum((2, 3)))


def test_cropped_detectors_keep_the_coordinates(scan, counts):
    """On part of the detector, even a strided part, the result is in the same coordinates."""
    for part in (slice(3, 9), slice(1, None, 3), [2, 2, 7]):
        com = stemstore.center_of_mass(scan.isel(ky=part), center=(0, 0))
        cut = counts[:, :, part].astype(float)
        rows = np.arange(14.0)[part]
        np.testing.assert_allclose(com.com_y, np.einsum("yxij,i->yx", cut, rows) / cut.sum((2, 3)), rtol=1e-12)


def test_units_follow_the_calibration(dataset_of, counts):
    """In 1/angstrom the result is the pixel result times the step, relative to the optic axis."""
    ds = dataset_of(ArrayFrames(counts), detector_step=("2 mrad", "3 mrad"), beam_energy=300, detector_center=(5, 4))
    com = stemstore.center_of_mass(ds)
    pixel = stemstore.center_of_mass(ds, unit="pixel", center=(5, 4))
    assert com.com_y.attrs["units"] == "1/angstrom"
    np.testing.assert_allclose(com.com_y, pixel.com_y * 2e-3 / 0.0196875, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(com.com_x, pixel.com_x * 3e-3 / 0.0196875, rtol=1e-5, atol=1e-12)
    mrad = stemstore.center_of_mass(ds, unit="mrad")
    np.testing.assert_allclose(mrad.com_x, pixel.com_x * 3, rtol=1e-9, atol=1e-12)


def test_empty_and_missing_frames_are_nan_and_leave_neighbours_alone(frames_of, counts):
    """No electrons, or no frame at all, gives NaN."""
    frames, validity = counts.copy(), np.full(counts.shape[:2], 2)
    frames[2, 3] = 0
    validity[4, 5] = 0
    com = stemstore.center_of_mass(frames_of(frames, validity)).compute()
    assert np.argwhere(np.isnan(com.com_y.values)).tolist() == [[2, 3], [4, 5]]
    assert com.valid.values[4, 5] == 0


def test_mask_must_be_boolean(scan):
    """Real weights are not a mask."""
    with pytest.raises(InputError, match="boolean"):
        stemstore.center_of_mass(scan, mask=np.ones((14, 10)))


def test_sums_stay_exact_beyond_32_bits(frames_of):
    """Moments of full-scale 16-bit frames do not overflow."""
    frames = np.full((1, 1, 300, 301), 65535, np.uint16)
    com = stemstore.center_of_mass(frames_of(frames), center=(0, 0))
    assert com.total.values.item() == 65535 * 300 * 301
    assert com.com_x.values.item() == 150.0
