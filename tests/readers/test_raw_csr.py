"""RAW_CSR of LiberTEM: entries become events, geometry can be overridden, damage is named with frame and byte."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from encoders import write_raw_csr
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import (
    CorruptDataError,
    InputError,
    NotFoundError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources.contract import MISSING, VALID
from stemstore.testing import ReaderTests
from stemstore.testing.reader_tests import read
from stemstore_readers.raw_csr import RawCsr

NAV, SIG = (3, 4), (4, 10)  # neither is square


def random_rows(count, seed=0):
    """Entries of frames, in any order; the first, the last and a middle frame are empty."""
    random = np.random.default_rng(seed)
    rows = [list(zip(random.integers(0, 40, 5).tolist(), [1, 2, 1, 3, 1], strict=True)) for _ in range(count)]
    rows[0] = rows[count // 2] = rows[-1] = []
    return rows


def dense(rows, sig=SIG):
    """Sum of the values in every pixel of each frame."""
    frames = np.zeros((len(rows), sig[0] * sig[1]), np.int64)
    for frame, row in zip(frames, rows, strict=True):
        for pixel, value in row:
            frame[pixel] += value
    return frames.reshape(-1, *sig)


class TestConformance(ReaderTests):
    """The shared tests on unsorted entries with duplicates and values above one."""

    reader_cls = RawCsr
    truncation = "error"

    def make_file(self, tmp_path):
        rows = random_rows(12)
        path = write_raw_csr(tmp_path / "scan.toml", rows, nav=NAV, sig=SIG)
        return str(path), dense(rows).reshape(*NAV, *SIG), {}

    def last_file(self, url):
        return Path(url).with_name("values.dat")

    def make_big_file(self, tmp_path):
        path = write_raw_csr(tmp_path / "big.toml", [[]] * 12, nav=NAV, sig=SIG)
        for name, size in (("coords.dat", 4 * 2**26), ("values.dat", 2**26)):
            with (tmp_path / name).open("wb") as file:
                file.truncate(size)
        return str(path), {}


class TestConformanceBigEndian(TestConformance):
    """The shared tests on big-endian files, 32-bit pointers and a file type in capitals."""

    def make_file(self, tmp_path):
        rows = random_rows(12, seed=1)
        path = write_raw_csr(
            tmp_path / "scan.toml", rows, nav=NAV, sig=SIG, dtypes=(">i4", ">u2", ">u8"), filetype="RAW_CSR"
        )
        return str(path), dense(rows).reshape(*NAV, *SIG), {}

    def last_file(self, url):
        return Path(url).with_name("rowind.dat")


class TestConformanceOnes(TestConformance):
    """The shared tests on energies, every entry of which is one electron, and unsigned 64-bit pointers."""

    def make_file(self, tmp_path):
        rows = [[(pixel, 0.5 * value) for pixel, value in row] for row in random_rows(12, seed=2)]
        path = write_raw_csr(tmp_path / "scan.toml", rows, nav=NAV, sig=SIG, dtypes=("<u8", "<i8", "<f4"))
        truth = dense([[(pixel, 1) for pixel, _ in row] for row in rows])
        return str(path), truth.reshape(*NAV, *SIG), {"values": "ones"}

    def last_file(self, url):
        return Path(url).with_name("coords.dat")


@given(
    rows=st.lists(st.lists(st.tuples(st.integers(0, 39), st.integers(0, 4)), max_size=6), min_size=1, max_size=9),
    dtypes=st.tuples(st.sampled_from(["<i4", "<u8", ">i8"]), st.sampled_from(["<u1", ">i2", "<i8"]), st.just("<u2")),
)
def test_any_entries_add_up_to_the_dense_frames(tmp_path_factory, rows, dtypes):
    """Whatever order, duplicates, zeros and types there are, the electrons per pixel are the sums of the values."""
    path = tmp_path_factory.mktemp("csr") / "a.toml"
    write_raw_csr(path, rows, nav=(len(rows),), sig=SIG, dtypes=dtypes)
    source = RawCsr()(str(path))
    np.testing.assert_array_equal(read(source, 0, len(rows)), dense(rows))
    events = source.read_events(0, len(rows))
    assert all((np.diff(part.astype(int)) >= 0).all() for part in np.split(events.indices, events.indptr[1:-1]))


@pytest.fixture
def stack(tmp_path):
    """Describe 64 frames of 8 x 8 pixels, frame f with an electron in pixel f."""
    return write_raw_csr(tmp_path / "a.toml", [[(f, 1)] for f in range(64)], nav=(8, 8), sig=(8, 8))


@pytest.mark.parametrize(
    ("options", "frames", "text"),
    [
        ({"sync_offset": 2}, [*range(2, 64), None, None], "2 frames skipped at the start, 2 positions without"),
        ({"sync_offset": -2}, [None, None, *range(62)], "2 positions without a frame at the start, 2 frames ignored"),
        ({"scan_shape": (10, 8)}, [*range(64), *[None] * 16], "16 positions without a frame at the end"),
        ({"scan_shape": (6, 8)}, list(range(48)), "16 frames ignored at the end"),
        ({"scan_shape": (2, 4, 8)}, list(range(64)), None),
        ({"scan_shape": (64,)}, list(range(64)), None),
        ({"scan_shape": (5, 4), "sync_offset": 63}, [63, *[None] * 19], "63 frames skipped"),
        ({"scan_shape": (2, 4), "sync_offset": -10}, [None] * 8, "8 positions without a frame at the start"),
    ],
)
def test_scan_shape_and_offset(stack, options, frames, text):
    """Frames are laid out over the scan that is asked for; positions without one are missing, and both are told."""
    source = RawCsr(**options)(str(stack))
    events = source.read_events(0, len(frames))
    expected = [[] if frame is None else [frame] for frame in frames]
    assert [part.tolist() for part in np.split(events.indices, events.indptr[1:-1])] == expected
    state = [MISSING if frame is None else VALID for frame in frames]
    assert (state if source.validity is None else source.validity.tolist()) == state
    assert (text is None and not source.metadata.warnings) or text in source.metadata.warnings[0]
    for start in range(0, len(frames), 7):
        part = source.read_events(start, min(start + 7, len(frames)))
        np.testing.assert_array_equal(np.diff(part.indptr), np.diff(events.indptr)[start : start + 7])
        stop = events.indptr[min(start + 7, len(frames))]
        np.testing.assert_array_equal(part.indices, events.indices[events.indptr[start] : stop])


@pytest.mark.parametrize("offset", [64, -64])
def test_offset_that_leaves_nothing(stack, offset):
    """An offset of all frames is refused."""
    with pytest.raises(InputError, match=f"sync_offset={offset} leaves none of 64 frames"):
        RawCsr(sync_offset=offset)(str(stack))


def test_detector_shape(stack):
    """The detector may be arranged anew with the same pixels, and with no others."""
    source = RawCsr(detector_shape=(4, 16))(str(stack))
    assert source.frame_shape == (4, 16)
    assert read(source, 17, 18)[0, 1, 1] == 1
    with pytest.raises(InputError, match=r"has 65 pixels, but the frames of .* have 64"):
        RawCsr(detector_shape=(5, 13))(str(stack))


def test_flat_detector_needs_rows_and_columns(tmp_path):
    """A detector of one axis opens where rows and columns are given, and says so where not."""
    path = write_raw_csr(tmp_path / "a.toml", [[(9, 1)]], nav=(1,), sig=(40,))
    with pytest.raises(CorruptDataError, match=r"sig_shape in .* pass detector_shape="):
        RawCsr()(str(path))
    assert read(RawCsr(detector_shape=(4, 10))(str(path)), 0, 1)[0, 0, 9] == 1


def test_flyback_is_stated_by_the_user(stack):
    """Flyback columns are kept in the acquisition; none are guessed."""
    assert RawCsr(scan_shape=(7, 8))(str(stack)).metadata.acquisition.flyback_columns == 0
    assert RawCsr(flyback_columns=1)(str(stack)).metadata.acquisition.flyback_columns == 1
    with pytest.raises(InputError, match="flyback_columns=8"):
        RawCsr(flyback_columns=8)(str(stack))


def test_vendor_metadata_keep_the_description(stack):
    """The description is kept as it stands, dates as texts."""
    stack.write_text(stack.read_text() + "\n[extra]\na = 1\n".replace("extra", "other"), encoding="utf-8")
    text = stack.read_text().replace("[params]", "[params]\nday = 2024-05-17")
    stack.write_text(text, encoding="utf-8")
    vendor = RawCsr()(str(stack)).metadata.vendor
    assert vendor["params"]["day"] == "2024-05-17"
    assert vendor["raw_csr"]["indptr_file"] == "rowind.dat"


def damaged(path, name, dtype, entry, value):
    """Overwrite one number of a file."""
    numbers = np.fromfile(path.with_name(name), dtype)
    numbers[entry] = value
    numbers.tofile(path.with_name(name))


@pytest.mark.parametrize(
    ("name", "dtype", "entry", "value", "text"),
    [
        ("coords.dat", "<i4", 7, 64, r"frame 7 has the pixel 64 \(byte 28 of .*coords.dat'\), expected 0 to 63"),
        ("coords.dat", "<i4", 7, -1, r"frame 7 has the pixel -1 \(byte 28 of"),
        ("values.dat", "<i1", 9, -3, r"frame 9 has the value -3 \(byte 9 of .*values.dat"),
        ("rowind.dat", "<i8", 5, 3, r"frame 5 starts at entry 3 \(byte 40 of .*rowind.dat'\), expected a rising"),
        ("rowind.dat", "<i8", 5, 900, r"frame 5 starts at entry 900 .* up to 64"),
        ("rowind.dat", "<i8", 5, -1, r"frame 5 starts at entry -1 "),
    ],
)
def test_numbers_that_cannot_be(tmp_path, name, dtype, entry, value, text):
    """A wrong number is named with frame, file and byte when it is met, and not before."""
    rows = [[(f, 1)] for f in range(64)]
    path = write_raw_csr(tmp_path / "a.toml", rows, nav=(8, 8), sig=(8, 8), dtypes=("<i8", "<i4", "<i1"))
    damaged(path, name, dtype, entry, value)
    source = RawCsr()(str(path))
    assert source.read_events(20, 64).indices.tolist() == list(range(20, 64))
    with pytest.raises(CorruptDataError, match=text):
        source.read_events(2, 20)


def test_values_too_large_for_electrons(tmp_path):
    """Energies in the place of counts do not fill the memory."""
    path = write_raw_csr(tmp_path / "a.toml", [[(1, 2**40)]], nav=(1,), sig=SIG, dtypes=("<i8", "<i4", "<u8"))
    with pytest.raises(CorruptDataError, match=r"frame 0 has the value 1099511627776 .* pass values='ones'"):
        RawCsr()(str(path)).read_events(0, 1)
    assert RawCsr(values="ones")(str(path)).read_events(0, 1).indices.tolist() == [1]


def test_many_large_values_in_a_frame(tmp_path):
    """A frame whose values add up to more than any detector counts is refused before it fills the memory."""
    path = write_raw_csr(tmp_path / "a.toml", [[(1, 2**26)] * 3], nav=(1,), sig=SIG, dtypes=("<i8", "<i4", "<u4"))
    source = RawCsr()(str(path))
    with pytest.raises(CorruptDataError, match=r"values of frame 0 .* add up to"):
        source.read_events(0, 1)


def test_real_values_are_refused(tmp_path):
    """Values that are no whole numbers say what can be done."""
    path = write_raw_csr(tmp_path / "a.toml", [[(1, 0.5)]], nav=(1,), sig=SIG, dtypes=("<i8", "<i4", "<f8"))
    with pytest.raises(InputError, match=r"are float64, expected whole numbers of electrons; pass values='ones'"):
        RawCsr()(str(path))


@pytest.mark.parametrize(
    ("old", "new", "error", "text"),
    [
        ('filetype = "raw_csr"', 'filetype = "raw"', UnknownFormatError, "filetype in .* is 'raw'"),
        ("[params]", "[params", CorruptDataError, "is no TOML"),
        ("[raw_csr]", "[RAW_CSR]", CorruptDataError, r"has no table \[raw_csr\]"),
        ('"rowind.dat"', '"nowhere.dat"', NotFoundError, r"nowhere.dat', named as indptr_file in .*, does not exist"),
        ('"rowind.dat"', "3", CorruptDataError, "indptr_file in .* is 3, expected a text"),
        ('"<i8"', '"<f8"', CorruptDataError, "indptr_dtype in .* is float64, expected whole numbers"),
        ('"<i4"', '"nonsense"', CorruptDataError, "indices_dtype in .* cannot be used"),
        ("nav_shape = [8, 8]", "", CorruptDataError, r"nav_shape in .* pass scan_shape="),
        ("sig_shape = [8, 8]", "sig_shape = [70000, 70000]", CorruptDataError, "states frames of"),
        ('"<i8"', '"<i4"', TruncatedFileError, "has 64 entries, but the last frame ends at"),
    ],
)
def test_wrong_descriptions(stack, old, new, error, text):
    """What is wrong in the TOML is named with its key."""
    content = stack.read_text()
    assert old in content
    stack.write_text(content.replace(old, new), encoding="utf-8")
    if new == '"<i4"':
        damaged(stack, "rowind.dat", "<i4", -1, 900)
    with pytest.raises(error, match=text):
        RawCsr()(str(stack))


def test_entries_without_a_frame_are_told(stack):
    """Entries behind the last frame are ignored with a warning."""
    for name, more in (("coords.dat", 8), ("values.dat", 2)):
        with stack.with_name(name).open("ab") as file:
            file.write(bytes(more))
    source = RawCsr()(str(stack))
    assert "2 entries of" in source.metadata.warnings[0]
    assert source.read_events(63, 64).indices.tolist() == [63]


def test_file_that_shrinks_after_opening(stack):
    """A file cut after it was opened is an error, not an end of the process or stale events."""
    source = RawCsr()(str(stack))
    coords = stack.with_name("coords.dat")
    coords.write_bytes(coords.read_bytes()[:100])
    with pytest.raises(TruncatedFileError, match=r"coords.dat"):
        source.read_events(0, 64)


def test_detection_by_content(stack):
    """The file type decides, in any case and in long files too; other and broken TOML is not claimed."""
    content = stack.read_bytes()
    assert RawCsr.matches("a.txt", content) == 1.0
    assert RawCsr.matches("a.toml", content.replace(b"raw_csr", b"RAW_CSR")) == 1.0
    assert RawCsr.matches("a.toml", (content + b"# " + b"x" * 5000)[:4096]) == 0.9
    assert RawCsr.matches("a.toml", content.replace(b"[params]", b"[params")) == 0.0
    assert RawCsr.matches("a.toml", b'[other]\nname = "raw_csr"\n') == 0.0


def test_unknown_options():
    """Options that cannot be used are refused when the reader is made."""
    with pytest.raises(InputError, match="values='energy' is not known"):
        RawCsr(values="energy")
    with pytest.raises(InputError, match=r"sync_offset=1\.5"):
        RawCsr(sync_offset=1.5)


def test_work_follows_the_entries_and_not_the_detector(tmp_path):
    """34 GB of frames with an electron each take memory for electrons only; LiberTEM 0.16 plans for dense frames."""
    path = write_raw_csr(tmp_path / "a.toml", [[(number, 1)] for number in range(2048)], nav=(2048,), sig=(4096, 4096))
    source = RawCsr()(str(path))
    tracemalloc.start()
    try:
        events = source.read_events(0, 2048)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(events.indices, np.arange(2048))
    assert peak < 2**20
