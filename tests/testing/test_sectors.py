"""Sector files are written byte by byte as the format says, faults included."""

import struct
from pathlib import Path

import numpy as np
import pytest

from stemstore.errors import DestinationExistsError, InputError
from stemstore.testing import write_sectors

RECORD = 16 + 144 * 576 * 2
RNG = np.random.default_rng(11)
FRAMES = RNG.integers(0, 4096, (9, 576, 576)).astype(np.uint16)  # 3 rows of 2 positions and one flyback column


def records(path, pixels=(144, 576)):
    """Cut a file into (header, pixels) with struct alone."""
    raw, size = Path(path).read_bytes(), 16 + 2 * pixels[0] * pixels[1]
    assert len(raw) % size == 0
    return [
        (
            struct.unpack_from("<IIHHHH", raw, at),
            np.frombuffer(raw, "<u2", pixels[0] * pixels[1], at + 16).reshape(pixels),
        )
        for at in range(0, len(raw), size)
    ]


def assemble(report, n_frames=9):
    """Put version-5 records together by frame number and by the module in the file name; absent rows are zero."""
    out = np.zeros((n_frames, 576, 576), np.uint16)
    for module, paths in enumerate(report.files):
        for path in paths:
            for header, pixels in records(path):
                out[header[1], 144 * module : 144 * module + 144] = pixels
    return out


def test_bytes_of_a_record(tmp_path):
    """A version-5 record is the packed header, then the module's rows, little-endian."""
    report = write_sectors(tmp_path, FRAMES, (3, 2), scan_number=42, files_per_module=1)
    raw = report.files[2][0].read_bytes()
    number = 5  # row 1, column 2: the flyback column
    expected = struct.pack("<IIHHHH", 42, 5, 3, 3, 2, 1) + FRAMES[5, 288:432].astype("<u2").tobytes()
    assert raw[number * RECORD : (number + 1) * RECORD] == expected


def test_bytes_of_versions_3_and_4(tmp_path):
    """Version 3 holds whole frames, version 4 columns [144 m, 144 m + 144) of all rows."""
    whole = write_sectors(tmp_path / "3", FRAMES, (3, 2), version=3, files_per_module=1)
    assert len(whole.files) == 1
    raw = whole.paths[0].read_bytes()
    assert len(raw) == 9 * 663_568
    assert raw[663_568 : 2 * 663_568] == struct.pack("<IIHHHH", 15, 1, 3, 3, 1, 0) + FRAMES[1].astype("<u2").tobytes()
    columns = write_sectors(tmp_path / "4", FRAMES, (3, 2), version=4, files_per_module=1)
    raw = columns.files[1][0].read_bytes()
    expected = struct.pack("<IIHHHH", 15, 0, 3, 3, 0, 0) + FRAMES[0][:, 144:288].astype("<u2").tobytes()
    assert raw[:165_904] == expected


def test_versions_4_and_5_hold_the_same_frames(tmp_path):
    """Sectors of a frame in version 4 are those of its transpose in version 5, transposed."""
    four = write_sectors(tmp_path / "4", FRAMES, (3, 2), version=4)
    five = write_sectors(tmp_path / "5", FRAMES.transpose(0, 2, 1).copy(), (3, 2))
    for path_4, path_5 in zip(four.paths, five.paths, strict=True):
        for (head_4, data_4), (head_5, data_5) in zip(records(path_4, (576, 144)), records(path_5), strict=True):
            assert head_4 == head_5
            np.testing.assert_array_equal(data_4, data_5.T)


def test_names_of_files(tmp_path):
    """Names carry the ten-digit scan number, the module and a counter."""
    report = write_sectors(tmp_path, FRAMES, (3, 2), files_per_module=3)
    assert len(report.paths) == 12
    assert report.files[3][2].name == "data_scan0000000015_module3_002.data"
    assert sorted(tmp_path.iterdir()) == report.paths


def test_a_16_by_16_scan_has_1024_records(tmp_path):
    """It takes 169,885,696 bytes, and every file is a whole number of records."""
    blocks = (np.zeros((32, 576, 576), np.uint16) for _ in range(8))
    report = write_sectors(tmp_path, blocks, (16, 16), flyback_columns=0, files_per_module=3)
    sizes = [path.stat().st_size for path in report.paths]
    for path in report.paths:
        path.unlink()
    assert report.n_bytes == sum(sizes) == 169_885_696
    assert not any(size % 165_904 for size in sizes)


def test_frames_are_interleaved_over_files(tmp_path):
    """No file holds consecutive frames, the modules of a frame stand in different places, and nothing is missing."""
    report = write_sectors(tmp_path, FRAMES, (3, 2), files_per_module=2)
    assert [header[1] for header, _ in records(report.files[0][0])] == [0, 2, 4, 6, 8]
    assert [header[1] for header, _ in records(report.files[1][0])] == [1, 3, 5, 7]
    np.testing.assert_array_equal(assemble(report), FRAMES)


def test_blocks_do_not_matter(tmp_path):
    """Frame by frame, or in uneven blocks, the files are the same."""
    one = write_sectors(tmp_path / "a", iter(FRAMES), (3, 2))
    other = write_sectors(tmp_path / "b", [FRAMES[:2], FRAMES[2:7], FRAMES[7:]], (3, 2))
    assert [p.read_bytes() for p in one.paths] == [p.read_bytes() for p in other.paths]


def test_exposures_share_their_position(tmp_path):
    """Three exposures of a position have equal (x, y) and consecutive frame numbers."""
    report = write_sectors(tmp_path, FRAMES, (3, 1), frames_per_position=3, flyback_columns=0, files_per_module=1)
    headers = [header for header, _ in records(report.files[0][0])]
    assert [header[1] for header in headers] == list(range(9))
    assert [header[5] for header in headers] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert {header[4] for header in headers} == {0}
    assert {header[2:4] for header in headers} == {(1, 3)}


def test_listed_sectors_are_lost(tmp_path):
    """Records named in a list are absent, the others stay."""
    report = write_sectors(tmp_path, FRAMES, (3, 2), lost_sectors=[(4, 1), (8, 3)])
    expected = FRAMES.copy()
    expected[4, 144:288] = expected[8, 432:] = 0
    np.testing.assert_array_equal(assemble(report), expected)
    assert sorted(map(tuple, np.argwhere(report.lost))) == [(4, 1), (8, 3)]
    assert report.n_bytes == 34 * RECORD


def test_a_share_of_sectors_is_lost(tmp_path):
    """A quarter of 36 records is nine, chosen by the seed."""
    lost = [
        write_sectors(tmp_path / str(i), FRAMES, (3, 2), lost_sectors=0.25, seed=s).lost
        for i, s in enumerate((1, 1, 2))
    ]
    assert [found.sum() for found in lost] == [9, 9, 9]
    np.testing.assert_array_equal(lost[0], lost[1])
    assert (lost[0] != lost[2]).any()


def test_shuffled_records_hold_the_same_frames(tmp_path):
    """Records stand in another order but are all there, even when frames come one by one."""
    report = write_sectors(tmp_path, iter(FRAMES), (3, 2), shuffle=True, files_per_module=1)
    order = [header[1] for header, _ in records(report.files[0][0])]
    assert sorted(order) == list(range(9)) != order
    np.testing.assert_array_equal(assemble(report), FRAMES)


def test_duplicate_stands_at_the_end_with_other_pixels(tmp_path):
    """The later copy of a record has pixels of 1, so that keeping it would be seen."""
    report = write_sectors(tmp_path, FRAMES, (3, 2), duplicate=(2, 0))
    found = records(report.files[0][0])
    assert [header[1] for header, _ in found] == [0, 2, 4, 6, 8, 2]
    np.testing.assert_array_equal(found[1][1], FRAMES[2, :144])
    assert (found[-1][1] == 1).all()


def test_truncated_file_is_the_last(tmp_path):
    """The last file of the last module ends early by the given bytes, all others are whole."""
    report = write_sectors(tmp_path, FRAMES, (3, 2), truncate_last=1000)
    sizes = [path.stat().st_size % RECORD for path in report.paths]
    assert sizes == [0] * 7 + [RECORD - 1000]


def test_one_record_belongs_to_another_scan(tmp_path):
    """Its header names another scan number; the others keep theirs."""
    report = write_sectors(tmp_path, FRAMES, (3, 2), foreign_scan_record=(3, 2), scan_number=7)
    scans = {(h[1], m): h[0] for m, paths in enumerate(report.files) for p in paths for h, _ in records(p)}
    assert {key for key, scan in scans.items() if scan != 7} == {(3, 2)}


def test_unusable_input_is_refused(tmp_path):
    """Version, shape, type, number of frames and record names are checked, and files are never overwritten."""
    with pytest.raises(InputError, match="version 6"):
        write_sectors(tmp_path / "a", FRAMES, (3, 2), version=6)
    with pytest.raises(InputError, match=r"shape \(1, 5, 5\)"):
        write_sectors(tmp_path / "b", [np.zeros((5, 5), np.uint16)], (3, 2))
    with pytest.raises(InputError, match="type float64"):
        write_sectors(tmp_path / "c", [np.zeros((576, 576))], (3, 2))
    with pytest.raises(InputError, match="9 frames were given for a scan of 12"):
        write_sectors(tmp_path / "d", FRAMES, (4, 2))
    with pytest.raises(InputError, match="more than the 6 frames"):
        write_sectors(tmp_path / "e", FRAMES, (2, 2))
    with pytest.raises(InputError, match=r"duplicate names \(frame, module\) \(9, 0\)"):
        write_sectors(tmp_path / "f", FRAMES, (3, 2), duplicate=(9, 0))
    write_sectors(tmp_path / "g", FRAMES, (3, 2))
    with pytest.raises(DestinationExistsError, match="already exists"):
        write_sectors(tmp_path / "g", FRAMES, (3, 2))
