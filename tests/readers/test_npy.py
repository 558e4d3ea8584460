"""NumPy files: every version and order is read, nothing is ever unpickled."""

from __future__ import annotations

import pickle
import struct

import numpy as np
import pytest
from encode_npy import encode, some
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import (
    CorruptDataError,
    FormatVersionError,
    InputError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources.contract import MISSING, VALID
from stemstore.testing import ReaderTests
from stemstore_readers.npy import Npy


class TestConformance(ReaderTests):
    """The shared tests on four axes, C order, format 1.0."""

    reader_cls = Npy

    def make_file(self, tmp_path):
        truth = some((3, 4, 5, 6))
        (tmp_path / "a.npy").write_bytes(encode(truth))
        return str(tmp_path / "a.npy"), truth, {}

    def make_big_file(self, tmp_path):
        path = tmp_path / "big.npy"
        header = "{'descr': '<u2', 'fortran_order': False, 'shape': (64, 64, 256, 256), }"
        with path.open("wb") as file:
            file.write(encode(np.empty(0, "<u2"), header=header))
            file.truncate(file.tell() + 64 * 64 * 256 * 256 * 2)
        return str(path), {}


class TestConformanceFortran(TestConformance):
    """The shared tests on big-endian floats in Fortran order, which LiberTEM does not read."""

    remote = False

    truncation = "error"
    make_big_file = ReaderTests.make_big_file

    def make_file(self, tmp_path):
        truth = some((2, 3, 4, 5), ">f4")
        (tmp_path / "a.npy").write_bytes(encode(np.asfortranarray(truth), version=(2, 0)))
        return str(tmp_path / "a.npy"), truth.astype("f4"), {}


class TestConformanceStack(TestConformance):
    """The shared tests on a flat stack laid out by the user, format 3.0."""

    make_big_file = ReaderTests.make_big_file

    def make_file(self, tmp_path):
        truth = some((6, 4, 5), "<i4")
        (tmp_path / "a.npy").write_bytes(encode(truth, version=(3, 0)))
        return str(tmp_path / "a.npy"), truth.reshape(2, 3, 4, 5), {"scan_shape": (2, 3)}


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=3, max_size=5),
    dtype=st.sampled_from(["<u1", ">u2", "<i4", "<f4", ">f8"]),
    order=st.sampled_from("CF"),
)
def test_what_numpy_saves_is_read(tmp_path_factory, shape, dtype, order):
    """Any array of three to five axes that NumPy saved has the same frames."""
    array = np.asarray(some(shape, dtype), order=order)
    path = tmp_path_factory.mktemp("npy") / "a.npy"
    np.save(path, array)
    source = Npy()(str(path))
    n_frames = int(np.prod(shape[:-2]))
    assert source.scan_shape == tuple(shape[:-2])
    np.testing.assert_array_equal(source.read_frames(0, n_frames), array.reshape(n_frames, *shape[-2:]))


def test_five_axes_have_repeated_frames_in_front(tmp_path):
    """The first of five axes counts frames per position."""
    np.save(tmp_path / "a.npy", some((2, 3, 4, 5, 6)))
    source = Npy()(str(tmp_path / "a.npy"))
    assert source.metadata.acquisition.frames_per_position == 2
    assert source.metadata.acquisition.scan_shape == (2, 3, 4)


def test_flat_stack_without_scan_shape(tmp_path):
    """Three axes are a flat stack with the shapes that fit, none of them chosen."""
    np.save(tmp_path / "a.npy", some((6, 4, 5)))
    source = Npy()(str(tmp_path / "a.npy"))
    assert source.scan_shape == (6,)
    assert source.metadata.acquisition.scan_shape_alternatives == [(2, 3), (3, 2)]


@pytest.mark.parametrize("order", ["C", "F"])
def test_scan_shape_that_does_not_fit(tmp_path, order):
    """A larger scan ends in missing frames, a smaller one ignores the rest; both are reported."""
    array = some((6, 4, 5))
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    larger, smaller = (Npy(scan_shape=shape)(str(tmp_path / "a.npy")) for shape in ((2, 4), (2, 2)))
    assert larger.validity.tolist() == [VALID] * 6 + [MISSING] * 2
    assert not larger.read_frames(6, 8).any()
    np.testing.assert_array_equal(larger.read_frames(4, 8)[:2], array[4:])
    np.testing.assert_array_equal(smaller.read_frames(0, 4), array[:4])
    assert any("needs 8" in text for text in larger.metadata.warnings)
    assert any("takes 4" in text for text in smaller.metadata.warnings)


def test_fortran_order_is_reported_as_slow(tmp_path):
    """A file in Fortran order says that reads are slow."""
    np.save(tmp_path / "a.npy", np.asfortranarray(some((2, 3, 4, 5))))
    assert any("Fortran order" in text for text in Npy()(str(tmp_path / "a.npy")).metadata.warnings)


def test_truncated_array_ends_in_missing_frames(tmp_path):
    """Frames behind the end of the file are missing and reported once."""
    truth = some((2, 3, 4, 5))
    (tmp_path / "a.npy").write_bytes(encode(truth)[: -2 * 40 - 1])
    source = Npy()(str(tmp_path / "a.npy"))
    assert source.validity.tolist() == [VALID] * 3 + [MISSING] * 3
    assert source.metadata.warnings == [
        f"file {str(tmp_path / 'a.npy')!r} ends after 3 of 6 whole frames; the others are missing"
    ]
    np.testing.assert_array_equal(source.read_frames(0, 3), truth[0])


@pytest.mark.parametrize("size", [3, 9, 11, 60, 130])
def test_file_that_ends_in_its_header_or_first_frame(tmp_path, size):
    """A file cut inside magic number, preamble, header or first frame is refused."""
    (tmp_path / "a.npy").write_bytes(encode(some((2, 3, 4, 5)))[:size])
    with pytest.raises((TruncatedFileError, UnknownFormatError), match=r"a\.npy"):
        Npy()(str(tmp_path / "a.npy"))


def test_objects_are_never_unpickled(tmp_path):
    """An array of objects is refused although its pickle would run code."""

    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    header = "{'descr': '|O', 'fortran_order': False, 'shape': (1, 1, 1, 1), }"
    content = encode(np.empty(0, "u1"), header=header) + pickle.dumps([Trap()])
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match="cannot be a pixel"):
        Npy()(str(tmp_path / "a.npy"))


@pytest.mark.parametrize(
    ("header", "error", "match"),
    [
        ("{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (1, 1, 1)}", InputError, "holds records"),
        ("{'descr': '<c8', 'fortran_order': False, 'shape': (1, 1, 1)}", InputError, "cannot be a pixel"),
        ("{'descr': '|b1', 'fortran_order': False, 'shape': (1, 1, 1)}", InputError, "cannot be a pixel"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (4, 4)}", InputError, "expected 3 axes"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (1,) * 6}", CorruptDataError, "cannot be parsed"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (1, 1, 1, 1, 1, 1)}", InputError, "expected 3 axes"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (0, 4, 4)}", InputError, "holds no pixel"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 4, 4)}", CorruptDataError, "it is damaged"),
        ("{'descr': '<u2', 'fortran_order': 1, 'shape': (1, 4, 4)}", CorruptDataError, "it is damaged"),
        ("{'descr': '<u2', 'fortran_order': False}", CorruptDataError, "cannot be parsed"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (1, 4, 4), 'x': 1}", CorruptDataError, "it is damaged"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (99999, 99999, 4, 4)}", CorruptDataError, "only 4 frames"),
        ("__import__('os').getcwd()", CorruptDataError, "cannot be parsed"),
        ("(" * 500, CorruptDataError, "cannot be parsed"),
        ("[1, 2]", CorruptDataError, "cannot be parsed"),
    ],
)
def test_bad_headers(tmp_path, header, error, match):
    """Headers that are no plain description of frames are refused, and nothing in them is run."""
    (tmp_path / "a.npy").write_bytes(encode(np.zeros(64, "<u2"), header=header))
    with pytest.raises(error, match=match):
        Npy()(str(tmp_path / "a.npy"))


def test_header_of_absurd_length(tmp_path):
    """A header longer than NumPy allows is refused before it is parsed."""
    content = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b" " * 100
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(CorruptDataError, match="states a header of 2147483648 bytes, expected at most 10000"):
        Npy()(str(tmp_path / "a.npy"))


def test_unknown_version(tmp_path):
    """A format version that is not known is refused with those that are."""
    content = bytearray(encode(some((1, 1, 4, 4))))
    content[6] = 4
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(FormatVersionError, match=r"format \(4, 0\), known are \(1, 0\), \(2, 0\), \(3, 0\)"):
        Npy()(str(tmp_path / "a.npy"))


def test_several_files_are_refused(tmp_path):
    """One array is one file."""
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, some((1, 1, 4, 4)))
    with pytest.raises(InputError, match=r"2 files were given, expected one \.npy file"):
        Npy()(str(tmp_path / "*.npy"))
