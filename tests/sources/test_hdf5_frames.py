"""Frames in HDF5 datasets: every layout gives the pixels of the array that was written."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError, InputError, StemStoreError, TruncatedFileError
from stemstore.sources.contract import FrameSource, ViewableSource
from stemstore.sources.hdf5 import open_hdf5
from stemstore.sources.hdf5_frames import Hdf5Source, Part, boxes, join_parts

if TYPE_CHECKING:
    from pathlib import Path

SCAN, FRAME = (3, 4), (5, 6)
TRUTH = np.arange(math.prod((*SCAN, *FRAME)), dtype=np.uint16).reshape(*SCAN, *FRAME)


def source_of(*parts: Part, scan_shape: tuple[int, ...] = SCAN, starts: tuple[int, ...] | None = None) -> Hdf5Source:
    from stemstore_schemas import SourceMetadata

    return Hdf5Source(
        identity="test",
        scan_shape=scan_shape,
        frame_shape=parts[0].frame_shape,
        dtype=parts[0].dtype.newbyteorder("="),
        metadata=SourceMetadata(),
        validity=None,
        parts=parts,
        starts=join_parts(parts) if starts is None else starts,
    )


def write(path: Path, array: np.ndarray, **layout: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", data=array, **layout)
    return path


def part_of(path: Path, name: str = "frames", **axes: Any) -> Part:
    with open_hdf5(path) as file:
        return Part.of(file[name], **axes)


def check(source: Hdf5Source, truth: np.ndarray) -> None:
    """Hold every range of frames against the truth."""
    flat = truth.reshape(-1, *truth.shape[-2:])
    for start, stop in itertools.combinations_with_replacement(range(len(flat) + 1), 2):
        np.testing.assert_array_equal(source.read_frames(start, stop), flat[start:stop])


LAYOUTS = {
    "contiguous": {},
    "one frame per chunk": {"chunks": (1, 1, 5, 6)},
    "odd chunks": {"chunks": (2, 3, 2, 4), "compression": "gzip"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["<u2", ">u2", ">f4", "<i8"])
def test_every_range(tmp_path: Path, layout: str, dtype: str) -> None:
    """Contiguous and chunked datasets of both byte orders give every range of frames."""
    part = part_of(write(tmp_path / "a.h5", TRUTH.astype(dtype), **LAYOUTS[layout]))
    source = source_of(part)
    assert (part.block is not None) == (layout == "contiguous")
    assert source.read_frames(0, 1).dtype == np.dtype(dtype).newbyteorder("=")
    check(pickle.loads(pickle.dumps(source)), TRUTH)
    assert isinstance(source, FrameSource)
    assert isinstance(source, ViewableSource)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_every_order_of_axes(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Scan axes may lie anywhere; `order` says which logical axis each stored axis is."""
    path = write(tmp_path / "a.h5", TRUTH.transpose(order), chunks=True)
    place = [order.index(axis) for axis in range(4)]
    part = part_of(path, scan_axes=place[:2], frame_axes=(place[2], place[3]))
    source = source_of(part)
    np.testing.assert_array_equal(source.read_frames(2, 11), TRUTH.reshape(-1, *FRAME)[2:11])


@pytest.mark.parametrize("layout", [{}, {"chunks": True}])
@pytest.mark.parametrize("axis", range(4))
def test_one_index_of_a_further_axis(tmp_path: Path, axis: int, layout: dict[str, Any]) -> None:
    """Of five axes, one may be fixed at an index, contiguous or not."""
    stored = np.stack([TRUTH + 1000, TRUTH], axis=axis)
    part = part_of(write(tmp_path / "a.h5", stored, **layout), picked={axis: 1})
    assert (part.block is not None) == (not layout and axis in (0, 2))
    check(source_of(part), TRUTH)


def test_user_block(tmp_path: Path) -> None:
    """Byte offsets count from the start of the file, not from the end of the user block."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=1024) as file:
        file["frames"] = TRUTH
    part = part_of(path)
    assert part.block is not None
    check(source_of(part), TRUTH)


def test_odd_integers_are_not_read_as_bytes(tmp_path: Path) -> None:
    """Numbers of 12 bits in 16, shifted, are decoded by HDF5, not taken as they lie."""
    path = tmp_path / "a.h5"
    kind = h5py.h5t.STD_U16LE.copy()
    kind.set_precision(12)
    kind.set_offset(4)
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple(TRUTH.shape)
        dataset = h5py.Dataset(h5py.h5d.create(file.id, b"frames", kind, space))
        dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(TRUTH))
    part = part_of(path)
    assert part.block is None
    check(source_of(part), TRUTH)


def test_several_files_with_a_gap(tmp_path: Path) -> None:
    """Parts follow each other; positions that no part has are zero."""
    flat = TRUTH.reshape(-1, *FRAME)
    write(tmp_path / "a.h5", flat[:5])
    write(tmp_path / "b.h5", flat[8:], chunks=(1, *FRAME))
    parts = part_of(tmp_path / "a.h5"), part_of(tmp_path / "b.h5")
    expected = flat.copy()
    expected[5:8] = 0
    check(source_of(*parts, starts=(0, 8)), expected)
    joined = source_of(*parts, scan_shape=(9,))
    check(joined, np.concatenate([flat[:5], flat[8:]]))


def test_external_links_and_virtual_datasets(tmp_path: Path) -> None:
    """Linked pixels are read from the file that holds them, virtual ones through HDF5."""
    write(tmp_path / "data.h5", TRUTH)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["frames"] = h5py.ExternalLink("data.h5", "/frames")
        layout = h5py.VirtualLayout(TRUTH.shape, TRUTH.dtype)
        layout[...] = h5py.VirtualSource("data.h5", "frames", TRUTH.shape)
        file.create_virtual_dataset("virtual", layout)
    linked, virtual = part_of(tmp_path / "master.h5"), part_of(tmp_path / "master.h5", "virtual")
    assert linked.path == str(tmp_path / "data.h5")
    assert linked.block is not None
    assert virtual.files == (str(tmp_path / "master.h5"), str(tmp_path / "data.h5"))
    check(source_of(linked), TRUTH)
    check(source_of(virtual), TRUTH)


def test_frames_are_shown_where_they_lie(tmp_path: Path) -> None:
    """Contiguous frames in native order are seen in the page cache; compressed ones are not."""
    part = part_of(write(tmp_path / "a.h5", TRUTH))
    assert part.block is not None
    if part.block[0] % 2 == 0 and (view := source_of(part).view_frames(2, 7)) is not None:
        np.testing.assert_array_equal(view, TRUTH.reshape(-1, *FRAME)[2:7])
    packed = part_of(write(tmp_path / "b.h5", TRUTH, compression="gzip"))
    assert source_of(packed).view_frames(2, 7) is None


def test_what_is_no_scan(tmp_path: Path) -> None:
    """Images, texts, objects and foreign axes are refused by name."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["image"] = TRUTH[0, 0]
        file["texts"] = ["a", "b"]
        file.create_dataset("ragged", (2, 2, 2), h5py.vlen_dtype(np.int32))
        file["complex"] = TRUTH.astype(complex)
        file["frames"] = TRUTH
        file["empty"] = TRUTH[:0]
        file["kind"] = np.dtype("<u2")
        file.create_group("group")
    for name, reason in {
        "image": "expected frames",
        "texts": "expected integers",
        "ragged": "expected integers",
        "complex": "expected integers",
        "empty": "expected frames",
        "kind": "is a datatype, expected a dataset",
        "group": "is a group, expected a dataset",
    }.items():
        with pytest.raises(InputError, match=rf"/{name} in .*{reason}"):
            part_of(path, name)
    with pytest.raises(InputError, match="do not fit"):
        part_of(path, scan_axes=(0,), frame_axes=(2, 3))
    with pytest.raises(InputError, match="do not fit"):
        part_of(path, picked={0: 0, 1: 0, 2: 0})
    with pytest.raises(InputError, match="has no index"):
        part_of(path, picked={0: 3})


def test_parts_of_different_scans(tmp_path: Path) -> None:
    """Frames of another shape or type cannot follow."""
    parts = [part_of(write(tmp_path / f"{k}.h5", a)) for k, a in enumerate([TRUTH, TRUTH[..., 1:], TRUTH * 1.0])]
    for part in parts[1:]:
        with pytest.raises(CorruptDataError, match="belong to several scans"):
            join_parts([parts[0], part])


def test_big_chunks_are_reported(tmp_path: Path) -> None:
    """A chunk of which any frame needs all is worth a warning."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", (2**18, 33, 33), "u1", chunks=(2**18, 33, 33), compression="gzip")
    assert "272 MiB" in part_of(path).warnings[0]


def test_file_that_changed(tmp_path: Path) -> None:
    """A dataset of another shape than at opening is an error, not stale pixels; so is a shorter file."""
    path = write(tmp_path / "a.h5", TRUTH, chunks=True)
    source = source_of(part_of(path))
    write(path, TRUTH[:2], chunks=True)
    with pytest.raises(CorruptDataError, match="changed to"):
        source.read_frames(0, 1)
    source = source_of(part_of(write(path, TRUTH)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TruncatedFileError, match="shortened"):
        source.read_frames(0, 12)


def test_damaged_chunks(tmp_path: Path) -> None:
    """Flipped bytes give pixels or one of our errors."""
    path = write(tmp_path / "a.h5", TRUTH, chunks=(1, 1, 5, 6), compression="gzip", fletcher32=True)
    source, original = source_of(part_of(path)), path.read_bytes()
    rng, failures = np.random.default_rng(5), 0
    for place in rng.integers(0, len(original), 200).tolist():
        damaged = bytearray(original)
        damaged[place] ^= 255
        path.write_bytes(damaged)
        try:
            source.read_frames(0, 12)
        except StemStoreError:
            failures += 1
    assert failures > 20


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_boxes_cover_the_range_in_order(shape: list[int], data: st.DataObject) -> None:
    """Boxes visit each position of the range once, in order."""
    n = math.prod(shape)
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    numbers = np.arange(n).reshape(shape)
    found = [numbers[box].reshape(-1) for box in boxes(tuple(shape), start, stop)]
    np.testing.assert_array_equal(np.concatenate([*found, np.empty(0, int)]), np.arange(start, stop))
