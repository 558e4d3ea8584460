"""EMPAD-G2: words become intensities by bank and gain, with background, frame offset and flat field where asked for."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from evidence import check_array, expected, whole
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError, InputError, TruncatedFileError, UnknownFormatError
from stemstore.kernels.empad_g2 import frame_offset
from stemstore.testing import ReaderTests
from stemstore_readers.empad import Empad
from stemstore_readers.empad_g2 import RECORD, EmpadG2

PIXELS = (128, 128)


def pack(analogue, digital, gain, unused=0):
    """Put the parts of a word together."""
    parts = (np.asarray(part, np.uint32) for part in (analogue, digital, unused, gain))
    return sum(part << shift for part, shift in zip(parts, (0, 14, 30, 31), strict=True)).astype("<u4")


def random_parts(*shape, seed=0):
    """Analogue, digital and gain parts of random words."""
    random = np.random.default_rng(seed)
    size = (*shape, *PIXELS)
    return random.integers(0, 2**14, size), random.integers(0, 2**16, size), random.integers(0, 2, size)


def linear(seed=0, **changes):
    """Write down a linear calibration near a real one."""
    random = np.random.default_rng(seed)
    means = {"G1A": 18.5, "G2A": 1e5, "B2A": 7843, "FFA": 1.006, "G1B": 18.7, "G2B": 1.07e5, "B2B": 7807, "FFB": 0.994}
    values = {name: (mean * random.normal(1, 0.01, PIXELS)).astype("<f4") for name, mean in means.items()}
    return values | changes


def quadratic(seed=0):
    """Write down a quadratic calibration."""
    random = np.random.default_rng(seed)
    means = {"Ml": 18.0, "alpha": 1e-4, "Md": 1e5, "Oh": -1e5, "Ot": 30.0}
    values = {name: (mean * random.normal(1, 0.01, (*PIXELS, 2))).astype("<f4") for name, mean in means.items()}
    return values | {name: np.ones(PIXELS, "<f4") for name in ("FFA", "FFB")}


def write_calibration(path, values):
    """Write the datasets into an HDF5 file."""
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            file[name] = value
    return str(path)


def truth_of(parts, values):
    """Work the intensities out in plain NumPy, parity by the last scan axis."""
    a, d, g = (np.asarray(part, np.float64) for part in parts)
    out = np.empty_like(a)
    for p, bank in enumerate("AB"):
        here = (slice(None), slice(p, None, 2))
        if "Ml" in values:
            ml, alpha, md, oh, ot = (values[n][..., p].astype("f8") for n in ("Ml", "alpha", "Md", "Oh", "Ot"))
            gained = ml * a[here] + alpha * a[here] ** 2 + oh
            out[here] = np.where(g[here], gained, a[here]) + md * d[here] - ot
        else:
            g1, g2, b2 = (values[name + bank].astype("f8") for name in ("G1", "G2", "B2"))
            out[here] = np.where(g[here], g1 * (a[here] - b2), a[here]) + g2 * d[here]
    return out


class TestConformance(ReaderTests):
    """The shared tests on undecoded words."""

    reader_cls = EmpadG2

    def make_file(self, tmp_path):
        truth = pack(*random_parts(2, 3))
        path = tmp_path / "scan_x3_y2.raw"
        path.write_bytes(truth.tobytes())
        return str(path), truth, {}

    def make_big_file(self, tmp_path):
        path = tmp_path / "scan_x64_y32.raw"
        with path.open("wb") as file:
            file.truncate(64 * 32 * RECORD)
        return str(path), {}


class TestConformanceDecoded(TestConformance):
    """The shared tests on intensities, whose whole numbers are exact; the package empad2 needs py4DSTEM for them."""

    def make_file(self, tmp_path):
        url, words, _ = super().make_file(tmp_path)
        ones = {name: np.full(PIXELS, 2 if name[0] == "G" else 1, "<f4") for name in linear()}
        options = {"scan_shape": (2, 3), "calibration_file": write_calibration(tmp_path / "ones.h5", ones)}
        return url, truth_of((words & 0x3FFF, words >> 14 & 0xFFFF, words >> 31), ones).astype("f4"), options

    def make_big_file(self, tmp_path):
        url, options = super().make_big_file(tmp_path)
        return url, options | {"calibration_file": write_calibration(tmp_path / "a.h5", linear())}


def test_measured_calibration(sample):
    """Words and intensities of the sample are those that were worked out independently."""
    truth, path = expected(sample, "empad2/g2_linear_3x4.raw"), str(sample("empad2/g2_linear_3x4.raw"))
    check_array(whole(EmpadG2(scan_shape=(3, 4))(path)), truth)
    calibration = str(sample("empad2/cryo-titan-calibrations.h5"))
    frames = whole(EmpadG2(scan_shape=(3, 4), calibration_file=calibration)(path))
    converted = truth["converted_float64"]
    for one in converted["values"]:
        np.testing.assert_allclose(frames[tuple(one["index"])], one["value"], rtol=1e-5)
    np.testing.assert_allclose(frames.sum(dtype="f8"), converted["sum_float64"], rtol=1e-6)
    np.testing.assert_allclose([frames.min(), frames.max()], [converted["min"], converted["max"]], rtol=1e-6)


@pytest.mark.parametrize("model", [linear, quadratic])
def test_banks_change_with_the_column(tmp_path, model):
    """In rows of odd length the bank follows the column and not the number of the frame."""
    parts, values = random_parts(3, 5), model()
    (tmp_path / "a.raw").write_bytes(pack(*parts).tobytes())
    calibration = write_calibration(tmp_path / "c.h5", values)
    source = EmpadG2(scan_shape=(3, 5), calibration_file=calibration)(str(tmp_path / "a.raw"))
    np.testing.assert_allclose(whole(source), truth_of(parts, values), rtol=1e-6, atol=0.1)


def test_the_unused_bit_and_an_empty_counter(tmp_path):
    """Bit 30 changes nothing, and a gain bit without counts is the analogue value with gain."""
    a, d, g = (np.full((1, 2, *PIXELS), value) for value in (9000, 0, 1))
    (tmp_path / "a.raw").write_bytes(pack(a, d, g, unused=1).tobytes())
    values = linear()
    source = EmpadG2(scan_shape=(1, 2), calibration_file=write_calibration(tmp_path / "c.h5", values))
    np.testing.assert_allclose(
        whole(source(str(tmp_path / "a.raw")))[0, 1], values["G1B"] * (9000 - values["B2B"].astype("f8")), rtol=1e-6
    )


def test_background_offset_and_flat_field(tmp_path):
    """The mean of the same bank goes, then the offset of a frame's empty pixels, then the flat field acts."""
    random = np.random.default_rng(1)
    base = np.stack([np.full(PIXELS, 400), np.full(PIXELS, 700)])
    dark = np.broadcast_to(base[np.arange(3) % 2], (2, 3, *PIXELS))
    shift = np.array([[20, -30, 0], [11, 60, -5]])[..., None, None]
    noise = np.rint(random.normal(0, 15, (2, 3, *PIXELS))).astype(int)
    frames = dark + shift + noise
    frames[..., 0, 0] += 5000
    values = linear()
    (tmp_path / "scan.raw").write_bytes(pack(frames, 0, 0).tobytes())
    (tmp_path / "dark_x3_y2.raw").write_bytes(pack(dark, 0, 0).tobytes())
    options = {"scan_shape": (2, 3), "calibration_file": write_calibration(tmp_path / "c.h5", values)}
    source = EmpadG2(**options, background_file=str(tmp_path / "dark_x3_y2.raw"))(str(tmp_path / "scan.raw"))
    found, flat = whole(source), np.stack([values["FFA"], values["FFB"]])[np.arange(3) % 2]
    np.testing.assert_allclose(found / flat, frames - dark - shift, atol=3)
    np.testing.assert_allclose((found / flat)[..., 0, 0], 5000 + noise[..., 0, 0], atol=3)


@pytest.mark.parametrize(("mean", "width", "offset"), [(37.0, 15, 37.0), (-80.0, 20, -80.0), (0, 15, 0), (500, 15, 0)])
def test_offset_of_a_frame(mean, width, offset):
    """The offset is the place of the noise peak, two units low at most; a peak outside the histogram has none."""
    frame = np.random.default_rng(0).normal(mean, width, 128 * 128).astype("f4")
    assert abs(frame_offset(frame) - offset) < 3


def test_offset_of_a_parabola():
    """Counts that are a parabola have their offset at its vertex, exactly."""
    vertex = 0.3
    counts = np.maximum(1000 - np.rint(10 * (np.arange(42) - 20 - vertex) ** 2), 0).astype(int)
    frame = np.repeat(-200.0 + 10 * np.arange(42), counts)
    assert abs(frame_offset(frame) - (-200 + 10 * (20 + vertex))) < 0.05


def test_an_empty_histogram_has_no_offset():
    """Values beyond all bins, or all in one bin at the end, leave the frame as it is."""
    assert frame_offset(np.full(100, np.nan, "f4")) == 0
    assert frame_offset(np.full(100, -200, "f4")) == 0


def test_decoding_needs_the_scan(tmp_path):
    """Without a scan shape the bank is unknown; words are given all the same, with a warning."""
    (tmp_path / "a.raw").write_bytes(bytes(6 * RECORD))
    source = EmpadG2()(str(tmp_path / "a.raw"))
    assert source.scan_shape == (6,)
    assert any("no intensities; pass calibration_file" in text for text in source.metadata.warnings)
    with pytest.raises(InputError, match=r"the bank of each frame; pass scan_shape=\(ny, nx\) for its 6 frames"):
        EmpadG2(calibration_file=write_calibration(tmp_path / "c.h5", linear()))(str(tmp_path / "a.raw"))


def test_wrong_companions(tmp_path):
    """Calibrations and backgrounds that cannot be used are named."""
    (tmp_path / "scan_x3_y2.raw").write_bytes(bytes(6 * RECORD))
    url = str(tmp_path / "scan_x3_y2.raw")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(UnknownFormatError, match="is no HDF5 file"):
        EmpadG2(calibration_file=str(tmp_path / "text.h5"))(url)
    some = write_calibration(tmp_path / "some.h5", {"G1A": np.ones(PIXELS)})
    with pytest.raises(UnknownFormatError, match="holds G1A, expected FFA and"):
        EmpadG2(calibration_file=some)(url)
    odd = write_calibration(tmp_path / "odd.h5", linear(FFB=np.ones((2, 2), "f4")))
    with pytest.raises(CorruptDataError, match=r"'FFB' of shape \(2, 2\), expected finite floats"):
        EmpadG2(calibration_file=odd)(url)
    good = write_calibration(tmp_path / "good.h5", linear())
    (tmp_path / "dark.raw").write_bytes(bytes(4 * RECORD))
    with pytest.raises(InputError, match="holds 4 frames, which make no rows of 3 columns"):
        EmpadG2(calibration_file=good, background_file=str(tmp_path / "dark.raw"))(url)
    with pytest.raises(InputError, match="background_file needs calibration_file"):
        EmpadG2(background_file=str(tmp_path / "dark.raw"))


def test_the_size_tells_the_generations_apart(tmp_path):
    """Both generations name files alike; the footer of the first makes the difference."""
    path = tmp_path / "scan_x3_y2.raw"
    path.write_bytes(bytes(6 * RECORD))
    assert EmpadG2.matches(str(path), bytes(9)) == 0.7 > Empad.matches(str(path), bytes(9))
    path.write_bytes(bytes(6 * 66560))
    assert EmpadG2.matches(str(path), bytes(9)) == 0 < Empad.matches(str(path), bytes(9))


@given(size=st.integers(0, 3 * RECORD), shape=st.sampled_from([None, (1, 2), (2, 2), (3,)]))
def test_any_length(tmp_path_factory, size, shape):
    """A file of any length opens with its whole frames, or is refused as too short."""
    path = tmp_path_factory.mktemp("g2") / "a.raw"
    with path.open("wb") as file:
        file.truncate(size)
    if size < RECORD:
        with pytest.raises(TruncatedFileError, match=f"has {size} bytes"):
            EmpadG2(scan_shape=shape)(str(path))
        return
    source = EmpadG2(scan_shape=shape)(str(path))
    assert whole(source).shape[-2:] == PIXELS
