"""EMPAD: pixels without the footer, the scan shape that fits the file, steps of two generations of XML."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from encode_empad import new_xml, old_xml, ramp, raw_bytes
from evidence import check_array, damaged, expected, whole
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError, InputError, NotFoundError, StemStoreError, UnknownFormatError
from stemstore.testing import ReaderTests
from stemstore_readers.empad import RECORD, Empad
from stemstore_readers.empad_xml import MAX_XML_BYTES, parse_header


def write(folder, frames, xml=None, raw="scan.raw"):
    """Write raw file and XML, and name the one to open."""
    (folder / raw).write_bytes(raw_bytes(frames))
    if xml is None:
        return folder / raw
    (folder / "scan.xml").write_text(xml, encoding="utf-8")
    return folder / "scan.xml"


class TestConformance(ReaderTests):
    """The shared tests on a scan of 2 × 3 with its XML, NaN and negative values included."""

    reader_cls = Empad

    def make_file(self, tmp_path):
        truth = ramp(2, 3)
        xml = old_xml(pix=(2, 3), acquire=(2, 3), raw="scan.raw", pixel_size=1.8e-10)
        return str(write(tmp_path, truth, xml)), truth, {}

    def last_file(self, url):
        return Path(url).with_name("scan.raw")

    def make_big_file(self, tmp_path):
        path = tmp_path / "scan_x64_y32.raw"
        with path.open("wb") as file:
            file.truncate(64 * 32 * RECORD)
        return str(path), {}


def test_measured_scan(sample):
    """The scan of a microscope reads as other programs read it, though its acquire block contradicts its file."""
    truth = expected(sample, "empad/map4x4.xml")
    source = Empad()(str(sample("empad/map4x4.xml")))
    check_array(whole(source), truth)
    axes = {axis.name: axis for axis in source.metadata.axes}
    for name, wanted in zip(("y", "x", "ky", "kx"), truth["axes"], strict=True):
        factor = 1000 if name in "yx" else 1  # micrometre there, nm here
        np.testing.assert_allclose(axes[name].step, wanted["scale"] * factor, rtol=1e-9)
        np.testing.assert_allclose(axes[name].origin, wanted["offset"] * factor, rtol=1e-9)
    acquisition = source.metadata.acquisition
    assert (acquisition.beam_energy.value, acquisition.camera_length.value) == (300, 722.5)
    assert acquisition.exposure_time.value == 0.001
    assert acquisition.start_time == "2019-06-06T13:30:00.164675"
    assert any("scan_parameters acquire 128x128" in text for text in source.metadata.warnings)
    assert any("0.4291 mrad (calibrated_diffraction_angle)" in text for text in source.metadata.warnings)


def test_measured_xml_of_version_1_2(sample):
    """The newer XML gives scan size, raw file, energy and step; the stated field was multiplied by its scale."""
    header = parse_header(sample("empad/map128x128_version1.2.0.xml").read_bytes())
    assert header.raw_file == "scan_x128_y128.raw"
    assert dict(header.shapes)["scan_parameters acquire"] == (128, 128)
    changes, axes, warnings = header.described((128, 128))
    assert changes["beam_energy"].value == 300
    np.testing.assert_allclose([axis.step for axis in axes], [9.266641250196717 / 0.72 / 128] * 2)
    assert not warnings


def test_the_footer_is_never_a_pixel(tmp_path):
    """Frame i + 1 follows frame i; the two rows in between do not appear."""
    truth = ramp(1, 4)
    source = Empad()(str(write(tmp_path, truth, raw="scan_x4_y1.raw")))
    np.testing.assert_array_equal(whole(source), truth)


@pytest.mark.parametrize(
    ("xml", "raw", "shape", "warned"),
    [
        ({"pix": (2, 3), "acquire": (9, 9)}, "a.raw", (2, 3), "scan_parameters acquire 9x9"),
        ({"acquire": (3, 2), "search": (64, 64)}, "a.raw", (3, 2), None),
        ({"acquire": (9, 9), "search": (1, 6)}, "a.raw", (1, 6), "acquire 9x9"),
        ({"acquire": (3, 2)}, "scan_x3_y2.raw", (2, 3), "acquire 3x2"),
        ({"acquire": (2, 4)}, "a.raw", (6,), "no scan shape is assumed"),
        ({"kind": "series", "acquire": (2, 3)}, "a.raw", (6,), None),
    ],
)
def test_the_statement_that_fits_wins(tmp_path, xml, raw, shape, warned):
    """Of several scan sizes the first with the right number of frames counts; where LiberTEM refuses, we warn."""
    source = Empad()(str(write(tmp_path, ramp(6), old_xml(raw=raw, **xml), raw=raw)))
    assert source.scan_shape == shape
    assert any(warned in text for text in source.metadata.warnings) if warned else not source.metadata.warnings


def test_no_shape_is_nearly_right(tmp_path):
    """65 × 128 frames of a stated 64 × 128 scan stay a stack; nothing close is taken for the scan."""
    path = tmp_path / "scan_x128_y64.raw"
    with path.open("wb") as file:
        file.truncate(65 * 128 * RECORD)
    source = Empad()(str(path))
    assert source.scan_shape == (65 * 128,)
    assert (64, 130) in source.metadata.acquisition.scan_shape_alternatives


@pytest.mark.parametrize("name", ["/data/empad/scan.raw", r"C:\data\empad\scan.raw"])
def test_absolute_path_of_another_machine(tmp_path, name):
    """Of a foreign path in the XML only the name counts, whatever its separators."""
    assert Empad()(str(write(tmp_path, ramp(6), old_xml(raw=name)))).scan_shape == (6,)


def test_renamed_raw_file(tmp_path):
    """A raw file that was renamed is asked for, and taken from the option."""
    url = write(tmp_path, ramp(2, 3), old_xml(pix=(2, 3), raw="before.raw"))
    with pytest.raises(NotFoundError, match=r"names 'before.raw', which is not beside it; pass raw_file="):
        Empad()(str(url))
    assert Empad(raw_file=str(tmp_path / "scan.raw"))(str(url)).scan_shape == (2, 3)


def test_raw_file_finds_its_xml(tmp_path):
    """Given the raw file, the XML beside it that names it is read; others are left alone."""
    write(tmp_path, ramp(2, 3), old_xml(pix=(2, 3), raw="scan.raw"))
    (tmp_path / "a.xml").write_text(old_xml(raw="other.raw"), encoding="utf-8")
    (tmp_path / "b.xml").write_text("no xml", encoding="utf-8")
    source = Empad()(str(tmp_path / "scan.raw"))
    assert source.metadata.acquisition.beam_energy.value == 300
    assert [Path(file.path).name for file in source.metadata.files] == ["scan.raw", "scan.xml"]


def test_steps_per_axis(tmp_path):
    """Old XML: field of view (x, y) over columns and rows. New XML: undo the scale factor, take the larger extent."""
    axes = Empad()(str(write(tmp_path, ramp(2, 3), old_xml(pix=(2, 3), acquire=(2, 3), raw="scan.raw")))).metadata.axes
    np.testing.assert_allclose([axis.step for axis in axes], [40 / 2, 60 / 3])
    write(tmp_path, ramp(2, 3), new_xml(acquire=(2, 3), raw="scan.raw", field=9e-9, scale=0.75, scan_size=0.5))
    axes = Empad()(str(tmp_path / "scan.xml")).metadata.axes
    np.testing.assert_allclose([axis.step for axis in axes], [9 / 0.75 * 0.5 / 3] * 2)


def test_interrupted_scan(tmp_path):
    """A scan that ended early is a stack with a note; the user's shape marks what is missing."""
    url = write(tmp_path, ramp(2, 3)[:, :2].copy(), old_xml(pix=(2, 3), acquire=(2, 3), raw="scan.raw"))
    assert Empad()(str(url)).scan_shape == (4,)
    source = Empad(scan_shape=(2, 3))(str(url))
    assert source.validity.tolist() == [2, 2, 2, 2, 0, 0]
    assert np.isnan(whole(source)[1, 1:]).all()


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (b"<root><a/></root>", UnknownFormatError, "without raw_file"),
        (b"<svg/>", UnknownFormatError, "element 'svg'"),
        (b"<root", CorruptDataError, "cannot be parsed"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><root>&b;</root>', CorruptDataError, "declares entities"),
        (b" " * (MAX_XML_BYTES + 1), CorruptDataError, "expected a plain XML file"),
    ],
)
def test_bad_xml(content, error, match):
    """What is no description of a scan is refused; entities are never expanded."""
    with pytest.raises(error, match=match):
        parse_header(content)


def test_not_one_frame_or_file(tmp_path):
    """An incomplete first frame, a folder and a missing file are named."""
    (tmp_path / "a.raw").write_bytes(bytes(RECORD - 1))
    with pytest.raises(CorruptDataError, match="holds no whole frame of 66560"):
        Empad()(str(tmp_path / "a.raw"))
    with pytest.raises(InputError, match="is no single file"):
        Empad()(str(tmp_path))
    with pytest.raises(NotFoundError, match="does not exist"):
        Empad()(str(tmp_path / "none.raw"))


def test_matches(tmp_path):
    """The XML proves the format; a raw file is known by name and size together."""
    assert Empad.matches("any.xml", old_xml().encode()) == 1
    assert Empad.matches("any.xml", b'<root name="a"><reconstructions><reconstruction absolute_filename="/a"/>') == 1
    assert Empad.matches("any.xml", b"<root><a/></root>") == 0
    path = tmp_path / "scan_x2_y3.raw"
    path.write_bytes(bytes(6 * RECORD))
    assert Empad.matches(str(path), bytes(10)) == 0.7
    path.write_bytes(bytes(6 * RECORD - 1))
    assert Empad.matches(str(path), bytes(10)) == 0.5
    assert Empad.matches(str(tmp_path / "scan.raw"), bytes(10)) == 0


@given(damaged(old_xml(pix=(2, 3), pixel_size=1.8e-10).encode()), st.sampled_from([(6,), (2, 3), (2, 2, 3)]))
def test_damaged_xml(content, shape):
    """Whatever the XML holds, it is described or refused with one of our errors."""
    try:
        header = parse_header(content)
    except StemStoreError:
        return
    changes, axes, _ = header.described(shape)
    assert all(np.isfinite(axis.step) and axis.step != 0 for axis in axes)
    assert "beam_energy" not in changes or changes["beam_energy"].value > 0
