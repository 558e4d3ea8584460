"""PantaRhei archives: any order of axes, stored or deflated, never unpickled."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
from evidence import check_array, damaged, expected, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError, InputError, StemStoreError, TruncatedFileError, UnknownFormatError
from stemstore.testing import ReaderTests
from stemstore_readers.pantarhei import PantaRhei, name_axes
from stemstore_readers.pantarhei_archive import parse_archive


def npy(array) -> bytes:
    """Write an array as the bytes of a .npy file, objects pickled."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def write(path, array, metadata=None, *, compress=False, **members):
    """Write an archive; `metadata` becomes the JSON text."""
    content = {"file_format_version": npy(7), **members}
    if metadata is not None:
        content["meta_data_json"] = npy(json.dumps([metadata]))
    content["data"] = npy(array)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name, one in content.items():
            archive.writestr(f"{name}.npy", one)
    return path


def length(value, unit="m", factor=1.0, offset=0.0):
    """Write one entry of device.calib."""
    return {"name": "Length", "value": value, "unit": unit, "pixel_factor": factor, "offset": offset}


def scan(types, **more):
    """Write metadata of a scan; lists run against the axes."""
    steps = {"ScanX": length(2e-9), "ScanY": length(1e-9, factor=3.0), "CameraX": length(4e-4, "rad", offset=-3.0)}
    steps |= {"CameraY": length(5e-4, "rad", offset=-2.0)}
    values = {"content.types": types[::-1], "device.calib": [steps.get(one) for one in types[::-1]] + [None]}
    return values | {"type": "4D", "electron_gun.voltage": 200000, "projector.camera_length": 0.25} | more


def some(*shape, dtype="<u2"):
    """Distinct pixels."""
    return (np.arange(np.prod(shape)) % 65521).astype(dtype).reshape(shape)


class TestConformance(ReaderTests):
    """The shared tests on a stored array in the order of the scan."""

    reader_cls = PantaRhei
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some(2, 3, 4, 5)
        path = write(tmp_path / "a.prz", truth, scan(["ScanY", "ScanX", "CameraY", "CameraX"]))
        return str(path), truth, {}


class TestConformanceDeflated(TestConformance):
    """The shared tests on deflated big-endian floats with the detector axes first."""

    def make_file(self, tmp_path):
        truth = some(2, 3, 4, 5, dtype=">f4")
        moved = np.ascontiguousarray(truth.transpose(2, 3, 0, 1))
        metadata = scan(["CameraY", "CameraX", "ScanY", "ScanX"])
        return str(write(tmp_path / "a.prz", moved, metadata, compress=True)), truth.astype("f4"), {}


def test_the_measured_image_is_declined(sample):
    """The sample is an image of 16 x 16: its array and step read rightly, and it is refused by what it is."""
    truth = expected(sample, "pantarhei/panta_rhei_sample.prz")
    path = sample("pantarhei/panta_rhei_sample.prz")
    archive = parse_archive(path)
    check_array(np.asarray(archive.data.array("")), truth)
    assert [axis.stated.step for axis in name_axes(archive)] == pytest.approx([one["scale"] for one in truth["axes"]])
    assert archive.metadata["comment"] == "BinCutROI of AC"
    with pytest.raises(InputError, match=r"holds no stack of patterns \(CameraY 16, CameraX 16\)"):
        PantaRhei()(str(path))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("types", "wanted"),
    [
        (["ScanY", "ScanX", "CameraY", "CameraX"], (0, 1, 2, 3)),
        (["CameraY", "CameraX", "ScanY", "ScanX"], (2, 3, 0, 1)),
        (["ScanX", "CameraY", "ScanY", "CameraX"], (2, 0, 1, 3)),
        (["ScanY", "ScanX", "Index", "CameraY", "CameraX"], (2, 0, 1, 3, 4)),
        (["PlotIndex", "CameraY", "CameraX"], (0, 1, 2)),
    ],
)
def test_any_order_of_axes(tmp_path, types, wanted, compress):
    """Scan axes come first, slow before fast, whatever their place in the array."""
    array = some(*range(2, 2 + len(types)))
    source = PantaRhei()(str(write(tmp_path / "a.prz", array, scan(types), compress=compress)))
    np.testing.assert_array_equal(whole(source), array.transpose(wanted))
    steps = {axis.name: (axis.step, axis.unit) for axis in source.metadata.axes}
    if {"ScanY", "ScanX"} <= set(types):
        assert steps["y"] == (pytest.approx(3), "nm")
        assert steps["x"] == (pytest.approx(2), "nm")
    assert steps["kx"] == (pytest.approx(4e-4), "rad")


def test_an_index_of_one_goes(tmp_path):
    """An index axis of length 1 beside scan axes is dropped; alone it is the one frame."""
    array = some(1, 2, 3, 4, 5)
    source = PantaRhei()(str(write(tmp_path / "a.prz", array, scan(["Index", "ScanY", "ScanX", "CameraY", "CameraX"]))))
    np.testing.assert_array_equal(whole(source), array[0])
    source = PantaRhei()(str(write(tmp_path / "b.prz", array[0, 0, :1], scan(["Index", "CameraY", "CameraX"]))))
    assert source.scan_shape == (1,)


def test_fields_and_origin(tmp_path):
    """Energies and lengths come in the units of the store; the origin is offset times value."""
    more = {"scan_generator.dwell_time": 1e-3, "scan_driver.magnification": 20000, "source.name": "Cam"}
    more |= {"camera.binning": [2.0, 4.0]}
    path = write(tmp_path / "a.prz", some(2, 3, 4, 5), scan(["ScanY", "ScanX", "CameraY", "CameraX"], **more))
    metadata = PantaRhei()(str(path)).metadata
    acquisition, axes = metadata.acquisition, {axis.name: axis for axis in metadata.axes}
    assert (acquisition.beam_energy.value, acquisition.camera_length.value) == (200, 250)
    assert (acquisition.dwell_time.value, acquisition.magnification) == (1e-3, 20000)
    assert (metadata.detector.name, metadata.detector.binning) == ("Cam", (4, 2))
    assert axes["ky"].origin == pytest.approx(-1e-3)
    assert metadata.vendor["meta_data"]["camera.binning"] == [2.0, 4.0]


class Bomb:
    """An object that says so when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("metadata were unpickled",))


def test_old_files_are_never_unpickled(tmp_path):
    """Without metadata as text the data come with a warning; the pickled ones of old PantaRhei files stay closed."""
    array = some(2, 3, 4, 5)
    payload = npy(np.array([{"a": 1}], object))
    bomb = payload[: payload.index(b"\n") + 1] + pickle.dumps(Bomb())
    source = PantaRhei()(str(write(tmp_path / "a.prz", array, meta_data=bomb)))
    np.testing.assert_array_equal(whole(source), array)
    assert any("which are never opened" in text for text in source.metadata.warnings)
    header = npy(np.empty((2, 3, 4, 5), object))
    with zipfile.ZipFile(tmp_path / "b.prz", "w") as archive:
        archive.writestr("data.npy", header)
    with pytest.raises(InputError, match="cannot be a pixel"):
        PantaRhei()(str(tmp_path / "b.prz"))


@pytest.mark.parametrize(
    ("shape", "metadata", "match"),
    [
        ((4, 5), {"type": "2D"}, r"no stack of patterns \(CameraY 4, CameraX 5\)"),
        ((7,), {"type": "1D"}, r"a spectrum \(Energy 7\)|no stack"),
        ((2, 3, 9), scan(["ScanY", "ScanX", "Energy"]), r"a spectrum \(ScanY 2, ScanX 3, Energy 9\)"),
        ((2, 3, 4, 9), scan(["ScanY", "ScanX", "Pixel", "Energy"]), "a spectrum"),
        ((2, 0, 4, 5), {}, "no stack of patterns"),
    ],
)
def test_what_is_no_scan_is_named(tmp_path, shape, metadata, match):
    """Images, spectra and empty arrays are refused with their axes."""
    with pytest.raises(InputError, match=match):
        PantaRhei()(str(write(tmp_path / "a.prz", np.zeros(shape, "u1"), metadata)))


def test_a_stack_without_types(tmp_path):
    """Without content.types the last two axes are the detector, by the type of the file."""
    source = PantaRhei()(str(write(tmp_path / "a.prz", some(6, 4, 5), {"type": "Stack"})))
    assert source.scan_shape == (6,)
    source = PantaRhei(scan_shape=(2, 3))(str(tmp_path / "a.prz"))
    np.testing.assert_array_equal(whole(source), some(6, 4, 5).reshape(2, 3, 4, 5))


def test_damaged_archives(tmp_path):
    """Archives that cannot be read are refused by name; no size of a header is believed."""
    path = write(tmp_path / "a.prz", some(2, 3, 4, 5), {})
    content = path.read_bytes()
    cases = [
        (content[:-30], TruncatedFileError, "no usable directory"),
        (b"hello", UnknownFormatError, "is no zip archive"),
        (content.replace(b"(2, 3, 4, 5)", b"(2, 3, 4, 6)"), CorruptDataError, "CRC|but has"),
    ]
    for number, (damaged_content, error, match) in enumerate(cases):
        (tmp_path / f"{number}.prz").write_bytes(damaged_content)
        with pytest.raises(error, match=match):
            PantaRhei()(str(tmp_path / f"{number}.prz"))
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("x.npy", npy(1))
    with pytest.raises(UnknownFormatError, match=r"holds x\.npy, expected data\.npy"):
        PantaRhei()(str(tmp_path / "other.npz"))
    for text in ("[1]", "{broken"):
        write(tmp_path / "json.prz", some(2, 3, 4, 5), meta_data_json=npy(text))
        with pytest.raises(CorruptDataError, match=r"meta_data_json\.npy of"):
            PantaRhei()(str(tmp_path / "json.prz"))


def test_a_claim_that_deflate_cannot_keep(tmp_path):
    """A small member that claims a terabyte is refused before anything is allocated."""
    head = npy(np.empty((0,), "u1")).replace(b"(0,), }", b"(1000000, 1000, 1000), }")
    path = tmp_path / "a.prz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.npy", head + bytes(1000))
    size = struct.pack("<I", len(head) + 1000)
    content = path.read_bytes()
    path.write_bytes(content.replace(size, struct.pack("<I", 2**32 - 2)))
    with pytest.raises(CorruptDataError, match="but has"):
        PantaRhei()(str(path))


def test_matches(tmp_path):
    """A zip archive is one of PantaRhei by its name or by its members."""
    path = write(tmp_path / "a.zip", some(2, 3, 4, 5), scan(["ScanY", "ScanX", "CameraY", "CameraX"]))
    assert PantaRhei.matches(str(path), path.read_bytes()[:4096]) == 0.8
    assert PantaRhei.matches("a.prz", b"PK\x03\x04") == 1
    assert PantaRhei.matches("a.npz", b"PK\x03\x04" + bytes(100)) == 0


@settings(max_examples=150)
@given(data=st.data(), compress=st.booleans())
def test_any_damage(tmp_path_factory, data, compress):
    """Whatever the archive holds, it opens and reads, or is refused with one of our errors."""
    path = tmp_path_factory.mktemp("prz") / "a.prz"
    write(path, some(2, 3, 4, 5), scan(["ScanY", "ScanX", "CameraY", "CameraX"]), compress=compress)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        source = PantaRhei()(str(path))
        frames = source.read_frames(0, min(np.prod(source.scan_shape), 4))
    except StemStoreError:
        return
    assert frames.nbytes < 2**20
