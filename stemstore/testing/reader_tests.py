"""Conformance tests that every reader of stemstore passes, the built-in ones and those of plug-ins.

A plug-in subclasses `ReaderTests` in its own test suite and writes one encoder, from the format's description and not
from the reader::

    class TestMyReader(ReaderTests):
        reader_cls = MyReader

        def make_file(self, tmp_path):
            truth = np.arange(2 * 3 * 4 * 5, dtype="<u2").reshape(2, 3, 4, 5)
            path = tmp_path / "scan.mine"
            path.write_bytes(b"MINE" + truth.tobytes())
            return str(path), truth, {"scan_shape": (2, 3)}
"""

from __future__ import annotations

import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from stemstore.errors import InputError, TruncatedFileError
from stemstore.sources.contract import MISSING, VALID, EventSource, FrameSource, LocatedSource, ViewableSource
from stemstore.testing.elsewhere import CountedFiles, copied
from stemstore.testing.extents import read_extents

if TYPE_CHECKING:
    from collections.abc import Callable

    from stemstore._types import Array
    from stemstore.sources.contract import Reader, Source

FIRST_BYTES = 4096
OPEN_BYTES = 2**20
"""Most bytes that opening may read, whatever the size of the data: headers, not pixels."""

HANDLES = Path("/proc/self/fd")
"""Open files of this process, where the system lists them."""

GARBAGE = (b"", b"\x00" * FIRST_BYTES, b"\xff" * FIRST_BYTES, b"hello world\n" * 100, bytes(range(256)) * 16)
"""File heads that are nobody's format."""


class ReaderTests:
    """Subclass it, set `reader_cls` and write `make_file`; the tests are inherited.

    Attributes
    ----------
    reader_cls
        The reader under test.
    truncation
        What a file that lost its last byte does: ``"floor"`` opens with a warning in the metadata and without the
        incomplete frame, ``"error"`` raises `TruncatedFileError`.
    remote
        Whether files on other machines are read; those that cannot be are refused with the advice to copy them.
    """

    reader_cls: type[Reader]
    truncation: Literal["floor", "error"] = "floor"
    remote: bool = True

    def make_file(self, tmp_path: Path) -> tuple[str, Array, dict[str, Any]]:
        """Write a small scan in the reader's format.

        Returns
        -------
        url
            File or folder.
        truth : shape (scan axes, ky, kx)
            Every pixel in native byte order; electrons per pixel for an event format.
        options
            Arguments of the reader's constructor.
        """
        msg = f"{type(self).__name__} has to write make_file, an encoder of the format under test"
        raise NotImplementedError(msg)

    def make_big_file(self, tmp_path: Path) -> tuple[str, dict[str, Any]] | None:
        """Write a scan of at least 64 MiB, sparse on disk; None where the format does not allow it cheaply."""
        return None

    def last_file(self, url: str) -> Path:
        """Name the file from which the truncation test cuts the last byte."""
        path = Path(url)
        return max(path.iterdir()) if path.is_dir() else path

    def test_describes_itself(self) -> None:
        """A reader has a name, a line for people and extensions in lower case."""
        assert self.reader_cls.name.isidentifier()
        assert self.reader_cls.description
        assert "\n" not in self.reader_cls.description
        assert all(extension.startswith(".") and extension.islower() for extension in self.reader_cls.extensions)

    def test_shape_and_type(self, tmp_path: Path) -> None:
        """Scan shape, frame shape and pixel type are those of the file, in native byte order."""
        url, truth, options = self.make_file(tmp_path)
        source = self.reader_cls(**options)(url)
        assert (*source.scan_shape, *source.frame_shape) == truth.shape
        assert all(type(extent) is int for extent in (*source.scan_shape, *source.frame_shape))
        if isinstance(source, FrameSource):
            assert source.dtype == truth.dtype
            assert source.dtype.isnative

    def test_metadata(self, tmp_path: Path) -> None:
        """The metadata agree with the source, name the files with their sizes, and survive JSON."""
        url, truth, options = self.make_file(tmp_path)
        source = self.reader_cls(**options)(url)
        metadata = source.metadata
        assert metadata.files
        assert all(Path(file.path).stat().st_size == file.size for file in metadata.files)
        assert metadata.acquisition.scan_shape in (None, source.scan_shape)
        assert metadata.detector.shape in (None, truth.shape[-2:])
        assert type(metadata).model_validate_json(metadata.model_dump_json()) == metadata

    def test_every_frame_equals_the_truth(self, tmp_path: Path) -> None:
        """All frames at once and one by one are the encoded ones."""
        url, truth, options = self.make_file(tmp_path)
        source = self.reader_cls(**options)(url)
        flat = truth.reshape(-1, *truth.shape[-2:])
        np.testing.assert_array_equal(read(source, 0, len(flat)), flat)
        for position, frame in enumerate(flat):
            np.testing.assert_array_equal(read(source, position, position + 1)[0], frame)

    def test_arbitrary_ranges(self, tmp_path: Path) -> None:
        """Any range, empty ones included, equals the same part of the truth."""
        url, truth, options = self.make_file(tmp_path)
        source = self.reader_cls(**options)(url)
        flat = truth.reshape(-1, *truth.shape[-2:])
        random = np.random.default_rng(0)
        for _ in range(20):
            start, stop = sorted(random.integers(0, len(flat) + 1, 2).tolist())
            np.testing.assert_array_equal(read(source, start, stop), flat[start:stop])

    def test_fills_the_buffer_given(self, tmp_path: Path) -> None:
        """A buffer passed as `out` is filled completely and returned."""
        url, truth, options = self.make_file(tmp_path)
        source = self.reader_cls(**options)(url)
        if not isinstance(source, FrameSource):
            pytest.skip("events have no buffer to fill")
        flat = truth.reshape(-1, *truth.shape[-2:])
        buffer = np.full(flat.shape, 77, dtype=source.dtype)
        assert source.read_frames(0, len(flat), out=buffer) is buffer
        np.testing.assert_array_equal(buffer, flat)

    def test_views_are_the_frames(self, tmp_path: Path) -> None:
        """Frames shown where they lie are read-only, equal those that are read, and leave no file open."""
        url, truth, options = self.make_file(tmp_path)
        source = self.reader_cls(**options)(url)
        if not isinstance(source, ViewableSource):
            pytest.skip("the source shows no frames where they lie")
        n_frames = math.prod(truth.shape[:-2])
        for start, stop in ((0, n_frames), (0, 1), (n_frames // 2, n_frames), (n_frames - 1, n_frames)):
            view = source.view_frames(start, stop)
            if view is None:
                continue
            assert view.dtype == source.dtype
            assert view.flags.c_contiguous
            assert not view.flags.writeable
            np.testing.assert_array_equal(view, source.read_frames(start, stop))
            del view
        for start, stop in ((-1, 1), (0, n_frames + 1), (1, 0)):
            with pytest.raises(IndexError, match=r"scan|range|bounds"):
                source.view_frames(start, stop)
        assert not _left_open(tmp_path)

    def test_extents_lead_to_the_frames(self, tmp_path: Path) -> None:
        """Pixels read at the places that the source names, and nothing else, are the frames."""
        url, truth, options = self.make_file(tmp_path)
        source = self.reader_cls(**options)(url)
        if not isinstance(source, LocatedSource):
            pytest.skip("the frames do not lie in the files as they are")
        n_frames = math.prod(truth.shape[:-2])
        try:
            source.frame_extents(0, n_frames)
        except InputError as error:  # right for formats that pack their pixels
            pytest.skip(str(error))
        for start, stop in ((0, n_frames), (n_frames // 2, n_frames), (n_frames - 1, n_frames), (0, 0)):
            found = source.frame_extents(start, stop)
            assert found.number.shape == found.offset.shape
            frames = read_extents(found, source.frame_shape)
            np.testing.assert_array_equal(frames, source.read_frames(start, stop))
        for start, stop in ((-1, 1), (0, n_frames + 1), (1, 0)):
            with pytest.raises(IndexError, match=r"scan|range|bounds"):
                source.frame_extents(start, stop)

    def test_outside_the_scan(self, tmp_path: Path) -> None:
        """A range that leaves the scan is an IndexError, not a wrapped or shortened read."""
        url, truth, options = self.make_file(tmp_path)
        source = self.reader_cls(**options)(url)
        n_frames = math.prod(truth.shape[:-2])
        for start, stop in ((-1, 1), (0, n_frames + 1), (n_frames + 1, n_frames + 2), (1, 0)):
            with pytest.raises(IndexError, match=r"scan|range|bounds"):
                read(source, start, stop)

    def test_events_ascend(self, tmp_path: Path) -> None:
        """The events of every frame ascend and lie on the detector."""
        url, truth, options = self.make_file(tmp_path)
        source = self.reader_cls(**options)(url)
        if not isinstance(source, EventSource):
            pytest.skip("frames have no events")
        events = source.read_events(0, math.prod(truth.shape[:-2]))
        assert events.indptr.dtype == np.int64
        assert events.indices.dtype == np.uint32
        assert events.indptr[0] == 0
        assert events.indptr[-1] == len(events.indices) == truth.sum()
        frames = np.split(events.indices.astype(np.int64), events.indptr[1:-1])
        assert all((np.diff(frame) >= 0).all() for frame in frames)

    def test_cut_by_one_byte(self, tmp_path: Path) -> None:
        """A file that lost its last byte is refused, or opened with a warning and without stale pixels."""
        url, truth, options = self.make_file(tmp_path)
        cut = self.last_file(url)
        cut.write_bytes(cut.read_bytes()[:-1])
        if self.truncation == "error":
            with pytest.raises(TruncatedFileError, match=cut.name):
                self.reader_cls(**options)(url)
            return
        source = self.reader_cls(**options)(url)
        assert any(cut.name in warning for warning in source.metadata.warnings)
        n_frames = math.prod(source.scan_shape)
        flat = truth.reshape(-1, *truth.shape[-2:])[:n_frames]
        state = np.full(n_frames, VALID) if source.validity is None else source.validity
        frames = read(source, 0, n_frames)
        np.testing.assert_array_equal(frames[state == VALID], flat[state == VALID])
        assert not np.nan_to_num(frames[state == MISSING]).any()
        lost = (state != VALID).sum() + math.prod(truth.shape[:-2]) - n_frames
        assert lost == 1

    def test_foreign_files_are_not_claimed(self, tmp_path: Path) -> None:
        """Garbage, an empty file and an empty folder are no format at all."""
        for number, content in enumerate(GARBAGE):
            path = tmp_path / f"foreign{number}.xyz"
            path.write_bytes(content)
            assert self.reader_cls.matches(str(path), content[:FIRST_BYTES]) == 0
        folder = tmp_path / "folder"
        folder.mkdir()
        assert self.reader_cls.matches(str(folder), b"") == 0

    def test_matches_never_raises(self, tmp_path: Path) -> None:
        """Missing paths, wild names and any content give a number between 0 and 1."""
        for name in ("missing", "with [brackets] * and ?.data", "nul\0byte", "x" * 300, ""):
            for content in (*GARBAGE, GARBAGE[1][:3]):
                for extension in ("", *self.reader_cls.extensions):
                    assert 0 <= self.reader_cls.matches(str(tmp_path / (name + extension)), content) <= 1

    def test_matches_reads_no_more_than_the_first_bytes(self, tmp_path: Path) -> None:
        """The file's head, which is passed in, is enough: the reader reads at most as much again."""
        url, _, _ = self.make_file(tmp_path)
        head = b"" if Path(url).is_dir() else Path(url).read_bytes()[:FIRST_BYTES]
        assert _bytes_read(lambda: self.reader_cls.matches(url, head)) <= FIRST_BYTES

    def test_opening_reads_no_pixels(self, tmp_path: Path) -> None:
        """Opening a big file reads its headers only."""
        big = self.make_big_file(tmp_path)
        if big is None:
            pytest.skip("the format has no cheap big file")
        url, options = big
        self.reader_cls(**options)(url)  # imports what the reader needs
        assert _bytes_read(lambda: self.reader_cls(**options)(url)) < OPEN_BYTES

    def test_survives_pickling(self, tmp_path: Path) -> None:
        """A source read in another process gives the same pixels and the same identity."""
        url, truth, options = self.make_file(tmp_path)
        source = self.reader_cls(**options)(url)
        copy = pickle.loads(pickle.dumps(source))
        assert copy.identity == source.identity
        flat = truth.reshape(-1, *truth.shape[-2:])
        np.testing.assert_array_equal(read(copy, 0, len(flat)), flat)

    def test_identity_follows_the_data(self, tmp_path: Path) -> None:
        """Opening the same data twice gives one identity."""
        url, _, options = self.make_file(tmp_path)
        assert self.reader_cls(**options)(url).identity == self.reader_cls(**options)(url).identity

    def test_reads_the_same_elsewhere(self, tmp_path: Path) -> None:
        """Files at a URL are the same scan: pixels, shape and what is known of them."""
        url, _, options = self.make_file(tmp_path)
        here = self.reader_cls(**options)(url)
        with copied(tmp_path) as address:
            there = f"{address}/{Path(url).relative_to(tmp_path).as_posix()}"
            if not self.remote:
                with pytest.raises(InputError, match="copy the file"):
                    self.reader_cls(**options)(there)
                return
            source = pickle.loads(pickle.dumps(self.reader_cls(**options)(there)))
            n_frames = math.prod(here.scan_shape)
            assert (source.scan_shape, source.frame_shape) == (here.scan_shape, here.frame_shape)
            np.testing.assert_array_equal(read(source, 0, n_frames), read(here, 0, n_frames))
            middle = n_frames // 2
            np.testing.assert_array_equal(read(source, middle, middle + 1), read(here, middle, middle + 1))
            assert source.metadata.acquisition == here.metadata.acquisition
            assert source.metadata.files[0].path.startswith(address)

    def test_opening_elsewhere_reads_no_pixels(self, tmp_path: Path) -> None:
        """Opening a big file at a URL asks for its headers only."""
        big = self.make_big_file(tmp_path) if self.remote else None
        if big is None:
            pytest.skip("the format has no cheap big file, or is not read elsewhere")
        url, options = big
        CountedFiles.bytes_read = 0
        self.reader_cls(**options)(f"counted://{Path(url).as_posix()}")
        assert CountedFiles.bytes_read < OPEN_BYTES

    def test_leaves_no_file_open(self, tmp_path: Path) -> None:
        """Neither opening nor reading leaves a file handle behind."""
        url, truth, options = self.make_file(tmp_path)
        if not HANDLES.is_dir():
            pytest.skip("this system does not list open files")
        source = self.reader_cls(**options)(url)
        read(source, 0, math.prod(truth.shape[:-2]))
        assert not _left_open(tmp_path)

    def test_threads_agree(self, tmp_path: Path) -> None:
        """Ranges read by several threads at once together are the truth."""
        url, truth, options = self.make_file(tmp_path)
        source = self.reader_cls(**options)(url)
        flat = truth.reshape(-1, *truth.shape[-2:])
        ranges = [(start, min(start + 2, len(flat))) for start in range(0, len(flat), 2)] * 3
        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(lambda ends: read(source, *ends), ranges))
        for (start, stop), part in zip(ranges, parts, strict=True):
            np.testing.assert_array_equal(part, flat[start:stop])


def read(source: Source, start: int, stop: int) -> Array:
    """Read frames of any source; events become electrons per pixel.

    Returns
    -------
    frames : shape (stop - start, ky, kx)
    """
    if isinstance(source, FrameSource):
        return source.read_frames(start, stop)
    events = source.read_events(start, stop)
    n_pixels = math.prod(source.frame_shape)
    frame = np.repeat(np.arange(events.n_frames), np.diff(events.indptr))
    counts = np.bincount(frame * n_pixels + events.indices, minlength=events.n_frames * n_pixels)
    return counts.reshape(events.n_frames, *source.frame_shape)


def _bytes_read(work: Callable[[], object]) -> int:
    """Count the bytes that this process reads while it works."""
    before = _counter()
    work()
    return _counter() - before - len(Path("/proc/self/io").read_bytes())


def _counter() -> int:
    path = Path("/proc/self/io")
    if not path.exists():
        pytest.skip("this system does not count the bytes read")
    return int(path.read_text().split()[1])  # rchar: all read calls, page cache included


def _left_open(folder: Path) -> list[str]:
    """Files below a folder that this process holds open; none where the system does not tell."""
    handles = HANDLES.iterdir() if HANDLES.is_dir() else ()
    return [target for target in map(_target, handles) if target.startswith(str(folder))]


def _target(handle: Path) -> str:
    try:
        return str(handle.readlink())
    except OSError:  # the handle of the listing itself
        return ""
