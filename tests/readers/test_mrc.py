"""MRC stacks and Direct Electron movies: byte orders, side files, scans in rows and by list, headers that lie."""

from __future__ import annotations

import numpy as np
import pytest
from encode_mrc import encode, fei_header, info, some, write_movie
from evidence import changed_words, check_array, damaged, expected, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError, InputError, StemStoreError, TruncatedFileError, UnknownFormatError
from stemstore.sources.contract import MISSING
from stemstore.testing import ReaderTests
from stemstore_readers.mrc import Mrc
from stemstore_readers.mrc_header import parse_header
from stemstore_readers.mrc_info import is_picture, parse_info, parse_positions


class TestConformance(ReaderTests):
    """The shared tests on a movie with its info file."""

    reader_cls = Mrc

    def make_file(self, tmp_path):
        truth = some((3, 4, 5, 6))
        text = info(size_x=4, size_y=3, step_x=0.1, step_y=0.2, k_x=0.1, k_y=0.1, voltage=3e5)
        path = write_movie(tmp_path, truth.reshape(12, 5, 6), text=text)
        return str(path), truth, {}

    def make_big_file(self, tmp_path):
        path = tmp_path / "big.mrc"
        with path.open("wb") as file:
            file.write(encode(np.empty((0, 256, 256), "<u2"), frames=1024))
            file.truncate(1024 + 1024 * 256 * 256 * 2)
        return str(path), {}


class TestConformanceBigEndian(ReaderTests):
    """The shared tests on big-endian floats behind an extended header."""

    reader_cls = Mrc

    def make_file(self, tmp_path):
        truth = some((7, 5, 6), "f4")
        (tmp_path / "a.mrc").write_bytes(encode(truth, order=">", extended=bytes(96)))
        return str(tmp_path / "a.mrc"), truth, {}


class TestConformanceFramesPerPoint(ReaderTests):
    """The shared tests where two frames are taken at each position, one after the other."""

    reader_cls = Mrc

    def make_file(self, tmp_path):
        truth = some((2, 3, 4, 5, 6))
        stored = np.moveaxis(truth, 0, 2).reshape(24, 5, 6)
        path = write_movie(tmp_path, stored, text=info(size_x=4, size_y=3, per_point=2))
        return str(path), truth, {}


@pytest.mark.parametrize("name", ["20241021_00405_movie.mrc", "Custom_movie.mrc"])
def test_samples(sample, name):
    """Direct Electron's movies, which LiberTEM 0.16 fails on, have the pixels that other programs measured."""
    check_array(whole(Mrc()(str(sample(f"de_mrc/{name}")))), expected(sample, f"de_mrc/{name}"))


def test_sample_keeps_its_calibration(sample):
    """Steps of 0.2, 0.1 nm and 0.1 1/nm survive (rosettasciio 0.15 sets all of them to 1)."""
    metadata = Mrc()(str(sample("de_mrc/20241021_00405_movie.mrc"))).metadata
    found = [(axis.name, axis.step, axis.unit) for axis in metadata.axes]
    assert found == [("y", 0.2, "nm"), ("x", 0.1, "nm"), ("ky", 0.1, "1/nm"), ("kx", 0.1, "1/nm")]
    assert metadata.acquisition.beam_energy.value == 300
    assert metadata.acquisition.camera_length.value == 1
    assert metadata.acquisition.start_time == "2024-10-21T19:36:50+00:00"
    assert metadata.detector.counts_per_electron == 51
    assert metadata.vendor["info"]["Scan - Controller"] == "DE-FreeScan"


def test_sample_with_listed_positions(sample):
    """A scan by list stays in order, or goes on the grid with its gaps; RosettaSciIO 0.15 lays out rasters only."""
    path = str(sample("de_mrc/Custom_movie.mrc"))
    movie = Mrc()(path)
    assert movie.scan_shape == (30,)
    positions = movie.metadata.vendor["scan_coordinates"]
    assert positions[5] == [0, 2]
    grid = Mrc(positions="grid")(path)
    assert grid.scan_shape == (2, 5, 5)
    frames, valid = whole(grid), grid.validity.reshape(2, 5, 5)
    for number, (row, column) in enumerate(positions):
        np.testing.assert_array_equal(frames[number // 15, row, column], movie.read_frames(number, number + 1)[0])
    assert (valid[:, :, [1, 3]] == MISSING).all()
    assert not frames[:, :, [1, 3]].any()


def test_old_sample_without_the_mark(sample):
    """A file without ``MAP`` is claimed by its stamp and name, and read."""
    path = sample("ncem/temp.mrc")
    assert Mrc.matches(str(path), path.read_bytes()[:4096]) == 0.9
    frames = whole(Mrc()(str(path)))
    np.testing.assert_array_equal(frames, np.fromfile(path, "<f4", offset=1024).reshape(3, 128, 128))


def test_samples_of_images(sample):
    """Virtual images and external detectors are declined, the summed pattern is a pattern."""
    for name in ("0_Virt 0_sum", "1_Virt 1_sum", "ext1_Ext 1"):
        with pytest.raises(InputError, match=r"is an image of the scan.*_movie\.mrc"):
            Mrc()(str(sample(f"de_mrc/20241021_00405_{name}.mrc")))
    assert Mrc()(str(sample("de_mrc/20241021_00405_final.mrc"))).scan_shape == (1,)


def test_references_that_lie_about_their_frames(sample):
    """Dark references state 32766 frames and hold 8 (mrcfile, ncempy and rosettasciio fail on them)."""
    source = Mrc()(str(sample("de_seq/data/test.seq.dark.mrc")))
    assert source.scan_shape == (8,)
    assert any("8 of 32766" in text for text in source.metadata.warnings)


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ({"size_x": 4, "size_y": 3}, (3, 4)),
        ({"size_x": 9, "size_y": 9, "roi": "Enable", "roi_x": 4, "roi_y": 3, "roi_type": "Raster"}, (3, 4)),
        ({"size_x": 3, "size_y": 2, "repeats": 2}, (2, 2, 3)),
        ({"size_x": 4, "size_y": 3, "enable": "Disable"}, (12,)),
        ({"size_x": 4, "size_y": 3, "mode": 0}, (12,)),
        ({"size_x": 4, "size_y": 3, "type": "Serpentine"}, (12,)),
        ({"size_x": 5, "size_y": 3}, (12,)),
        ({"size_x": "", "size_y": "x"}, (12,)),
    ],
)
def test_scan_shape_of_the_info_file(tmp_path, values, shape):
    """The scan is laid out only by a raster that fits the frames."""
    source = Mrc()(str(write_movie(tmp_path, some((12, 5, 6)), text=info(**values))))
    assert source.scan_shape == shape
    np.testing.assert_array_equal(source.read_frames(0, 12), some((12, 5, 6)))
    told = any("pass scan_shape" in text for text in source.metadata.warnings)
    assert told == (values["size_x"] == 5 or "type" in values)


def test_repeats_and_frames_per_point(tmp_path):
    """Repeats are slow, frames at a position fast; both together count the frames."""
    truth = some((2, 3, 2, 2, 5, 6))  # repeat, frame, y, x
    stored = np.moveaxis(truth, 1, 3).reshape(24, 5, 6)
    text = info(size_x=2, size_y=2, repeats=2, per_point=3)
    source = Mrc()(str(write_movie(tmp_path, stored, text=text)))
    np.testing.assert_array_equal(whole(source), truth.reshape(6, 2, 2, 5, 6))
    assert source.metadata.acquisition.frames_per_position == 6


def test_crashed_acquisition(tmp_path):
    """A header that promises more frames than were written marks the rest missing."""
    text = info(size_x=4, size_y=3, per_point=2)
    source = Mrc()(str(write_movie(tmp_path, some((17, 5, 6)), frames=24, text=text)))
    assert source.scan_shape == (2, 3, 4)
    assert (source.validity == MISSING).sum() == 7
    assert source.validity.reshape(2, 12)[:, 8].tolist() == [2, MISSING]


def test_renamed_movies_find_their_files(tmp_path):
    """Any name in front of ``_movie`` works, with blanks and signs; a number behind the date is passed over."""
    for name, base in (
        ("My scan #1 [a]_movie.mrc", "My scan #1 [a]"),
        ("20250429_06699_0_movie.mrc", "20250429_06699"),
    ):
        path = write_movie(tmp_path, some((12, 5, 6)), name=name)
        (tmp_path / f"{base}_info.txt").write_text(info(size_x=4, size_y=3))
        assert Mrc()(str(path)).scan_shape == (3, 4)


def test_extended_header(tmp_path):
    """The scan of an export with an extended header comes from its edges, where they fit."""
    content = encode(some((12, 5, 6)), extended=fei_header(3, 4) * 12, kind=b"FEI1")
    (tmp_path / "a.mrc").write_bytes(content)
    source = Mrc()(str(tmp_path / "a.mrc"))
    assert source.scan_shape == (3, 4)
    assert source.metadata.acquisition.camera_length.value == 115
    assert source.metadata.acquisition.beam_energy.value == 300
    assert source.metadata.detector.name == "Ceta"
    np.testing.assert_array_equal(source.read_frames(0, 12), some((12, 5, 6)))


@pytest.mark.parametrize(
    ("form", "options", "dtype", "guessed"),
    [
        ({}, {}, "u1", False),
        ({"cell": 1.0}, {}, "i1", True),
        ({"cell": 1.0, "version": 0}, {}, "u1", True),
        ({"cell": 1.0, "imod_flags": 1}, {}, "i1", False),
        ({"cell": 1.0, "imod_flags": 0}, {}, "u1", False),
        ({}, {"signed": True}, "i1", False),
    ],
)
def test_signs_of_bytes(tmp_path, form, options, dtype, guessed):
    """Bytes are unsigned from Direct Electron, flagged by IMOD, else guessed from the version and told."""
    (tmp_path / "a.mrc").write_bytes(encode(some((2, 3, 4), "u1"), **form))
    source = Mrc(**options)(str(tmp_path / "a.mrc"))
    assert source.dtype == dtype
    assert any("guessed" in text for text in source.metadata.warnings) == guessed


@pytest.mark.parametrize("dtype", ["<i2", "<f2"])
def test_other_modes(tmp_path, dtype):
    """Signed words and half floats are read as they are."""
    (tmp_path / "a.mrc").write_bytes(encode(some((2, 3, 4), dtype)))
    source = Mrc()(str(tmp_path / "a.mrc"))
    assert source.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(whole(source), some((2, 3, 4), dtype))


@pytest.mark.parametrize(("mode", "match"), [(4, "complex numbers"), (101, "packed pixels"), (3, "complex integers")])
def test_modes_that_are_not_read(tmp_path, mode, match):
    """Complex and packed pixels are declined by name."""
    (tmp_path / "a.mrc").write_bytes(encode(some((2, 3, 4), "f4"), mode=mode))
    with pytest.raises(InputError, match=match):
        Mrc()(str(tmp_path / "a.mrc"))


def test_info_lines():
    """Keys are padded, values may be empty and may hold further signs."""
    assert parse_info("A key     = b = c\r\nempty =\nno sign\n") == {"A key": "b = c", "empty": ""}


@pytest.mark.parametrize("content", [b"1,2\n3", b"a,b\n", b"1,2,3\n", b"-1,2\n", b"99999999999999999999,1\n"])
def test_bad_tables(content):
    """A table that is no pairs of whole numbers is refused by name."""
    with pytest.raises(CorruptDataError, match=r"side file 'c\.csv'"):
        parse_positions(content, "c.csv")


@pytest.mark.parametrize("content", [b"", b" \r\n"])
def test_empty_tables(tmp_path, content):
    """A table without lines has no positions, and no grid is made of it."""
    path = write_movie(tmp_path, some((2, 5, 6)))
    (tmp_path / "20241021_00405_scan_coordinates.csv").write_bytes(content)
    assert Mrc()(str(path)).scan_shape == (2,)
    with pytest.raises(CorruptDataError, match="list of scan positions is empty"):
        Mrc(positions="grid")(str(path))


def test_senseless_positions(tmp_path):
    """Positions far apart do not fill the memory with a grid."""
    path = write_movie(tmp_path, some((2, 5, 6)), positions=[(0, 0), (10**6, 10**6)])
    with pytest.raises(CorruptDataError, match="only 2 frames were found"):
        Mrc(positions="grid")(str(path))


@pytest.mark.parametrize(
    ("name", "picture"),
    [("20241021_00405_ext2", True), ("20241021_00405_1_a_sum", True), ("20241021_00405_virt0_a_sum", True),
     ("20241021_00405_final", False), ("20241021_00405_0_movie", False), ("Custom_final", False)],
)  # fmt: skip
def test_names_of_pictures(tmp_path, name, picture):
    """Numbered and external images are pictures, movies and final sums are not."""
    assert is_picture(tmp_path / f"{name}.mrc") == picture


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (b"\0" * 1024, UnknownFormatError, "expected columns, rows, frames and mode"),
        (encode(some((1, 2, 3)))[:1000], TruncatedFileError, "ends inside its header at byte 1000"),
        (encode(some((1, 2, 3)), mode=7), UnknownFormatError, "expected columns"),
        (encode(some((1, 2, 3)), frames=-1), UnknownFormatError, "expected columns"),
    ],
)
def test_bad_headers(content, error, match):
    """Numbers that no stack has are refused."""
    with pytest.raises(error, match=match):
        parse_header(content)


def test_frames_larger_than_the_file(tmp_path):
    """A header that states frames of terabytes is refused by sizes."""
    content = bytearray(encode(some((1, 2, 3))))
    content[:8] = (2**31 - 1).to_bytes(4, "little") * 2
    (tmp_path / "a.mrc").write_bytes(content)
    with pytest.raises(TruncatedFileError, match="for its first frame"):
        Mrc()(str(tmp_path / "a.mrc"))


@pytest.mark.parametrize("options", [{"positions": "x"}, {"signed": 2}, {"scan_shape": (3,)}])
def test_bad_options(options):
    """Options that cannot be are refused by name."""
    with pytest.raises(InputError, match=f"option {next(iter(options))}"):
        Mrc(**options)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_ends_in_our_errors(tmp_path_factory, data):
    """Cut and changed files and side files open or are refused with an error of ours."""
    folder = tmp_path_factory.mktemp("mrc")
    text = info(size_x=4, size_y=3, step_x=0.1, step_y=0.2, k_x=0.1, k_y=0.1, voltage=3e5, rate=700)
    path = write_movie(folder, some((12, 5, 6)), text=text, positions=[(i % 4, i // 4) for i in range(12)])
    victim = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = victim.read_bytes()
    victim.write_bytes(data.draw(st.one_of(damaged(content, 1024), changed_words(content, 1024))))
    try:
        source = Mrc(positions=data.draw(st.sampled_from(["list", "grid"])))(str(path))
        source.read_frames(0, 1)
    except StemStoreError:
        return
    assert source.metadata.model_dump_json()
