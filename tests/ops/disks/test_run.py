"""Disk detection into a store: pieces outlive the process, a run goes on where it stopped, plain Zarr comes out."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pytest
import xarray as xr
import zarr

import stemstore
from stemstore.errors import DestinationExistsError, InputError
from stemstore.kernels.events import encode
from stemstore.ops.disks import assembly
from stemstore.ops.disks.find import find_disks
from stemstore.ops.disks.run import DisksInterrupted
from stemstore.ops.disks.table import DiskTable, table_of
from stemstore.ops.disks.verdict import DiskWarning
from stemstore.store.layout import counted_layout, dense_layout
from stemstore.store.writer import StoreWriter
from stemstore.testing.arrays import ArrayEvents
from stemstore_schemas import Axis, EventEncoding, FrameCounts, ScanDocument

if TYPE_CHECKING:
    from pathlib import Path

N_PIECES, PER_PIECE = 4, 10


class Interrupting:
    """Progress that is interrupted once some patterns are done."""

    def __init__(self, after: int) -> None:
        self.done, self.after = 0, after

    def start(self, what: str, total: int | None) -> None:
        """Need nothing."""

    def advance(self, steps: int = 1) -> None:
        """Count, and stop."""
        self.done += steps
        if self.done >= self.after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Give 8 x 5 patterns of two disks; some are empty."""
    rows, columns = np.indices((48, 40))
    image = sum(a * (np.hypot(rows - y, columns - x) < 4) for y, x, a in ((14, 12, 6.0), (30.4, 26.2, 2.0)))
    counts = np.random.default_rng(2).poisson(image + 0.05, (8, 5, 48, 40)).astype(np.uint8)
    counts[3, 1:3] = 0
    return counts


def write_store(url: Path, frames: np.ndarray, *, counted: bool) -> None:
    """Write a store of several partitions."""
    make = counted_layout if counted else dense_layout
    layout = make(frames.shape[:2], frames.shape[2:], 1.0 if counted else frames.dtype)
    if counted:
        layout = replace(layout, frames_per_block=5, blocks_per_shard=2, slots_per_chunk=64)
    else:
        layout = replace(layout, chunk=(1, 5, *layout.chunk[2:]), shard=(2, 5, *layout.shard[2:]))
    document = ScanDocument(
        uuid=str(uuid.uuid4()),
        profile="counted" if counted else "dense",
        axes=[Axis(name=name, size=n) for name, n in zip(("y", "x", "ky", "kx"), frames.shape, strict=True)],
        frames=FrameCounts(valid=40),
        encoding=EventEncoding(frames_per_block=1, slots_per_chunk=1) if counted else None,
    )
    writer = StoreWriter.init(str(url), document, layout)
    events = ArrayEvents(frames)
    for number, part in enumerate(layout.partitions):
        if counted:
            blocks = [events.read_events(start, stop) for start, stop in layout.blocks(number)]
            writer.write_events(number, [encode(block.indptr, block.indices) for block in blocks])
        else:
            writer.write_frames(number, frames[part])
    writer.finalise()


@pytest.fixture(scope="module")
def stores(frames: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the patterns as a dense and as a counted store."""
    folder: Path = tmp_path_factory.mktemp("stores")
    for counted in (False, True):
        write_store(folder / f"{counted}.zarr", frames, counted=counted)
    return folder


@pytest.fixture(params=[False, True], ids=["dense", "counted"])
def ds(request: pytest.FixtureRequest, stores: Path, tmp_path: Path) -> xr.Dataset:
    """Open a copy of one of the stores."""
    return stemstore.open(shutil.copytree(stores / f"{request.param}.zarr", tmp_path / "scan.zarr"))


def tables_equal(one: Any, other: Any) -> None:
    """Compare the arrays of two datasets of disks."""
    one, other = table_of(one), table_of(other)
    for name in DiskTable.__slots__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def contents(ds: xr.Dataset, name: str) -> dict[str, bytes]:
    """Read all chunks of a saved result; its metadata hold times and identities."""
    folder = _folder(ds) / name
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "zarr.json"
    }


def _folder(ds: xr.Dataset) -> Path:
    from pathlib import Path

    return Path(ds.attrs["source_url"]) / "derived"


def test_the_scan_has_several_pieces(ds: xr.Dataset) -> None:
    """Otherwise nothing would be left to resume."""
    from stemstore.ops.disks.detection import Detection

    pieces = Detection.of(ds, None, 4).pieces()
    assert [len(place) for place in pieces.places] == [PER_PIECE] * N_PIECES
    np.testing.assert_array_equal(np.sort(np.concatenate(pieces.places)), np.arange(40))


def test_disks_in_a_store_are_those_in_memory(ds: xr.Dataset, frames: np.ndarray) -> None:
    """What the store gives back equals the result without one; the pieces are gone."""
    plain = find_disks(ds, radius=4)
    stored = find_disks(ds, radius=4, store=ds)
    assert plain.n_disks[3].values.tolist() == [2, 0, 0, 2, 2]
    tables_equal(stored, plain)
    tables_equal(stemstore.open_result(ds, "disks"), plain)
    assert [path.name for path in _folder(ds).iterdir() if path.is_dir()] == ["disks"]
    assert stemstore.results(ds)["disks"].operation == "find_disks"
    for name in ("ky", "kx", "y", "x", "processed"):
        xr.testing.assert_identical(stored[name].variable, plain[name].variable)


@pytest.mark.parametrize("ds", [True], ids=["counted"], indirect=True)
def test_other_processes_find_the_same(ds: xr.Dataset) -> None:
    """Stores are opened where the tasks run; the pieces come back and are kept here."""
    with dask.config.set(scheduler="processes", num_workers=2):
        stored = find_disks(ds, radius=4, store=ds)
    tables_equal(stored, find_disks(ds, radius=4))


def test_a_cluster_can_be_interrupted(ds: xr.Dataset) -> None:
    """What the workers have sent is kept; the rest is done when the run goes on."""
    plain = find_disks(ds, radius=4)
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0")
    with cluster, distributed.Client(cluster):
        with pytest.raises(DisksInterrupted):
            find_disks(ds, radius=4, store=ds, progress=Interrupting(after=15))
        tables_equal(find_disks(ds, radius=4, store=ds, resume=True), plain)


def test_plain_zarr_reads_the_columns(ds: xr.Dataset) -> None:
    """Any reader of Zarr finds the columns and offsets as arrays."""
    found = find_disks(ds, radius=4, store=ds, name="peaks")
    group = zarr.open_group(_folder(ds) / "peaks", mode="r")
    for name in ("qy", "qx", "intensity", "correlation", "sigma_q", "offset", "n_disks"):
        np.testing.assert_array_equal(group[name][...], found[name])


def test_disks_in_memory_can_be_saved(ds: xr.Dataset) -> None:
    """The general door for results takes disks as well."""
    found = find_disks(ds, radius=4)
    tables_equal(stemstore.save(found, ds, "disks"), found)


def test_long_columns_are_put_together_in_chunks(ds: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that begin and end within a piece, and span several, hold the right disks."""
    monkeypatch.setattr(assembly, "CHUNK", 7)
    stored = find_disks(ds, radius=4, store=ds)
    tables_equal(stored, find_disks(ds, radius=4))


KILLED = """
import os, signal, sys
import dask, stemstore

class Killing:
    done = 0
    def start(self, what, total): pass
    def advance(self, steps=1):
        self.done += steps
        if self.done >= int(sys.argv[2]): os.kill(os.getpid(), signal.SIGKILL)

ds = stemstore.open(sys.argv[1])
with dask.config.set(scheduler="synchronous"):
    stemstore.find_disks(ds, radius=4, store=ds, progress=Killing())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is Unix's")
def test_a_killed_run_goes_on(ds: xr.Dataset) -> None:
    """After SIGKILL the finished pieces are there; the resumed run does the rest and ends in the same bytes."""
    url = ds.attrs["source_url"]
    ended = subprocess.run([sys.executable, "-c", KILLED, url, "20"], check=False, capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    assert len(list((_folder(ds) / ".part-disks").glob("*.npz"))) == 2
    assert stemstore.results(ds) == {}
    told = Interrupting(after=1000)
    find_disks(ds, radius=4, store=ds, resume=True, progress=told)
    assert told.done == 40
    find_disks(ds, radius=4, store=ds, name="straight")
    assert contents(ds, "disks") == contents(ds, "straight")
    assert not (_folder(ds) / ".part-disks").exists()


def test_a_resumed_run_reads_only_what_is_missing(ds: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that are there are not looked at again; a damaged one is."""
    from stemstore.ops.disks import pieces

    with dask.config.set(scheduler="synchronous"), pytest.raises(DisksInterrupted, match="resume=True"):
        find_disks(ds, radius=4, store=ds, progress=Interrupting(after=3 * PER_PIECE))
    parts = sorted((_folder(ds) / ".part-disks").glob("*.npz"))
    parts[1].write_bytes(parts[1].read_bytes()[:100])
    ran = []
    run = pieces.run_piece
    monkeypatch.setattr(pieces, "run_piece", lambda *given: ran.append(1) or run(*given))
    stored = find_disks(ds, radius=4, store=ds, resume=True)
    assert len(ran) == 2
    tables_equal(stored, find_disks(ds, radius=4))


def test_other_parameters_do_not_resume(ds: xr.Dataset) -> None:
    """A run goes on with its own parameters only; what differs is named. Unasked, nothing is thrown away."""
    with dask.config.set(scheduler="synchronous"), pytest.raises(DisksInterrupted):
        find_disks(ds, radius=4, store=ds, progress=Interrupting(after=1))
    with pytest.raises(InputError, match=r"differs in edge_boundary \(4 then, 5 now\).*radius \(4.0 then, 5.0 now\)"):
        find_disks(ds, radius=5, store=ds, resume=True)
    with pytest.raises(InputError, match=r"differs in roi \(None then, '.{7}… now\)"):
        find_disks(ds, radius=4, store=ds, resume=True, roi=np.eye(8, 5, dtype=bool))
    with pytest.raises(InputError, match=r"differs in data"):
        find_disks(ds.isel(y=slice(7)), radius=4, store=ds, resume=True)
    with pytest.raises(DestinationExistsError, match="holds an unfinished run; pass resume=True"):
        find_disks(ds, radius=4, store=ds)
    tables_equal(find_disks(ds, radius=3, store=ds, overwrite=True), find_disks(ds, radius=3))


def test_a_finished_result_is_kept(ds: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resuming a finished run opens it; other parameters, or no word about it, are refused."""
    first = find_disks(ds, radius=4, store=ds)
    with pytest.raises(DestinationExistsError, match="has a result 'disks' already"):
        find_disks(ds, radius=4, store=ds)
    with pytest.raises(DestinationExistsError, match="found with other parameters"):
        find_disks(ds, radius=3, store=ds, resume=True)
    second = find_disks(ds, radius=3, store=ds, overwrite=True)
    assert second.attrs["radius"] == 3.0
    monkeypatch.setattr("stemstore.ops.disks.pieces.run_piece", None)  # nothing runs
    again = find_disks(ds, radius=3, store=ds, resume=True)
    tables_equal(again, second)
    assert first.attrs["detection_digest"] != again.attrs["detection_digest"]


def test_another_store_is_refused(ds: xr.Dataset, frames: np.ndarray, tmp_path: Path) -> None:
    """Disks go into the store of their scan, and this is said before anything runs."""
    write_store(tmp_path / "other.zarr", frames, counted=False)
    with pytest.raises(InputError, match="save it into the store of its scan"):
        find_disks(ds, radius=4, store=tmp_path / "other.zarr")


def test_nothing_found_is_stored_too(ds: xr.Dataset) -> None:
    """An empty result is a result."""
    roi = np.zeros((8, 5), bool)
    roi[3, 1:3] = True
    with pytest.warns(DiskWarning, match="no disks in 2 patterns"):
        stored = find_disks(ds, radius=4, store=ds, roi=roi)
    table = table_of(stored)
    assert (len(table.qy), int(table.processed.sum())) == (0, 2)


def test_filters_that_exclude_everything_leave_nothing_behind(ds: xr.Dataset) -> None:
    """The run has failed: no result, and no pieces that would stand in the way of the next one."""
    with pytest.raises(InputError, match="relax 'min_rel'"):
        find_disks(ds, radius=4, store=ds, min_rel=2.0, relative_to=0)
    assert stemstore.results(ds) == {}
    assert len(table_of(find_disks(ds, radius=4, store=ds)).qy) == 76
