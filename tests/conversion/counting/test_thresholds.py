"""Thresholds are found from the noise peak, the same way every time, or refused with figures."""

import numpy as np
import pytest

from stemstore.conversion.counting.estimate import Wanted, estimate
from stemstore.conversion.counting.noise import fit_noise_peak
from stemstore.conversion.counting.sampling import sampled_frames
from stemstore.errors import CorruptDataError, InputError
from stemstore.testing.arrays import ArrayFrames


def histogram(values):
    """Counts of 16-bit values."""
    return np.bincount(np.clip(np.rint(values), 0, 65535).astype(int), minlength=65536)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.2])
def test_noise_peak_is_found_under_electrons(share):
    """Mean and width before rounding come out within a few thousandths, however many electrons there are."""
    rng = np.random.default_rng(0)
    noise = rng.normal(20.5, 1.72, 2_000_000)
    electrons = rng.random(len(noise)) < share
    noise[electrons] += rng.exponential(60, electrons.sum()) + 6
    mean, sigma = fit_noise_peak(histogram(noise))
    assert mean == pytest.approx(20.5, abs=0.01)
    assert sigma == pytest.approx(1.72, abs=0.01)


def camera(n=80, shape=(60, 50)):
    """Frames of pure noise with a few electrons."""
    rng = np.random.default_rng(1)
    frames = rng.normal(20.5, 1.8, (n, *shape)) + 80 * (rng.random((n, *shape)) < 1e-3)
    return np.rint(frames).astype(np.uint16)


def test_background_threshold_is_the_mean_plus_n_sigma():
    """The threshold lies where it is asked for, and the expected false events are stated."""
    found = estimate(ArrayFrames(camera()), Wanted(background_sigma=4.5))
    assert found.background == pytest.approx(found.pedestal_mean + 4.5 * found.pedestal_sigma)
    assert found.pedestal_sigma == pytest.approx(np.hypot(1.8, 12**-0.5), abs=0.02)
    assert 0 < found.false_events_per_frame < 1
    assert found.n_frames == 64


def test_estimates_are_the_same_every_time():
    """No random number is involved."""
    assert estimate(ArrayFrames(camera())) == estimate(ArrayFrames(camera()))


def test_given_thresholds_are_taken_and_the_rest_is_estimated():
    """Each limit can be given by itself."""
    both = estimate(ArrayFrames(camera()), Wanted(30, 400))
    assert (both.background, both.xray, both.pedestal_mean) == (30, 400, None)
    one = estimate(ArrayFrames(camera()), Wanted(30))
    assert one.background == 30
    assert one.xray > 300


def test_partial_frames_are_not_sampled():
    """Zeros of lost sectors do not enter the statistics."""
    frames = camera()
    frames[::2, :30] = 0
    validity = np.where(np.arange(len(frames)) % 2, 2, 1)
    source = ArrayFrames(frames, validity)
    assert (sampled_frames(source) % 2 == 1).all()
    assert estimate(source).pedestal_mean == pytest.approx(20.5, abs=0.05)


def test_samples_are_spread_over_the_scan():
    """The samples reach from the first to the last hundredth of a long scan."""
    source = ArrayFrames(np.zeros((20_000, 1, 1), np.uint16))
    chosen = sampled_frames(source)
    assert len(chosen) == 200
    assert chosen[0] < 100
    assert chosen[-1] > 19_900
    assert (np.diff(chosen) == 100).all()


def test_no_complete_frame_is_an_error():
    """Without a complete frame nothing is guessed."""
    with pytest.raises(CorruptDataError, match="none of the 80 frames is complete"):
        estimate(ArrayFrames(camera(), np.ones(80)))


def test_constant_frames_have_no_noise_peak():
    """The message shows the quantiles and the way out."""
    with pytest.raises(CorruptDataError, match=r"no noise peak.*quantiles.*background_threshold="):
        estimate(ArrayFrames(np.full((64, 20, 20), 7, np.uint16)))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.float32, np.float64])
def test_every_pixel_type_has_the_same_thresholds(dtype):
    """Whole numbers are whole numbers, however they are stored."""
    found, plain = estimate(ArrayFrames(camera().astype(dtype))), estimate(ArrayFrames(camera()))
    assert found.background == pytest.approx(plain.background, abs=1e-6)
    assert found.xray == pytest.approx(plain.xray, abs=1e-6)
    assert found.false_events_per_frame == pytest.approx(plain.false_events_per_frame, rel=1e-4)


def test_real_numbers_are_fitted_in_their_own_unit():
    """Frames in other units give thresholds in these units."""
    found = estimate(ArrayFrames(camera() * 0.01 + np.random.default_rng(2).normal(0, 0.01, (80, 60, 50)) - 5))
    assert found.pedestal_mean == pytest.approx(20.5 * 0.01 - 5, abs=2e-4)
    assert found.pedestal_sigma == pytest.approx(0.01 * np.sqrt(1.8**2 + 1 / 12 + 1), rel=0.02)


def test_reversed_thresholds_are_refused():
    """A background at or above the X-ray limit leaves no electrons."""
    with pytest.raises(InputError, match="not below"):
        estimate(ArrayFrames(camera()), Wanted(400, 400))
