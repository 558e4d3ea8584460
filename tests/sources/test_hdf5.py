"""HDF5 files: opened for a moment, followed along links, described; damage and gaps are named."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from stemstore.errors import (
    CorruptDataError,
    NotFoundError,
    OptionalDependencyError,
    StemStoreError,
    StorageError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.sources import hdf5, hdf5_content

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["group/frames"] = np.arange(24, dtype="<u2").reshape(2, 3, 4)
        file["group/small"] = 2.5
        file["group/big"] = np.zeros((40, 40), np.uint8)
        file["group"].attrs["latin"] = np.bytes_("Å".encode("latin-1"))
        file["group"].attrs["units"] = b"nm"
    return path


def test_user_block_is_hdf5_too(tmp_path: Path) -> None:
    """The signature behind a user block is found, and the file opens."""
    path = tmp_path / "block.h5"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["a"] = 1
    assert hdf5.is_hdf5(path.read_bytes()[:4096])
    with hdf5.open_hdf5(path) as file:
        assert hdf5.value_of(file, "a") == 1


def test_foreign_file(tmp_path: Path) -> None:
    """What carries no signature is refused by name."""
    path = tmp_path / "no.h5"
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(UnknownFormatError, match="no HDF5 file"), hdf5.open_hdf5(path):
        pass


def test_cut_file(scan_file: Path) -> None:
    """A file that lost its end is called truncated."""
    scan_file.write_bytes(scan_file.read_bytes()[:-1])
    with pytest.raises(TruncatedFileError, match=r"scan\.h5.*ends before"), hdf5.open_hdf5(scan_file):
        pass


def test_question_never_raises(scan_file: Path, tmp_path: Path) -> None:
    """A question about a damaged or missing file is answered with 0."""
    head = scan_file.read_bytes()[:4096]
    assert hdf5.ask_hdf5(str(scan_file), head, lambda file: "group" in file) == 1
    assert hdf5.ask_hdf5(str(scan_file), head, lambda file: file["absent"]) == 0
    assert hdf5.ask_hdf5(str(tmp_path / "absent"), head, lambda _: 1.0) == 0
    assert hdf5.ask_hdf5(str(scan_file), b"text", lambda _: 1.0) == 0


def test_dangling_external_link_names_the_file(scan_file: Path) -> None:
    """A link into a missing file is an error that says which one and where it was looked for."""
    with h5py.File(scan_file, "a") as file:
        file["linked"] = h5py.ExternalLink("lost.h5", "/data")
        file["soft"] = h5py.SoftLink("/nowhere")
    with hdf5.open_hdf5(scan_file) as file:
        with pytest.raises(NotFoundError, match=rf"'lost\.h5'.*{scan_file.parent}"):
            hdf5.find(file, "linked")
        with pytest.raises(CorruptDataError, match="soft, a link to /nowhere, leads nowhere"):
            hdf5.find(file, "soft")
        with pytest.raises(CorruptDataError, match="group/absent leads nowhere"):
            hdf5.find(file, "group/absent")


def test_missing_source_of_a_virtual_dataset(tmp_path: Path) -> None:
    """Pixels that HDF5 would fill silently are an error that names their file."""
    path = tmp_path / "virtual.h5"
    layout = h5py.VirtualLayout((2, 3, 4), "<u2")
    layout[0] = h5py.VirtualSource("lost.h5", "data", (3, 4))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("frames", layout)
    with hdf5.open_hdf5(path) as file, pytest.raises(NotFoundError, match=r"lost\.h5"):
        hdf5.linked_files(file["frames"])


def test_unknown_filter_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hdf5plugin a foreign filter gives the line to install it."""
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        frames = file.create_dataset("frames", (2, 3, 4), "<u2", chunks=(1, 3, 4), compression="gzip")
        monkeypatch.setattr(h5py.h5z, "filter_avail", lambda _: False)
        monkeypatch.setitem(sys.modules, "hdf5plugin", None)
        with pytest.raises(OptionalDependencyError, match=r'pip install "stemstore\[hdf5\]"'):
            hdf5.require_filters(frames)


def test_description_is_json(scan_file: Path) -> None:
    """Attributes of any encoding, numbers and long arrays become JSON."""
    with hdf5.open_hdf5(scan_file) as file:
        found = hdf5.quote(file)
    assert found["group@latin"] == "Å"
    assert found["group@units"] == "nm"
    assert found["group/small"] == 2.5
    assert found["group/big"] == {"shape": [40, 40], "dtype": "uint8"}
    json.dumps(found)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"nm\0\0", "nm"),
        (b"\xe5", "å"),
        ("\udce5", "å"),
        (np.array([b"mrad"]), "mrad"),
        (np.array(["a"], object), "a"),
        (3, "3"),
        (np.array([]), ""),
    ],
)
def test_texts(value: object, expected: str) -> None:
    """Bytes, fixed-length arrays and undecodable strings all become a str."""
    assert hdf5.text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.array([2.0]), 2.0), ("1.5", 1.5), (b"7", 7.0), ([1, 2], None), ("no", None), (np.nan, None), (None, None)],
)
def test_numbers(value: object, expected: float | None) -> None:
    """Scalars, arrays of one and texts give a number; everything else none."""
    assert hdf5.number(value) == expected


def test_circles_are_walked_once(scan_file: Path) -> None:
    """A group that contains itself does not keep the walk from ending."""
    with h5py.File(scan_file, "a") as file:
        file["group/again"] = file["/group"]
    with hdf5.open_hdf5(scan_file) as file:
        assert [one.name for one in hdf5.datasets(file)] == ["/group/big", "/group/frames"]


def test_too_many_objects(scan_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of endless objects is refused."""
    monkeypatch.setattr(hdf5_content, "MAX_OBJECTS", 2)
    with hdf5.open_hdf5(scan_file) as file, pytest.raises(CorruptDataError, match="more than 2 objects"):
        hdf5.datasets(file)


def test_only_numbers_and_texts_are_quoted(scan_file: Path) -> None:
    """References and rows of variable length are named by their type, and never read."""
    with h5py.File(scan_file, "a") as file:
        file["rows"] = h5py.Empty("f4")
        file.create_dataset("ragged", (2,), h5py.vlen_dtype(np.int32))
        file["group"].attrs.create("refers", file["group"].ref, dtype=h5py.ref_dtype)
    with hdf5.open_hdf5(scan_file) as file:
        found = hdf5.quote(file)
        assert hdf5.attribute(file["group"], "refers") is None
        assert hdf5.value_of(file, "ragged") is None
    assert found["rows"] is None
    assert found["ragged"].startswith("left out: 2 values of type TypeVlenID")
    assert found["group@refers"].startswith("left out: 1 values of type TypeReferenceID")


def test_flipped_bytes_never_crash(scan_file: Path) -> None:
    """Any flipped byte gives a description or one of our errors."""
    original = scan_file.read_bytes()
    rng = np.random.default_rng(3)
    for place in rng.integers(0, len(original), 300).tolist():
        damaged = bytearray(original)
        damaged[place] ^= int(rng.integers(1, 256))
        scan_file.write_bytes(damaged)
        with suppress(StemStoreError), hdf5.open_hdf5(scan_file) as file:
            json.dumps(hdf5.quote(file))
            hdf5.datasets(file)


def test_a_file_that_is_open_with_its_lock(tmp_path: Path) -> None:
    """A file that the user holds open by h5py is not called damaged."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["frames"] = np.zeros((2, 3, 4))
    with (
        h5py.File(path, "r", locking=True),
        pytest.raises(StorageError, match="open in this process with its lock"),
        hdf5.open_hdf5(path),
    ):
        pass
