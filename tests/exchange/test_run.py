"""Exports end in whole files or in nothing, and say what they leave behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stemstore
from stemstore.errors import DestinationExistsError, InputError, StorageError, UnknownFormatError
from stemstore.exchange.run import export
from stemstore.exchange.target import ShownColumns
from stemstore.scan.opening import open_source_or_store
from stemstore.scan.saved import save_calibration
from stemstore.testing.arrays import ArrayEvents

ENDINGS = ["a.h5", "a.toml"]


def contents(folder):
    """Names of everything in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_events_come_back_equal(tmp_path, store, ending):
    """What is exported and read again by the format's own reader is event for event the same."""
    report = export(store, tmp_path / ending)
    before, after = open_source_or_store(store), open_source_or_store(tmp_path / ending)
    first, second = (source.read_events(0, 48) for source in (before, after))
    np.testing.assert_array_equal(first.indptr, second.indptr)
    np.testing.assert_array_equal(first.indices, second.indices)
    assert (after.scan_shape, after.frame_shape) == (before.scan_shape, before.frame_shape)
    assert report.n_events == len(first.indices)
    assert report.shape == (6, 8, 7, 9)
    assert report.n_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert sorted(Path(path).name for path in report.files) == contents(tmp_path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_raw_counted_files_are_exported_without_a_store(tmp_path, store, ending):
    """A counted file of one program becomes one of the other, options of its reader included."""
    export(store, tmp_path / "first.toml")
    report = export(tmp_path / "first.toml", tmp_path / ending, scan_shape=(4, 12))
    assert report.shape == (4, 12, 7, 9)
    first, second = (open_source_or_store(path).read_events(0, 48) for path in (store, tmp_path / ending))
    np.testing.assert_array_equal(first.indices, second.indices)


@pytest.mark.parametrize("ending", ENDINGS)
def test_small_and_large_batches_write_the_same(tmp_path, store, ending, monkeypatch):
    """The files do not depend on how many frames are read at once."""
    export(store, tmp_path / f"many{ending}", to="raw-csr" if ending == "a.toml" else "stempy")
    monkeypatch.setattr("stemstore.sources.electrons.BATCH_EVENTS", 1)
    monkeypatch.setattr("stemstore.sources.electrons.FIRST_BATCH", 1)
    export(store, tmp_path / f"one{ending}")
    first, second = (open_source_or_store(tmp_path / f"{name}{ending}").read_events(0, 48) for name in ("many", "one"))
    np.testing.assert_array_equal(first.indptr, second.indptr)
    np.testing.assert_array_equal(first.indices, second.indices)


def test_report_lists_what_has_no_place(tmp_path, own_store):
    """Calibration and history are named for both formats, the thresholds only for the one that cannot hold them."""
    save_calibration({"mask": np.ones((7, 9), bool), "scan_rotation": 3}, own_store)
    stemstore.save(stemstore.mean_pattern(stemstore.open(own_store)), own_store, "mean")
    stempy, csr = (export(own_store, tmp_path / ending) for ending in ENDINGS)
    expected = [
        "the calibration of the axes y, x",
        "beam_energy of the acquisition",
        "1 steps of history",
        "the saved calibration with mask",
    ]
    assert [text for text in stempy.not_carried if "counting" not in text] == expected
    assert [text for text in csr.not_carried if "counting" not in text] == expected
    (lost_by_stempy,), (lost_by_csr,) = (
        [text for text in report.not_carried if text.endswith("of the counting")] for report in (stempy, csr)
    )
    assert lost_by_stempy.startswith("rule")
    assert "threshold" not in lost_by_stempy
    assert lost_by_csr.startswith("rule, background_threshold, xray_threshold")
    assert "saved results (mean)" in stempy.warnings[0]


@pytest.mark.parametrize("ending", ENDINGS)
def test_missing_and_partial_frames_become_plain_ones(tmp_path, raw, ending):
    """Frames without a recording are written as empty ones, and the report counts them."""
    stemstore.convert(
        raw, tmp_path / "c.zarr", count=True, background_threshold=5, xray_threshold=99, scan_shape=(7, 8)
    )
    report = export(tmp_path / "c.zarr", tmp_path / ending)
    assert "the mark of 8 missing frames, which are written as empty ones" in report.not_carried
    source = open_source_or_store(tmp_path / ending)
    assert source.validity is None
    assert np.diff(source.read_events(48, 56).indptr).tolist() == [0] * 8


@pytest.mark.parametrize("ending", ENDINGS)
def test_flyback_is_written_or_left_out(tmp_path, raw, ending):
    """Flyback columns are written like others unless they are not wanted."""
    stemstore.convert(raw, tmp_path / "d.zarr")
    limits = {"count": True, "background_threshold": 5, "xray_threshold": 99}
    np.save(tmp_path / "five.npy", np.load(raw)[:, :7])
    stemstore.convert(tmp_path / "five.npy", tmp_path / "c.zarr", **limits)
    export(tmp_path / "c.zarr", tmp_path / "first.h5")  # one column wider than high: the reader takes it for flyback
    assert export(tmp_path / "first.h5", tmp_path / ending).shape == (6, 7, 7, 9)
    report = export(tmp_path / "first.h5", tmp_path / f"less{ending}", flyback=False)
    assert report.shape == (6, 6, 7, 9)
    whole = stemstore.open(tmp_path / "c.zarr").intensity.values
    np.testing.assert_array_equal(stemstore.open(tmp_path / f"less{ending}").intensity.values, whole[:, :6])


def test_shown_columns_of_repeated_frames():
    """Leaving out columns keeps the frames of every exposure, in any range."""
    counts = np.random.default_rng(0).poisson(0.5, (2, 3, 5, 4, 4))
    state = np.random.default_rng(1).integers(0, 3, (2, 3, 5))
    shown = ShownColumns(ArrayEvents(counts, state), 2)
    assert shown.scan_shape == (2, 3, 3)
    np.testing.assert_array_equal(shown.validity, state[..., :3].reshape(-1))
    expected = ArrayEvents(counts[:, :, :3])
    for start, stop in ((0, 18), (2, 11), (4, 4), (17, 18)):
        one, other = shown.read_events(start, stop), expected.read_events(start, stop)
        np.testing.assert_array_equal(one.indptr, other.indptr)
        np.testing.assert_array_equal(one.indices, other.indices)


@pytest.mark.parametrize("ending", ENDINGS)
def test_existing_files_are_kept_unless_asked(tmp_path, store, ending):
    """Nothing is overwritten unasked; asked, files of the format are replaced and no others are left."""
    export(store, tmp_path / ending)
    before = contents(tmp_path)
    with pytest.raises(DestinationExistsError, match="exists; choose another name or pass overwrite=True"):
        export(store, tmp_path / ending)
    export(store, tmp_path / ending, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("ending", "foreign"), [("a.h5", "a.h5"), ("a.toml", "a.toml"), ("a.toml", "a_coords.dat")])
def test_foreign_files_are_never_replaced(tmp_path, store, ending, foreign):
    """A file that no export wrote stays, also where overwriting is asked for."""
    if foreign != ending:
        export(store, tmp_path / "b.toml")
        text = (tmp_path / "b.toml").read_text()
        (tmp_path / "a.toml").write_text(text)  # describes the files of b
    (tmp_path / foreign).write_text("precious")
    with pytest.raises(DestinationExistsError, match=f"{foreign}' exists and is no .* file, so it is not overwritten"):
        export(store, tmp_path / ending, overwrite=True)
    assert (tmp_path / foreign).read_text() == "precious"


def test_frames_are_refused_with_the_way_out(tmp_path, raw):
    """A scan of frames names the conversion that counts it."""
    stemstore.convert(raw, tmp_path / "d.zarr")
    for source in (raw, tmp_path / "d.zarr"):
        with pytest.raises(InputError, match=r"holds frames, but stempy files hold electron events; .*count=True\)"):
            export(source, tmp_path / "a.h5")
    assert "a.h5" not in contents(tmp_path)


@pytest.mark.parametrize(
    ("target", "options", "error", "text"),
    [
        ("a.xyz", {}, InputError, r"names no format to export to \(\.h5 or \.hdf5 for stempy; \.toml for raw-csr; "),
        (
            "a.h5",
            {"to": "emd"},
            InputError,
            "to='emd' is no format to export to; expected 'stempy' or 'raw-csr' or",
        ),
        ("s3://bucket/a.h5", {}, InputError, "is not on this machine"),
        ("{store}/a.h5", {}, InputError, "overlap; choose another place"),
        ("a.h5", {"version": 3}, InputError, "takes no options"),
    ],
)
def test_wrong_arguments(tmp_path, store, target, options, error, text):
    """What is wrong is said before anything is written."""
    place = target.format(store=store) if "{" in target or "://" in target else tmp_path / target
    with pytest.raises(error, match=text):
        export(store, place, **options)
    assert contents(tmp_path) == []


def test_source_is_not_its_own_destination(tmp_path, store):
    """A raw file cannot be exported onto itself or onto a part of itself."""
    export(store, tmp_path / "a.toml")
    for target in ("a.toml", "a_values.dat"):
        with pytest.raises(InputError, match="is read and cannot be written in the same step"):
            export(tmp_path / "a.toml", tmp_path / target, to="stempy", overwrite=True)


def test_sources_that_are_not_there(tmp_path):
    """An unknown source is refused as everywhere."""
    (tmp_path / "odd.xyz").write_text("odd")
    with pytest.raises(UnknownFormatError, match=r"odd\.xyz"):
        export(tmp_path / "odd.xyz", tmp_path / "a.h5")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_failure_in_the_middle_leaves_nothing_behind(tmp_path, store, ending, overwrite, monkeypatch):
    """When reading fails in the middle, nothing new appears and what was there stays."""
    from stemstore.store.events import StoredEvents

    if overwrite:
        export(store, tmp_path / ending)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real = StoredEvents.read_events

    def broken(self, start, stop):
        if stop > 20:
            raise StorageError("the disk was pulled out", url="x")  # noqa: EM101  # stands for a device's error
        return real(self, start, stop)

    monkeypatch.setattr(StoredEvents, "read_events", broken)
    with pytest.raises(StorageError, match="pulled out"):
        export(store, tmp_path / ending, overwrite=overwrite)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("ending", ENDINGS)
def test_name_that_is_taken_meanwhile(tmp_path, store, ending, monkeypatch):
    """A file that appears during the work is kept."""

    class Taking:
        def start(self, what, total):
            (tmp_path / ending).write_text("mine")

        def advance(self, steps=1):
            pass

    with pytest.raises(DestinationExistsError, match="appeared while it was being written"):
        export(store, tmp_path / ending, progress=Taking())
    assert contents(tmp_path) == [ending]


FULL = """
import resource, sys
import stemstore
from stemstore.exchange.run import export
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))  # no file may grow beyond: what a full disk is to a writer
try:
    export(sys.argv[1], sys.argv[2])
except stemstore.errors.StorageError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are Unix's")
@pytest.mark.parametrize("ending", ENDINGS)
def test_device_that_refuses_leaves_nothing_behind(tmp_path, store, ending):
    """A device that takes no more bytes gives one typed error and no half file."""
    command = [sys.executable, "-c", FULL, str(store), str(tmp_path / ending)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "cannot write" in done.stdout, done.stderr
    assert contents(tmp_path) == []


KILLED = """
import os, signal, sys
from stemstore.exchange.run import export
class Killing:
    def start(self, what, total): pass
    def advance(self, steps=1): os.kill(os.getpid(), signal.SIGKILL)
export(sys.argv[1], sys.argv[2], overwrite=True, progress=Killing())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is Unix's")
@pytest.mark.parametrize("ending", ENDINGS)
def test_killed_export_changes_nothing_under_the_name(tmp_path, store, ending):
    """A process killed in the middle leaves what was there, and a hidden folder beside it."""
    export(store, tmp_path / ending)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    command = [sys.executable, "-c", KILLED, str(store), str(tmp_path / ending)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -9
    (left,) = (path for path in tmp_path.iterdir() if path.name not in before)
    assert left.name.startswith(f".{ending}.part-")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_progress_counts_positions(tmp_path, store):
    """The progress protocol sees as many steps as it was promised."""
    seen = []

    class Recorder:
        def start(self, what, total):
            seen.append(total)

        def advance(self, steps=1):
            seen.append(-steps)

    export(store, tmp_path / "a.h5", progress=Recorder())
    assert seen[0] == 48 == -sum(seen[1:])
