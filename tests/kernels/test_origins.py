"""The origin of single frames: exact on ideal disks, the same for frames and events, silent where there is nothing."""

import numpy as np
import pytest

from stemstore.kernels.contract import DetectorRegion
from stemstore.kernels.gaps import encode, slot_offsets
from stemstore.kernels.inversion import Inversion, balance
from stemstore.kernels.origins import COLUMNS, DiskCentre, InversionCentre, OriginKernel, ThresholdCentre
from stemstore.testing.diffraction import Pattern

SHAPE = (40, 44)
PLACES = ((19.5, 21.5), (18.0, 22.0), (17.37, 25.81), (21.9, 19.2))


def disk(centre, radius=6.0, height=100.0):
    """Disk of constant height whose pixels are shares of area."""
    image = np.zeros(SHAPE)
    pattern = Pattern(np.array([centre]), np.ones(1), radius, 1.0, 10.0)
    pattern.add_disk(image, 0)
    return height * image * pattern.disk_area


def measure(method, frames):
    """Run a method as a kernel over a stack of frames."""
    region = DetectorRegion(frames.shape[1:], range(frames.shape[1]), range(frames.shape[2]))
    kernel = OriginKernel(method)
    out = kernel.allocate(len(frames), frames.dtype, region)
    local = np.arange(len(frames))
    kernel.frames(frames, local, out, local, kernel.prepare(region))
    return out


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint64, np.int32, np.float32, np.float64, ">u2"])
def test_com_disk_is_the_centre_of_mass_of_an_ideal_disk(dtype):
    """On a lone disk the window holds it all, so that the answer is its exact centre of mass."""
    frames = np.stack([np.rint(disk(place)) for place in PLACES]).astype(dtype)
    found = measure(DiskCentre(6.0), frames)
    rows, columns = np.indices(SHAPE)
    for frame, row in zip(frames.astype(float), found, strict=True):
        expected = (frame * rows).sum() / frame.sum(), (frame * columns).sum() / frame.sum()
        np.testing.assert_allclose(row[:2], expected, atol=1e-10)
        assert row[2] > 0.97  # the window counts whole pixels


def test_com_disk_is_not_pulled_by_an_even_background():
    """The window follows the disk, so that a background does not pull towards the middle of the frame."""
    frames = np.stack([disk(place) + 40.0 for place in PLACES])
    found = measure(DiskCentre(6.0), frames)
    np.testing.assert_allclose(found[:, :2], PLACES, atol=0.1)  # a window of whole pixels on as much background
    assert (found[:, 2] < 0.7).all()


def test_com_disk_takes_the_brightest_disk_or_the_one_that_is_near():
    """Two disks: the brighter one, unless a place and a distance say otherwise."""
    frame = (disk((10.2, 11.3)) + 0.3 * disk((28.4, 30.1)))[None]
    np.testing.assert_allclose(measure(DiskCentre(6.0), frame)[0, :2], (10.2, 11.3), atol=0.02)
    np.testing.assert_allclose(measure(DiskCentre(6.0, None, (29, 31), 9.0), frame)[0, :2], (28.4, 30.1), atol=0.02)


def test_sigma_of_com_disk_covers_the_truth():
    """Over noise realisations with background the scatter of the origin is its sigma."""
    rng = np.random.default_rng(1)
    frames = rng.poisson(0.03 * disk((19.2, 21.7)) + 0.2, (400, *SHAPE)).astype(np.uint8)
    found = measure(DiskCentre(6.0), frames)
    score = (found[:, :2] - (19.2, 21.7)) / found[:, 3:]
    assert 0.92 < (np.abs(score) < 1.96).mean() < 0.975


def test_com_threshold_is_the_centre_of_mass_of_what_is_bright():
    """With a window of one pixel it equals the plain definition."""
    rng = np.random.default_rng(2)
    frame = rng.integers(0, 1000, SHAPE)
    bright = np.where(frame >= 0.5 * frame.max(), frame, 0)
    rows, columns = np.indices(SHAPE)
    found = measure(ThresholdCentre(0.5, 0), frame[None].astype(np.uint16))[0]
    np.testing.assert_allclose(
        found[:2], ((bright * rows).sum() / bright.sum(), (bright * columns).sum() / bright.sum()), rtol=1e-12
    )


def test_com_threshold_smooths_over_squares():
    """A disk on a weaker background is found alone."""
    frames = np.stack([disk(place) + 20.0 for place in PLACES])
    np.testing.assert_allclose(measure(ThresholdCentre(0.5, 2), frames)[:, :2], PLACES, atol=0.1)


def pairs(centre, spread=5.0):
    """Friedel pairs of unequal brightness, and a bright beam, around a centre."""
    image = 5 * disk(centre, 3.0)
    for number, (row, column) in enumerate([(9.3, 4.1), (-5.2, 11.4), (12.5, -8.7)]):
        for sign in (1, -1):
            image += (number + 1) * disk((centre[0] + sign * row, centre[1] + sign * column), 3.0)
    return image + spread


@pytest.mark.parametrize("stop", [False, True], ids=["open", "beam stop"])
def test_friedel_finds_the_centre_behind_a_beam_stop(stop):
    """The centre of inversion comes from the pairs where the beam itself is hidden."""
    good = np.ones(SHAPE, bool)
    frames = np.stack([pairs(place) for place in PLACES])
    if stop:
        good[15:25, 15:] = False
        frames[:, ~good] = 0
    found = measure(InversionCentre(good), frames)
    np.testing.assert_allclose(found[:, :2], PLACES, atol=0.08 if stop else 0.02)
    assert (found[:, 2] > 0.9).all()
    assert np.isnan(found[:, 3]).all()


def test_friedel_is_exact_on_pixels_and_half_pixels():
    """A frame that is its own inversion to the last bit has its centre of inversion there, with correlation one."""
    rng = np.random.default_rng(3)
    half = rng.random((21, 24))
    frame = np.zeros(SHAPE)
    frame[5:26, 7:31] = half + half[::-1, ::-1]
    row, column, correlation = Inversion.of(np.ones(SHAPE, bool), (15, 19), 3.0).centre(frame)
    assert (row, column) == pytest.approx((15.0, 18.5), abs=1e-3)
    assert correlation == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("shape", ["cone", "bell"])
def test_balance_does_not_ask_for_the_shape_of_a_peak(shape):
    """The middle of cones and of smooth peaks, tilted or not, is found alike."""
    y, x = np.indices((31, 33)) - np.array([15.31, 16.24])[:, None, None]
    rho = np.sqrt(y * y + 0.6 * y * x + 1.5 * x * x)
    score = 1 - rho / 12 if shape == "cone" else np.exp(-rho * rho / 40)
    down, right = balance(score, 15, 16)
    assert (down, right) == pytest.approx((0.31, 0.24), abs=0.02)


METHODS = {"disk": DiskCentre(6.0), "threshold": ThresholdCentre(), "inversion": InversionCentre()}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_frames_without_anything_are_not_measured(method):
    """Zero and all-NaN frames give NaN with quality 0, and leave their neighbours alone."""
    frames = np.stack([np.zeros(SHAPE), pairs((19.5, 21.5)), np.full(SHAPE, np.nan)]).astype(np.float32)
    found = measure(method, frames)
    assert np.isnan(found[[0, 2], :2]).all()
    assert (found[[0, 2], 2] == 0).all()
    np.testing.assert_allclose(found[1, :2], (19.5, 21.5), atol=0.1)


@pytest.mark.parametrize("method", [DiskCentre, ThresholdCentre, InversionCentre])
def test_bad_pixels_are_left_out(method):
    """What a masked pixel or a NaN holds does not matter."""
    good = np.ones(SHAPE, bool)
    good[3, 4] = good[19, 20] = False
    frame = pairs((19.5, 21.5))
    results = []
    for value in (0.0, 1e6, np.nan):
        frame[~good] = value
        made = method(6.0, good=good) if method is DiskCentre else method(good=good)
        results.append(measure(made, frame[None].copy()))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_events_give_what_frames_give(method, monkeypatch):
    """Counted frames, densified a few at a time, give the numbers of dense frames, on a cropped detector as well."""
    monkeypatch.setattr("stemstore.kernels.origins.SCRATCH_PIXELS", 3 * 40 * 44)
    rng = np.random.default_rng(4)
    frames = rng.poisson(0.02 * np.stack([pairs(PLACES[i % 4]) for i in range(8)])).astype(np.uint16)
    events = [np.repeat(np.arange(frame.size), frame.ravel()) for frame in frames]
    indptr = np.concatenate([[0], np.cumsum([len(one) for one in events])]).astype(np.int64)
    gap, slots = encode(indptr, np.concatenate(events).astype(np.uint32))
    offsets = slot_offsets(slots)
    region = DetectorRegion(SHAPE, range(2, 40), range(44))
    kernel = OriginKernel(method)
    local, place = np.array([6, 1, 2, 3, 0]), np.array([0, 5, 1, 2, 4])
    prepared = kernel.prepare(region)
    dense, counted = (kernel.allocate(6, frames.dtype, region) for _ in range(2))
    kernel.frames(frames, local, dense, place, prepared)
    kernel.events(gap, offsets, local, counted, place, prepared)
    np.testing.assert_array_equal(dense, counted)
    assert np.isnan(dense[3, 0])
    assert dense[3, COLUMNS.index("quality")] == 0
