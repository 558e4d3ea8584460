"""NumPy archives: stored and deflated arrays are read, none is unpickled, no size is believed."""

from __future__ import annotations

import numpy as np
import pytest
from encode_npy import encode, some, write_npz
from evidence import check_damaged, damaged, whole
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import CorruptDataError, InputError, TruncatedFileError, UnknownFormatError
from stemstore.sources.records import RecordSource
from stemstore.testing import ReaderTests
from stemstore_readers import npz
from stemstore_readers.npz import Npz


class TestStored(ReaderTests):
    """The shared tests on an array that lies uncompressed in its archive, beside others."""

    reader_cls = Npz
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((3, 4, 5, 6))
        path = write_npz(tmp_path / "a.npz", {"mask": some((5, 6), "<f4"), "frames": truth, "x": some((4,), "<f8")})
        return str(path), truth, {}

    def make_big_file(self, tmp_path):
        path = write_npz(tmp_path / "big.npz", {"frames": np.zeros((16, 32, 256, 256), "u2")})
        return str(path), {}


class TestDeflated(ReaderTests):
    """The shared tests on a compressed stack of big-endian numbers, laid out by the user."""

    reader_cls = Npz
    truncation = "error"

    def make_file(self, tmp_path):
        truth = some((6, 4, 5), ">i4")
        path = write_npz(tmp_path / "a.npz", {"frames": truth}, deflated=True)
        return str(path), truth.astype("i4").reshape(2, 3, 4, 5), {"scan_shape": (2, 3)}


class TestFortran(ReaderTests):
    """The shared tests on an array in Fortran order."""

    reader_cls = Npz
    truncation = "error"

    def make_file(self, tmp_path):
        truth = np.asfortranarray(some((2, 2, 3, 4, 5), "<f4"))
        return str(write_npz(tmp_path / "a.npz", {"frames": truth})), truth, {}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves_is_read(tmp_path, save):
    """Archives of NumPy itself open by content, stored arrays from where they lie."""
    save(tmp_path / "a.npz", frames=some((3, 4, 5, 6)), note=np.array("a text"), probe=np.ones((4, 4), "c8"))
    dataset = stemstore.open(tmp_path / "a.npz")
    np.testing.assert_array_equal(dataset.intensity.values, some((3, 4, 5, 6)))
    source = Npz()(str(tmp_path / "a.npz"))
    assert isinstance(source, RecordSource) == (save is np.savez)
    assert source.metadata.vendor["frames"]["shape"] == [3, 4, 5, 6]
    assert "cannot be a pixel" in source.metadata.vendor["probe"]


def test_the_array_is_chosen(tmp_path):
    """The largest of the arrays with most axes is the scan; the others are told, and can be asked for."""
    arrays = {"stack": some((50, 9, 9)), "scan": some((2, 2, 3, 3)), "other": some((1, 2, 3, 3))}
    path = str(write_npz(tmp_path / "a.npz", arrays))
    source = Npz()(path)
    assert source.scan_shape == (2, 2)
    assert any("stack (uint16, 50 x 9 x 9)" in text for text in source.metadata.warnings)
    for name, array in arrays.items():
        np.testing.assert_array_equal(whole(Npz(dataset=name)(path)), array)
    assert len({Npz(dataset=name)(path).identity for name in arrays}) == 3
    with pytest.raises(InputError, match=r"names no array of .*/scan \(uint16, 2 x 2 x 3 x 3\)"):
        Npz(dataset="nothing")(path)


def test_archives_without_frames_are_declined(tmp_path):
    """Images and lines are named as what they are, and so is an archive of anything else."""
    path = write_npz(tmp_path / "a.npz", {"image": some((8, 9)), "line": some((7,))})
    with pytest.raises(InputError, match=r"no stack of frames but /image \(uint16, 8 x 9\), /line"):
        Npz()(str(path))
    with pytest.raises(InputError, match="nothing that could be one"):
        Npz()(str(write_npz(tmp_path / "b.npz", {})))
    (tmp_path / "c.npz").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(TruncatedFileError, match="no usable directory"):
        Npz()(str(tmp_path / "c.npz"))
    (tmp_path / "d.npz").write_bytes(b"hello")
    with pytest.raises(UnknownFormatError, match="is no zip archive"):
        Npz()(str(tmp_path / "d.npz"))


def test_objects_are_never_unpickled(tmp_path):
    """An array of objects is left alone, whatever it holds."""
    np.savez(tmp_path / "a.npz", frames=some((2, 2, 3, 3)), bad=np.array([print], dtype=object))
    source = Npz()(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(whole(source), some((2, 2, 3, 3)))
    assert source.metadata.vendor["bad"].startswith("left out")


def test_sizes_and_numbers_that_cannot_be(tmp_path, monkeypatch):
    """An array larger than its member, and an archive of endless members, are refused."""
    huge = encode(np.empty(0, "<u2"), header="{'descr': '<u2', 'fortran_order': False, 'shape': (9, 9, 9, 99999), }")
    with pytest.raises(CorruptDataError, match=r"frames\.npy of .* but has"):
        Npz()(str(write_npz(tmp_path / "a.npz", {"frames": huge})))
    monkeypatch.setattr(npz, "MAX_MEMBERS", 2)
    with pytest.raises(InputError, match="has 3 arrays, expected at most 2"):
        Npz()(str(write_npz(tmp_path / "b.npz", dict.fromkeys("abc", some((1, 1, 2, 2))))))


def test_matches(tmp_path):
    """The first member tells; archives of PantaRhei and Nion Swift claim theirs with more reason."""
    path = write_npz(tmp_path / "a.npz", {"frames": some((1, 1, 2, 2))})
    content = path.read_bytes()
    assert Npz.matches(str(path), content) == 0.7
    assert Npz.matches("a.zip", content) == 0.4
    assert Npz.matches("a.npz", content.replace(b".npy", b".txt")) == 0


@settings(max_examples=100)
@given(data=st.data(), deflated=st.booleans())
def test_any_damage(tmp_path_factory, data, deflated):
    """Whatever the archive holds, it opens and reads, or is refused with one of our errors."""
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    write_npz(path, {"frames": some((2, 3, 4, 5)), "x": some((3,))}, deflated=deflated)
    check_damaged(Npz(), path, data.draw(damaged(path.read_bytes())))
