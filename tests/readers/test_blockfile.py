"""Blockfiles: patterns, scan and calibration of the header; damage is named with its byte."""

from __future__ import annotations

import math

import numpy as np
import pytest
from encode_blockfile import encode
from evidence import check_array, damaged, expected, whole
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError, InputError, StemStoreError, TruncatedFileError, UnknownFormatError
from stemstore.testing import ReaderTests
from stemstore_readers.blockfile import Blockfile, parse_header


def some(rows=3, columns=2, size=5, dtype="u1"):
    """Distinct pixels."""
    count = rows * columns * size * size
    return (np.arange(count) % 251).astype(dtype).reshape(rows, columns, size, size)


class TestConformance(ReaderTests):
    """The shared tests on a scan that is not square."""

    reader_cls = Blockfile

    def make_file(self, tmp_path):
        truth = some()
        (tmp_path / "a.blo").write_bytes(encode(truth))
        return str(tmp_path / "a.blo"), truth, {}

    def make_big_file(self, tmp_path):
        path, start = tmp_path / "big.blo", 4096 + 64 * 32
        with path.open("wb") as file:
            file.write(encode(np.empty((0, 0, 0), "u1"), size=256, rows=64, columns=32, patterns=start))
            for number in (0, 1):
                file.seek(start + number * (6 + 2**16))
                file.write(b"\xaa\x55" + number.to_bytes(4, "little"))
            file.truncate(start + 64 * 32 * (6 + 2**16))
        return str(path), {}


def test_measured_scan(sample):
    """A scan of the microscope reads as other programs read it."""
    truth = expected(sample, "blockfile/test1.blo")
    source = Blockfile()(str(sample("blockfile/test1.blo")))
    check_array(whole(source), truth)
    axes = {axis.name: axis for axis in source.metadata.axes}
    assert axes["y"].step == axes["x"].step == 12.8
    assert axes["ky"].step == pytest.approx(1000 * math.atan(truth["axes"][2]["scale"] / 20), rel=1e-3)
    acquisition = source.metadata.acquisition
    assert (acquisition.beam_energy.value, acquisition.camera_length.value) == (200, 200)
    assert source.metadata.vendor["scan_rotation"] == 2500
    (warning,) = source.metadata.warnings
    assert warning.startswith("the detector axes start at zero; the middle of the frame")


def test_calibration_of_both_axes(tmp_path):
    """SX is the step along a row; a detector pixel of 1/62.5 cm at 20 cm is 0.8 mrad; the date has no zone."""
    (tmp_path / "a.blo").write_bytes(encode(some(), note=b"\xb5-probe"))
    metadata = Blockfile()(str(tmp_path / "a.blo")).metadata
    assert [(axis.name, round(axis.step, 6)) for axis in metadata.axes] == [
        ("y", 10.0), ("x", 12.5), ("ky", 0.8), ("kx", 0.8),
    ]  # fmt: skip
    assert metadata.acquisition.start_time == "2020-05-19T12:00:00"
    assert metadata.vendor["note"] == "µ-probe"


def test_no_calibration(tmp_path):
    """Zeros in the header are no calibration."""
    (tmp_path / "a.blo").write_bytes(encode(some(), per_cm=0, step_x=0.0, step_y=math.nan, energy=0, time=-1.0))
    metadata = Blockfile()(str(tmp_path / "a.blo")).metadata
    assert not metadata.axes
    assert metadata.acquisition.beam_energy is metadata.acquisition.start_time is None


@pytest.mark.parametrize(("changes", "match"), [({"first_number": 7}, "from 7"), ({"version": 0x0202}, "0x0202")])
def test_odd_but_readable(tmp_path, changes, match):
    """Another first number or version is reported; the patterns are read."""
    truth = some()
    (tmp_path / "a.blo").write_bytes(encode(truth, **changes))
    source = Blockfile()(str(tmp_path / "a.blo"))
    np.testing.assert_array_equal(whole(source), truth)
    assert any(match in text for text in source.metadata.warnings)


@pytest.mark.parametrize("shape", [(3, 2), (1, 1)])
def test_16_bit(tmp_path, shape):
    """Patterns of 16 bit are known by the place of the second one, or by the size of the file."""
    truth = some(*shape, dtype="u2") * 200
    (tmp_path / "a.blo").write_bytes(encode(truth))
    source = Blockfile()(str(tmp_path / "a.blo"))
    assert source.dtype == np.uint16
    np.testing.assert_array_equal(whole(source), truth)


def test_interrupted_scan(tmp_path):
    """A scan of which two and a half patterns were written has the others marked missing."""
    truth = some()
    content = encode(truth)
    (tmp_path / "a.blo").write_bytes(content[: -3 * 31 - 15])
    source = Blockfile()(str(tmp_path / "a.blo"))
    assert source.validity.tolist() == [2, 2, 0, 0, 0, 0]
    np.testing.assert_array_equal(whole(source).reshape(6, 5, 5)[:2], truth.reshape(6, 5, 5)[:2])


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (encode(some(), marker=b"\xaa\x56"), CorruptDataError, r"begins with aa 56 at byte 4112"),
        (encode(some(), size=4), CorruptDataError, r"pattern 1 of .* does not begin with aa 55 at byte 4134"),
        (encode(some(), size=0), CorruptDataError, "patterns of size 0"),
        (encode(some(), patterns=100), CorruptDataError, "the patterns at 100"),
        (encode(some())[:200], TruncatedFileError, "header has 200 bytes"),
        (encode(some())[:4130], TruncatedFileError, "ends before its first pattern of 31 bytes"),
        (b"IMGBLX" + bytes(500), UnknownFormatError, "expected b'IMGBLO'"),
    ],
)
def test_damage(tmp_path, content, error, match):
    """A file that cannot be read is refused with the byte where it goes wrong."""
    (tmp_path / "a.blo").write_bytes(content)
    with pytest.raises(error, match=match):
        Blockfile()(str(tmp_path / "a.blo"))


def test_one_file_at_a_time(tmp_path):
    """A folder is no blockfile."""
    with pytest.raises(InputError, match="open blockfiles one at a time"):
        Blockfile()(str(tmp_path))


@given(data=st.data())
def test_damaged_files(tmp_path_factory, data):
    """Whatever the header holds, the file opens and reads, or is refused with one of our errors."""
    path = tmp_path_factory.mktemp("blo") / "a.blo"
    path.write_bytes(data.draw(damaged(encode(some()), head=240)))
    try:
        source = Blockfile()(str(path))
        frames = source.read_frames(0, min(np.prod(source.scan_shape), 4))
    except StemStoreError:
        return
    assert frames.nbytes < 2**20


@given(st.binary(max_size=300))
def test_any_header(content):
    """Bytes behind the magic are a header or one of our errors."""
    try:
        assert parse_header(b"IMGBLO" + content).size > 0
    except StemStoreError as error:
        assert error.kind in ("truncated", "corrupt")  # noqa: PT017 (either outcome is right)
