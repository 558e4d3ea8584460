"""SEQ files of Direct Electron: true frame counts, lost frames, bad pixels, and the halves of CeleritasXS."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from encode_de_seq import encode, settings, write, write_halves
from encode_mrc import encode as encode_mrc
from evidence import changed_words, damaged, expected, whole
from hypothesis import given
from hypothesis import settings as patience
from hypothesis import strategies as st

import stemstore
from stemstore.errors import (
    CorruptDataError,
    InputError,
    NotFoundError,
    StemStoreError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources.contract import MISSING, VALID
from stemstore.testing import ReaderTests
from stemstore_readers.de_seq import DeSeq, place_missing
from stemstore_readers.de_seq_files import bad_pixels, parse_missing, read_side_files
from stemstore_readers.de_seq_header import parse_header

CELERITAS = "de_seq/celeritas_data/64x64_Prebuffer256"


def some(shape, dtype="<u2"):
    """Distinct pixels, none of them zero."""
    return (np.arange(np.prod(shape)) % 113 + 1).astype(dtype).reshape(shape)


class TestConformance(ReaderTests):
    """The shared tests on a file with room behind its images."""

    reader_cls = DeSeq

    def make_file(self, tmp_path):
        truth = some((12, 5, 6))
        return (
            str(write(tmp_path, truth, stride=100, numbers=range(1, 13))),
            truth.reshape(3, 4, 5, 6),
            {"scan_shape": (3, 4)},
        )

    def make_big_file(self, tmp_path):
        path = tmp_path / "big.seq"
        content = encode(some((1, 256, 256)), allocated=600)
        with path.open("wb") as file:
            file.write(content)
            file.truncate(8192 + 600 * (len(content) - 8192))
        return str(path), {}


class TestConformanceHalves(ReaderTests):
    """The shared tests on two halves with three of them in each record."""

    reader_cls = DeSeq

    def make_file(self, tmp_path):
        truth = some((12, 8, 6))
        write_halves(tmp_path, truth, 3)
        (tmp_path / "scan.seq.Config.Metadata.xml").write_text(settings(SegmentPreBuffer=3, ImageSizeY=8))
        return str(tmp_path / "scan_Top_14-13-42.780.seq"), truth, {}

    def test_cut_by_one_byte(self, tmp_path):
        """A half that lost its last byte loses a record, and so do the frames of both."""
        url, truth, options = self.make_file(tmp_path)
        Path(url).write_bytes(Path(url).read_bytes()[:-1])
        source = self.reader_cls(**options)(url)
        assert any(Path(url).name in text for text in source.metadata.warnings)
        np.testing.assert_array_equal(whole(source), truth[:9])


def test_sample(sample):
    """The header's 10 frames are right where the file has room for 15 (LiberTEM counts 15, five of them zero)."""
    truth = expected(sample, "de_seq/test.seq")
    source = DeSeq()(str(sample("de_seq/data/test.seq")))
    frames = whole(source)
    assert frames.shape == (10, 64, 64)
    assert frames.sum(axis=(1, 2), dtype="i8").tolist() == truth["sum_per_frame"][:10]
    slots = np.concatenate([frames, np.zeros((5, 64, 64), "u2")])
    assert hashlib.sha256(slots.tobytes()).hexdigest() == truth["array_sha256_little_endian_c_order"]
    assert any("room for 15 images, 10 were recorded" in text for text in source.metadata.warnings)
    assert source.metadata.acquisition.frame_period.value == pytest.approx(1 / 86956.52)
    assert source.metadata.acquisition.start_time.startswith("2022-08-11T19:21:27.069")
    assert source.metadata.detector.counts_per_electron == 300
    assert source.metadata.vendor["configuration"]["FileInfo[]"][0]["Flip[]"] == [{"Value": "Vertical"}]


def test_sample_of_halves(sample):
    """Unequal halves open as the frames of both, whichever is named; the surplus of one is reported."""
    halves = [sample(f"{CELERITAS}/test_{name}.seq") for name in ("Top_14-13-42.780", "Bottom_14-13-42.822")]
    truth = expected(sample, "de_seq/test_Top_14-13-42.780.seq")
    source = DeSeq()(str(halves[1]))
    frames = whole(source)
    assert frames.shape == (512, 64, 64)
    top = np.ascontiguousarray(frames[:, :32]).reshape(truth["shape"])
    assert hashlib.sha256(top.tobytes()).hexdigest() == truth["array_sha256_little_endian_c_order"]
    stored = np.memmap(halves[1], "<u2", "r", 8192)
    bottom = frames[:, 32:].reshape(2, -1)
    for record in range(2):
        first = record * 1056768 // 2
        np.testing.assert_array_equal(bottom[record], stored[first : first + 8192 * 64])
    assert any("2 and 3 records" in text for text in source.metadata.warnings)
    assert DeSeq()([str(half) for half in halves]).identity == source.identity


def test_frames_that_were_not_counted(tmp_path):
    """Without a number in the header, images with a zero time at the end do not count."""
    source = DeSeq()(str(write(tmp_path, some((7, 5, 6)), allocated=0, blank=4)))
    assert source.scan_shape == (7,)
    np.testing.assert_array_equal(whole(source), some((7, 5, 6)))


def test_more_frames_planned_than_written(tmp_path):
    """A header that promises more than the file holds is told."""
    source = DeSeq(scan_shape=(2, 4))(str(write(tmp_path, some((7, 5, 6)), allocated=8)))
    assert source.validity.tolist() == [VALID] * 7 + [MISSING]
    assert any("7 of 8 whole images" in text for text in source.metadata.warnings)


def test_bytes_and_old_headers(tmp_path):
    """Files of 8 bit, and of versions below 5 whose images start at 1024, are read."""
    truth = some((3, 5, 6), "u1")
    source = DeSeq()(str(write(tmp_path, truth, version=4)))
    assert source.dtype == np.uint8
    np.testing.assert_array_equal(whole(source), truth)


def test_lost_frames_in_the_file(tmp_path):
    """Frames that are listed as lost are missing where they lie, and read as zero."""
    truth = some((6, 5, 6))
    source = DeSeq()(str(write(tmp_path, truth, missing=[2, 5], numbers=range(1, 7))))
    assert np.flatnonzero(source.validity == MISSING).tolist() == [1, 4]
    frames = whole(source)
    assert not frames[[1, 4]].any()
    np.testing.assert_array_equal(frames[[0, 2, 3, 5]], truth[[0, 2, 3, 5]])


def test_lost_frames_that_were_left_out(tmp_path):
    """Where counters run on by the lost frames, these get their own position."""
    truth = some((6, 5, 6))
    path = write(tmp_path, truth[[0, 2, 3, 5]], missing=[2, 5], numbers=[1, 3, 4, 6])
    source = DeSeq(scan_shape=(2, 3))(str(path))
    assert np.flatnonzero(source.validity == MISSING).tolist() == [1, 4]
    frames = whole(source).reshape(6, 5, 6)
    np.testing.assert_array_equal(frames[[0, 2, 3, 5]], truth[[0, 2, 3, 5]])


@given(st.integers(1, 30), st.sets(st.integers(1, 30)), st.booleans())
def test_every_frame_keeps_one_position(n_frames, missing, own):
    """Whatever is listed, no frame is used twice and none is invented."""
    numbers = place_missing(n_frames, tuple(sorted(missing)), [], left_out=len(missing) if own else 0)
    used = numbers[numbers >= 0]
    assert len(set(used.tolist())) == len(used)
    assert set(used.tolist()) <= set(range(n_frames))


def test_counters_that_contradict(tmp_path):
    """A .metadata file of another length is told."""
    source = DeSeq()(str(write(tmp_path, some((6, 5, 6)), numbers=range(1, 5))))
    assert any("holds 6 images, its .metadata file speaks of 4" in text for text in source.metadata.warnings)


def test_halves_are_paired_by_their_counters(tmp_path):
    """A half that began a record earlier gives that record up."""
    frames = some((12, 8, 6))
    top, bottom = write_halves(tmp_path, frames, 3, extra=1, first=(2, 1))
    source = DeSeq(prebuffer=3)([str(bottom), str(top)])
    np.testing.assert_array_equal(whole(source)[:, :4], frames[:, :4])
    lower = frames[:, 4:]
    np.testing.assert_array_equal(whole(source)[:9, 4:], lower[3:])


def test_the_nearest_half_is_taken(tmp_path):
    """Of several scans of one name, halves of nearly the same time belong together."""
    frames = some((4, 8, 6))
    write_halves(tmp_path, frames, 1)
    write_halves(tmp_path, frames + 50, 1, times=("14-20-00.000", "14-20-00.050"))
    source = DeSeq(prebuffer=1)(str(tmp_path / "scan_Bottom_14-20-00.050.seq"))
    np.testing.assert_array_equal(whole(source), frames + 50)


def test_halves_that_do_not_fit(tmp_path):
    """A lone half, halves of other sizes and an unknown prebuffer are refused by name."""
    top, bottom = write_halves(tmp_path, some((4, 8, 6)), 1)
    with pytest.raises(InputError, match="pass prebuffer="):
        DeSeq()(str(top))
    with pytest.raises(InputError, match="pass prebuffer="):
        DeSeq(prebuffer=3)(str(top))
    bottom.write_bytes(encode(some((4, 4, 7))))
    with pytest.raises(InputError, match="do not belong together"):
        DeSeq(prebuffer=1)(str(top))
    with pytest.raises(InputError, match="2 files were given"):
        DeSeq()([str(top), str(top)])
    bottom.unlink()
    with pytest.raises(NotFoundError, match="expected its bottom half"):
        DeSeq(prebuffer=1)(str(top))


DEFECTS = """<BadPixelMap Rows="32" Columns="64"><Defect Row="12" /><Defect Column="20" /><Defect Rows="0-10" />
<Defect Columns="21-22" Row="13" /><Defect Column="23" Rows="14-99" /><Defect Column="x" /><Defect Column="1" />
</BadPixelMap><BadPixelMap Rows="8" Columns="8"><Defect Row="1" /></BadPixelMap>
<BadPixelMap Rows="16" Columns="32" Binning="2"><Defect Row="6" Column="11" /></BadPixelMap>"""


@pytest.mark.parametrize(
    ("binning", "rectangles"),
    [
        (1, [[2, 3, 0, 8], [0, 6, 2, 3], [0, 1, 0, 8], [3, 4, 3, 5], [4, 6, 5, 6]]),
        (2, [[1, 2, 2, 3]]),
        (4, [[0, 1, 0, 8], [0, 6, 0, 1], [0, 1, 0, 8], [0, 1, 0, 2], [1, 6, 1, 2]]),
    ],
)
def test_bad_pixels(tmp_path, binning, rectangles):
    """Rows, columns, ranges and single pixels of the right map fall on the frame; what lies outside is left out."""
    values = {"ImageOffsetX": 18, "ImageOffsetY": 10, "ImageBinning": binning}
    (tmp_path / "a.seq.Config.Metadata.xml").write_text(settings(DEFECTS, **values))
    side = read_side_files(tmp_path / "a.seq", [])
    assert bad_pixels(side.document, (6, 8), side.values) == rectangles


def test_images_of_the_detector(tmp_path):
    """The references beside the file and its bad pixels are handed on; what does not fit is reported."""
    path = write(tmp_path, some((3, 6, 8)), xml=settings(DEFECTS, ImageOffsetX=18, ImageOffsetY=10))
    dark, gain = some((2, 6, 8)).astype("<f4"), some((1, 8, 6)).astype("<f4")
    (tmp_path / "scan.seq.dark.mrc").write_bytes(encode_mrc(dark, frames=32766))
    (tmp_path / "scan.seq.gain.mrc").write_bytes(encode_mrc(gain))
    source = DeSeq()(str(path))
    assert set(source.references) == {"dark", "mask"}
    np.testing.assert_array_equal(source.references["dark"].read(), dark.mean(axis=0))
    boxes = bad_pixels(source.metadata.vendor["configuration"], (6, 8), {"ImageOffsetX": "18", "ImageOffsetY": "10"})
    usable = source.references["mask"].read()
    assert not any(usable[top:bottom, left:right].any() for top, bottom, left, right in boxes)
    assert usable.sum() == 24
    assert any("gain reference 'scan.seq.gain.mrc' has shape (8, 6)" in text for text in source.metadata.warnings)
    (tmp_path / "scan.seq.dark.mrc").write_bytes(b"no MRC file")
    source = DeSeq()(str(path))
    assert "dark" not in source.references
    assert any("dark reference 'scan.seq.dark.mrc' is left out" in text for text in source.metadata.warnings)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("<a><b></a>", "is no XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "defines entities"),
        ("x" * 2**21, "at most"),
    ],
)
def test_damaged_configurations_do_not_stop_the_data(tmp_path, content, match):
    """A configuration that cannot be read is left out with a warning."""
    source = DeSeq()(str(write(tmp_path, some((3, 5, 6)), xml=content)))
    assert any(match in text for text in source.metadata.warnings)
    np.testing.assert_array_equal(whole(source), some((3, 5, 6)))


def test_the_list_of_lost_frames():
    """The numbers stand behind the colon; an empty list is one."""
    assert parse_missing("Frame number of missing frames: \r\n") == ()
    assert parse_missing("Frame number of missing frames: \r\n7\r\n3, 7\r\n") == (3, 7)


@pytest.mark.parametrize(
    ("form", "error", "match"),
    [
        ({"compression": 1}, InputError, "compressed images"),
        ({"bits": 12}, InputError, "pixels of 12 bits"),
        ({"bits": 8}, CorruptDataError, "contradict each other"),
        ({"stride": 20}, CorruptDataError, "contradict each other"),
    ],
)
def test_headers_that_cannot_be(form, error, match):
    """Compressed images, odd pixels and sizes that contradict each other are refused."""
    with pytest.raises(error, match=match):
        parse_header(encode(some((2, 5, 6)), **form))


def test_foreign_and_short_files(tmp_path):
    """Other files, half a header, and a header alone are refused."""
    content = encode(some((2, 5, 6)))
    with pytest.raises(UnknownFormatError, match="no Norpix SEQ file"):
        parse_header(b"\0" * 2000)
    with pytest.raises(TruncatedFileError, match="ends inside its header at byte 1000"):
        parse_header(content[:1000])
    (tmp_path / "a.seq").write_bytes(content[:9000])
    with pytest.raises(TruncatedFileError, match="no whole image"):
        DeSeq()(str(tmp_path / "a.seq"))


@pytest.mark.parametrize("options", [{"prebuffer": 0}, {"scan_shape": (3,)}])
def test_bad_options(options):
    """Options that cannot be are refused by name."""
    with pytest.raises(InputError, match=f"option {next(iter(options))}"):
        DeSeq(**options)


@patience(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_ends_in_our_errors(tmp_path_factory, data):
    """Cut and changed files, beside them too, open or are refused with an error of ours."""
    folder = tmp_path_factory.mktemp("seq")
    xml = settings(DEFECTS, HT=200, Mag=10, FrameRate=100, ImageBinning=1, ADUPerElectron=300)
    path = write(folder, some((6, 5, 6)), stride=100, numbers=range(1, 7), missing=[2], xml=xml)
    victim = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = victim.read_bytes()
    victim.write_bytes(data.draw(st.one_of(damaged(content, 1024), changed_words(content, 1024))))
    try:
        source = DeSeq()(str(path))
        source.read_frames(0, 1)
    except StemStoreError:
        return
    assert json.loads(source.metadata.model_dump_json())


@pytest.mark.filterwarnings("ignore:.*room for 15 images:stemstore.errors.ScanWarning")
def test_measured_references(sample):
    """The dark and gain that the camera wrote correct its frames, when they are asked for."""
    path = sample("de_seq/data/test.seq")
    raw, done = stemstore.open(path), stemstore.open(path, dark="detector", gain="detector")
    truth = (raw.intensity.values - raw.dark.values) * raw.gain.values
    np.testing.assert_allclose(done.intensity.values, truth, rtol=1e-5, atol=1e-3)
    assert set(done.data_vars) == {"intensity"}
