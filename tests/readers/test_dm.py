"""Gatan DM files: orders of four axes, previews, units, cut files, and everything that is no diffraction pattern."""

from __future__ import annotations

import numpy as np
import pytest
from encode_dm import DmFile, file_of, image
from evidence import changed_words, check_array, damaged, expected, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import (
    CorruptDataError,
    FormatVersionError,
    InputError,
    StemStoreError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources.contract import MISSING
from stemstore.testing import ReaderTests
from stemstore_readers.dm import Dm
from stemstore_readers.dm_images import order_by_units
from stemstore_readers.dm_tags import decode, parse_header, value_bytes

SCAN_UNITS = ["1/nm", "1/nm", "nm", "nm"]  # fastest first: detector, then scan


def some(shape, dtype="<u2"):
    """Distinct pixels."""
    return (np.arange(np.prod(shape)) % 251).astype(dtype).reshape(shape)


def write(folder, tree, tail=bytes(8), **form):
    """Write a file and give its path."""
    path = folder / "scan.dm4"
    path.write_bytes(DmFile(**form).encode(tree, tail))
    return path


class TestConformance(ReaderTests):
    """The shared tests on a scan of four axes whose units say which are the detector's."""

    reader_cls = Dm
    version, little = 4, True

    def make_file(self, tmp_path):
        truth = some((3, 4, 5, 6))
        tree = file_of(image(truth, SCAN_UNITS, data_last=True))
        return str(write(tmp_path, tree, tail=b"", version=self.version, little=self.little)), truth, {}

    def make_big_file(self, tmp_path):
        url, _, options = self.make_file(tmp_path)
        big = np.broadcast_to(np.uint16(0), (16, 16, 256, 512))
        write(tmp_path, file_of(image(big, SCAN_UNITS)))
        return url, options


class TestConformanceDm3(TestConformance):
    """The shared tests on DM3 with big-endian values."""

    version, little = 3, False
    make_big_file = ReaderTests.make_big_file


class TestConformanceScattered(TestConformance):
    """The shared tests where every detector pixel is stored as an image of the scan, an order that LiberTEM refuses."""

    truncation = "error"
    make_big_file = ReaderTests.make_big_file

    def make_file(self, tmp_path):
        truth = some((3, 4, 5, 6), "<f4")
        stored = np.ascontiguousarray(np.moveaxis(truth, (0, 1), (2, 3)))
        tree = file_of(image(stored, ["nm", "nm", "1/nm", "1/nm"], data_last=True))
        return str(write(tmp_path, tree, tail=b"")), truth, {}


@pytest.mark.parametrize(
    ("file", "entry", "options"),
    [
        ("ncem/dmTest_3D_int16_64,65,66.dm4", "dm/dmTest_3D_int16_64,65,66.dm4", {}),
        ("ncem/dmTest_float32_nonSquare_diffPixelSize.dm3", "dm/dmTest_float32_nonSquare_diffPixelSize.dm3", {}),
        ("dm/2D_test_diffraction_pattern.dm3", "dm/2D_test_diffraction_pattern.dm3", {}),
        ("dm/2D_test_STEM_image.dm3", "dm/2D_test_STEM_image.dm3", {}),
        ("dm/3D_EELS_SI.dm4", "dm/3D_EELS_SI.dm4", {"fastest": "detector"}),
        ("dm/3D_test-1.dm3", "dm/3D_test-1.dm3", {}),
        ("nion/ref_F_1_2.dm4", "dm/ref_F_1_2.dm4", {}),
        ("ncem/08_carbon.dm3", "dm/08_carbon.dm3", {"fastest": "detector"}),
    ],
)
def test_samples(sample, file, entry, options):
    """Files of several writers have the pixels that other programs measured."""
    truth = expected(sample, entry)
    array = whole(Dm(**options)(str(sample(file))))
    check_array(array[0] if len(truth["shape"]) == 2 else array, truth)


def test_calibration_of_a_sample(sample):
    """Steps, zero and microscope of a diffraction pattern are those of the file."""
    metadata = Dm()(str(sample("dm/2D_test_diffraction_pattern.dm3"))).metadata
    truth = expected(sample, "dm/2D_test_diffraction_pattern.dm3")["axes"]
    for axis, known in zip(metadata.axes, truth, strict=True):
        assert (axis.name, axis.size, axis.unit) == ("k" + known["name"], known["size"], known["units"])
        np.testing.assert_allclose((axis.step, axis.origin), (known["scale"], known["offset"]), rtol=1e-12)
    assert metadata.acquisition.beam_energy.value == 200
    assert metadata.acquisition.exposure_time.value == 0.2
    assert metadata.acquisition.start_time == "2014-07-09T16:56:34.906000+00:00"
    assert metadata.detector.pixel_size[0].value == 0.014
    assert metadata.vendor["ImageList"]["1"]["ImageTags"]["Microscope Info"]["Imaging Mode"] == "DIFFRACTION"


@pytest.mark.parametrize(
    ("file", "match"),
    [
        ("dm/3D_EELS_SI.dm4", "holds spectra"),
        ("ncem/08_carbon.dm3", "holds spectra"),
        ("dm/2D_test-3.dm3", "holds complex numbers"),
    ],
)
def test_samples_that_are_no_patterns(sample, file, match):
    """Spectra and complex images are declined by what they are."""
    with pytest.raises(InputError, match=match):
        Dm()(str(sample(file)))


@pytest.mark.parametrize("tag", [True, "true", "1"])
def test_the_tag_decides_the_order(tmp_path, tag):
    """Without units the tag tells that detector axes lie fastest."""
    truth = some((2, 3, 4, 5))
    path = write(tmp_path, file_of(image(truth, tags={"Meta Data": {"Data Order Swapped": tag}})))
    np.testing.assert_array_equal(whole(Dm()(str(path))), truth)


def test_the_tag_decides_for_scan_axes(tmp_path):
    """A tag that denies the swap means patterns spread over the file; units that say otherwise are reported."""
    stored = some((4, 5, 2, 3))
    tags = {"Meta Data": {"Data Order Swapped": False}}
    source = Dm()(str(write(tmp_path, file_of(image(stored, SCAN_UNITS, tags)))))
    np.testing.assert_array_equal(whole(source), stored.transpose(2, 3, 0, 1))
    assert any("Data Order Swapped" in text for text in source.metadata.warnings)


def test_an_unknown_order_is_not_guessed(tmp_path):
    """Four axes without tag and units, an order that DM leaves open, are refused with both readings."""
    stored = some((4, 5, 2, 3))
    path = str(write(tmp_path, file_of(image(stored))))
    with pytest.raises(InputError, match=r"fastest='detector' for scan \(4, 5\).*fastest='scan' for scan \(2, 3\)"):
        Dm()(path)
    np.testing.assert_array_equal(whole(Dm(fastest="detector")(path)), stored)
    np.testing.assert_array_equal(whole(Dm(fastest="scan")(path)), stored.transpose(2, 3, 0, 1))


@pytest.mark.parametrize(
    ("kinds", "order"),
    [
        (["length", "length", "diffraction", "diffraction"], "detector"),
        (["diffraction", "diffraction", "length", "length"], "scan"),
        (["", "", "diffraction", "diffraction"], "detector"),
        (["diffraction", "diffraction", "", ""], "scan"),
        (["length", "length", "", ""], "detector"),
        (["", "", "length", "length"], "scan"),
        (["diffraction"] * 4, None),
        (["length"] * 4, None),
        ([""] * 4, None),
        (["length", "diffraction", "length", "diffraction"], None),
        (["diffraction", "diffraction", "length"], "scan"),
        (["length", "diffraction", "diffraction"], None),
    ],
)
def test_order_by_units(kinds, order):
    """Units tell the order exactly where one pair of axes can only be the detector's."""
    assert order_by_units(kinds) == order


def test_axes_and_microscope(tmp_path):
    """Steps and zeros come from Origin and Scale, the microscope's numbers in the units of the store."""
    tags = {"Microscope Info": {"Voltage": 300000.0, "STEM Camera Length": 120.0, "Specimen": "gold µm"}}
    tags["Acquisition"] = {"Parameters": {"High Level": {"Binning": (2, 4)}}}
    tree = image(some((2, 3, 4, 5)), ["1/nm", "1/nm", "um", "nm"], tags, {0: 0.2, 1: 0.1, 2: 0.5}, {0: 2, 1: 1.5})
    metadata = Dm()(str(write(tmp_path, file_of(tree)))).metadata
    found = {axis.name: (axis.step, axis.origin, axis.unit) for axis in metadata.axes}
    assert found["kx"] == (0.2, -0.4, "1/nm")
    np.testing.assert_allclose(found["ky"][:2], (0.1, -0.15))
    assert found["x"] == (500.0, 0.0, "nm")
    assert metadata.acquisition.beam_energy.value == 300
    assert metadata.acquisition.camera_length.value == 120
    assert metadata.acquisition.sample == "gold µm"
    assert metadata.detector.binning == (4, 2)


def test_missing_calibrations_and_centre(tmp_path):
    """Axes without calibration stay plain; steps without a zero are centred, and that is said."""
    tree = image(some((2, 4, 5)), ["1/nm", "1/nm"], scales={0: 0.5, 1: 0.5})
    metadata = Dm()(str(write(tmp_path, file_of(tree)))).metadata
    assert [(axis.name, axis.origin) for axis in metadata.axes] == [("ky", -0.75), ("kx", -1.0)]
    assert any("detector_center" in text for text in metadata.warnings)


def test_previews_are_passed_over(tmp_path):
    """An image that the thumbnails name is not the data; of two others one has to be named."""
    small, truth = some((2, 2), "<i4"), some((3, 4, 5))
    source = Dm()(str(write(tmp_path, file_of(image(small), image(truth), previews=[0]))))
    np.testing.assert_array_equal(whole(source), truth)
    path = str(write(tmp_path, file_of(image(small), image(truth))))
    with pytest.raises(InputError, match=r"has the images: 0 .*; 1 .*name one with image="):
        Dm()(path)
    np.testing.assert_array_equal(whole(Dm(image=1)(path)), truth)


def test_scan_shape_of_a_stack(tmp_path):
    """A stack is laid out by the tags where they fit its frames, else by the user; nothing is guessed."""
    sampled = {"SI": {"Acquisition": {"Spatial Sampling": {"Height (pixels)": 2, "Width (pixels)": 3}}}}
    path = str(write(tmp_path, file_of(image(some((6, 4, 5)), tags=sampled))))
    assert Dm()(path).metadata.acquisition.scan_shape == (2, 3)
    path = str(write(tmp_path, file_of(image(some((8, 4, 5)), tags=sampled))))
    source = Dm()(path)
    assert source.scan_shape == (8,)
    assert source.metadata.acquisition.scan_shape_alternatives == [(2, 4), (4, 2)]
    assert any("speak of a scan (2, 3)" in text for text in source.metadata.warnings)
    assert Dm(scan_shape=(2, 4))(path).metadata.acquisition.scan_shape_source == "user"


@pytest.mark.parametrize("version", [3, 4])
def test_a_file_per_pattern(tmp_path, version):
    """Files with a pattern each follow each other in natural order; one that differs or is cut is named."""
    truth = some((12, 4, 5))
    for number, frame in enumerate(truth):
        content = DmFile(version).encode(file_of(image(frame, ["1/nm", "1/nm"])))
        (tmp_path / f"hour{number}.dm4").write_bytes(content)
    pattern = str(tmp_path / "hour*.dm4")
    np.testing.assert_array_equal(whole(Dm()(pattern)), truth)
    np.testing.assert_array_equal(whole(Dm(scan_shape=(3, 4))(pattern)), truth.reshape(3, 4, 4, 5))
    (tmp_path / "hour5.dm4").write_bytes(content[: content.index(truth[11].tobytes()) + 3])
    with pytest.raises(TruncatedFileError, match=r"hour5\.dm4"):
        Dm()(pattern)
    (tmp_path / "hour5.dm4").write_bytes(DmFile(version).encode(file_of(image(some((5, 5))))))
    with pytest.raises(InputError, match=r"hour5\.dm4' has no image of the same kind"):
        Dm()(pattern)


def test_cut_inside_the_image(tmp_path):
    """The shape stands behind the array: a cut file needs it from the user, and keeps whole frames."""
    truth = some((2, 3, 40, 50))
    path = write(tmp_path, file_of(image(truth, SCAN_UNITS)))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(truth.tobytes()) + 4 * 4000 + 7])
    with pytest.raises(TruncatedFileError, match=r"12000 pixels of type u2, read them with image=0, shape="):
        Dm()(str(path))
    source = Dm(shape=(2, 3, 40, 50), fastest="detector")(str(path))
    assert (source.validity == MISSING).sum() == 2
    np.testing.assert_array_equal(source.read_frames(0, 4), truth.reshape(6, 40, 50)[:4])
    assert any("ends after 4 of 6" in text for text in source.metadata.warnings)


def test_cut_behind_the_image(tmp_path):
    """Images that come before a broken tag stay readable, with a warning that names the byte."""
    truth = some((2, 3, 4, 5))
    path = write(tmp_path, file_of(image(truth, SCAN_UNITS, {"Odd": {"a": 1, "b": 2}})))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"b\0\0")])
    source = Dm()(str(path))
    np.testing.assert_array_equal(whole(source), truth)
    assert any("not complete" in text and "byte" in text for text in source.metadata.warnings)


def test_sizes_that_contradict_the_array(tmp_path):
    """A shape of more bytes than the array has is damage, however large it is."""
    tree = image(some((2, 3, 4, 5)), SCAN_UNITS)
    tree["ImageData"]["Dimensions"] |= {"0": 2**31, "1": 2**31, "2": 2**31}
    with pytest.raises(CorruptDataError, match="array of 240 bytes"):
        Dm()(str(write(tmp_path, file_of(tree))))


def test_groups_without_end(tmp_path):
    """Ten thousand groups within groups end in an error, not in the recursion limit."""
    path = tmp_path / "deep.dm3"
    level = b"\x01\x00\x00\x00\x00\x01" + b"\x14\x00\x00"
    path.write_bytes(b"\0\0\0\x03" + bytes(4) + b"\0\0\0\x01" + level * 10000)
    with pytest.raises(TruncatedFileError, match="more than 64 groups within groups"):
        Dm()(str(path))


@given(st.lists(st.sampled_from([0, 1, 2, 4, 6, 12, 15, 18, 20, 2**40]), min_size=1, max_size=9))
def test_any_info_words_have_a_length_or_none(words):
    """Whatever the info words are, the length is a number or unknown, and short values can be decoded."""
    length = value_bytes(tuple(words))
    assert length is None or length >= 0
    if length is not None and length < 100:
        decode(tuple(words), bytes(length), "<")


@pytest.mark.parametrize(
    ("kind", "match"),
    [(8, "a colour picture"), (23, "a colour picture"), (27, "half a Fourier"), (28, "half a Fourier")],
)
def test_colours_and_packed_complex_numbers_are_declined(tmp_path, kind, match):
    """A file that holds a picture in colour, or half a transform, says so; ncempy 1.16 fails on both."""
    tree = image(some((4, 4), "<i4"))
    tree["ImageData"]["DataType"] = kind
    with pytest.raises(InputError, match=match):
        Dm()(str(write(tmp_path, file_of(tree))))


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (b"\0\0\0\x05" + bytes(40), FormatVersionError, "format 5, known are 3 and 4"),
        (b"\x89HDF" + bytes(40), UnknownFormatError, "expected the version"),
        (b"\0\0\0\x03" + b"\xff" * 40, UnknownFormatError, "byte order"),
        (b"\0\0\0\x04", TruncatedFileError, "ends inside its header"),
    ],
)
def test_bad_headers(content, error, match):
    """A header of something else, or half of one, is refused."""
    with pytest.raises(error, match=match):
        parse_header(content)


@pytest.mark.parametrize("options", [{"fastest": "frames"}, {"image": -1}, {"shape": (3,)}, {"scan_shape": (0, 2)}])
def test_bad_options(options):
    """Options that cannot be are refused by name."""
    with pytest.raises(InputError, match=f"option {next(iter(options))}"):
        Dm(**options)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), version=st.sampled_from([3, 4]))
def test_damage_ends_in_our_errors(tmp_path_factory, data, version):
    """Cut and changed files open or are refused with an error of ours, and never fill the memory."""
    tags = {"Microscope Info": {"Voltage": 2e5, "Items": {"0": {"Label": "Specimen"}}}, "Meta Data": {"Pair": (1, 2)}}
    content = DmFile(version).encode(file_of(image(some((2, 3, 4, 5)), SCAN_UNITS, tags), previews=[4]))
    path = tmp_path_factory.mktemp("dm") / "a.dm4"
    path.write_bytes(data.draw(st.one_of(damaged(content), changed_words(content))))
    try:
        source = Dm()(str(path))
        source.read_frames(0, 1)
    except StemStoreError:
        return
    assert source.metadata.model_dump_json()
