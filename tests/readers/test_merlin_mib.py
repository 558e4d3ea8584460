"""Merlin files: every pixel code and counter depth, series of files, scan shapes only on proof."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from encode_merlin_mib import TYPES, Mib, pixels, times
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import (
    CorruptDataError,
    FormatVersionError,
    InputError,
    NotFoundError,
    ScanWarning,
    SectorMismatchError,
    StemStoreError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources.contract import MISSING, VALID
from stemstore.testing import ReaderTests
from stemstore_readers.merlin_mib import MerlinMib
from stemstore_readers.merlin_mib_header import parse_header
from stemstore_readers.merlin_mib_series import line_length

SAMPLES = (
    *(f"merlin/Single_{name}.mib" for name in ("1_Frame_CounterDepth_12_Rows_256", "9_Frame_CounterDepth_6_Rows_256")),
    "merlin/Single_9_Frame_CounterDepth_24_Rows_256.mib",
    "merlin/Single_1_Frame_CounterDepth_1_Rows_256RAW.mib",
    "merlin/Quad_1_Frame_CounterDepth_12_Rows_256.mib",
    "merlin/Quad_1_Frame_CounterDepth_1_Rows_256.mib",
    "merlin/Quad_1_Frame_CounterDepth_1_Rows_256RAW.mib",
    "merlin/Quad_9_Frame_CounterDepth_6_Rows_256.mib",
    "merlin/001_4x2_6bit.mib",
    "merlin/002_merlin_test_roi_sig256x128_nav4x2_hot_pixel_52x_39y.mib",
    "merlin/test_6bit_RAW_1frame.mib",
    "merlin/test_12bit_RAW_1frame.mib",
    "merlin/test_12bit_notRAW_1frame.mib",
)


class TestConformance(ReaderTests):
    """The shared tests on a processed 12-bit scan with the shape in its .hdr file."""

    reader_cls = MerlinMib

    def make_file(self, tmp_path):
        truth = pixels((3, 5, 16, 24), 12)
        return Mib(truth).write(tmp_path / "scan.mib", x=5, y=3), truth, {}

    def make_big_file(self, tmp_path):
        mib = Mib(np.zeros((600, 256, 256), "u2"), times=times((20, 30)))
        with (tmp_path / "big.mib").open("wb") as file:
            for number in range(600):
                file.seek(number * (384 + 131072))
                file.write(mib.header(number))
            file.truncate(600 * (384 + 131072))
        return str(tmp_path / "big.mib"), {}


class TestConformanceRaw(ReaderTests):
    """The shared tests on RAW frames of one chip, 24 bit, a flat stack."""

    reader_cls = MerlinMib

    def make_file(self, tmp_path):
        truth = pixels((5, 256, 256), 24)
        return Mib(truth, 24, "R64").write(tmp_path / "scan.mib"), truth, {}


@pytest.mark.parametrize("depth", [1, 6, 12, 24])
@pytest.mark.parametrize("side", [256, 512])
def test_raw_frames(tmp_path, depth, side):
    """RAW frames of every depth come out as encoded, of one chip and of four.

    RosettaSciIO refuses them all; LiberTEM 0.16 fails on 1 bit by default and has no 24 bit of four chips.
    """
    truth = pixels((3, side, side), depth)
    source = MerlinMib()(Mib(truth, depth, "R64").write(tmp_path / "a.mib"))
    assert source.dtype == TYPES[depth]
    np.testing.assert_array_equal(source.read_frames(0, 3), truth)
    np.testing.assert_array_equal(source.read_frames(1, 3), truth[1:])
    assert source.metadata.detector.counter_depth == depth


@pytest.mark.parametrize("size", [(256, 256), (256, 512), (512, 256)])
def test_raw_24_bit_may_state_either_size_doubled(tmp_path, size):
    """Whichever of width and height is doubled for 24 bit, or none, the frame is 256 x 256."""
    truth = pixels((2, 256, 256), 24)
    path = Mib(truth, 24, "R64", size=size).write(tmp_path / "a.mib")
    np.testing.assert_array_equal(MerlinMib()(path).read_frames(0, 2), truth)


def test_raw_region_of_one_chip(tmp_path):
    """RAW frames of the first 64 rows of a chip are 64 x 256."""
    truth = pixels((2, 64, 256), 6)
    np.testing.assert_array_equal(MerlinMib()(Mib(truth, 6, "R64").write(tmp_path / "a.mib")).read_frames(0, 2), truth)


@pytest.mark.parametrize(("code", "depth"), [("U08", 1), ("U08", 6), ("U16", 12), ("U32", 24)])
@pytest.mark.parametrize("shape", [(256, 256), (515, 515), (64, 256), (256, 1024)])
@pytest.mark.parametrize("bare", [False, True])
def test_processed_frames(tmp_path, code, depth, shape, bare):
    """Processed frames of any size, with or without thresholds in the header.

    LiberTEM 0.16 has no chips in a row, RosettaSciIO 0.15 turns the rows over.
    """
    truth = pixels((2, *shape), depth)
    layout = {515: "2x2G", 1024: "4x1"}.get(shape[1], "1x1")
    source = MerlinMib()(Mib(truth, depth, code, bare=bare, layout=layout).write(tmp_path / "a.mib"))
    np.testing.assert_array_equal(source.read_frames(0, 2), truth)
    detector = source.metadata.detector
    assert [quantity.value for quantity in detector.thresholds] == ([] if bare else [2, 511])
    assert detector.counter_depth == depth


@pytest.mark.parametrize(
    ("mib", "match"),
    [
        (Mib(np.zeros((1, 256, 256), "u2"), code="U64", size=(256, 256)), "pixel code 'U64', expected U08, U16, U32"),
        (Mib(np.zeros((1, 512, 512), "u2"), code="R64", layout="4x1"), "whose order of pixels is not known"),
        (Mib(np.zeros((1, 512, 512), "u2"), code="R64", size=(1024, 128)), "whose order of pixels is not known"),
        (Mib(np.zeros((1, 256, 256), "u2"), 7, code="R64"), "states no counter depth; put the .hdr file"),
    ],
)
def test_raw_frames_of_unknown_order_are_refused(tmp_path, monkeypatch, mib, match):
    """Nothing is guessed about the order of pixels: four chips in a row, parts of four chips, unknown codes."""
    monkeypatch.setattr(Mib, "pixels", lambda self, frame: frame.astype(">u2").tobytes())
    with pytest.raises(FormatVersionError, match=match):
        MerlinMib()(mib.write(tmp_path / "a.mib"))


def test_depth_of_the_sidecar_serves_raw_headers_without_one(tmp_path):
    """A RAW header without counter depth is read with the depth of the .hdr file."""
    truth = pixels((1, 256, 256), 6)
    path = tmp_path / "a.mib"
    Mib(truth, 6, "R64").write(path, depth=6)
    path.write_bytes(path.read_bytes().replace(b"1000000ns,6,", b"1000000ns,,,"))
    np.testing.assert_array_equal(MerlinMib()(str(path)).read_frames(0, 1), truth)


def test_scan_shape_of_the_sidecar(tmp_path):
    """ScanX and ScanY count if their product is the number of frames, else they are reported and not used."""
    truth = pixels((12, 4, 8), 12)
    assert MerlinMib()(Mib(truth).write(tmp_path / "a.mib", x=4, y=3)).scan_shape == (3, 4)
    source = MerlinMib()(Mib(truth).write(tmp_path / "b.mib", x=4, y=4))
    assert source.scan_shape == (12,)
    assert any("states a scan of 4 rows and 4 columns, 12 frames were found" in t for t in source.metadata.warnings)


@pytest.mark.parametrize(
    ("sidecar", "shape"),
    [
        ({"frames": 12, "per_trigger": 4}, (3, 4)),
        ({"frames": 12, "per_trigger": 1}, (12,)),
        ({"frames": 12, "per_trigger": 12}, (12,)),
        ({"frames": 12, "per_trigger": 5}, (12,)),
        ({"frames": 0, "per_trigger": 0}, (12,)),
    ],
)
def test_frames_per_trigger_are_a_line(tmp_path, sidecar, shape):
    """A line trigger gives the scan shape; a trigger per frame, or one for all, says nothing."""
    assert MerlinMib()(Mib(pixels((12, 4, 8), 12)).write(tmp_path / "a.mib", **sidecar)).scan_shape == shape


@pytest.mark.parametrize("sidecar", [{"frames": 20, "per_trigger": 4}, {"frames": 20, "x": 4, "y": 5}])
def test_interrupted_acquisition_keeps_its_lines(tmp_path, sidecar):
    """Of 20 frames 10 were written: two whole lines, and one whose second half is missing."""
    truth = pixels((10, 4, 8), 12)
    source = MerlinMib()(Mib(truth).write(tmp_path / "a.mib", **sidecar))
    assert source.scan_shape == (3, 4)
    assert source.validity.tolist() == [VALID] * 10 + [MISSING] * 2
    np.testing.assert_array_equal(source.read_frames(0, 12, out=np.full((12, 4, 8), 5, "u2"))[:10], truth)
    assert not source.read_frames(10, 12).any()
    assert any("20 frames, 10 were found: the acquisition was interrupted" in t for t in source.metadata.warnings)


def test_scan_shape_of_time_stamps(tmp_path):
    """A flight back of 20 us at every line end of 102 ms frames gives the scan shape, reported with alternatives."""
    mib = Mib(pixels((5, 4, 4, 8), 12), times=times((5, 4), 102_000_000, 20_000))
    source = MerlinMib()(mib.write(tmp_path / "a.mib"))
    acquisition = source.metadata.acquisition
    assert source.scan_shape == (5, 4)
    assert acquisition.scan_shape_source == "measured"
    assert acquisition.scan_shape_alternatives == [(4, 5), (2, 10), (10, 2)]
    assert acquisition.frame_period.value == pytest.approx(0.102)
    assert acquisition.exposure_time.value == pytest.approx(1e-3)
    assert acquisition.start_time == "2024-05-17T09:30:00.000000000Z"


@pytest.mark.parametrize(
    "stamps",
    [
        times((1, 9), 2_094_440, jitter=10),
        times((3, 3), 2_094_440, delay=10, jitter=0),
        times((3, 3), 2_094_440, delay=900),
        np.delete(times((2, 5), 1_000_000, delay=50_000), 5),
    ],
)
def test_jitter_is_no_line_end(tmp_path, stamps):
    """RosettaSciIO took 10 ns of jitter for line ends: 9 frames of a free series stay a flat stack."""
    source = MerlinMib()(Mib(pixels((9, 4, 8), 12), times=stamps).write(tmp_path / "a.mib"))
    assert source.scan_shape == (9,)
    assert source.metadata.acquisition.scan_shape_alternatives == [(3, 3)]


def test_line_length_looks_beyond_the_first_frames():
    """Line ends have to go on behind the frames that are looked at one by one."""
    stamps = times((300, 100), delay=20_000)
    assert line_length(lambda frames: stamps[list(frames)], 30_000, 30_000)[0] == 100
    moved = np.concatenate([stamps[:20_050], stamps[20_050:] + 20_000])
    assert line_length(lambda frames: moved[list(frames)], 30_000, 30_000)[0] == 100  # one odd gap inside a line
    broken = np.concatenate([stamps[:20_000], stamps[20_000] + times((100, 100))])
    assert line_length(lambda frames: broken[list(frames)], 30_000, 30_000)[0] is None


def test_user_shape_wins_and_is_laid_out(tmp_path):
    """The stated shape counts; sync_offset skips frames or leaves positions blank."""
    truth = pixels((12, 4, 8), 12)
    path = Mib(truth).write(tmp_path / "a.mib", x=4, y=3)
    assert MerlinMib(scan_shape=(2, 6))(path).scan_shape == (2, 6)
    assert MerlinMib(scan_shape=(2, 2, 3))(path).metadata.acquisition.frames_per_position == 2
    late = MerlinMib(scan_shape=(2, 4), sync_offset=2)(path)
    np.testing.assert_array_equal(late.read_frames(0, 8), truth[2:10])
    early = MerlinMib(scan_shape=(3, 5), sync_offset=-2)(path)
    assert early.validity.tolist() == [MISSING] * 2 + [VALID] * 12 + [MISSING]
    np.testing.assert_array_equal(early.read_frames(2, 14), truth)
    assert MerlinMib(scan_shape=(3, 4), flyback_columns=1)(path).metadata.acquisition.flyback_columns == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scan_shape": (12,)}, "scan_shape=.* is not a shape"),
        ({"sync_offset": 1.5}, "sync_offset=1.5 is not a number of frames"),
        ({"sync_offset": 12}, "sync_offset=12 leaves none of 12 frames"),
        ({"flyback_columns": 1}, "flyback_columns=1 needs a scan"),
        ({"flyback_columns": 4, "scan_shape": (3, 4)}, "does not fit a scan of 4 columns"),
    ],
)
def test_bad_options(tmp_path, options, match):
    """Options that cannot be are refused."""
    path = Mib(pixels((12, 4, 8), 12)).write(tmp_path / "a.mib")
    with pytest.raises(InputError, match=match):
        MerlinMib(**options)(path)


def series_of(folder, truth, names, counts, first=1):
    """Write frames over files, numbered on."""
    at = 0
    for name, count in zip(names, counts, strict=True):
        Mib(truth[at : at + count], first=first + at).write(folder / name)
        at += count


def test_series_in_the_order_of_frame_numbers(tmp_path):
    """Files of a series are ordered by the numbers of their frames, not by name; a name with brackets is a name."""
    truth = pixels((9, 4, 8), 12)
    names = ["a [x]3.mib", "a [x]1.mib", "a [x]20.mib"]
    series_of(tmp_path, truth, names, (2, 4, 3))
    for name in names:
        np.testing.assert_array_equal(MerlinMib()(str(tmp_path / name)).read_frames(0, 9), truth)
    alone = MerlinMib(series=False)(str(tmp_path / names[1]))
    np.testing.assert_array_equal(alone.read_frames(0, 4), truth[2:6])
    given = MerlinMib()([str(tmp_path / name) for name in names[::-1]])
    np.testing.assert_array_equal(given.read_frames(1, 8), truth[1:8])


def test_files_with_names_alike_are_no_series(tmp_path):
    """Other acquisitions, other frame sizes and files that are no frames are left out."""
    truth = pixels((3, 4, 8), 12)
    Mib(truth).write(tmp_path / "a1.mib")
    Mib(truth).write(tmp_path / "a2.mib")
    Mib(pixels((3, 8, 8), 12), first=4).write(tmp_path / "a3.mib")
    Mib(truth, first=4).write(tmp_path / "a.mib")
    (tmp_path / "a4.mib").write_bytes(b"text")
    assert MerlinMib()(str(tmp_path / "a1.mib")).scan_shape == (3,)


def test_holes_in_a_series(tmp_path):
    """A lost file is reported; given as a list, its frames are missing, and a cut frame is one missing frame."""
    truth = pixels((9, 4, 8), 12)
    names = [f"a{number}.mib" for number in range(3)]
    series_of(tmp_path, truth, names, (3, 3, 3))
    content = (tmp_path / names[0]).read_bytes()
    (tmp_path / names[0]).write_bytes(content[:-10])
    source = MerlinMib(scan_shape=(3, 3))(str(tmp_path / names[1]))
    assert source.validity.tolist() == [VALID] * 2 + [MISSING] + [VALID] * 6
    np.testing.assert_array_equal(source.read_frames(3, 9), truth[3:])
    assert not source.read_frames(2, 3).any()
    (tmp_path / names[1]).unlink()
    warnings = MerlinMib()(str(tmp_path / names[0])).metadata.warnings
    assert any("a2.mib' starts with frame 7" in text for text in warnings)
    assert any("has the number 7, expected 1" in t for t in MerlinMib()(str(tmp_path / names[2])).metadata.warnings)
    listed = MerlinMib()([str(tmp_path / names[0]), str(tmp_path / names[2])])
    assert listed.validity.tolist() == [VALID] * 2 + [MISSING] * 4 + [VALID] * 3


def test_files_that_do_not_belong_together(tmp_path):
    """A list of other sizes, or of the same frame numbers, is refused."""
    Mib(pixels((3, 4, 8), 12)).write(tmp_path / "a.mib")
    Mib(pixels((3, 4, 9), 12), first=4).write(tmp_path / "b.mib")
    Mib(pixels((3, 4, 8), 12), first=3).write(tmp_path / "c.mib")
    with pytest.raises(SectorMismatchError, match="open them apart"):
        MerlinMib()([str(tmp_path / "a.mib"), str(tmp_path / "b.mib")])
    with pytest.raises(SectorMismatchError, match="both hold frame number 3"):
        MerlinMib()([str(tmp_path / "a.mib"), str(tmp_path / "c.mib")])


def test_frames_of_another_size_are_named(tmp_path):
    """The first frame that is not where it should be is named with its number and byte."""
    head, tail = Mib(pixels((20, 4, 8), 12)), Mib(pixels((7, 6, 8), 12), first=21)
    (tmp_path / "a.mib").write_bytes(head.encode() + tail.encode())
    with pytest.raises(CorruptDataError, match=f"at byte {20 * 448}, where frame 20 should start") as caught:
        MerlinMib()(str(tmp_path / "a.mib"))
    assert caught.value.context["frame"] == 20


def test_conflicts_are_reported(tmp_path):
    """Where .hdr and frame header differ, both values are told and the frame header counts."""
    source = MerlinMib()(Mib(pixels((2, 4, 8), 12)).write(tmp_path / "a.mib", depth=6, thresholds="3.0E+0,5.11E+2"))
    assert source.metadata.detector.counter_depth == 12
    assert sum("the frame header counts" in text for text in source.metadata.warnings) == 2


def test_sidecar_of_a_series_and_damaged_ones(tmp_path):
    """The .hdr of a series has no number; one that is none is reported and not used."""
    path = Mib(pixels((12, 4, 8), 12)).write(tmp_path / "a1.mib", x=4, y=3)
    (tmp_path / "a1.hdr").rename(tmp_path / "a.hdr")
    source = MerlinMib()(path)
    assert source.scan_shape == (3, 4)
    assert source.metadata.vendor["hdr"]["Dead Time File"] == "Dummy (C:\\<NUL>\\)"
    (tmp_path / "a1.hdr").write_bytes(b"\xff\x00nothing")
    assert any("does not start with 'HDR,'" in text for text in MerlinMib()(path).metadata.warnings)


@pytest.mark.parametrize("name", ["a.mib", "a1.mib"])
def test_the_sidecar_opens_its_frames(tmp_path, name):
    """Given the .hdr file, the frames beside it are opened; of a series all of them."""
    truth = pixels((12, 4, 8), 12)
    path = Path(Mib(truth).write(tmp_path / name, x=4, y=3)).with_suffix(".hdr").rename(tmp_path / "a.hdr")
    assert MerlinMib.matches(str(path), path.read_bytes()) == 1
    source = MerlinMib()(str(path))
    assert source.scan_shape == (3, 4)
    np.testing.assert_array_equal(source.read_frames(0, 12), truth)
    (tmp_path / name).unlink()
    with pytest.raises(NotFoundError, match=r"no frames lie beside .*a.hdr'"):
        MerlinMib()(str(path))


def test_streams_and_folders_are_told(tmp_path):
    """A captured stream and a folder are refused with what to do instead."""
    Mib(pixels((2, 4, 8), 12)).write(tmp_path / "a.mib")
    stream = tmp_path / "b.mib"
    stream.write_bytes(b"MPX,0000000448," + (tmp_path / "a.mib").read_bytes())
    with pytest.raises(CorruptDataError, match="this is a stream of the control computer"):
        MerlinMib()(str(stream))
    with pytest.raises(InputError, match="is a folder, expected files"):
        MerlinMib()(str(tmp_path))
    with pytest.raises(NotFoundError, match="does not exist"):
        MerlinMib()(str(tmp_path / "c.mib"))
    with pytest.raises(UnknownFormatError, match="no reader recognises"):
        stemstore.open(stream)


@pytest.mark.parametrize("size", [0, 100, 384, 447])
def test_not_one_whole_frame(tmp_path, size):
    """A file without a whole frame is refused, with its size if the header is whole."""
    path = tmp_path / "a.mib"
    path.write_bytes(Mib(pixels((1, 4, 8), 12)).encode()[:size])
    error, match = (TruncatedFileError, "a.mib") if size in (0, 384, 447) else (CorruptDataError, "expected the header")
    with pytest.raises(error, match=match):
        MerlinMib()(str(path))


def test_sizes_beyond_reason_are_refused(tmp_path):
    """A header that states a million million pixels costs nothing."""
    path = Mib(pixels((1, 4, 8), 12), size=(999_999_999, 999_999_999)).write(tmp_path / "a.mib")
    with pytest.raises(TruncatedFileError, match="holds no whole frame"):
        MerlinMib()(path)
    path = Mib(pixels((1, 4, 8), 12), size=(0, 8)).write(tmp_path / "a.mib")
    with pytest.raises(CorruptDataError, match="states 0 x 8 pixels"):
        MerlinMib()(path)


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_files_fail_as_stated(tmp_path_factory, data):
    """Cut anywhere, with bytes changed or garbage behind the magic: a scan or one of our errors, and no other."""
    content = bytearray(Mib(pixels((3, 4, 8), 12), bare=data.draw(st.booleans())).encode())
    for at in data.draw(st.lists(st.integers(0, 400), max_size=6)):
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = bytearray(b"MQ1," + data.draw(st.binary(max_size=600)))
    path = tmp_path_factory.mktemp("mib") / "a.mib"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    path.with_suffix(".hdr").write_bytes(b"HDR,\t\r\n" + data.draw(st.binary(max_size=60)))
    try:
        source = MerlinMib()(str(path))
    except StemStoreError:
        return
    assert source.read_frames(0, 1).nbytes <= len(content)


def test_header_is_kept_verbatim():
    """All fields with a meaning are read, and the text as it stands is kept."""
    mib = Mib(pixels((1, 512, 512), 12))
    header = parse_header(mib.header(0) + b"pixels", "here")
    assert (header.sequence, header.header_bytes, header.chips, header.layout) == (1, 768, 4, "2x2")
    assert (header.exposure, header.depth, header.chip_type) == (1e-3, 12, "3RX")
    assert header.text.encode().ljust(768, b"\0") == mib.header(0)


def test_chips_of_the_square_assembly(tmp_path):
    """The four chips of a quad without gap are sectors; pixels have the pitch of the chip."""
    detector = MerlinMib()(Mib(pixels((1, 512, 512), 12)).write(tmp_path / "a.mib")).metadata.detector
    assert [(s.name, s.rows[0], s.columns[0]) for s in detector.sectors] == [
        ("chip1", 0, 0),
        ("chip2", 0, 256),
        ("chip3", 256, 0),
        ("chip4", 256, 256),
    ]
    assert detector.pixel_size[0].to("mm").value == pytest.approx(0.055)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(sample, name):
    """Files of the detector have the shape, type, sum, values and digest that other decoders found."""
    entry = next(e for e in json.loads(sample("manifest.json").read_text())["entries"] if e["id"] == name)
    expect = entry["expect"]
    source = MerlinMib()(str(sample(entry["files"][0]["file"])))
    n_frames = expect["shape"][0]
    frames = source.read_frames(0, n_frames)
    assert int(np.prod(source.scan_shape)) == n_frames
    assert (list(frames.shape), str(frames.dtype)) == (expect["shape"], expect["dtype"])
    assert frames.sum(dtype=np.uint64) == expect["sum"]
    assert all(frames[tuple(value["index"])] == value["value"] for value in expect["values"])
    ordered = frames.astype(frames.dtype.newbyteorder("<"))
    assert hashlib.sha256(ordered.tobytes()).hexdigest() == expect["array_sha256_little_endian_c_order"]
    assert source.metadata.detector.counter_depth == expect["counter_depth"]


def test_scan_shapes_of_the_samples(sample, tmp_path):
    """Time stamps give the scan of 4 x 2; 10 ns of jitter do not, but its .hdr file does; free series stay flat."""
    folder = sample("merlin")
    found = {path.stem[:12]: MerlinMib()(str(path)) for path in folder.glob("*/*.mib")}
    assert found["001_4x2_6bit"].scan_shape == (2, 4)
    assert found["001_4x2_6bit"].metadata.acquisition.scan_shape_source == "guessed"
    assert found["002_merlin_t"].scan_shape == (2, 4)
    assert found["002_merlin_t"].metadata.acquisition.scan_shape_source == "header"
    assert all(source.scan_shape in ((1,), (9,)) for name, source in found.items() if name[:3] in ("Qua", "Sin"))
    alone = shutil.copy(found["002_merlin_t"].files[0], tmp_path / "a.mib")
    assert MerlinMib()(str(alone)).scan_shape == (8,)


def test_raw_agrees_with_processed_frames(sample):
    """RAW and processed 1-bit frames of one test series agree in every quadrant, so the chips lie as they should."""
    folder = Path(sample("merlin/Merlin_Single_Quad"))
    raw, plain = (
        MerlinMib()(str(folder / f"Quad_1_Frame_CounterDepth_1_Rows_256{end}.mib")).read_frames(0, 1)[0]
        for end in ("RAW", "")
    )
    for rows in (slice(0, 256), slice(256, 512)):
        for columns in (slice(0, 256), slice(256, 512)):
            assert np.corrcoef(raw[rows, columns].ravel(), plain[rows, columns].ravel())[0, 1] > 0.95


def test_how_the_shape_was_found_is_told(sample, tmp_path):
    """Opened as a dataset, a copy of the scan tells how its shape was found."""
    shutil.copy(sample("merlin/Merlin_navigation4x2_ROI/001_4x2_6bit.mib"), tmp_path / "a.mib")
    with pytest.warns(ScanWarning, match="found by the longer time at the end of every line"):
        dataset = stemstore.open(tmp_path / "a.mib")
    assert dataset.intensity.shape == (2, 4, 256, 256)
