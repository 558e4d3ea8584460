"""TVIPS recordings: any header length, several files, the scan found in the frame headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from encode_tvips import ramp, scan_fields, series_header, write_series
from evidence import check_array, damaged, expected, whole
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
from stemstore_readers import tvips
from stemstore_readers.tvips import Tvips
from stemstore_readers.tvips_headers import parse_header


class TestConformance(ReaderTests):
    """The shared tests on three files of two frames and a scan in the frame headers."""

    reader_cls = Tvips

    def make_file(self, tmp_path):
        truth = ramp(6)
        url = write_series(tmp_path, truth, fields=scan_fields(2, 3), per_file=2)
        return str(url), truth.reshape(2, 3, 3, 5), {}

    def last_file(self, url):
        return max(Path(url).parent.glob("*.tvips"))

    def make_big_file(self, tmp_path):
        path = tmp_path / "big_000.tvips"
        with path.open("wb") as file:
            file.write(series_header((1024, 1024)))
            file.truncate(256 + 40 * (128 + 2**21))
        return str(path), {}


class TestConformanceOld(ReaderTests):
    """The shared tests on version 1, 8 bit, a flat stack."""

    reader_cls = Tvips

    def make_file(self, tmp_path):
        truth = ramp(5, dtype="u1")
        return str(write_series(tmp_path, truth, version=1, length=0)), truth, {}


@pytest.mark.parametrize("name", ["2345", "2233"])
def test_sample_with_short_frame_headers(sample, name):
    """Headers of 60 bytes have no scan fields: frames come all the same, where LiberTEM fails."""
    truth = expected(sample, f"tvips/test_tvips_{name}_000.tvips")
    source = Tvips()(str(sample(f"tvips/test_tvips_{name}_000.tvips")))
    check_array(whole(source).reshape(truth["shape"]), truth)
    assert source.metadata.acquisition.beam_energy.value == 200
    assert source.metadata.vendor["series"]["magnification"] == 80
    assert source.metadata.acquisition.start_time.startswith("1993-06-18")
    if name == "2233":
        assert source.scan_shape == (2, 2)
        assert source.metadata.acquisition.scan_shape_source == "guessed"
        assert any("guessed to be 2x2" in text for text in source.metadata.warnings)
    else:
        assert source.scan_shape == (6,)
        assert source.metadata.acquisition.scan_shape_alternatives == [(2, 3), (3, 2)]


@pytest.mark.parametrize("length", [12, 60, 76, 108, 128, 500])
def test_any_header_length(tmp_path, length):
    """Pixels begin behind a header of the stated length; fields beyond it do not exist."""
    truth = ramp(6)
    source = Tvips(scan_shape=(2, 3))(str(write_series(tmp_path, truth, length=length, fields=scan_fields(2, 3))))
    np.testing.assert_array_equal(whole(source), truth.reshape(2, 3, 3, 5))
    assert ("scan_y" in source.metadata.vendor["first_frame"]) == (length >= 76)


def test_idle_frames_before_the_scan(tmp_path):
    """The scan begins at the last (0, 0) before (0, 1); the idle frames are skipped and reported."""
    truth = ramp(3 + 6)
    source = Tvips()(str(write_series(tmp_path, truth, fields=scan_fields(2, 3, idle=3))))
    np.testing.assert_array_equal(whole(source), truth[3:].reshape(2, 3, 3, 5))
    assert source.metadata.acquisition.sync_offset == 3
    assert any("3 frames lie outside of the scan" in text for text in source.metadata.warnings)


def test_a_row_that_ended_early(tmp_path):
    """A scan that stops in its last row keeps its shape; what is missing is marked."""
    truth = ramp(5)
    source = Tvips()(str(write_series(tmp_path, truth, fields=scan_fields(2, 3)[:5])))
    assert source.scan_shape == (2, 3)
    assert source.validity.tolist() == [2, 2, 2, 2, 2, 0]


def test_rotator_with_a_gap_and_a_repetition(tmp_path):
    """A skipped index is a missing frame, a repeated one is taken once; nothing is filled in."""
    index = [0, 0, 1, 2, 2, 4, 0]
    truth = ramp(7)
    url = write_series(tmp_path, truth, length=60, fields=[{"rotator": i} for i in index])
    source = Tvips(scan_shape=(2, 2))(str(url))
    assert source.validity.tolist() == [2, 2, 0, 2]
    np.testing.assert_array_equal(whole(source).reshape(4, 3, 5)[[0, 1, 3]], truth[[2, 3, 5]])
    assert source.metadata.acquisition.scan_shape_source == "user"


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, [[0, 1, 2], [3, 4, 5]]),
        ({"serpentine": "odd"}, [[0, 1, 2], [5, 4, 3]]),
        ({"serpentine": "even"}, [[2, 1, 0], [3, 4, 5]]),
        ({"serpentine": "odd", "hysteresis": 1}, [[0, 1, 2], [-1, 5, 4]]),
        ({"serpentine": "odd", "hysteresis": -2}, [[0, 1, 2], [3, -1, -1]]),
        ({"sync_offset": 2}, [[2, 3, 4], [5, 6, -1]]),
        ({"sync_offset": -1}, [[-1, 0, 1], [2, 3, 4]]),
    ],
)
def test_rows(tmp_path, options, rows):
    """Rows scanned backwards are turned around, displaced ones put back, frames skipped or awaited."""
    truth = ramp(7)
    source = Tvips(scan_shape=(2, 3), **options)(str(write_series(tmp_path, truth)))
    wanted = [truth[i] if i >= 0 else np.zeros((3, 5)) for i in np.ravel(rows)]
    np.testing.assert_array_equal(whole(source).reshape(6, 3, 5), wanted)
    missing = [i < 0 for i in np.ravel(rows)]
    assert [state == 0 for state in source.validity] == missing if any(missing) else source.validity is None


def test_any_file_opens_the_series(tmp_path):
    """The second file leads to the first; without the first the missing name is told; behind a gap nothing is read."""
    write_series(tmp_path, ramp(8), per_file=2)
    assert Tvips()(str(tmp_path / "scan_001.tvips")).scan_shape == (8,)
    (tmp_path / "scan_002.tvips").unlink()
    source = Tvips()(str(tmp_path / "scan_001.tvips"))
    assert source.scan_shape == (4,)
    assert any("file number 2 of the series is missing; scan_003.tvips" in text for text in source.metadata.warnings)
    (tmp_path / "scan_000.tvips").unlink()
    with pytest.raises(NotFoundError, match=r"scan_000.tvips', which holds the header of the series, is missing"):
        Tvips()(str(tmp_path / "scan_001.tvips"))


def test_times_and_camera(tmp_path):
    """Start and period come from the frame headers, energy and binning from the series header."""
    metadata = Tvips()(str(write_series(tmp_path, ramp(6)))).metadata
    assert metadata.acquisition.start_time == "2023-11-14T22:13:20+00:00"
    assert metadata.acquisition.frame_period.value == pytest.approx(0.01)
    assert metadata.detector.binning == (4, 2)
    assert metadata.vendor["series"]["pixel_size"] == 31000


def test_a_stated_scan_needs_no_frame_headers(tmp_path, monkeypatch):
    """With shape and offset stated, only the first and the last header are read; the result is the same."""
    path, read, real = str(write_series(tmp_path, ramp(7), per_file=3)), [], tvips.read_blocks
    monkeypatch.setattr(
        tvips, "read_blocks", lambda _, offsets, *rest: read.extend(offsets.tolist()) or real(_, offsets, *rest)
    )
    source = Tvips(scan_shape=(2, 3), sync_offset=1)(path)
    assert len(read) == 2
    np.testing.assert_array_equal(whole(source).reshape(6, 3, 5), ramp(7)[1:])
    every = Tvips(scan_shape=(2, 3))(path).metadata.acquisition
    assert source.metadata.acquisition.start_time == every.start_time
    assert source.metadata.acquisition.frame_period == every.frame_period


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"size": 255}, UnknownFormatError, "its own size as 255"),
        ({"version": 3}, FormatVersionError, "version 3, known are 1 and 2"),
        ({"width": 0}, CorruptDataError, "width 0, expected 1 to"),
        ({"height": 2**31}, CorruptDataError, "height 2147483648"),
        ({"header": 4}, CorruptDataError, "frame header 4"),
        ({"bits": 12}, CorruptDataError, "12 bits per pixel, expected 8 or 16"),
    ],
)
def test_impossible_headers(changes, error, match):
    """A size or version that cannot be is refused before anything is allocated."""
    with pytest.raises(error, match=match):
        parse_header(series_header((4, 5), **changes))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"serpentine": "both"}, "serpentine='both' is not known"),
        ({"sync_offset": 1.5}, "sync_offset=1.5 is not a whole number"),
        ({"hysteresis": 1}, "pass serpentine='odd' or 'even'"),
        ({"serpentine": "odd"}, "pass scan_shape"),
        ({"sync_offset": 6}, "leaves none of 6 frames"),
        ({"scan_shape": (2, 3), "serpentine": "odd", "hysteresis": 3}, "with longer rows"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, match):
    """Options that leave nothing, or meet no rows, are refused."""
    url = write_series(tmp_path, ramp(6))
    with pytest.raises(InputError, match=match):
        Tvips(**options)(str(url))


def test_not_one_frame(tmp_path):
    """A series without one whole frame, or a folder, is refused."""
    (tmp_path / "a_000.tvips").write_bytes(series_header((4, 5)) + bytes(20))
    with pytest.raises(TruncatedFileError, match="holds no whole record of 168 bytes"):
        Tvips()(str(tmp_path / "a_000.tvips"))
    with pytest.raises(InputError, match="are no files of one series"):
        Tvips()(str(tmp_path))


@given(data=st.data())
def test_damaged_recordings(tmp_path_factory, data):
    """Whatever the bytes are, the recording opens and reads, or is refused with one of our errors."""
    folder = tmp_path_factory.mktemp("tvips")
    url = write_series(folder, ramp(6), fields=scan_fields(2, 3))
    url.write_bytes(data.draw(damaged(url.read_bytes())))
    try:
        source = Tvips()(str(url))
        frames = source.read_frames(0, min(len(source.frame_of), 8))
    except StemStoreError:
        return
    assert frames.nbytes < 2**20
    assert np.prod(source.scan_shape) <= 2**22
