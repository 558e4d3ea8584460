"""NCEM 4D Camera files of header versions 1 and 2: blocks of whole frames in one stream."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from encode_ncem_blocks import BLOCK, FRAME_2, block_1, write_2
from encoders import SectorScan
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import (
    CorruptDataError,
    FormatVersionError,
    InputError,
    SectorMismatchError,
    StemStoreError,
    TruncatedFileError,
)
from stemstore.sources.contract import MISSING, VALID
from stemstore.testing import ReaderTests
from stemstore_readers.ncem_sectors import NcemSectors

NAME = "data_scan0000000015_000.data"


def frames_of(n, shape=(6, 9), seed=0):
    """Frames that use all bits."""
    return np.random.default_rng(seed).integers(0, 2**16, (n, *shape)).astype("u2")


def stream(frames, sizes, numbers=None):
    """Blocks of version 1 with the given numbers of frames."""
    numbers = np.arange(1, len(frames) + 1) if numbers is None else np.asarray(numbers)
    ends = np.cumsum([0, *sizes])
    return b"".join(block_1(frames[a:b], numbers[a:b]) for a, b in itertools.pairwise(ends))


class TestConformanceVersion1(ReaderTests):
    """The shared tests on three blocks, their images out of order, in two files."""

    remote = False
    reader_cls = NcemSectors

    def make_file(self, tmp_path):
        truth = frames_of(12)
        order = np.array([3, 1, 2, 0, 4, 5, 6, 7, 9, 8, 10, 11])
        folder = tmp_path / "scan"
        folder.mkdir()
        (folder / NAME).write_bytes(stream(truth[order[:7]], (5, 2), order[:7] + 1))
        (folder / NAME.replace("000.", "001.")).write_bytes(stream(truth[order[7:]], (5,), order[7:] + 1))
        return str(folder), truth.reshape(4, 3, 6, 9), {"version": 1, "scan_shape": (4, 3)}

    def make_big_file(self, tmp_path):
        (tmp_path / NAME).write_bytes(b"")
        with (tmp_path / NAME).open("r+b") as file:
            for block in range(4):
                head = block_1(np.zeros((0, 576, 576)), np.arange(200 * block + 1, 200 * block + 201), count=200)
                file.seek(block * (4096 + 200 * FRAME_2))
                file.write(head)
            file.truncate(4 * (4096 + 200 * FRAME_2))
        return str(tmp_path), {"version": 1, "scan_shape": (40, 20)}


def test_version_1_without_a_shape_is_a_flat_stack(tmp_path):
    """Without scan_shape images lie at their numbers, and shapes that fit are offered."""
    truth = frames_of(12)
    (tmp_path / NAME).write_bytes(stream(truth, (7, 5)))
    source = NcemSectors(version=1)(str(tmp_path))
    assert source.scan_shape == (12,)
    assert source.metadata.acquisition.scan_shape_alternatives[0] == (3, 4)
    assert source.metadata.vendor == {"header_version": 1, "time_stamp": 77}
    np.testing.assert_array_equal(source.read_frames(5, 12), truth[5:])
    repeated = NcemSectors(version=1, scan_shape=(2, 2, 3))(str(tmp_path))
    assert repeated.metadata.acquisition.frames_per_position == 2
    assert NcemSectors(version=1, scan_shape=(3, 4), flyback_columns=1)(
        str(tmp_path)
    ).metadata.acquisition.flyback_columns


def test_flyback_needs_a_scan(tmp_path):
    """Flyback columns of a flat stack are refused."""
    (tmp_path / NAME).write_bytes(stream(frames_of(3), (3,)))
    with pytest.raises(InputError, match="flyback_columns=1 needs a scan, but its shape is not known"):
        NcemSectors(version=1, flyback_columns=1)(str(tmp_path))


def test_numbers_of_images_decide(tmp_path):
    """Lost images are missing, repeated ones and those outside the scan are ignored, all of it reported."""
    truth = frames_of(5)
    (tmp_path / NAME).write_bytes(stream(truth, (5,), [1, 3, 3, 4, 9]))
    source = NcemSectors(version=1, scan_shape=(2, 2))(str(tmp_path))
    assert source.validity.tolist() == [VALID, MISSING, VALID, VALID]
    frames = source.read_frames(0, 4, out=np.full((4, 6, 9), 5, "u2"))
    np.testing.assert_array_equal(frames[[0, 2, 3]], truth[[0, 1, 3]])
    assert not frames[1].any()
    texts = " ".join(source.metadata.warnings)
    assert "1 images have the number of an earlier one" in texts
    assert "1 images have numbers beyond the 4 positions" in texts
    assert "1 of 4 positions have no image" in texts


def test_files_are_one_stream_in_the_order_given(tmp_path):
    """A cut file keeps its whole frames, and the next file starts anew."""
    truth = frames_of(6)
    paths = [tmp_path / f"b{number}.data" for number in (0, 1)]
    paths[0].write_bytes(stream(truth[:4], (2, 2))[:-10])
    paths[1].write_bytes(stream(truth[4:], (2,), [5, 6]))
    source = NcemSectors(version=1, scan_shape=(2, 3))([str(path) for path in paths])
    assert source.validity.tolist() == [VALID] * 3 + [MISSING] + [VALID] * 2
    np.testing.assert_array_equal(source.read_frames(4, 6), truth[4:])
    assert any("1 of its 2 frames are used, 98 bytes are left over" in text for text in source.metadata.warnings)
    paths[0].write_bytes(stream(truth[:4], (4,)) + b"rest")
    assert any("cut inside its header" in t for t in NcemSectors(version=1)(str(paths[0])).metadata.warnings)


def test_version_2_in_the_order_of_the_stream(tmp_path):
    """Blocks of 1600 follow each other, whatever their first number says."""
    marked = {number: frames_of(1, (576, 576), number)[0] for number in (0, 41, 1599, 1600, 3199)}
    path = write_2(tmp_path / NAME, marked, blocks=2)
    source = NcemSectors(version=2, scan_shape=(2, 40, 40))(path)
    for number, frame in marked.items():
        np.testing.assert_array_equal(source.read_frames(number, number + 1)[0], frame)
    assert not source.read_frames(1, 3).any()
    assert source.validity is None
    one = NcemSectors(version=2, scan_shape=(40, 40))(path)
    np.testing.assert_array_equal(one.read_frames(1599, 1600)[0], marked[1599])
    assert any("1600 images have numbers beyond" in text for text in one.metadata.warnings)


def test_version_2_that_was_cut(tmp_path):
    """Of a block that was cut the whole frames are used."""
    path = tmp_path / NAME
    write_2(path, {}, blocks=1)
    with path.open("r+b") as file:
        file.truncate(4 + 100 * FRAME_2 + 7)
    source = NcemSectors(version=2)(str(path))
    assert source.scan_shape == (100,)
    assert any(f"100 of its {BLOCK} frames are used, 7 bytes are left over" in t for t in source.metadata.warnings)


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (block_1(frames_of(2), [1, 2], count=0), FormatVersionError, "states 0 frames of 6 x 9"),
        (block_1(frames_of(2), [1, 2], count=1015), FormatVersionError, "states 1015 frames"),
        (block_1(frames_of(2), [0, 1]), CorruptDataError, "image number 0, expected numbers from 1"),
        (block_1(frames_of(2), [1, 2**32 - 1]), CorruptDataError, "next to nothing|only 2 frames were found"),
        (block_1(frames_of(1), [1]) + block_1(frames_of(1, (9, 6)), [2]), SectorMismatchError, "open the files apart"),
        (block_1(frames_of(1), [1])[:4100], TruncatedFileError, "holds no whole frame"),
        (b"\x01" * 100, TruncatedFileError, "holds no whole frame"),
    ],
)
def test_damaged_blocks(tmp_path, content, error, match):
    """Blocks that cannot be are refused, before anything is allocated for them."""
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(error, match=match):
        NcemSectors(version=1)(str(tmp_path))


def test_options_that_do_not_apply():
    """Blocks have neither positions nor modules."""
    for option in ("swap_xy", "allow_missing_modules"):
        with pytest.raises(InputError, match="neither x and y nor modules"):
            NcemSectors(version=2, **{option: True})
    with pytest.raises(InputError, match="is not a shape"):
        NcemSectors(version=5, scan_shape=(2, 3, 4))


def test_blocks_are_told_from_records(tmp_path):
    """Opened with the default version, blocks of version 1 are refused with the version that fits."""
    path = tmp_path / NAME.replace("_000", "_module0_000")
    path.write_bytes(stream(frames_of(4), (4,)))
    with pytest.raises(FormatVersionError, match="4 frames of 6 x 9; pass version=1"):
        NcemSectors()(str(path))
    SectorScan(shape=(2, 2)).write(tmp_path / "records")
    with pytest.raises(FormatVersionError, match="pass the version of these files"):
        NcemSectors(version=1)(str(tmp_path / "records"))


@settings(max_examples=100)
@given(data=st.data())
def test_random_damage(tmp_path_factory, data):
    """Bytes changed and cut anywhere give a scan or one of our errors."""
    content = bytearray(stream(frames_of(3), (2, 1)))
    for at in data.draw(st.lists(st.one_of(st.integers(0, 60), st.integers(0, len(content) - 1)), max_size=5)):
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("blocks") / "a.data"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        source = NcemSectors(version=1)(str(path))
    except StemStoreError:
        return
    assert source.read_frames(0, 1).nbytes <= 2 * len(content)
