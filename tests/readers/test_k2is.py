"""K2 IS: sectors are brought to the same frames, scans start with the shutter, what is lost is marked."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from encode_dm import DmFile
from encode_k2is import BLOCK, K2, head, make_frames, pack12
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import (
    CorruptDataError,
    InputError,
    NotFoundError,
    SectorMismatchError,
    StemStoreError,
    TruncatedFileError,
)
from stemstore.sources.contract import MISSING, PARTIAL, VALID
from stemstore.sources.registry import explain
from stemstore.testing import ReaderTests
from stemstore_readers.k2is import K2is
from stemstore_readers.k2is_sectors import find_runs, parse_header

NAME = "Capture34_"
FRAMES = make_frames(4)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Write the files that most tests start from: three frames, open shutter, half a frame more at either end."""
    return K2(FRAMES[:3]).write(tmp_path_factory.mktemp("k2") / "scan")


@pytest.fixture
def folder(template, tmp_path):
    """Give a copy that may be damaged."""
    return Path(shutil.copytree(Path(template).parent, tmp_path / "copy"))


def opened(folder, **options):
    return K2is(**options)(str(folder / f"{NAME}.gtg"))


class TestConformance(ReaderTests):
    """The shared tests on a scan of 2 x 2 without a stated shape, which LiberTEM and py4DSTEM want hard-coded."""

    reader_cls = K2is
    content: dict[str, bytes] | None = None

    def make_file(self, tmp_path):
        folder = tmp_path / "scan"
        if TestConformance.content is None:
            K2(np.concatenate([FRAMES[:1], FRAMES]), shutter=2, exact=True, scan=(2, 2), inner=(2, 2)).write(folder)
            TestConformance.content = {path.name: path.read_bytes() for path in folder.iterdir()}
        folder.mkdir(exist_ok=True)
        for name, content in TestConformance.content.items():
            (folder / name).write_bytes(content)
        return str(folder / f"{NAME}.gtg"), FRAMES.reshape(2, 2, 1860, 2048), {}

    def last_file(self, url):
        return Path(url).with_name(f"{NAME}8.bin")

    def make_big_file(self, tmp_path):
        for sector in range(1, 9):
            with (tmp_path / f"{NAME}{sector}.bin").open("wb") as file:
                for number in range(12 * 32):
                    file.seek(number * BLOCK)
                    file.write(head(count=number, frame=number // 32, place=number % 32, shutter=True))
                file.truncate(12 * 32 * BLOCK)
        return str(tmp_path / f"{NAME}1.bin"), {}

    # a frame has 7.6 MB: a few ranges and two threads show what twenty and four would
    def test_arbitrary_ranges(self, tmp_path):
        url, truth, options = self.make_file(tmp_path)
        source, flat = self.reader_cls(**options)(url), truth.reshape(-1, *truth.shape[-2:])
        for start, stop in ((0, 0), (1, 3), (2, 4)):
            np.testing.assert_array_equal(source.read_frames(start, stop), flat[start:stop])


def test_numbers_of_12_bit():
    """Two numbers take three bytes, the low one first."""
    assert pack12(np.array([0xABC, 0xDEF])) == bytes.fromhex("BCFADE")


def test_frames_that_all_sectors_have(template):
    """Files that start and end at different blocks inside a frame give the frames between, extremes included."""
    source = K2is()(template)
    assert source.scan_shape == (3,)
    assert source.validity is None
    np.testing.assert_array_equal(source.read_frames(0, 3), FRAMES[:3])
    frames = source.read_frames(1, 2)
    assert frames.min() == 0
    assert frames.max() == 4095


def test_every_file_of_the_set_opens_it(template):
    """The tag file, one sector or all of them name the same scan; names may contain wildcards."""
    paths = sorted(Path(template).parent.glob("*.bin"))
    whole = K2is()([str(path) for path in paths])
    assert whole.identity == K2is()(str(paths[4])).identity == K2is()(template).identity
    assert [claim.reader for claim in explain(template) if claim.confidence == 1] == ["k2is"]
    assert explain(paths[0])[0].reader == "k2is"


def test_time_series_start_with_the_shutter(tmp_path):
    """Without a scan in the tag file the frames with an open shutter are a flat stack."""
    source = K2is()(K2(FRAMES, shutter=2).write(tmp_path))
    assert source.scan_shape == (2,)
    np.testing.assert_array_equal(source.read_frames(0, 2), FRAMES[2:])
    assert source.metadata.acquisition.beam_energy.value == 300
    assert source.metadata.acquisition.operator == "Ernst"
    assert source.metadata.vendor["first_frame"] == 102


def test_flyback_of_the_tag_file(tmp_path):
    """The shape with flyback is stored; what exceeds the shape without is flyback."""
    source = K2is()(K2(FRAMES, shutter=1, scan=(2, 2), inner=(2, 1)).write(tmp_path))
    assert source.scan_shape == (2, 2)
    assert source.metadata.acquisition.flyback_columns == 1
    assert source.metadata.acquisition.scan_shape_source == "header"
    np.testing.assert_array_equal(source.read_frames(0, 4), FRAMES)
    assert K2is(flyback_columns=0)(str(tmp_path / f"{NAME}.gtg")).metadata.acquisition.flyback_columns == 0
    (tmp_path / f"{NAME}.gtg").write_bytes(K2(FRAMES, scan=(2, 2), inner=(1, 2)).gtg())
    assert any("nothing is hidden" in text for text in opened(tmp_path).metadata.warnings)


def test_scans_that_are_shorter_or_stated_anew(folder):
    """A scan of more positions ends in missing ones; sync_offset moves the frames."""
    (folder / f"{NAME}.gtg").write_bytes(K2(FRAMES, scan=(2, 2)).gtg())
    source = opened(folder)
    assert source.validity.tolist() == [VALID] * 3 + [MISSING]
    assert any("the start of the scan may be missing" in text for text in source.metadata.warnings)
    moved = opened(folder, scan_shape=(1, 3), sync_offset=-1)
    assert moved.validity.tolist() == [MISSING, VALID, VALID]
    np.testing.assert_array_equal(moved.read_frames(1, 3), FRAMES[:2])
    skipped = opened(folder, scan_shape=(1, 2), sync_offset=1)
    np.testing.assert_array_equal(skipped.read_frames(0, 2), FRAMES[1:3])


def test_a_missing_sector(folder):
    """Seven sectors open with zeros in place of the eighth and every frame partial."""
    (folder / f"{NAME}3.bin").unlink()
    source = opened(folder)
    assert source.validity.tolist() == [PARTIAL] * 3
    expected = FRAMES[:3].copy()
    expected[:, :, 512:768] = 0
    np.testing.assert_array_equal(source.read_frames(0, 3, out=np.full(expected.shape, 9, np.uint16)), expected)
    assert any("sector 3 has no file" in text for text in source.metadata.warnings)


def cut_out(path, first, last):
    """Remove blocks from a file."""
    content = path.read_bytes()
    path.write_bytes(content[: first * BLOCK] + content[last * BLOCK :])


def test_missing_blocks(folder):
    """Five missing blocks lose their frame of that sector, and no other."""
    cut_out(folder / f"{NAME}2.bin", 15 + 32 + 3, 15 + 32 + 8)
    source = opened(folder)
    assert source.validity.tolist() == [VALID, PARTIAL, VALID]
    expected = FRAMES[:3].copy()
    expected[1, :, 256:512] = 0
    np.testing.assert_array_equal(source.read_frames(0, 3), expected)
    assert any("5 blocks are missing in file" in text for text in source.metadata.warnings)


def test_damaged_bytes_inside_a_file(folder):
    """Bytes too many shift the blocks behind them; these are found again at the next sync word."""
    path = folder / f"{NAME}1.bin"
    content = path.read_bytes()
    path.write_bytes(content[: 60 * BLOCK + 100] + b"\xff\xff\x00\x55 odd" + content[60 * BLOCK + 100 :])
    source = opened(folder)
    assert source.validity.tolist() == [VALID, PARTIAL, VALID]
    np.testing.assert_array_equal(source.read_frames(2, 3), FRAMES[2:3])
    assert any(f"is damaged from byte {61 * BLOCK}" in text for text in source.metadata.warnings)


@pytest.mark.parametrize(
    ("first", "changed"),
    [(0, bytes(4)), (24, bytes(4)), (28, b"\0\x03"), (30, b"\0\x07"), (28, b"\x01\0"), (28, b"\0\xe0")],
    ids=["sync word", "frame", "column", "row", "outside", "place of an earlier block"],
)
def test_a_block_damaged_behind_the_opening(folder, first, changed):
    """A header that is damaged where opening does not look is an error that names file, byte and frame."""
    path = folder / f"{NAME}1.bin"
    content = bytearray(path.read_bytes())
    content[50 * BLOCK + first : 50 * BLOCK + first + len(changed)] = changed
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=rf"block at byte {50 * BLOCK} of .*1.bin' does not belong to frame 101"):
        opened(folder).read_frames(0, 3)


def test_frame_numbers_that_start_anew(tmp_path):
    """Frames of an earlier acquisition, with higher numbers, are left out."""
    old, new = K2(FRAMES[:1], first=90_000, exact=True), K2(FRAMES[1:], first=2, exact=True)
    for sector in range(8):
        blocks = old.blocks(sector) + new.blocks(sector)
        (tmp_path / f"{NAME}{sector + 1}.bin").write_bytes(b"".join(blocks))
    (tmp_path / f"{NAME}.gtg").write_bytes(new.gtg())
    source = opened(tmp_path)
    np.testing.assert_array_equal(source.read_frames(0, 3), FRAMES[1:])
    assert sum("belong to an earlier acquisition" in text for text in source.metadata.warnings) == 8


def test_a_sector_that_was_cut(folder):
    """A sector that ends two frames early leaves the last frames partial."""
    path = folder / f"{NAME}5.bin"
    path.write_bytes(path.read_bytes()[: (12 + 40) * BLOCK + 7])
    source = opened(folder)
    assert source.validity.tolist() == [VALID, PARTIAL, PARTIAL]
    texts = " ".join(source.metadata.warnings)
    assert "files were cut" in texts
    assert "5.bin' ends with 7 bytes of a block" in texts


def test_no_shutter(tmp_path):
    """Where the flag is never set all frames are read, and it is told."""
    source = K2is()(K2(FRAMES[:2], shutter=9).write(tmp_path))
    assert source.scan_shape == (2,)
    assert any("no frame has an open shutter" in text for text in source.metadata.warnings)


def test_the_tag_file_is_no_condition(folder):
    """A missing tag file, or one that is none, is reported."""
    (folder / f"{NAME}.gtg").write_bytes(b"nothing of the kind")
    assert any("tag file" in t and "is not used" in t for t in opened(folder).metadata.warnings)
    assert K2is.matches(str(folder / f"{NAME}.gtg"), b"nothing of the kind") == 0
    (folder / f"{NAME}.gtg").write_bytes(DmFile(3).encode({"SI Dimensions": {"Size X": 1.5, "Size Y": -1.0}}))
    assert opened(folder).scan_shape == (3,)
    (folder / f"{NAME}.gtg").unlink()
    source = K2is()(str(folder / f"{NAME}1.bin"))
    assert any("there is no .gtg file" in text for text in source.metadata.warnings)


def test_files_that_do_not_belong_together(folder):
    """Sectors of another acquisition, several scans and other files are refused."""
    other = replace(K2(FRAMES[:1]), first=5000)
    (folder / f"{NAME}4.bin").write_bytes(b"".join(other.blocks(3)))
    with pytest.raises(SectorMismatchError, match="have no frame in common: they hold the frames 100 to 102"):
        opened(folder)
    shutil.copy(folder / f"{NAME}1.bin", folder / "b1.bin")
    with pytest.raises(InputError, match="files of 2 scans were given"):
        K2is()([str(folder / f"{NAME}1.bin"), str(folder / "b1.bin")])
    with pytest.raises(InputError, match=r"expected name.gtg or name1.bin to name8.bin"):
        K2is()(str(folder))
    (folder / "c.gtg").write_bytes(other.gtg())
    assert K2is.matches(str(folder / "c.gtg"), other.gtg()) == 0
    with pytest.raises(NotFoundError, match=r"no sector .*c1.bin' to 'c8.bin' is there"):
        K2is()(str(folder / "c.gtg"))


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (b"", TruncatedFileError, "has 0 bytes and holds no whole block"),
        (bytes(BLOCK), CorruptDataError, "does not start with a K2 IS block"),
        (head(count=1, frame=1, place=0, shutter=True).ljust(BLOCK), SectorMismatchError, "no frame in common"),
    ],
)
def test_files_without_a_frame(folder, content, error, match):
    """A file without a block or without a frame is refused by name."""
    (folder / f"{NAME}6.bin").write_bytes(content)
    with pytest.raises(error, match=match):
        opened(folder)


@pytest.mark.parametrize(
    "option", [{"scan_shape": (3,)}, {"sync_offset": True}, {"sync_offset": 3}, {"flyback_columns": 1}]
)
def test_bad_options(template, option):
    """Options that cannot be are refused."""
    with pytest.raises(InputError, match=r"option (scan_shape|sync_offset|flyback_columns)="):
        K2is(**option)(template)


def test_runs_are_found_with_few_looks(tmp_path):
    """Every gap is found, wherever it lies, and blocks between gaps are not lost."""
    blocks = [head(count=n, frame=n // 32, place=n % 32, shutter=True).ljust(BLOCK) for n in range(400)]
    kept = [n for n in range(400) if n not in (7, 100, 101, 399) and not 200 <= n < 210]
    (tmp_path / "a1.bin").write_bytes(b"".join(blocks[n] for n in kept))
    runs, warnings = find_runs(tmp_path / "a1.bin", len(kept) * BLOCK)
    assert [(run.first.count, run.length) for run in runs] == [(0, 7), (8, 92), (102, 98), (210, 189)]
    assert "13 blocks are missing" in warnings[0]


@settings(max_examples=60)
@given(data=st.data())
def test_random_damage(template, tmp_path_factory, data):
    """Bytes changed in headers and files cut anywhere give a scan or one of our errors."""
    folder = tmp_path_factory.mktemp("k2")
    content = bytearray(Path(template).with_name(f"{NAME}1.bin").read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content) // BLOCK - 1)) * BLOCK + data.draw(st.integers(0, 39))
        content[at] = data.draw(st.integers(0, 255))
    (folder / f"{NAME}1.bin").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    (folder / f"{NAME}2.bin").symlink_to(Path(template).with_name(f"{NAME}2.bin"))
    try:
        source = K2is()(str(folder / f"{NAME}1.bin"))
        assert len(source.offsets) < 10
        source.read_frames(0, 1)
    except StemStoreError:
        pass
    shutil.rmtree(folder)


@given(st.binary(max_size=60))
def test_any_bytes_as_a_header(content):
    """Garbage behind the sync word is no block, or one inside its sector."""
    found = parse_header(b"\xff\xff\x00\x55" + content)
    assert found is None or 0 <= found.place < 32
