"""Raw binary: any type, byte order, header and footer; what does not fit is reported."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import InputError, NotFoundError, TruncatedFileError
from stemstore.sources.contract import MISSING, VALID
from stemstore.testing import ReaderTests
from stemstore_readers.raw_binary import RawBinary


def frames_of(shape, dtype, seed=0):
    """Distinct pixels of a type, in its own byte order."""
    return np.random.default_rng(seed).integers(0, 120, shape).astype(dtype)


def encode(frames, *, offset=0, header=0, footer=0) -> bytes:
    """File header, then every frame between its own header and footer, all filled with 0xEE."""
    flat = frames.reshape(-1, *frames.shape[-2:])
    records = [b"\xee" * header + frame.tobytes() + b"\xee" * footer for frame in flat]
    return b"\xee" * offset + b"".join(records)


class TestConformance(ReaderTests):
    """The shared tests on big-endian frames with gaps between them, which LiberTEM does not read, in two files."""

    reader_cls = RawBinary

    def make_file(self, tmp_path):
        truth = frames_of((3, 4, 5, 7), ">i4")
        path = tmp_path / "scan.raw"
        path.write_bytes(encode(truth, offset=100, header=12, footer=5))
        options = {"shape": (3, 4, 5, 7), "dtype": ">i4", "offset": 100, "frame_header": 12, "frame_footer": 5}
        return str(path), truth.astype("i4"), options

    def make_big_file(self, tmp_path):
        path = tmp_path / "big.raw"
        with path.open("wb") as file:
            file.truncate(2**30)
        return str(path), {"detector_shape": (256, 256), "dtype": "<u2"}


class TestConformanceSidecar(TestConformance):
    """The shared tests on 32-bit floats described by a JSON file, a flat stack, one page of header."""

    make_big_file = ReaderTests.make_big_file

    def make_file(self, tmp_path):
        truth = frames_of((9, 6, 4), "<f4")
        path = tmp_path / "stack.bin"
        path.write_bytes(encode(truth, header=4096))
        description = {"detector_shape": [6, 4], "dtype": "<f4", "frame_header": 4096}
        (tmp_path / "stack.bin.json").write_text(json.dumps(description))
        return str(path), truth, {}


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["<u1", "<u2", ">u2", "<i2", ">u4", "<f4", ">f8", "<f2", "<i8"]),
    shape=st.tuples(*[st.integers(1, 4)] * 2, *[st.integers(1, 9)] * 2),
    offset=st.integers(0, 5000),
    header=st.integers(0, 5000),
    footer=st.integers(0, 40),
    data=st.data(),
)
def test_any_layout(tmp_path_factory, dtype, shape, offset, header, footer, data):
    """Whatever type, odd shape, header and footer, every range equals the encoded frames."""
    truth = frames_of(shape, dtype)
    path = tmp_path_factory.mktemp("raw") / "a.raw"
    path.write_bytes(encode(truth, offset=offset, header=header, footer=footer))
    source = RawBinary(shape=shape, dtype=dtype, offset=offset, frame_header=header, frame_footer=footer)(str(path))
    n_frames = shape[0] * shape[1]
    start = data.draw(st.integers(0, n_frames))
    stop = data.draw(st.integers(start, n_frames))
    frames = source.read_frames(start, stop)
    assert frames.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(frames, truth.reshape(n_frames, *shape[2:])[start:stop])


def test_read_without_vectored_calls(tmp_path, monkeypatch):
    """Systems without preadv read the same frames with plain seeks."""
    truth = frames_of((2, 3, 4, 5), "<u2")
    (tmp_path / "a.raw").write_bytes(encode(truth, offset=3, header=7))
    monkeypatch.setattr("stemstore.sources.records._HAS_PREADV", False)
    source = RawBinary(shape=truth.shape, dtype="<u2", offset=3, frame_header=7)(str(tmp_path / "a.raw"))
    np.testing.assert_array_equal(source.read_frames(0, 6), truth.reshape(6, 4, 5))


def test_short_reads_are_completed(tmp_path, monkeypatch):
    """A system call that delivers less than asked for is continued where it stopped."""
    import os

    truth = frames_of((2, 3, 8, 9), "<u2")
    (tmp_path / "a.raw").write_bytes(encode(truth, header=6))
    whole = os.preadv

    def stutter(handle, vectors, offset):
        return whole(handle, [vectors[0][: max(1, len(vectors[0]) // 2)]], offset)

    monkeypatch.setattr("stemstore.sources.records.os.preadv", stutter)
    source = RawBinary(shape=truth.shape, dtype="<u2", frame_header=6)(str(tmp_path / "a.raw"))
    np.testing.assert_array_equal(source.read_frames(0, 6), truth.reshape(6, 8, 9))


def test_series_of_files(tmp_path):
    """A pattern is read in natural order, a list in its own order, every file with its own header."""
    truth = frames_of((12, 4, 5), "<u2")
    paths = [tmp_path / f"part{number}.raw" for number in (1, 2, 10)]
    for number, path in enumerate(paths):
        path.write_bytes(encode(truth[4 * number : 4 * number + 4], offset=9))
    options = {"shape": (3, 4, 4, 5), "dtype": "<u2", "offset": 9}
    pattern = RawBinary(**options)(str(tmp_path / "part*.raw"))
    np.testing.assert_array_equal(pattern.read_frames(0, 12), truth)
    listed = RawBinary(**options)([str(path) for path in reversed(paths)])
    np.testing.assert_array_equal(listed.read_frames(0, 4), truth[8:])
    np.testing.assert_array_equal(listed.read_frames(3, 9), np.concatenate([truth[11:], truth[4:8], truth[:1]]))


def test_name_with_wildcards_is_taken_literally(tmp_path):
    """A file whose name contains brackets and stars is that file, not a pattern."""
    truth = frames_of((1, 1, 4, 5), "<u2")
    path = tmp_path / "a [1]*?.raw"
    path.write_bytes(truth.tobytes())
    source = RawBinary(shape=truth.shape, dtype="<u2")(str(path))
    np.testing.assert_array_equal(source.read_frames(0, 1), truth[0])


def test_last_record_cut_by_100_bytes(tmp_path):
    """A frame cut by 100 bytes is one frame less and one warning naming file and bytes."""
    truth = frames_of((6, 10, 10), "<u2")
    (tmp_path / "a.raw").write_bytes(truth.tobytes()[:-100])
    source = RawBinary(detector_shape=(10, 10), dtype="<u2")(str(tmp_path / "a.raw"))
    assert source.scan_shape == (5,)
    assert len(source.metadata.warnings) == 1
    assert "a.raw' ends with 100 bytes" in source.metadata.warnings[0]
    np.testing.assert_array_equal(source.read_frames(0, 5), truth[:5])


@pytest.mark.parametrize("dtype", ["<u2", "<f4"])
def test_scan_larger_than_the_data(tmp_path, dtype):
    """64 frames in a 10 x 8 scan: the last 16 are missing, zero or NaN, and reported."""
    truth = frames_of((64, 8, 8), dtype)
    (tmp_path / "a.raw").write_bytes(truth.tobytes())
    source = RawBinary(shape=(10, 8, 8, 8), dtype=dtype)(str(tmp_path / "a.raw"))
    assert source.validity.tolist() == [VALID] * 64 + [MISSING] * 16
    frames = source.read_frames(60, 80, out=np.full((20, 8, 8), 5, dtype=dtype))
    np.testing.assert_array_equal(frames[:4], truth[60:])
    assert np.isnan(frames[4:]).all() if dtype == "<f4" else not frames[4:].any()
    assert "64 frames were found, the scan (10, 8) needs 80" in source.metadata.warnings[0]


def test_scan_smaller_than_the_data(tmp_path):
    """64 frames in a 6 x 8 scan: the last 16 are ignored and reported."""
    truth = frames_of((64, 8, 8), "<u2")
    (tmp_path / "a.raw").write_bytes(truth.tobytes())
    source = RawBinary(shape=(6, 8, 8, 8), dtype="<u2")(str(tmp_path / "a.raw"))
    np.testing.assert_array_equal(source.read_frames(0, 48), truth[:48])
    assert source.validity is None
    assert "64 frames were found, the scan (6, 8) takes 48; the last ones are ignored" in source.metadata.warnings


def test_flat_stack_offers_scan_shapes_and_takes_none(tmp_path):
    """Of a flat stack no scan shape is guessed; those that fit are offered, the squarest first."""
    (tmp_path / "a.raw").write_bytes(bytes(12 * 4))
    acquisition = RawBinary(detector_shape=(2, 2), dtype="u1")(str(tmp_path / "a.raw")).metadata.acquisition
    assert acquisition.scan_shape is None
    assert acquisition.scan_shape_alternatives == [(3, 4), (4, 3), (2, 6), (6, 2)]


def test_options_win_over_the_sidecar(tmp_path):
    """An option given by the user replaces the one of the JSON file; either form of shape replaces both."""
    truth = frames_of((2, 3, 4, 5), ">u2")
    (tmp_path / "a.raw").write_bytes(truth.tobytes())
    (tmp_path / "a.raw.json").write_text(json.dumps({"shape": [2, 3, 4, 5], "dtype": "<u2"}))
    source = RawBinary(dtype=">u2", detector_shape=(4, 5))(str(tmp_path / "a.raw"))
    np.testing.assert_array_equal(source.read_frames(0, 6), truth.reshape(6, 4, 5))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{broken", "is no JSON"),
        ("[1, 2]", "holds list, expected an object"),
        ("{}", "holds nothing"),
        ('{"shape": [1, 1, 2, 2], "gap": 4}', "holds gap, expected an object with keys out of shape"),
        ('{"shape": [0, 1, 2, 2]}', "is not a shape"),
    ],
)
def test_bad_sidecar(tmp_path, text, match):
    """A JSON file that is no description of ours is refused by name, and is no reason to claim the data."""
    (tmp_path / "a.raw").write_bytes(bytes(100))
    (tmp_path / "a.raw.json").write_text(text)
    with pytest.raises(InputError, match=match):
        RawBinary(dtype="u1")(str(tmp_path / "a.raw"))
    assert RawBinary.matches(str(tmp_path / "a.raw"), bytes(100)) == 0


def test_matches_needs_a_sidecar(tmp_path):
    """Only a description beside the file makes raw data known."""
    (tmp_path / "a.raw").write_bytes(bytes(100))
    assert RawBinary.matches(str(tmp_path / "a.raw"), bytes(100)) == 0
    (tmp_path / "a.raw.json").write_text('{"detector_shape": [2, 2], "dtype": "u1"}')
    assert RawBinary.matches(str(tmp_path / "a.raw"), bytes(100)) == 0.9


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"shape": (2, 2)}, "shape=.* expected 3 or 4 or 5 whole numbers"),
        ({"shape": (2, 0, 4, 4)}, "shape=.* is not a shape"),
        ({"shape": (2, -1, 4, 4)}, "shape=.* is not a shape"),
        ({"detector_shape": (4,)}, "detector_shape=.* expected 2 whole numbers"),
        ({"shape": (2, 2, 4, 4), "detector_shape": (4, 4)}, "are both given"),
        ({"dtype": "O"}, "cannot be a pixel"),
        ({"dtype": "u2,u2"}, "cannot be a pixel"),
        ({"dtype": "c8"}, "cannot be a pixel"),
        ({"dtype": "S4"}, "cannot be a pixel"),
        ({"dtype": "nonsense"}, "is not understood"),
        ({"offset": -1}, "offset=-1 is not a number of bytes"),
        ({"frame_header": 1.5}, "frame_header=1.5 is not a number of bytes"),
        ({"frame_footer": True}, "frame_footer=True is not a number of bytes"),
    ],
)
def test_bad_options(options, match):
    """Options that cannot describe frames are refused when they are given."""
    with pytest.raises(InputError, match=match):
        RawBinary(**options)


@pytest.mark.parametrize(("options", "lacking"), [({}, "dtype"), ({"dtype": "<u2"}, "shape or detector_shape")])
def test_incomplete_description(tmp_path, options, lacking):
    """Without shape or type the data cannot be read, and the message shows how to give them."""
    (tmp_path / "a.raw").write_bytes(bytes(100))
    with pytest.raises(InputError, match=f"raw binary data need {lacking}; pass for example"):
        RawBinary(**options)(str(tmp_path / "a.raw"))


@pytest.mark.parametrize("size", [0, 50, 199])
def test_not_one_whole_frame(tmp_path, size):
    """A file without one whole frame is refused with its size."""
    (tmp_path / "a.raw").write_bytes(bytes(size))
    with pytest.raises(TruncatedFileError, match=f"has {size} bytes and holds no whole frame of 100 bytes"):
        RawBinary(detector_shape=(10, 10), dtype="u1", offset=100)(str(tmp_path / "a.raw"))


def test_folder_is_refused(tmp_path):
    """A folder is no file; the message shows a pattern."""
    with pytest.raises(InputError, match=r"is a folder, expected files; pass a pattern"):
        RawBinary(detector_shape=(2, 2), dtype="u1")(str(tmp_path))


def test_missing_file(tmp_path):
    """A file or pattern without a match is not found."""
    for name in ("none.raw", "none*.raw"):
        with pytest.raises(NotFoundError, match="does not exist"):
            RawBinary(detector_shape=(2, 2), dtype="u1")(str(tmp_path / name))


@pytest.mark.parametrize("bad", ["shape", "dtype", "order", "readonly"])
def test_buffer_that_does_not_fit(tmp_path, bad):
    """A buffer of another shape, type or order, or a read-only one, is refused before anything is read."""
    (tmp_path / "a.raw").write_bytes(bytes(100))
    source = RawBinary(detector_shape=(5, 10), dtype="u1")(str(tmp_path / "a.raw"))
    buffers = {
        "shape": np.zeros((2, 10, 5), "u1"),
        "dtype": np.zeros((2, 5, 10), "i1"),
        "order": np.zeros((2, 5, 10), "u1", order="F"),
        "readonly": np.zeros((2, 5, 10), "u1"),
    }
    buffers["readonly"].flags.writeable = False
    with pytest.raises(InputError, match="expected a writeable C-contiguous uint8 of shape"):
        source.read_frames(0, 2, out=buffers[bad])


def test_identity_changes_with_data_and_options(tmp_path):
    """Another size, time or option gives another identity."""
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(100))
    seen = {RawBinary(detector_shape=(5, 10), dtype=dtype)(str(path)).identity for dtype in ("u1", "i1")}
    path.write_bytes(bytes(150))
    seen.add(RawBinary(detector_shape=(5, 10), dtype="u1")(str(path)).identity)
    assert len(seen) == 3
