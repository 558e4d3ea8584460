"""TIFF: ImageJ stacks, pages, compressed pages and series of files."""

from __future__ import annotations

import numpy as np
import pytest
from encode_tiff import imagej, pages
from evidence import check_array, damaged, expected, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError, InputError, OptionalDependencyError, StemStoreError, TruncatedFileError
from stemstore.testing import ReaderTests
from stemstore_readers.tiff import Tiff

tifffile = pytest.importorskip("tifffile", reason="TIFF files need the package tifffile (stemstore[tiff])")


def some(*shape, dtype="u2"):
    """Distinct pixels."""
    return (np.arange(np.prod(shape)) % 65521).astype(dtype).reshape(shape)


class TestConformance(ReaderTests):
    """The shared tests on a big-endian ImageJ stack."""

    reader_cls = Tiff

    def make_file(self, tmp_path):
        truth = some(6, 4, 5, dtype="f4")
        (tmp_path / "a.tif").write_bytes(imagej(truth, unit="mrad"))
        return str(tmp_path / "a.tif"), truth, {}

    def make_big_file(self, tmp_path):
        path = tmp_path / "big.tif"
        content = imagej(np.zeros((2000, 256, 256), "u1"), keep=1)
        with path.open("wb") as file:
            file.write(content)
            file.truncate(len(content) + 1999 * 2**16)
        return str(path), {}


class TestConformancePages(ReaderTests):
    """The shared tests on little-endian pages with gaps, laid out by the user."""

    reader_cls = Tiff

    def make_file(self, tmp_path):
        truth = some(6, 4, 5)
        (tmp_path / "a.tif").write_bytes(pages(truth))
        return str(tmp_path / "a.tif"), truth.reshape(2, 3, 4, 5), {"scan_shape": (2, 3)}


def test_measured_stack(sample):
    """The ImageJ stack reads as other programs read it; lengths are no calibration of a pattern and are left out."""
    name = "tiff/test_loading_image_saved_with_imageJ_stack.tif"
    source = Tiff()(str(sample(name)))
    check_array(whole(source), expected(sample, name))
    assert source.metadata.vendor["imagej"]["spacing"] == 2.5
    assert not source.metadata.axes
    assert any("is in 'micron', expected an angle" in text for text in source.metadata.warnings)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "f4", "f8"])
@pytest.mark.parametrize("write", [imagej, pages])
def test_types_and_byte_orders(tmp_path, order, dtype, write):
    """Every pixel type in both byte orders is read in that of the machine."""
    truth = some(3, 4, 7, dtype=dtype)
    (tmp_path / "a.tif").write_bytes(write(truth, order=order))
    source = Tiff()(str(tmp_path / "a.tif"))
    assert source.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(whole(source), truth)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib"},
        {"tile": (16, 16)},
        {"bigtiff": True},
        {"rowsperstrip": 1},
        {"predictor": 2, "compression": "zlib"},
    ],
)
def test_what_tifffile_writes(tmp_path, options):
    """Compressed, tiled and BigTIFF pages give the same pixels, also behind a pickle, where rosettasciio fails."""
    import pickle

    truth = some(2, 3, 18, 20)
    tifffile.imwrite(tmp_path / "a.tif", truth, photometric="minisblack", **options)
    source = pickle.loads(pickle.dumps(Tiff()(str(tmp_path / "a.tif"))))
    assert source.scan_shape == (2, 3)
    np.testing.assert_array_equal(whole(source), truth)
    np.testing.assert_array_equal(source.read_frames(2, 5), truth.reshape(6, 18, 20)[2:5])


def test_series_of_files(tmp_path):
    """Single images make a stack in natural order; a file of another kind is refused by name."""
    truth = some(12, 4, 5)
    for number, frame in enumerate(truth):
        (tmp_path / f"frame_{number}.tif").write_bytes(pages(frame[None]))
    source = Tiff(scan_shape=(3, 4))(str(tmp_path / "frame_*.tif"))
    np.testing.assert_array_equal(whole(source), truth.reshape(3, 4, 4, 5))
    (tmp_path / "frame_5.tif").write_bytes(pages(some(1, 4, 4)))
    with pytest.raises(InputError, match=r"frame_5\.tif' has frames \(4, 4\)"):
        Tiff()(str(tmp_path / "frame_*.tif"))


def test_angles_are_a_calibration(tmp_path):
    """Reciprocal units of ImageJ calibrate the detector, the axis in the middle."""
    (tmp_path / "a.tif").write_bytes(imagej(some(3, 4, 5), unit="1/nm"))
    axes = {axis.name: axis for axis in Tiff()(str(tmp_path / "a.tif")).metadata.axes}
    assert (axes["kx"].step, axes["kx"].unit, axes["kx"].origin) == (0.5, "1/nm", -1.0)


def test_cut_stack(tmp_path):
    """A stack that lost 100 bytes is a frame shorter, with one warning."""
    truth = some(6, 10, 10)
    (tmp_path / "a.tif").write_bytes(imagej(truth)[:-100])
    source = Tiff()(str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(whole(source), truth[:5])
    assert any("ends after 5 of 6 whole frames" in text for text in source.metadata.warnings)


def test_what_is_no_stack(tmp_path):
    """One image, colours and a folder are refused by what they are."""
    (tmp_path / "one.tif").write_bytes(pages(some(1, 4, 5)))
    with pytest.raises(InputError, match="holds one image"):
        Tiff()(str(tmp_path / "one.tif"))
    tifffile.imwrite(tmp_path / "rgb.tif", some(4, 5, 3, dtype="u1"), photometric="rgb")
    with pytest.raises(InputError, match="with the axes Y 4, X 5, S 3"):
        Tiff()(str(tmp_path / "rgb.tif"))
    with pytest.raises(InputError, match="is a folder, expected files"):
        Tiff()(str(tmp_path))


def test_a_stack_without_a_frame(tmp_path):
    """A file that ends in its first frame is refused; so is one that is no TIFF behind its magic number."""
    content = imagej(some(3, 10, 10))
    (tmp_path / "a.tif").write_bytes(content[:-550])
    with pytest.raises(TruncatedFileError, match="before its first frame of 200 bytes"):
        Tiff()(str(tmp_path / "a.tif"))
    (tmp_path / "b.tif").write_bytes(b"II*\0" + bytes(50))
    with pytest.raises(CorruptDataError, match=r"b\.tif"):
        Tiff()(str(tmp_path / "b.tif"))


def test_missing_packages(tmp_path, monkeypatch):
    """Without the library, or the codec, the message says what to install."""
    truth = some(2, 18, 20)
    tifffile.imwrite(tmp_path / "a.tif", truth)
    content = (tmp_path / "a.tif").read_bytes()
    place = content.index(b"\x03\x01\x03\0\x01\0\0\0\x01\0") + 8
    (tmp_path / "lzw.tif").write_bytes(content[:place] + b"\x05\0" + content[place + 2 :])
    monkeypatch.setattr(
        "stemstore_readers.tiff_stack.importlib.util.find_spec", lambda name: name == "tifffile" or None
    )
    with pytest.raises(OptionalDependencyError, match=r"compressed with LZW.* pip install imagecodecs"):
        Tiff()(str(tmp_path / "lzw.tif"))
    monkeypatch.setattr("stemstore_readers.tiff_stack.importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionalDependencyError, match=r"pip install 'stemstore\[tiff\]'"):
        Tiff()(str(tmp_path / "a.tif"))


def test_a_page_that_claims_terabytes(tmp_path):
    """A compressed page with impossible sides is refused before anything is allocated."""
    tifffile.imwrite(tmp_path / "a.tif", some(2, 18, 20), compression="zlib")
    content = (tmp_path / "a.tif").read_bytes()
    for code in (0x100, 0x101):
        tag = code.to_bytes(2, "little") + b"\x04\0\x01\0\0\0"
        place = content.find(tag)
        if place < 0:
            place = content.index(code.to_bytes(2, "little") + b"\x03\0\x01\0\0\0")
        content = (
            content[:place] + code.to_bytes(2, "little") + b"\x04\0\x01\0\0\0" + b"\0\0\x10\0" + content[place + 12 :]
        )
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises((CorruptDataError, InputError), match=r"a\.tif"):
        Tiff()(str(tmp_path / "a.tif"))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), write=st.sampled_from([imagej, pages]))
def test_damaged_files(tmp_path_factory, data, write):
    """Whatever the directories hold, the file opens and reads, or is refused with one of our errors."""
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    path.write_bytes(data.draw(damaged(write(some(3, 4, 5)), head=300)))
    try:
        source = Tiff()(str(path))
        frames = source.read_frames(0, min(np.prod(source.scan_shape), 4))
    except StemStoreError:
        return
    assert frames.nbytes < 2**22
