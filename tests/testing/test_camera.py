"""The camera model has the pedestal, noise and response that it states."""

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.testing import Camera
from stemstore.testing.camera import entry_pixels
from stemstore.testing.detector_kernels import normal_tables, share_charge

SHAPE = (576, 576)
NONE = np.empty((0, 2))
QUIET = Camera(pedestal=20.0, pedestal_spread=0.0, read_noise=0.0, xrays=0.0)


def read(camera, positions=NONE, seed=0, shape=SHAPE):
    return camera.read_out(positions, shape, 7, np.random.default_rng(seed))


def test_empty_frames_have_pedestal_and_noise():
    """Ten empty frames: mean 20.5, variance 1.72^2 + 0.5^2 + 1/12 from rounding."""
    values = np.stack([read(Camera(xrays=0.0), seed=i) for i in range(10)]).astype(float)
    assert values.mean() == pytest.approx(20.5, abs=0.01)
    assert values.var() == pytest.approx(1.72**2 + 0.5**2 + 1 / 12, rel=0.005)


def test_fixed_pattern_stays():
    """The mean over frames shows the pedestal of each pixel, which spreads by 0.5 ADU."""
    camera = Camera(xrays=0.0)
    mean = np.mean([read(camera, seed=i, shape=(64, 64)) for i in range(400)], axis=0)
    pedestal, gain = camera.fixed_pattern((64, 64), 7)
    assert np.std(mean - pedestal) == pytest.approx(np.sqrt((1.72**2 + 1 / 12) / 400), rel=0.1)
    assert pedestal.std() == pytest.approx(0.5, rel=0.05)
    assert (gain == 1).all()


def test_noise_is_gaussian_into_its_tails():
    """Counts above 4 and 4.5 sigma in 60 frames are Poisson around the normal tail."""
    from scipy.stats import norm

    camera = Camera(pedestal=100.0, pedestal_spread=0.0, read_noise=10.0, xrays=0.0)
    values = np.stack([read(camera, seed=i) for i in range(60)])
    for level in (140, 145):
        for tail in ((values >= level).sum(), (values <= 200 - level).sum()):
            expected = values.size * norm.sf((level - 0.5 - 100) / 10)
            assert abs(tail - expected) < 4 * np.sqrt(expected)


def test_noise_has_no_correlation():
    """Neighbours in rows, in columns, four pixels apart and in the next frame are independent."""
    first, second = (read(Camera(pedestal_spread=0.0, xrays=0.0), seed=i).astype(float) - 20.5 for i in range(2))
    limit = 4 / np.sqrt(first.size)
    pairs = [
        (first[:, 1:], first[:, :-1]),
        (first[1:], first[:-1]),
        (first[:, 4:], first[:, :-4]),
        (first[:, 16:], first[:, :-16]),
        (first, second),
    ]
    for a, b in pairs:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < limit


def test_normal_tables_are_those_of_the_normal_distribution():
    """Lanes with refined tails have unit variance, meet without a gap and reach 5.9 sigma."""
    lanes, tail = (table.astype(float) for table in normal_tables())
    variance = ((lanes[16:-16] ** 2).sum() + 2 * 16 * (tail**2).mean()) / 65536
    assert variance == pytest.approx(1, abs=1e-6)
    assert tail[-1] < lanes[16] < tail[-1] + 0.01
    assert tail[0] == pytest.approx(-5.896, abs=1e-3)


def test_centred_electron_shares_its_charge():
    """An electron in the middle of a pixel leaves erf(0.5 / (0.42 sqrt 2))^2 = 0.5870 of its charge there."""
    signal = np.zeros((7, 7), np.float32)
    share_charge(signal, np.array([[3.0, 3.0]]), np.array([100.0]), np.ones((7, 7), np.float32), 0.42)
    assert signal[3, 3] == pytest.approx(58.70, abs=0.01)
    assert signal[3, 2] == signal[2, 3] == signal[4, 3] == pytest.approx(signal[3, 4])
    assert signal.sum() == pytest.approx(100, abs=0.1)
    assert np.count_nonzero(signal) == 9


def test_electron_between_pixels_shares_equally():
    """On the border of two pixels both get the same, and the third column nearly nothing."""
    signal = np.zeros((7, 7), np.float32)
    share_charge(signal, np.array([[3.0, 3.4999999]]), np.array([100.0]), np.ones((7, 7), np.float32), 0.42)
    assert signal[3, 3] == pytest.approx(signal[3, 4], rel=1e-4)
    assert signal[3, 2] < 1


def test_electron_at_the_corner_loses_what_falls_outside():
    """Charge beyond the border is lost; nothing wraps around."""
    signal = np.zeros((5, 5), np.float32)
    share_charge(signal, np.array([[0.0, 0.0]]), np.array([100.0]), np.ones((5, 5), np.float32), 0.42)
    assert not signal[2:].any()
    assert not signal[:, 2:].any()
    assert 70 < signal.sum() < 90


def test_energies_are_moyal():
    """Deposits have mode 60, mean 60 + 1.2704 * 18 and stay within 4 to 400 ADU."""
    grid = np.stack(np.meshgrid(np.arange(2, 574, 4.0), np.arange(2, 574, 4.0), indexing="ij"), -1).reshape(-1, 2)
    frame = read(QUIET, grid).astype(float) - 20
    energy = sum(frame[2 + r :: 4, 2 + c :: 4][:143, :143] for r in (-1, 0, 1) for c in (-1, 0, 1))
    assert energy.mean() == pytest.approx(60 + 1.2704 * 18, abs=1.0)
    histogram, edges = np.histogram(energy, bins=np.arange(0, 200, 8))
    assert 48 <= edges[histogram.argmax()] <= 64
    assert 4 <= energy.min() < energy.max() < 404


def test_xrays_are_rare_single_pixels():
    """With three X-rays per frame on average, frames hold about three pixels of 3000 ADU and nothing beside them."""
    camera = Camera(pedestal=20.0, pedestal_spread=0.0, read_noise=0.0, xrays=3.0)
    frames = [read(camera, seed=i, shape=(64, 64)) for i in range(300)]
    hits = np.array([(frame > 20).sum() for frame in frames])
    assert hits.mean() == pytest.approx(3, abs=0.4)
    assert {3020} <= set(np.unique(frames)) <= {20, 3020, 4095}


def test_saturation_clips():
    """No value exceeds the saturation and none wraps below zero."""
    high = read(Camera(pedestal=5000.0), shape=(32, 32))
    assert (high == 4095).all()
    low = read(Camera(pedestal=0.0, read_noise=5.0, pedestal_spread=0.0, xrays=0.0), shape=(64, 64))
    assert low.min() == 0
    assert low.max() < 40


def test_row_drift_moves_half_rows():
    """An offset is common to the left or the right half of a row and differs between them."""
    camera = Camera(pedestal=1000.0, pedestal_spread=0.0, read_noise=0.0, xrays=0.0, row_drift=20.0)
    frame = read(camera).astype(int)
    assert (np.ptp(frame[:, :288], axis=1) == 0).all()
    assert (np.ptp(frame[:, 288:], axis=1) == 0).all()
    assert frame[:, 0].std() == pytest.approx(20, rel=0.15)
    assert np.corrcoef(frame[:, 0], frame[:, 575])[0, 1] < 0.3


def test_gain_scales_deposits():
    """Gain spread changes the deposits and leaves the pedestal alone."""
    camera = Camera(gain_spread=0.1)
    assert camera.fixed_pattern((64, 64), 0)[1].std() == pytest.approx(0.1, rel=0.05)
    signal = np.zeros((5, 5), np.float32)
    share_charge(signal, np.array([[2.0, 2.0]]), np.array([100.0]), np.full((5, 5), 2.0, np.float32), 0.42)
    assert signal.sum() == pytest.approx(200, abs=0.2)


def test_entry_pixels_round_to_the_nearest_and_are_sorted():
    """Pixel i reaches from i - 1/2 to i + 1/2; electrons outside are dropped; repeats stay."""
    positions = np.array([[1.49, 2.0], [1.51, 2.0], [0.0, -0.4], [-0.6, 0.0], [1.4, 2.4], [3.6, 0.0]])
    np.testing.assert_array_equal(entry_pixels(positions, (4, 5)), [0, 7, 7, 12])


def test_frame_depends_on_its_generator_only():
    """The same generator gives the same frame, another one another frame."""
    positions = np.array([[100.0, 200.0]])
    np.testing.assert_array_equal(read(Camera(), positions, 3), read(Camera(), positions, 3))
    assert (read(Camera(), positions, 3) != read(Camera(), positions, 4)).mean() > 0.5


def test_bad_numbers_are_refused():
    """Saturation must fit uint16 and the charge cloud must have a width."""
    with pytest.raises(InputError, match="saturation"):
        Camera(saturation=70000)
    with pytest.raises(InputError, match="sharing"):
        Camera(sharing=0.0)
