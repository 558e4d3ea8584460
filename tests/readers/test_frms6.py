"""FRMS6: both halves unfolded, rows of binned frames repeated, dark frames subtracted where asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from encode_frms6 import encode, file_header, fold, text, write
from evidence import damaged, whole
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import (
    CorruptDataError,
    FormatVersionError,
    InputError,
    NotFoundError,
    StemStoreError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.testing import ReaderTests
from stemstore_readers.frms6 import Frms6, unfold
from stemstore_readers.frms6_header import parse_header, parse_text


def ramp(count, shape=(6, 4)):
    """Distinct pixels of unfolded frames."""
    return (np.arange(count * shape[0] * shape[1]) % 65521).astype("u2").reshape(count, *shape)


class TestConformance(ReaderTests):
    """The shared tests on a scan in three files, opened by its text file, of any frame shape; LiberTEM has one."""

    reader_cls = Frms6

    def make_file(self, tmp_path):
        truth = ramp(6)
        write(tmp_path, ramp(2), truth, hdr=text(3, 2), per_file=2)
        return str(tmp_path / "m.hdr"), truth.reshape(2, 3, 6, 4), {}

    def last_file(self, url):
        return Path(url).with_name("m_003.frms6")

    def make_big_file(self, tmp_path):
        path = tmp_path / "big_001.frms6"
        with path.open("wb") as file:
            file.write(file_header(528, 264, 400))
            file.truncate(1024 + 400 * (64 + 2 * 528 * 264))
        return str(path), {}


class TestConformanceDark(TestConformance):
    """The shared tests with the dark subtracted: negative floats."""

    make_big_file = ReaderTests.make_big_file

    def make_file(self, tmp_path):
        truth, dark = ramp(6), ramp(2) * 3
        write(tmp_path, dark, truth, hdr=text(3, 2), per_file=2)
        wanted = truth - dark.mean(axis=0).astype("f4")
        assert wanted.min() < 0
        return str(tmp_path / "m_001.frms6"), wanted.reshape(2, 3, 6, 4), {"subtract_dark": True}


def test_where_the_pixels_lie():
    """The example of the format: the right half of the first stored row is the last row, reversed."""
    stored = np.arange(8).reshape(1, 2, 4)
    assert unfold(stored).tolist() == [[[0, 1], [4, 5], [7, 6], [3, 2]]]
    np.testing.assert_array_equal(fold(unfold(stored)), stored)
    assert unfold(np.zeros((1, 264, 528))).shape == (1, 528, 264)


@given(n=st.integers(1, 3), height=st.integers(1, 5), half=st.integers(1, 5))
def test_folding_and_back(n, height, half):
    """Unfolding undoes folding for every size."""
    frames = ramp(n, (2 * height, half))
    np.testing.assert_array_equal(unfold(fold(frames)), frames)


@pytest.mark.parametrize("binning", [2, 4])
def test_binned_rows_are_repeated(tmp_path, binning):
    """Rows that the detector binned come as often, unscaled, and that is reported."""
    truth = ramp(4)
    source = Frms6()(str(write(tmp_path, ramp(1), truth, hdr=text(2, 2, binning=binning))))
    np.testing.assert_array_equal(whole(source).reshape(4, -1, 4), truth.repeat(binning, axis=1))
    assert any(f"binned by {binning}" in one for one in source.metadata.warnings)


def test_dark_of_a_binned_measurement(tmp_path):
    """The dark is subtracted before rows are repeated."""
    truth, dark = ramp(2), ramp(3)
    source = Frms6(subtract_dark=True)(str(write(tmp_path, dark, truth, hdr=text(2, 1, binning=2))))
    np.testing.assert_array_equal(
        whole(source).reshape(2, 12, 4), (truth - dark.mean(axis=0).astype("f4")).repeat(2, axis=1)
    )


@pytest.mark.parametrize("stated", [0, 4, 6])
def test_number_of_frames(tmp_path, stated):
    """Without a number in the header the size counts; a smaller number counts, the rest are not frames."""
    source = Frms6()(str(write(tmp_path, None, ramp(6), n_frames=stated)))
    assert source.scan_shape == (stated or 6,)
    np.testing.assert_array_equal(whole(source), ramp(6)[: stated or 6])


def test_text_file(tmp_path):
    """Scan, dwell time and start are read; columns come first in the text."""
    source = Frms6()(str(write(tmp_path, ramp(1), ramp(6), hdr=text(3, 2, dwell=250))))
    assert source.scan_shape == (2, 3)
    assert source.metadata.acquisition.dwell_time.value == 250e-6
    assert source.metadata.acquisition.start_time == "2023-11-14T22:13:20.250000+00:00"
    assert "stemimagesize = 3x2" in source.metadata.vendor["hdr"]
    assert any("read as columns x rows" in one for one in source.metadata.warnings)


def test_interrupted_and_contradicting_scans(tmp_path):
    """A scan of which frames lack keeps the size that was to be; a size that fits nothing is not taken."""
    path = write(tmp_path, ramp(1), ramp(4), hdr=text(3, 2))
    assert Frms6()(str(path)).validity.tolist() == [2] * 4 + [0] * 2
    write(tmp_path, ramp(1), ramp(4), hdr=text(3, 2, frames=99))
    source = Frms6()(str(path))
    assert source.scan_shape == (4,)
    assert any("no scan shape is assumed" in one for one in source.metadata.warnings)
    assert Frms6(scan_shape=(2, 2))(str(path)).scan_shape == (2, 2)


def test_missing_companions(tmp_path):
    """Without the text file frames are a stack; without dark or signal frames the missing name is told."""
    path = write(tmp_path, None, ramp(4))
    assert any("no text file .hdr" in one for one in Frms6()(str(path)).metadata.warnings)
    with pytest.raises(NotFoundError, match=r"m_000\.frms6' are missing"):
        Frms6(subtract_dark=True)(str(path))
    path.rename(tmp_path / "m_000.frms6")
    with pytest.raises(NotFoundError, match=r"no file m_001\.frms6"):
        Frms6()(str(tmp_path / "m_000.frms6"))
    with pytest.raises(InputError, match="are no files of one measurement"):
        Frms6()(str(tmp_path))


def test_files_of_different_frames(tmp_path):
    """Files whose frames differ are refused by name."""
    write(tmp_path, None, ramp(4), per_file=2)
    (tmp_path / "m_002.frms6").write_bytes(encode(ramp(2, (6, 5))))
    with pytest.raises(InputError, match=r"m_002.frms6' has frames of 10 x 3, expected 8 x 3"):
        Frms6()(str(tmp_path / "m_001.frms6"))


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (file_header(8, 3, 1)[:500], TruncatedFileError, "has 500 bytes, expected 1024"),
        (file_header(8, 3, 1, size=1000), UnknownFormatError, "headers of 1000 and 64 bytes"),
        (file_header(8, 3, 1, version=7), FormatVersionError, "version 7, known is 6"),
        (file_header(7, 3, 1), CorruptDataError, "frames of 7 x 3, expected an even width"),
        (file_header(8, 0, 1), CorruptDataError, "frames of 8 x 0"),
    ],
)
def test_bad_headers(content, error, match):
    """Headers that cannot be are refused."""
    with pytest.raises(error, match=match):
        parse_header(content)


def test_not_one_frame(tmp_path):
    """A file without one whole frame is refused."""
    (tmp_path / "m_001.frms6").write_bytes(file_header(8, 3, 1) + bytes(50))
    with pytest.raises(TruncatedFileError, match="no whole frame of 112 bytes"):
        Frms6()(str(tmp_path / "m_001.frms6"))


def test_matches(tmp_path):
    """The file header proves the format; a text file is known by its section."""
    assert Frms6.matches("a.frms6", file_header(8, 3, 1)) == 1
    assert Frms6.matches("a.hdr", text(3, 2).encode()) == 0.9
    assert Frms6.matches("a.hdr", b"HDR,\nTime and Date") == 0


@given(st.text(max_size=200) | damaged(text(3, 2).encode()).map(lambda one: one.decode("latin-1")))
def test_damaged_text(content):
    """Whatever the text file holds, it gives a description."""
    found = parse_text(content)
    assert found.binning in (1, 2, 4)
    assert found.scan_shape is None or min(found.scan_shape) > 0


@given(data=st.data())
def test_damaged_files(tmp_path_factory, data):
    """Whatever the bytes are, the file opens and reads, or is refused with one of our errors."""
    folder = tmp_path_factory.mktemp("frms6")
    path = write(folder, None, ramp(4), hdr=text(2, 2))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        source = Frms6()(str(path))
        frames = source.read_frames(0, min(np.prod(source.scan_shape), 4))
    except StemStoreError:
        return
    assert frames.nbytes < 2**20


def test_the_dark_is_handed_on(tmp_path):
    """Unless it is subtracted already, the mean of the dark frames is offered in the rows of the signal."""
    dark, frames = ramp(2) * 3, ramp(6)
    write(tmp_path, dark, frames, hdr=text(3, 2, binning=2))
    source = Frms6()(str(tmp_path / "m.hdr"))
    image = source.references["dark"]
    assert image.shape == source.frame_shape
    np.testing.assert_array_equal(image.read(), np.repeat(dark.mean(axis=0), 2, axis=0))
    assert Frms6(subtract_dark=True)(str(tmp_path / "m.hdr")).references == {}
