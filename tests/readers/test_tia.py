"""TIA series: both versions, rows turned over, interrupted scans, damaged offsets, and what the document adds."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from encode_tia import document, encode, some, write
from evidence import changed_words, check_array, damaged, expected, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import (
    CorruptDataError,
    FormatVersionError,
    InputError,
    NotFoundError,
    StemStoreError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources.contract import MISSING, VALID
from stemstore.testing import ReaderTests
from stemstore_readers import placed_frames
from stemstore_readers.tia import Tia
from stemstore_readers.tia_header import parse_element, parse_header

SCAN = [(4, 2e-9, "m"), (3, 5e-9, "m")]  # fastest first


class TestConformance(ReaderTests):
    """The shared tests on a scan of two dimensions."""

    reader_cls = Tia
    version = 0x220

    def make_file(self, tmp_path):
        truth = some((3, 4, 5, 6))
        path = write(tmp_path, truth.reshape(12, 5, 6), SCAN, version=self.version, emi=document(200000))
        return str(path), truth, {}

    def make_big_file(self, tmp_path):
        path = tmp_path / "big_1.ser"
        rows = columns = 2048
        content = bytearray(encode(some((9, 1, 1))))
        first = int.from_bytes(content[72:80], "little")
        for i in range(9):
            content[72 + 8 * i : 80 + 8 * i] = (first + i * (50 + 2 * rows * columns)).to_bytes(8, "little")
        content[first + 42 : first + 50] = struct.pack("<II", columns, rows)
        with path.open("wb") as file:
            file.write(content[: first + 50])
            file.truncate(first + 9 * (50 + 2 * rows * columns))
        return str(path), {}


class TestConformanceOldVersion(TestConformance):
    """The shared tests on version 0x210 with offsets of 4 bytes."""

    version = 0x210
    make_big_file = ReaderTests.make_big_file


@pytest.mark.parametrize("entry", ["tia/128x128x5-diffraction_preview.emi", "tia/16_STOimage.emi"])
def test_samples(sample, entry):
    """Series named by their document have the pixels that other programs measured."""
    truth = expected(sample, entry)
    source = Tia()(str(sample(entry.replace("tia/16", "ncem/16"))))
    array = whole(source)
    check_array(array[0] if len(truth["shape"]) == 2 else array, truth)


def test_calibration_of_a_sample(sample):
    """Steps of diffraction patterns are 1/m; rows are turned over together with their coordinates."""
    metadata = Tia()(str(sample("tia/128x128x5-diffraction_preview_1.ser"))).metadata
    ky, kx = metadata.axes
    assert ky.unit == kx.unit == "1/nm"
    np.testing.assert_allclose((ky.step, kx.step), 0.04246413461271668)
    np.testing.assert_allclose(-kx.origin / kx.step, 64)
    np.testing.assert_allclose(-ky.origin / ky.step, 63)
    assert metadata.acquisition.beam_energy.value == 200
    assert metadata.acquisition.camera_length.value == 1100
    assert metadata.acquisition.start_time == "2016-02-22T18:18:34+00:00"
    assert metadata.detector.name == "BM-Ceta"
    assert metadata.detector.binning == (8, 8)
    assert metadata.vendor["document"]["Stage X [um]"] == "0.147"


def test_a_picture_says_that_it_is_one(sample):
    """An image of the specimen opens as a frame whose metres are left out with a warning."""
    source = Tia()(str(sample("ncem/16_STOimage_1.ser")))
    assert source.scan_shape == (1,)
    assert any("is in 'm', expected" in text for text in source.metadata.warnings)


def test_scan_steps(tmp_path):
    """Dimensions in metres calibrate the scan, the first listed is the fastest."""
    path = write(tmp_path, some((12, 5, 6)), SCAN, emi=document(80000))
    metadata = Tia()(str(path)).metadata
    found = {axis.name: (axis.size, axis.unit) for axis in metadata.axes}
    assert found == {"y": (3, "nm"), "x": (4, "nm"), "ky": (5, "1/nm"), "kx": (6, "1/nm")}
    np.testing.assert_allclose([axis.step for axis in metadata.axes], [5, 2, 0.04, 0.04])
    assert metadata.acquisition.beam_energy.value == 80


def test_without_a_document(tmp_path):
    """A lone series opens with units, which RosettaSciIO takes from its document only; what is not known is told."""
    source = Tia()(str(write(tmp_path, some((3, 5, 6)))))
    assert source.metadata.acquisition.beam_energy is None
    assert any("no document" in text for text in source.metadata.warnings)
    assert any("taken to be in 1/m" in text for text in source.metadata.warnings)


def test_documents_of_several_series(tmp_path):
    """The n-th block of a document belongs to the n-th series, and the document alone does not choose."""
    both = document(80000, 300000)
    first = write(tmp_path, some((3, 5, 6)), emi=both)
    second = write(tmp_path, some((3, 5, 6)), name="scan_2.ser", emi=both)
    assert Tia()(str(first)).metadata.acquisition.beam_energy.value == 80
    assert Tia()(str(second)).metadata.acquisition.beam_energy.value == 300
    with pytest.raises(InputError, match=r"'scan_1\.ser', 'scan_2\.ser'; open the one"):
        Tia()(str(tmp_path / "scan.emi"))
    third = write(tmp_path, some((3, 5, 6)), name="scan_3.ser")
    assert any("describes 2 series" in text for text in Tia()(str(third)).metadata.warnings)


def test_a_document_alone(tmp_path):
    """A document without its series is told by the name that is missing."""
    (tmp_path / "scan.emi").write_bytes(document(80000))
    assert Tia.matches(str(tmp_path / "scan.emi"), document(80000)) == 1
    with pytest.raises(NotFoundError, match=r"expected 'scan_1\.ser'"):
        Tia()(str(tmp_path / "scan.emi"))


@pytest.mark.parametrize(
    "content", [b"<ObjectInfo><a>", b"<ObjectInfo><!ENTITY a 'b'></ObjectInfo>", b"<ObjectInfo>\xff"]
)
def test_damaged_documents_do_not_stop_the_data(tmp_path, content):
    """A document that cannot be read is left out with a warning."""
    source = Tia()(str(write(tmp_path, some((3, 5, 6)), emi=content)))
    assert any("cannot be read" in text for text in source.metadata.warnings)
    np.testing.assert_array_equal(whole(source), some((3, 5, 6)))


def test_interrupted_scan(tmp_path):
    """Elements behind the valid ones are missing, whatever their offsets say."""
    source = Tia()(str(write(tmp_path, some((12, 5, 6)), SCAN, valid=7)))
    assert source.validity.tolist() == [VALID] * 7 + [MISSING] * 5
    frames = whole(source).reshape(12, 5, 6)
    np.testing.assert_array_equal(frames[:7], some((12, 5, 6))[:7])
    assert not frames[7:].any()


@pytest.mark.parametrize("valid", [0, 99])
def test_senseless_number_of_valid_elements(tmp_path, valid):
    """A number that cannot be is replaced by the rising offsets, and told."""
    source = Tia()(str(write(tmp_path, some((3, 5, 6)), valid=valid)))
    np.testing.assert_array_equal(whole(source), some((3, 5, 6)))
    assert any("rising offsets are used" in text for text in source.metadata.warnings)


def test_offsets_behind_the_end(tmp_path):
    """Elements whose offsets point behind the end of the file are missing."""
    good = struct.unpack_from("<3Q", encode(some((3, 5, 6))), 72)
    path = write(tmp_path, some((3, 5, 6)), offsets=[good[0], 2**62, good[2]])
    source = Tia()(str(path))
    assert source.validity.tolist() == [VALID, MISSING, VALID]
    np.testing.assert_array_equal(whole(source)[[0, 2]], some((3, 5, 6))[[0, 2]])


def test_overlapping_offsets(tmp_path):
    """Images that share bytes are damage."""
    good = struct.unpack_from("<3Q", encode(some((3, 5, 6))), 72)
    with pytest.raises(CorruptDataError, match="overlap"):
        Tia()(str(write(tmp_path, some((3, 5, 6)), offsets=[good[0], good[0] + 8, good[2]])))


def test_dimensions_that_do_not_fit(tmp_path):
    """Dimensions of another number of elements leave a stack, which the option lays out."""
    path = str(write(tmp_path, some((12, 5, 6)), [(5, 1.0, ""), (3, 1.0, "")]))
    source = Tia()(path)
    assert source.scan_shape == (12,)
    assert any("do not fit 12 elements" in text for text in source.metadata.warnings)
    np.testing.assert_array_equal(whole(Tia(scan_shape=(3, 4))(path)), some((3, 4, 5, 6)))
    assert Tia(scan_shape=(3, 5))(path).validity.tolist() == [VALID] * 12 + [MISSING] * 3


@pytest.mark.parametrize("dtype", ["u1", "<u4", "i1", "<i2", "<i4", "<f4", "<f8"])
def test_pixel_types(tmp_path, dtype):
    """Every type of pixel is read as it is."""
    source = Tia()(str(write(tmp_path, some((2, 3, 4), dtype))))
    assert source.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(whole(source), some((2, 3, 4), dtype))


@pytest.mark.parametrize(
    ("form", "error", "match"),
    [
        ({"data_type": 0x4120}, InputError, "lines of numbers"),
        ({"code": 9}, InputError, "complex numbers"),
        ({"code": 77}, CorruptDataError, "pixels of type 77"),
        ({"version": 0x230}, FormatVersionError, "0x230, known are 0x210 and 0x220"),
        ({"dims": [(1, 1.0, "")] * 5}, CorruptDataError, "states 5 dimensions"),
    ],
)
def test_what_is_not_read(tmp_path, form, error, match):
    """Spectra, complex images, unknown types and versions are declined by name."""
    with pytest.raises(error, match=match):
        Tia()(str(write(tmp_path, some((2, 3, 4)), **form)))


def test_foreign_and_short_files(tmp_path):
    """Other files, half a header, half an element, and a table without images are refused."""
    content = encode(some((2, 5, 6)))
    with pytest.raises(UnknownFormatError, match="no TIA series"):
        parse_header(b"\0" * 100)
    with pytest.raises(TruncatedFileError, match="ends inside its header"):
        parse_header(content[:40])
    with pytest.raises(TruncatedFileError, match="10 of 50 bytes"):
        parse_element(bytes(10))
    (tmp_path / "a_1.ser").write_bytes(content[:130])
    with pytest.raises(TruncatedFileError, match="0 of 50 bytes"):
        Tia()(str(tmp_path / "a_1.ser"))


def test_billions_of_elements(tmp_path):
    """A number of elements that no file holds is refused before anything is made of it."""
    content = bytearray(encode(some((2, 5, 6))))
    content[14:22] = b"\xff" * 8
    (tmp_path / "a_1.ser").write_bytes(content)
    with pytest.raises(StemStoreError, match=r"elements|overlap|image"):
        Tia()(str(tmp_path / "a_1.ser"))


def test_images_larger_than_the_file(tmp_path):
    """Images of exabytes are refused by sizes."""
    content = bytearray(encode(some((2, 5, 6))))
    first = struct.unpack_from("<Q", content, 72)[0]
    content[first + 42 : first + 50] = b"\xff" * 8
    (tmp_path / "a_1.ser").write_bytes(content)
    with pytest.raises(TruncatedFileError, match="no whole image"):
        Tia()(str(tmp_path / "a_1.ser"))


def test_bad_options():
    """A scan shape of one number is refused by name."""
    with pytest.raises(InputError, match="option scan_shape"):
        Tia(scan_shape=(3,))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), version=st.sampled_from([0x210, 0x220]))
def test_damage_ends_in_our_errors(tmp_path_factory, data, version):
    """Cut and changed series and documents open or are refused with an error of ours."""
    folder = tmp_path_factory.mktemp("tia")
    path = write(folder, some((12, 5, 6)), SCAN, version=version, emi=document(200000))
    victim = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = victim.read_bytes()
    victim.write_bytes(data.draw(st.one_of(damaged(content, 600), changed_words(content, 600))))
    try:
        source = Tia()(str(path))
        source.read_frames(0, 1)
    except StemStoreError:
        return
    assert source.metadata.model_dump_json()


@pytest.mark.parametrize("shape", [(3, 7, 5), (2, 8, 4), (1, 1, 3), (0, 4, 4), (2, 301, 600)])
def test_rows_are_turned_over_in_place(monkeypatch, shape):
    """Even and odd numbers of rows, some at a time, and no frames at all."""
    monkeypatch.setattr(placed_frames, "PIECE", 9000)
    frames = some(shape)
    truth = frames[:, ::-1].copy()
    placed_frames.turn_over(frames)
    np.testing.assert_array_equal(frames, truth)
