"""NCEM 4D Camera sector files: every sector in its place, every oddity reported."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from encoders import SectorScan

import stemstore
from stemstore.errors import (
    FormatVersionError,
    InputError,
    NotFoundError,
    SectorMismatchError,
    TruncatedFileError,
)
from stemstore.sources.contract import MISSING, PARTIAL, VALID, FrameSource
from stemstore.testing import ReaderTests
from stemstore_readers.ncem_sectors import NcemSectors

if TYPE_CHECKING:
    from pathlib import Path

RECORD = 165904


class TestConformance(ReaderTests):
    """The shared tests on version 5, shuffled, two files a module, two exposures a position."""

    remote = False
    reader_cls = NcemSectors
    scan = SectorScan(shape=(2, 2), exposures=2, files_per_module=2, shuffle=True)

    def make_file(self, tmp_path):
        self.scan.write(tmp_path / "scan")
        truth = self.scan.truth()
        return str(tmp_path / "scan"), truth[0] if self.scan.exposures == 1 else truth, {"version": self.scan.version}

    def make_big_file(self, tmp_path):
        for module in range(4):
            with (tmp_path / f"data_scan0000000015_module{module}_000.data").open("wb") as file:
                for number in range(256):
                    file.seek(number * RECORD)
                    file.write(replace(self.scan, shape=(16, 16)).header(number, *divmod(number, 16)))
                file.truncate(256 * RECORD)
        return str(tmp_path), {}


class TestConformanceVersion4(TestConformance):
    """The shared tests on sectors of columns."""

    scan = SectorScan(shape=(2, 3), version=4, files_per_module=2, shuffle=True)
    make_big_file = ReaderTests.make_big_file


class TestConformanceVersion3(TestConformance):
    """The shared tests on whole frames."""

    scan = SectorScan(shape=(3, 2), version=3, shuffle=True)
    make_big_file = ReaderTests.make_big_file


def opened(scan: SectorScan, folder: Path, **options):
    scan.write(folder)
    return NcemSectors(version=scan.version, **options)(str(folder))


def test_versions_give_identical_frames(tmp_path):
    """Versions 3, 4 and 5 made from the same frames are read as the same frames."""
    scans = [SectorScan(shape=(2, 2), version=version) for version in (3, 4, 5)]
    three, four, five = (opened(scan, tmp_path / str(scan.version)).read_frames(0, 4) for scan in scans)
    np.testing.assert_array_equal(three, four)
    np.testing.assert_array_equal(four, five)


def test_sectors_are_described(tmp_path):
    """Modules fill rows 144 m to 144 m + 144 in version 5 and the same columns in version 4."""
    five = opened(SectorScan(), tmp_path / "5").metadata.detector
    four = opened(SectorScan(version=4), tmp_path / "4").metadata.detector
    assert [(s.rows, s.columns) for s in five.sectors] == [((144 * m, 144 * m + 144), (0, 576)) for m in range(4)]
    assert [(s.columns, s.rows) for s in four.sectors] == [((144 * m, 144 * m + 144), (0, 576)) for m in range(4)]
    assert five.name == "NCEM 4D Camera"


def test_order_and_spread_do_not_matter(tmp_path):
    """Shuffled records in three files a module are the frames of one ordered file a module."""
    scan = SectorScan(shape=(3, 3))
    ordered = opened(scan, tmp_path / "a")
    shuffled = opened(replace(scan, shuffle=True, files_per_module=3), tmp_path / "b")
    np.testing.assert_array_equal(ordered.read_frames(0, 9), shuffled.read_frames(0, 9))
    assert all(file.size % RECORD == 0 for file in shuffled.metadata.files)
    assert sum(file.size for file in shuffled.metadata.files) == 36 * RECORD


def test_three_exposures_a_position(tmp_path):
    """Frames of one position come in ascending order along a leading axis; stempy 3.6 mixes their modules."""
    scan = SectorScan(shape=(2, 2), exposures=3, shuffle=True, files_per_module=2)
    source = opened(scan, tmp_path)
    assert source.scan_shape == (3, 2, 2)
    assert source.metadata.acquisition.frames_per_position == 3
    np.testing.assert_array_equal(source.read_frames(0, 12).reshape(scan.truth().shape), scan.truth())


@pytest.mark.parametrize("version", [4, 5])
def test_lost_sectors_are_zero_and_partial(tmp_path, version):
    """A lost sector is zero and its frame partial, a frame without a record missing; stempy does not tell."""
    lost = {(1, 2)} | {(4, module) for module in range(4)}
    scan = SectorScan(version=version, lost=lost)
    source = opened(scan, tmp_path)
    assert source.validity.tolist() == [VALID, PARTIAL, VALID, VALID, MISSING, VALID]
    expected = scan.truth()[0].reshape(6, 576, 576)
    part = (slice(None), slice(288, 432)) if version == 4 else (slice(288, 432),)
    expected[(1, *part)] = 0
    expected[4] = 0
    np.testing.assert_array_equal(source.read_frames(0, 6, out=np.full((6, 576, 576), 9, np.uint16)), expected)
    assert source.metadata.vendor["fraction_captured"] == 19 / 24
    assert any("5 of 24 sectors are lost (79.17% captured)" in text for text in source.metadata.warnings)


def test_captured_fraction_of_a_thinned_scan(tmp_path):
    """With 25 of 1024 records dropped, 0.9756 of the sectors are captured."""
    blank = bytes(RECORD - 16)
    scan = SectorScan(shape=(16, 16))
    total = 0
    for module in range(4):
        numbers = [n for n in range(256) if not (module == 1 and n < 25)]
        path = tmp_path / f"data_scan0000000015_module{module}_000.data"
        with path.open("wb") as file:
            for number in numbers:
                file.write(scan.header(number, *divmod(number, 16)) + blank)
        total += path.stat().st_size
    source = NcemSectors()(str(tmp_path))
    assert total == 169_885_696 - 25 * RECORD
    assert round(source.metadata.vendor["fraction_captured"], 4) == 0.9756
    assert (source.validity == PARTIAL).sum() == 25


def test_missing_module_is_refused(tmp_path):
    """A module without a file is an error that names it and the option that accepts it; stempy 3.6 hangs."""
    SectorScan().write(tmp_path)
    for module in (1, 2):
        (tmp_path / f"data_scan0000000015_module{module}_000.data").unlink()
    with pytest.raises(SectorMismatchError, match=r"modules 1, 2 have no file .* pass allow_missing_modules=True"):
        NcemSectors()(str(tmp_path))


def test_missing_module_can_be_allowed(tmp_path):
    """With allow_missing_modules the rows of the module stay zero and every frame is partial."""
    scan = SectorScan()
    scan.write(tmp_path)
    (tmp_path / "data_scan0000000015_module3_000.data").unlink()
    source = NcemSectors(allow_missing_modules=True)(str(tmp_path))
    frames = source.read_frames(0, 6)
    assert (source.validity == PARTIAL).all()
    assert not frames[:, 432:].any()
    np.testing.assert_array_equal(frames[:, :432], scan.truth().reshape(6, 576, 576)[:, :432])


def test_truncated_last_record(tmp_path):
    """A record cut by 100 bytes is one sector less, told by file and bytes; stempy 3.6 shows what was there before."""
    scan = SectorScan()
    last = scan.write(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:-100])
    source = NcemSectors()(str(tmp_path))
    warning = next(text for text in source.metadata.warnings if "ends with" in text)
    assert last.name in warning
    assert f"{RECORD - 100} bytes" in warning
    assert source.validity.tolist() == [VALID] * 5 + [PARTIAL]
    assert not source.read_frames(5, 6)[0, 432:].any()


@pytest.mark.parametrize("size", [0, 1000])
def test_file_without_a_whole_record(tmp_path, size):
    """A file shorter than one record, an empty one included, is refused by name."""
    last = SectorScan().write(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:size])
    with pytest.raises(
        TruncatedFileError, match=rf"module3_000\.data' has {size} bytes and holds no whole record of 165904"
    ):
        NcemSectors()(str(tmp_path))


def test_empty_file_beside_others_of_its_module(tmp_path):
    """A receiver thread that got no frame leaves an empty file; it is left out and told."""
    scan = SectorScan()
    scan.write(tmp_path)
    (tmp_path / "data_scan0000000015_module2_009.data").touch()
    source = NcemSectors()(str(tmp_path))
    assert "1 files are empty" in " ".join(source.metadata.warnings)
    assert source.validity is None


def test_file_that_shrinks_after_opening(tmp_path):
    """A record that vanished since opening is an error, not old memory."""
    last = SectorScan().write(tmp_path)[-1]
    source = NcemSectors()(str(tmp_path))
    last.write_bytes(last.read_bytes()[:-50])
    with pytest.raises(TruncatedFileError, match="shortened after it was opened"):
        source.read_frames(0, 6)


def test_two_scans_by_file_name(tmp_path):
    """Two scans in one folder are refused with both numbers, and told apart by scan_number."""
    scans = [SectorScan(scan=15), SectorScan(scan=16, shape=(1, 2))]
    for scan in scans:
        scan.write(tmp_path)
    with pytest.raises(SectorMismatchError, match=r"scans 15, 16; choose one, for example scan_number=15"):
        NcemSectors()(str(tmp_path))
    source = NcemSectors(scan_number=16)(str(tmp_path))
    assert source.scan_shape == (1, 2)
    assert source.metadata.acquisition.scan_number == 16
    assert any("4 files of other scans than 16 are ignored" in text for text in source.metadata.warnings)


def test_two_scans_inside_one_file(tmp_path):
    """A record of another scan is refused, or ignored and reported when scan_number is given."""
    scan = SectorScan()
    first = scan.write(tmp_path)[0]
    with first.open("ab") as file:
        file.write(scan.header(0, 0, 0, scan=99) + bytes(RECORD - 16))
    with pytest.raises(SectorMismatchError, match=r"15 \(24 records\), 99 \(1 records\); .* scan_number=15"):
        NcemSectors()(str(tmp_path))
    source = NcemSectors(scan_number=15)(str(tmp_path))
    np.testing.assert_array_equal(source.read_frames(0, 6).reshape(scan.truth()[0].shape), scan.truth()[0])
    assert any("1 records of other scans" in text and "record 6" in text for text in source.metadata.warnings)
    with pytest.raises(SectorMismatchError, match="no record of scan 7"):
        NcemSectors(scan_number=7)(str(tmp_path))


@pytest.mark.parametrize(
    ("written", "option", "remedy"), [(3, 5, "version=3"), (5, 3, "version=5"), (4, 3, "version=5")]
)
def test_wrong_version_option(tmp_path, written, option, remedy):
    """A record length that contradicts the files is an error naming the version that fits."""
    SectorScan(version=written).write(tmp_path)
    if written == 3:
        for path in tmp_path.iterdir():
            path.rename(path.with_name("data_scan0000000015_module0_000.data"))
    with pytest.raises(FormatVersionError, match=rf"do not fit header version {option} .* pass {remedy}"):
        NcemSectors(version=option)(str(tmp_path))


def test_headers_of_no_version(tmp_path):
    """Noise under a right name fits no version."""
    noise = np.random.default_rng(1).integers(0, 255, 20 * RECORD, dtype=np.uint8)
    (tmp_path / "data_scan0000000015_module0_000.data").write_bytes(noise.tobytes())
    with pytest.raises(FormatVersionError, match="contradict each other under every known version"):
        NcemSectors()(str(tmp_path))


def test_unknown_version_option():
    """Versions that are not readable are refused with the list of those that are."""
    with pytest.raises(InputError, match="version=6 is not known; expected one of 1, 2, 3, 4, 5"):
        NcemSectors(version=6)


def test_position_outside_the_scan(tmp_path):
    """A header position beyond the scan names file, record, position and scan size; stempy writes there."""
    scan = SectorScan()
    first = scan.write(tmp_path)[0]
    content = bytearray(first.read_bytes())
    content[2 * RECORD : 2 * RECORD + 16] = scan.header(2, 7, 1)
    first.write_bytes(content)
    with pytest.raises(
        SectorMismatchError, match=r"module0_000\.data' record 2 lies at row 7, column 1, outside .* 2 rows"
    ):
        NcemSectors()(str(tmp_path))


def test_sectors_of_one_frame_disagree(tmp_path):
    """Two sectors of one frame at different positions are refused."""
    scan = SectorScan()
    first = scan.write(tmp_path)[0]
    content = bytearray(first.read_bytes())
    content[2 * RECORD : 2 * RECORD + 16] = scan.header(2, 1, 1)
    first.write_bytes(content)
    with pytest.raises(SectorMismatchError, match="belong to frame 2 but state the positions"):
        NcemSectors()(str(tmp_path))


def test_positions_stuck_at_zero(tmp_path):
    """Headers that all state one position are refused instead of filling the memory with empty exposures."""
    blank = bytes(RECORD - 16)
    scan = SectorScan(shape=(3000, 3000))
    for module in range(4):
        records = [scan.header(number, 0, 0) + blank for number in range(3)]
        (tmp_path / f"data_scan15_module{module}.data").write_bytes(b"".join(records))
    with pytest.raises(SectorMismatchError, match="9000000 positions and up to 3 frames at one of them, but only 3"):
        NcemSectors()(str(tmp_path))


def test_scan_of_many_exposures_that_was_stopped(tmp_path):
    """Three exposures of the first position of a 128 x 128 scan are a scan whose other frames are missing."""
    blank = bytes(RECORD - 16)
    scan = SectorScan(shape=(128, 128))
    for module in range(4):
        records = [scan.header(number, 0, 0) + blank for number in range(3)]
        (tmp_path / f"data_scan15_module{module}.data").write_bytes(b"".join(records))
    source = NcemSectors()(str(tmp_path))
    assert source.scan_shape == (3, 128, 128)
    assert np.flatnonzero(source.validity).tolist() == [0, 128 * 128, 2 * 128 * 128]


def test_headers_disagree_about_the_scan_size(tmp_path):
    """Records that state different scan sizes are refused with both; a stated size settles it."""
    scan = SectorScan()
    first = scan.write(tmp_path)[0]
    content = bytearray(first.read_bytes())
    content[2 * RECORD : 2 * RECORD + 16] = replace(scan, shape=(2, 4)).header(2, 0, 2)
    first.write_bytes(content)
    with pytest.raises(SectorMismatchError, match=r"record 2 states a scan of 2 rows and 4 columns, .* 2 rows and 3"):
        NcemSectors()(str(tmp_path))
    assert NcemSectors(scan_shape=(2, 3))(str(tmp_path)).validity is None


def test_duplicate_record(tmp_path):
    """Of two records for one sector the first counts; both places are reported."""
    scan = SectorScan()
    first = scan.write(tmp_path)[0]
    with first.open("ab") as file:
        file.write(scan.header(1, 0, 1) + b"\xff" * (RECORD - 16))
    source = NcemSectors()(str(tmp_path))
    np.testing.assert_array_equal(source.read_frames(1, 2)[0], scan.truth()[0, 0, 1])
    warning = next(text for text in source.metadata.warnings if "duplicate" in text)
    assert "record 6 repeats" in warning
    assert "record 1" in warning


def test_file_name_without_module(tmp_path):
    """A data file whose name states no module is refused by name; stempy takes it for module -1."""
    SectorScan().write(tmp_path)
    (tmp_path / "data_scan0000000015_extra.data").write_bytes(bytes(RECORD))
    with pytest.raises(InputError, match=r"data_scan0000000015_extra\.data' states no module"):
        NcemSectors()(str(tmp_path))


def test_module_beyond_the_detector(tmp_path):
    """A module number above 3 is refused by name."""
    SectorScan().write(tmp_path)
    (tmp_path / "data_scan0000000015_module4_000.data").write_bytes(bytes(RECORD))
    with pytest.raises(InputError, match="states module 4, expected 0 to 3"):
        NcemSectors()(str(tmp_path))


def test_module_comes_from_the_file_name(tmp_path):
    """The module is the last one named in the file name; folders do not count."""
    scan = SectorScan()
    for path in scan.write(tmp_path / "module2"):
        path.rename(path.with_name(path.name.replace("_module", "_module3_module")))
    source = NcemSectors()(str(tmp_path / "module2"))
    np.testing.assert_array_equal(source.read_frames(0, 1)[0], scan.truth()[0, 0, 0])


def test_several_folders_files_and_patterns(tmp_path):
    """Folders of several mounts, a list of files and a pattern give the same scan."""
    scan = SectorScan(files_per_module=2)
    paths = scan.write(tmp_path / "all")
    for number, path in enumerate(paths):
        target = tmp_path / f"mount{number % 3}"
        target.mkdir(exist_ok=True)
        shutil.copy(path, target)
    arguments = [
        [str(tmp_path / f"mount{number}") for number in range(3)],
        [str(path) for path in paths],
        str(tmp_path / "mount[0-9]" / "*.data"),
    ]
    for argument in arguments:
        source = NcemSectors()(argument)
        np.testing.assert_array_equal(source.read_frames(0, 6).reshape(scan.truth()[0].shape), scan.truth()[0])


def test_sub_folder_temp(tmp_path):
    """A mount whose files still lie in the sub-folder temp is read from there."""
    SectorScan().write(tmp_path / "temp")
    assert NcemSectors()(str(tmp_path)).scan_shape == (2, 3)


def test_folder_without_data(tmp_path):
    """A folder without .data files says what is expected."""
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(NotFoundError, match=r"holds no file with the ending \.data"):
        NcemSectors()(str(tmp_path))


def test_flyback_column_is_guessed_and_can_be_stated(tmp_path):
    """One column more than rows is guessed as flyback and reported; a stated number is not."""
    scan = SectorScan(shape=(2, 3))
    guessed = opened(scan, tmp_path)
    stated = NcemSectors(flyback_columns=0)(str(tmp_path))
    assert guessed.metadata.acquisition.flyback_columns == 1
    assert any("guessed to be flyback" in text for text in guessed.metadata.warnings)
    assert stated.metadata.acquisition.flyback_columns == 0
    assert stated.metadata.warnings == []
    hidden = guessed.read_frames(0, 6).reshape(2, 3, 576, 576)[:, :2]
    np.testing.assert_array_equal(hidden, scan.truth()[0, :, :2])


def test_other_widths_carry_no_flyback(tmp_path):
    """A scan that is not one column wider than high has no flyback unless the user says so."""
    assert opened(SectorScan(shape=(2, 2)), tmp_path).metadata.acquisition.flyback_columns == 0
    assert NcemSectors(flyback_columns=1)(str(tmp_path)).metadata.acquisition.flyback_columns == 1
    with pytest.raises(InputError, match="flyback_columns=2 does not fit a scan of 2 columns"):
        NcemSectors(flyback_columns=2)(str(tmp_path))


def test_swap_of_x_and_y(tmp_path):
    """Headers with x and y exchanged are read with swap_xy, and refused without where it shows."""
    scan = SectorScan(shape=(2, 3))
    for module in range(4):
        records = []
        for number in range(6):
            y, x = divmod(number, 3)
            records.append(scan.header(number, x, y) + scan.pixels(scan.truth()[0, y, x], module))
        (tmp_path / f"data_scan15_module{module}.data").write_bytes(b"".join(records))
    with pytest.raises(SectorMismatchError, match="or try swap_xy=True"):
        NcemSectors()(str(tmp_path))
    source = NcemSectors(swap_xy=True)(str(tmp_path))
    np.testing.assert_array_equal(source.read_frames(0, 6).reshape(scan.truth()[0].shape), scan.truth()[0])


def test_stated_scan_shape(tmp_path):
    """A scan shape from the user replaces the one of the headers; what is not there is missing."""
    scan = SectorScan(shape=(2, 3))
    source = opened(scan, tmp_path, scan_shape=(3, 4))
    assert source.scan_shape == (3, 4)
    assert source.metadata.acquisition.scan_shape_source == "user"
    assert source.validity.reshape(3, 4).tolist() == [[2, 2, 2, 0], [2, 2, 2, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(source.read_frames(4, 5)[0], scan.truth()[0, 1, 0])


@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 4), (2.0, 3), "23", (True, 3)])
def test_bad_scan_shape(shape):
    """Anything but two whole numbers above zero is refused as scan shape."""
    with pytest.raises(InputError, match="is not a shape; expected 2 whole numbers"):
        NcemSectors(scan_shape=shape)


def test_receiver_status(tmp_path):
    """Status files of this scan are kept verbatim, receiver 0 gives the time; others are left out."""
    status = {"time": "2023-08-15T12:30:00", "last_scan_number": 15, "progress": 100.0, "UUID": "abc"}
    (tmp_path / "4dstem_rec_status_0.json").write_text(json.dumps(status))
    (tmp_path / "4dstem_rec_status_1_scan_15.json").write_text(json.dumps(status | {"UUID": "def"}))
    (tmp_path / "4dstem_rec_status_2.json").write_text(json.dumps(status | {"last_scan_number": 16}))
    (tmp_path / "4dstem_rec_status_3.json").write_text("{broken")
    source = opened(SectorScan(), tmp_path)
    assert source.metadata.vendor["receiver_status"] == {"0": status, "1": status | {"UUID": "def"}}
    assert source.metadata.acquisition.start_time == "2023-08-15T12:30:00"
    assert any("4dstem_rec_status_3.json" in text for text in source.metadata.warnings)


def test_unusable_time_does_not_stop_opening(tmp_path):
    """A status time that is no ISO 8601 is reported and left out."""
    status = {"time": "yesterday", "last_scan_number": 15}
    (tmp_path / "4dstem_rec_status_0.json").write_text(json.dumps(status))
    source = opened(SectorScan(), tmp_path)
    assert source.metadata.acquisition.start_time is None
    assert any("'yesterday'" in text for text in source.metadata.warnings)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_scans_of_one_position_row_or_column(tmp_path, shape):
    """A scan of one frame, one row or one column is a scan like any other."""
    scan = SectorScan(shape=shape)
    source = opened(scan, tmp_path)
    np.testing.assert_array_equal(
        source.read_frames(0, shape[0] * shape[1]).reshape(scan.truth()[0].shape), scan.truth()[0]
    )


def test_source_keeps_the_contract(tmp_path):
    """The source is a FrameSource, before and after pickling, index arrays and validity included."""
    source = opened(SectorScan(lost={(0, 0)}), tmp_path)
    copy = pickle.loads(pickle.dumps(source))
    assert isinstance(source, FrameSource)
    np.testing.assert_array_equal(copy.validity, source.validity)
    np.testing.assert_array_equal(copy.offset_of, source.offset_of)


@pytest.mark.parametrize(
    ("name", "confidence"),
    [("data_scan0000000015_module0_000.data", 0.9), ("old_module2.data", 0.5), ("scan15.dm4", 0.0)],
)
def test_matches_goes_by_names(tmp_path, name, confidence):
    """The names of a file, or of the files in a folder, decide."""
    path = tmp_path / name
    path.write_bytes(b"x")
    assert NcemSectors.matches(str(path), b"x") == confidence
    assert NcemSectors.matches(str(tmp_path), b"") == confidence


def test_columns_are_counted_by_threads(tmp_path):
    """Sectors of columns give the events of sectors of rows, however many threads count; stempy 3.6 crashes on them."""
    limits = {"count": True, "background_threshold": 3998, "xray_threshold": 10_000}
    for version, workers in ((4, 3), (5, 1)):
        SectorScan(shape=(2, 3), version=version).write(tmp_path / f"v{version}")
        stemstore.convert(
            tmp_path / f"v{version}", tmp_path / f"{version}.zarr", version=version, workers=workers, **limits
        )
    columns, rows = (stemstore.open(tmp_path / f"{version}.zarr").intensity.values for version in (4, 5))
    assert rows.sum() > 100
    np.testing.assert_array_equal(columns, rows)
