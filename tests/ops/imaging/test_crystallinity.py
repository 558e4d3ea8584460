"""Transforms of patterns are those of NumPy, and tell crystals from glass."""

import numpy as np
import pytest

import stemstore
from stemstore.errors import CalibrationMissingError, InputError
from stemstore.ops.imaging.crystallinity import crystallinity, power_spectrum


def ring_of(shape, inner, outer, steps=(1.0, 1.0)):
    """Terms of the full transform whose frequency lies in a ring."""
    fy, fx = (np.fft.fftfreq(n, step) for n, step in zip(shape, steps, strict=True))
    length = np.hypot(fy[:, None], fx)
    return (length >= inner) & (length < outer)


@pytest.mark.parametrize(("ky", "kx"), [(14, 10), (13, 10), (14, 9), (1, 10), (14, 1)])
def test_crystallinity_is_the_sum_of_numpys_moduli(scan, counts, ky, kx):
    """Even, odd and narrow detectors give the sum over the full transform, frames and events alike."""
    part = scan.isel(ky=slice(0, ky), kx=slice(0, kx))
    ring = ring_of((ky, kx), 0.09, 0.34)
    expected = np.abs(np.fft.fft2(counts[..., :ky, :kx]))[..., ring].sum(-1)
    np.testing.assert_allclose(crystallinity(part, 0.09, 0.34), expected, rtol=1e-12)


def test_normalised_crystallinity(scan, counts):
    """The mean modulus is divided by the intensity; frames without any have none."""
    ring = ring_of((14, 10), 0.1, 0.3)
    total = counts.sum((2, 3))
    expected = np.abs(np.fft.fft2(counts))[..., ring].mean(-1) / total
    result = crystallinity(scan, 0.1, 0.3, normalise=True)
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    assert result.attrs["units"] == "1"
    assert crystallinity(scan * 0, 0.1, 0.3, normalise=True).isnull().all()


def test_scale_does_not_change_what_is_normalised(scan):
    """Twice the electrons give the same normalised crystallinity, and twice the other."""
    twice = scan.intensity.astype(np.uint16) * 2
    for normalise, factor in ((True, 1), (False, 2)):
        one, two = (crystallinity(s, 0.1, 0.3, normalise=normalise) for s in (scan, twice))
        np.testing.assert_allclose(two, factor * one, rtol=1e-12)


def test_excluded_pixels_are_zero(scan, counts):
    """The central beam is taken out before the transform, by shares where the detector is antialiased."""
    for disk in (stemstore.disk(3), stemstore.disk(3, antialias=True)):
        left = counts * (1.0 - disk.weights(scan.intensity))
        expected = np.abs(np.fft.fft2(left))[..., ring_of((14, 10), 0.1, 0.3)].sum(-1)
        np.testing.assert_allclose(crystallinity(scan, 0.1, 0.3, exclude=disk), expected, rtol=1e-12)


def test_selections_of_the_detector_and_the_scan(scan, counts):
    """A strided crop is transformed with the sampling of its pixels, and streams."""
    part = scan.isel(y=slice(1, 9, 2), ky=slice(1, 13, 2), kx=slice(9, 1, -1))
    visible = counts[1:9:2, :, 1:13:2, 9:1:-1]
    ring = ring_of((6, 8), 0.1, 0.26, (2.0, 1.0))
    assert 0 < ring.sum() < ring.size
    result = crystallinity(part, 0.1, 0.26)
    np.testing.assert_allclose(result, np.abs(np.fft.fft2(visible))[..., ring].sum(-1), rtol=1e-12)
    assert stemstore.explain(part).startswith("fused")
    np.testing.assert_allclose(result, crystallinity(part.intensity + 0, 0.1, 0.26), rtol=1e-12)


def test_missing_frames_are_not_transformed(frames_of, counts):
    """Missing frames have no crystallinity, and no part in the mean spectrum."""
    valid = np.full(counts.shape[:2], 2, np.uint8)
    valid[2, 3:6] = 0
    spoilt = np.where(valid[..., None, None] == 0, 200, counts).astype(np.uint8)
    scan = frames_of(spoilt, valid)
    np.testing.assert_array_equal(crystallinity(scan, 0.1, 0.3).isnull(), valid == 0)
    spectrum = power_spectrum(scan)
    expected = (np.abs(np.fft.fft2(counts[valid == 2])) ** 2).mean(0)
    np.testing.assert_allclose(spectrum, np.fft.fftshift(expected), rtol=1e-12)
    assert spectrum.attrs["n_frames"] == (valid == 2).sum()


@pytest.mark.parametrize(("ky", "kx"), [(14, 10), (13, 9), (13, 10), (2, 1), (1, 2)])
def test_spectra_are_those_of_numpy(scan, counts, ky, kx):
    """The completed half of the transform equals the full one, for all parities."""
    part = counts[..., :ky, :kx]
    spectrum = power_spectrum(scan.isel(ky=slice(0, ky), kx=slice(0, kx)))
    expected = np.fft.fftshift((np.abs(np.fft.fft2(part)) ** 2).mean((0, 1)))
    np.testing.assert_allclose(spectrum, expected, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(spectrum.fy, np.fft.fftshift(np.fft.fftfreq(ky)), atol=1e-15)
    np.testing.assert_allclose(spectrum.fx, np.fft.fftshift(np.fft.fftfreq(kx)), atol=1e-15)


def test_parseval(scan, counts):
    """The sum over all frequencies is the number of pixels times the sum of squares, windowed or not."""
    for window, factor in ((None, 1.0), ("hann", hann((14, 10)))):
        spectrum = power_spectrum(scan, window=window)
        squares = ((counts * factor) ** 2).sum((2, 3)).mean()
        assert float(spectrum.sum()) == pytest.approx(140 * squares, rel=1e-12)


def hann(shape):
    """Separable window that is zero at the outer borders, with a mean square of 1."""
    rows, columns = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in shape)
    window = np.multiply.outer(rows, columns)
    return window / np.sqrt((window**2).mean())


def test_the_window_keeps_noise_and_removes_the_cross(frames_of):
    """White noise keeps its power under the window; a slope across the detector loses its terms along the axis."""
    rng = np.random.default_rng(5)
    noise = frames_of(rng.poisson(50, (6, 6, 32, 32)).astype(np.uint8))
    for window in (None, "hann"):
        level = power_spectrum(noise, window=window).where(lambda p: abs(p.fy) > 0.2).mean()
        assert float(level) == pytest.approx(50 * 32 * 32, rel=0.05)
    slope = frames_of(np.broadcast_to(np.arange(32) * 7, (1, 1, 32, 32)).astype(np.uint8))
    plain, windowed = (power_spectrum(slope, window=w).sel(fy=0).sel(fx=slice(0.2, 0.45)) for w in (None, "hann"))
    assert float(windowed.max()) < 1e-3 * float(plain.min())


def grating(period, shape=(48, 64)):
    """Frames whose columns go up and down with a period in pixels."""
    wave = 100 + 50 * np.cos(2 * np.pi * np.arange(shape[1]) / period)
    return np.broadcast_to(wave, (2, 2, *shape)).astype(np.float32)


def test_a_grating_has_its_frequency(frames_of):
    """A cosine of eight columns has its two terms at 1/8 per pixel, with the modulus of its amplitude."""
    scan = frames_of(grating(8))
    spectrum = power_spectrum(scan).compute()
    peaks = spectrum.where(spectrum > 1, drop=True)
    np.testing.assert_allclose(peaks.fx, [-0.125, 0, 0.125])
    assert peaks.fy.values.tolist() == [0]
    amplitude = 25 * 48 * 64
    np.testing.assert_allclose(peaks.squeeze(), [amplitude**2, (4 * amplitude) ** 2, amplitude**2], rtol=1e-6)
    np.testing.assert_allclose(crystallinity(scan, 0.12, 0.13), 2 * amplitude, rtol=1e-6)
    np.testing.assert_allclose(crystallinity(scan, 0.13, 0.4), 0, atol=1)
    assert spectrum.fx.attrs["units"] == "1/pixel"
    assert spectrum.attrs["units"] == "count^2"


@pytest.mark.parametrize(
    ("known", "unit", "frequency"),
    [
        ({"detector_step": "2 mrad"}, "1/mrad", 1 / 16),
        ({"detector_step": "2 mrad", "beam_energy": 300}, "angstrom", 0.0196875 / 0.016),
        ({"detector_step": "2 mrad", "beam_energy": 300}, "nm", 0.00196875 / 0.016),
        ({"detector_step": "2 mrad", "beam_energy": 300}, "1/mrad", 1 / 16),
        ({"detector_step": "2 mrad"}, "1/pixel", 1 / 8),
    ],
)
def test_frequencies_in_physical_units(frames_of, known, unit, frequency):
    """Frequencies follow the calibration: 16 mrad are a length in real space at 300 kV (wavelength 1.96875 pm)."""
    scan = frames_of(grating(8), **known)
    spectrum = power_spectrum(scan, unit=unit)
    peak = spectrum.sel(fx=slice(0.1 * frequency, None)).sum("fy").idxmax("fx")
    assert float(peak) == pytest.approx(frequency, rel=1e-3)
    assert spectrum.fx.attrs["units"] == unit
    inside = crystallinity(scan, 0.98 * frequency, 1.02 * frequency, unit=unit)
    np.testing.assert_allclose(inside, 2 * 25 * 48 * 64, rtol=1e-6)


def test_the_unit_of_the_axes_is_the_default(frames_of):
    """Axes in 1/angstrom have frequencies in angstrom."""
    scan = frames_of(grating(8), detector_step="2 mrad", beam_energy=300)
    assert power_spectrum(scan).fy.attrs["units"] == "angstrom"
    assert "unit='angstrom'" in crystallinity(scan, 1.1, 1.3).attrs["history"]


def patterns(n, rng, *, crystalline, shape=(64, 64), dose=4000):
    """Draw patterns of 40 % central beam, and 60 % in disks of a lattice that is turned and strained, or in a halo."""
    row, column = (
        axis - (n_axis - 1) / 2 for axis, n_axis in zip(np.mgrid[: shape[0], : shape[1]], shape, strict=True)
    )
    found = []
    for _ in range(n):
        turn, spacing = rng.uniform(0, np.pi), rng.uniform(11, 13)
        beam = np.hypot(row, column) < 3
        if crystalline:
            spots = np.zeros(shape)
            for i, j in np.argwhere(np.ones((5, 5))) - 2:
                y = spacing * (i * np.cos(turn) + j * np.sin(turn))
                x = spacing * (j * np.cos(turn) - i * np.sin(turn))
                spots += (i != 0 or j != 0) * (np.hypot(row - y, column - x) < 3)
        else:
            spots = np.exp(-((np.hypot(row, column) - 12) ** 2) / 18)
        expected = dose * (0.4 * beam / beam.sum() + 0.6 * spots / spots.sum())
        found.append(rng.poisson(expected))
    return np.array(found, np.uint8)


def test_crystals_are_told_from_glass(frames_of):
    """At 4000 electrons per pattern every crystalline one has more crystallinity than any amorphous one."""
    rng = np.random.default_rng(11)
    frames = np.stack([patterns(12, rng, crystalline=False), patterns(12, rng, crystalline=True)])
    scan = frames_of(frames)
    for normalise in (False, True):
        image = crystallinity(scan, 0.07, 0.13, exclude=stemstore.disk(6), normalise=normalise).values
        assert image[1].min() > 1.5 * image[0].max()


def test_results_are_labelled(scan):
    """The image keeps the coordinates of the scan and says what was done."""
    image = crystallinity(scan, 0.1, 0.3, exclude=stemstore.disk(2), window="hann")
    assert image.dims == ("y", "x")
    assert {"y_pixel", "x_pixel"} <= set(image.coords)
    assert image.attrs["units"] == "count"
    text = (
        "crystallinity(inner=0.1, outer=0.3, unit='1/pixel', exclude='disk(radius=2)', normalise=False, window='hann')"
    )
    assert text in image.attrs["history"]
    assert power_spectrum(scan).dims == ("fy", "fx")


def test_regions_and_corrections(scan, counts):
    """A region of interest and a dark reference act as in other operations."""
    roi = np.zeros(counts.shape[:2], bool)
    roi[3:5, 2:7] = True
    dark = np.full((14, 10), 0.5)
    spectrum = power_spectrum(scan, roi=roi, dark=dark)
    expected = (np.abs(np.fft.fft2(counts[roi] - 0.5)) ** 2).mean(0)
    np.testing.assert_allclose(spectrum, np.fft.fftshift(expected), rtol=1e-10, atol=1e-9)
    image = crystallinity(scan, 0.1, 0.3, roi=roi, dark=dark)
    np.testing.assert_array_equal(image.notnull(), roi)


def test_both_share_a_pass(scan, monkeypatch):
    """Image and spectrum are computed while reading the scan once."""
    from stemstore.sources.streaming import EventScan, FrameScan

    passes = []
    for source in (EventScan, FrameScan):
        run = source.run
        monkeypatch.setattr(source, "run", lambda self, *a, run=run: (passes.append(1), run(self, *a))[1])
    stemstore.compute(crystallinity(scan, 0.1, 0.3), power_spectrum(scan))
    assert len(passes) == 1


def test_one_pattern_has_a_crystallinity(scan, counts):
    """A selected pattern gives a number."""
    expected = np.abs(np.fft.fft2(counts[3, 4]))[ring_of((14, 10), 0.1, 0.3)].sum()
    assert float(crystallinity(scan.isel(y=3, x=4), 0.1, 0.3)) == pytest.approx(expected, rel=1e-12)


def test_wrong_arguments_are_refused(scan, frames_of):
    """Rings, units, windows and shares that cannot be used are named."""
    with pytest.raises(InputError, match="needs 0 <= inner < outer"):
        crystallinity(scan, 0.3, 0.1)
    with pytest.raises(InputError, match=r"no term of the transform has a frequency from 5 to 9 1/pixel"):
        crystallinity(scan, 5, 9)
    with pytest.raises(InputError, match="'pixel' is no unit of frequencies"):
        crystallinity(scan, 0.1, 0.3, unit="pixel")
    with pytest.raises(CalibrationMissingError, match="cannot be expressed in 'mrad'"):
        crystallinity(scan, 0.1, 0.3, unit="1/mrad")
    with pytest.raises(InputError, match="window 'hamming' is not known"):
        power_spectrum(scan, window="hamming")
    with pytest.raises(InputError, match="shares from 0 to 1"):
        power_spectrum(scan, exclude=np.full((14, 10), 2))
    with pytest.raises(InputError, match="along 'kx' lie at unlike distances"):
        power_spectrum(scan.isel(kx=[0, 1, 3]))
    missing = frames_of(np.ones((2, 2, 4, 4), np.uint8), np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match="no recorded frame"):
        power_spectrum(missing)
