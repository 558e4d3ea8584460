"""A conversion ends in a finished store or in nothing."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
import zarr

import stemstore
from stemstore.errors import (
    ConversionIncompleteError,
    DestinationExistsError,
    InputError,
    MemoryBudgetError,
    StorageError,
    UnknownFormatError,
)
from stemstore.kernels.counting import count_frames
from stemstore.store import finalise
from stemstore.store.open import open_store
from stemstore.testing import write_sectors


def files_below(folder):
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_dense_store_shows_the_same_pixels_to_everybody(tmp_path, raw, camera_frames):
    """stemstore, xarray and plain zarr read the raw pixels bit for bit."""
    report = stemstore.convert(raw, tmp_path / "a.zarr")
    assert report.profile == "dense"
    np.testing.assert_array_equal(stemstore.open(tmp_path / "a.zarr").intensity, camera_frames)
    np.testing.assert_array_equal(zarr.open(tmp_path / "a.zarr")["intensity"][:], camera_frames)
    with xr.open_zarr(tmp_path / "a.zarr") as ds:
        assert ds.intensity.dims == ("y", "x", "ky", "kx")
        np.testing.assert_array_equal(ds.intensity, camera_frames)


def test_counted_store_holds_the_events_of_the_kernel(tmp_path, raw, camera_frames):
    """What is stored is exactly what counting the frames gives, frame by frame."""
    limits = {"background_threshold": 40, "xray_threshold": 500}
    report = stemstore.convert(raw, tmp_path / "a.zarr", count=True, **limits)
    indptr, indices = count_frames(camera_frames.reshape(-1, 20, 18), 40, 500)
    stored = open_store(tmp_path / "a.zarr").read_events(0, 42)
    np.testing.assert_array_equal(stored.indptr, indptr)
    np.testing.assert_array_equal(stored.indices, indices)
    assert report.n_events == len(indices)
    dense = np.zeros((42, 360), int)
    np.add.at(dense, (np.repeat(np.arange(42), np.diff(indptr)), indices), 1)
    np.testing.assert_array_equal(stemstore.open(tmp_path / "a.zarr").intensity, dense.reshape(7, 6, 20, 18))


@pytest.mark.parametrize("count", [False, True])
def test_result_does_not_depend_on_workers(tmp_path, raw, count):
    """One and several threads write the same bytes of data."""
    for workers in (1, 3):
        stemstore.convert(raw, tmp_path / f"{workers}.zarr", count=count, workers=workers)
    inside = "events" if count else "intensity"
    trees = []
    for workers in (1, 3):
        shards = [p for p in (tmp_path / f"{workers}.zarr" / inside).rglob("[0-9]*") if p.is_file()]
        trees.append({p.relative_to(tmp_path / f"{workers}.zarr"): p.read_bytes() for p in shards})
    assert trees[0] == trees[1]
    assert trees[0]


def test_document_tells_where_the_data_came_from(tmp_path, raw):
    """The history names the file, the parameters after defaults, and the software."""
    stemstore.convert(raw, tmp_path / "a.zarr", count=True, beam_energy=300, scan_step="0.5 nm")
    document = open_store(tmp_path / "a.zarr").document
    (entry,) = document.history
    assert entry.operation == "convert"
    assert entry.inputs[0].path == str(raw)
    assert entry.inputs[0].size == raw.stat().st_size
    assert entry.parameters["background_sigma"] == 5.0
    assert entry.software["stemstore"] == stemstore.__version__
    assert document.counting.pedestal_mean == pytest.approx(20.5, abs=0.2)
    assert document.counting.n_events > 0
    assert document.acquisition.beam_energy.source == "user"
    assert [(axis.name, axis.unit, axis.step) for axis in document.axes[:2]] == [("y", "nm", 0.5), ("x", "nm", 0.5)]


def test_summary_is_written_in_the_same_pass(tmp_path, raw, camera_frames):
    """Images, patterns and the coarse copy agree with NumPy."""
    stemstore.convert(raw, tmp_path / "a.zarr")
    summary = zarr.open(tmp_path / "a.zarr")["summary"]
    frames = camera_frames.astype(np.int64)
    np.testing.assert_array_equal(summary["total"][:], frames.sum((2, 3)))
    np.testing.assert_array_equal(summary["max_pattern"][:], frames.max((0, 1)))
    np.testing.assert_array_equal(summary["sum_pattern"][:], frames.sum((0, 1)))
    np.testing.assert_array_equal(summary["binned"][:], frames)
    rows = (frames.sum(3) * np.arange(20)).sum(2) / frames.sum((2, 3))
    np.testing.assert_allclose(summary["com_y"][:], rows, rtol=1e-6)
    assert summary["bright_field"].attrs["source"] == "guessed"


def test_counted_summary_counts_electrons(tmp_path, raw):
    """The summary of a counted store is in electrons."""
    report = stemstore.convert(raw, tmp_path / "a.zarr", count=True)
    summary = zarr.open(tmp_path / "a.zarr")["summary"]
    assert summary["total"][:].sum() == report.n_events
    assert summary["sum_pattern"][:].sum() == report.n_events
    assert summary["binned"][:].sum() == report.n_events


def test_existing_destination_is_kept(tmp_path, raw):
    """Nothing is overwritten unasked, and nothing is left beside it."""
    stemstore.convert(raw, tmp_path / "a.zarr")
    before = files_below(tmp_path)
    with pytest.raises(DestinationExistsError, match="overwrite"):
        stemstore.convert(raw, tmp_path / "a.zarr")
    assert files_below(tmp_path) == before
    stemstore.convert(raw, tmp_path / "a.zarr", count=True, overwrite=True)
    assert open_store(tmp_path / "a.zarr").document.profile == "counted"
    assert files_below(tmp_path) == before


def test_unknown_formats_write_nothing(tmp_path):
    """A file that no reader knows leaves no destination."""
    (tmp_path / "odd.xyz").write_bytes(b"something else")
    with pytest.raises(UnknownFormatError, match=r"odd\.xyz"):
        stemstore.convert(tmp_path / "odd.xyz", tmp_path / "a.zarr")
    assert files_below(tmp_path) == ["odd.xyz"]


def test_full_disk_leaves_nothing_behind(tmp_path, raw, monkeypatch):
    """A device that fills up gives one typed error and no half store."""
    real, written = os.write, []

    def full(descriptor, data):
        written.append(len(data))
        if sum(written) > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(os, "writev", lambda d, parts: full(d, b"".join(parts)))
    with pytest.raises(StorageError, match="space"):
        stemstore.convert(raw, tmp_path / "a.zarr")
    monkeypatch.undo()
    assert files_below(tmp_path) == ["scan.npy"]


def test_error_inside_the_source_leaves_nothing_behind(tmp_path, raw, monkeypatch):
    """When reading fails in the middle, the working folder goes and the error stays."""
    from stemstore_readers import npy

    source = type(npy.Npy()(str(raw)))
    real = source.read_frames

    def broken(self, start, stop, out=None):
        if start > 20:
            raise StorageError("the disk was pulled out", url=str(raw))  # noqa: EM101  # stands for a reader's error
        return real(self, start, stop, out)

    monkeypatch.setattr(source, "read_frames", broken)
    with pytest.raises(StorageError, match="pulled out"):
        stemstore.convert(raw, tmp_path / "a.zarr", count=True, background_threshold=40, xray_threshold=500)
    assert files_below(tmp_path) == ["scan.npy"]


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"workers": 0}, InputError, "workers=0"),
        ({"max_memory": "1 KiB"}, MemoryBudgetError, r"1\.0 KiB"),
        ({"count": True, "background_threshold": 90, "xray_threshold": 80}, InputError, "not below"),
        ({"no_such": 1}, InputError, "no option 'no_such'"),
        ({"profile": "tiny"}, InputError, "tiny"),
        ({"scan_step": "5 kg"}, InputError, "scan|step"),
    ],
    ids=["workers", "memory", "thresholds", "option", "profile", "unit"],
)
def test_wrong_options_are_refused_before_anything_is_written(tmp_path, raw, options, error, match):
    """The message names the option; no file appears."""
    with pytest.raises(error, match=match):
        stemstore.convert(raw, tmp_path / "a.zarr", **options)
    assert files_below(tmp_path) == ["scan.npy"]


def sector_scan(folder, **options):
    """A 6 x 5 scan of random 4D Camera frames; gives the frames with the flyback column."""
    frames = np.random.default_rng(0).integers(10, 60, (30, 576, 576)).astype(np.uint16)
    write_sectors(folder, iter([frames]), (6, 4), flyback_columns=1, **options)
    return frames.reshape(6, 5, 576, 576)


def test_sector_files_end_up_bit_for_bit_in_the_store(tmp_path):
    """Raw files, store and xarray's own reader show the same pixels; flyback is hidden by default."""
    frames = sector_scan(tmp_path / "raw", shuffle=True)
    stemstore.convert(tmp_path / "raw", tmp_path / "a.zarr", flyback_columns=1)
    np.testing.assert_array_equal(stemstore.open(tmp_path / "a.zarr").intensity, frames[:, :4])
    np.testing.assert_array_equal(stemstore.open(tmp_path / "a.zarr", flyback=True).intensity, frames)
    np.testing.assert_array_equal(stemstore.open(tmp_path / "raw", flyback_columns=1).intensity, frames[:, :4])
    with xr.open_zarr(tmp_path / "a.zarr") as ds:
        np.testing.assert_array_equal(ds.intensity, frames)


def test_lost_sectors_are_marked_in_the_store(tmp_path):
    """A frame that lacks a sector is partial; its rows are zero and stay marked through every operation."""
    frames = sector_scan(tmp_path / "raw", lost_sectors=[(7, 2)])
    stemstore.convert(tmp_path / "raw", tmp_path / "a.zarr", flyback_columns=1)
    ds = stemstore.open(tmp_path / "a.zarr")
    assert np.argwhere(ds.valid.values != 2).tolist() == [[1, 2]]
    assert ds.valid.values[1, 2] == 1
    expected = frames[1, 2].copy()
    expected[288:432] = 0
    np.testing.assert_array_equal(ds.intensity[1, 2], expected)
    assert open_store(tmp_path / "a.zarr").document.frames.partial == 1


def test_killed_conversions_leave_nothing_that_opens(tmp_path):
    """SIGKILL at three random moments: the destination does not exist and says that it was being written."""
    np.save(tmp_path / "big.npy", np.random.default_rng(0).integers(0, 999, (48, 48, 96, 96)).astype(np.uint16))
    code = "import sys, stemstore; print('go', flush=True); stemstore.convert(sys.argv[1], sys.argv[2])"
    for attempt in range(3):
        target = tmp_path / f"{attempt}.zarr"
        arguments = [sys.executable, "-c", code, str(tmp_path / "big.npy"), str(target)]
        environment = {**os.environ, "STEMSTORE_WORKERS": "1", "STEMSTORE_MAX_MEMORY": "16MiB"}
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment) as process:
            process.stdout.readline()
            while not list(tmp_path.glob(f"{attempt}.zarr.part-*/intensity/c/*")) and process.poll() is None:
                time.sleep(0.002)
            time.sleep(random.uniform(0, 0.15))  # noqa: S311, RUF100  # the moment is the point
            process.send_signal(signal.SIGKILL)
        if process.returncode == 0:  # finished before the signal came: then it must be whole
            assert stemstore.open(target).sizes["y"] == 48
            continue
        assert not target.exists()
        with pytest.raises(ConversionIncompleteError, match="did not finish"):
            stemstore.open(target)
        (part,) = tmp_path.glob(f"{attempt}.zarr.part-*")
        with pytest.raises(ConversionIncompleteError, match="did not finish"):
            stemstore.open(part)


def test_store_without_commit_object_is_refused(tmp_path, raw):
    """Removing the commit object makes a store unfinished."""
    stemstore.convert(raw, tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "stemstore.commit.json").unlink()
    with pytest.raises(ConversionIncompleteError, match=r"stemstore\.commit\.json"):
        stemstore.open(tmp_path / "a.zarr")


def test_store_of_a_newer_version_is_refused(tmp_path, raw):
    """A document of a version this release does not know is not read half."""
    stemstore.convert(raw, tmp_path / "a.zarr")
    root = tmp_path / "a.zarr" / "zarr.json"
    document = json.loads(root.read_text())
    document["attributes"]["stemstore"]["version"] = 99
    root.write_text(json.dumps(document))
    with pytest.raises(stemstore.errors.FormatVersionError, match="99"):
        stemstore.open(tmp_path / "a.zarr")


def test_progress_counts_partitions(tmp_path, raw):
    """The progress protocol sees a phase with its total and as many steps."""
    seen = []

    class Recorder:
        def start(self, what, total):
            seen.append(total)

        def advance(self, steps=1):
            seen.append(-steps)

    stemstore.convert(raw, tmp_path / "a.zarr", progress=Recorder())
    assert seen[0] == -sum(seen[1:])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"background_threshold": 30}, "background_threshold cannot be used: .*pass count=True"),
        ({"xray_threshold": 30, "count": False}, "xray_threshold cannot be used"),
        ({"count": True, "background_sigma": "a"}, "background_sigma='a' is not a number"),
        ({"count": True, "xray_threshold": float("nan")}, "xray_threshold=nan is not a number"),
        ({"workers": 1.5}, "workers=1.5"),
        ({"workers": True}, "workers=True"),
    ],
)
def test_options_that_make_no_sense(tmp_path, raw, options, match):
    """No option is passed over in silence, and none fails in the middle of the work."""
    with pytest.raises(InputError, match=match):
        stemstore.convert(raw, tmp_path / "a.zarr", **options)
    assert files_below(tmp_path) == ["scan.npy"]


def test_finished_store_is_kept_when_its_name_was_taken(tmp_path, raw, camera_frames, monkeypatch):
    """Hours of work are not thrown away because something took the name; the message tells where they are."""
    monkeypatch.setattr("stemstore.store.writer.finish", taking(tmp_path / "a.zarr"))
    with pytest.raises(DestinationExistsError, match="rename it by hand"):
        stemstore.convert(raw, tmp_path / "a.zarr")
    (part,) = tmp_path.glob("a.zarr.part-*")
    part.rename(tmp_path / "b.zarr")
    np.testing.assert_array_equal(stemstore.open(tmp_path / "b.zarr").intensity, camera_frames)


def taking(path):
    """Make a `finish` during which somebody makes a folder."""

    def finish(*args, **named):
        whole(*args, **named)
        path.mkdir()

    whole = finalise.finish
    return finish
