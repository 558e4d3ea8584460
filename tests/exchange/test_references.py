"""References lead fsspec, zarr and xarray alone to the pixels that stemstore sees, and say what they were made from."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import stemstore
from stemstore.errors import (
    CorruptDataError,
    DestinationExistsError,
    InputError,
    OptionalDependencyError,
    StaleStoreError,
)
from stemstore.exchange import references as module
from stemstore.exchange.references import common_folder, together
from stemstore.exchange.run import export
from stemstore.scan.saved import save_calibration
from stemstore.testing.servers import FileServer

pytestmark = [
    # what fsspec reads the folders with; pandas will leave it to fsspec to choose another
    pytest.mark.filterwarnings("ignore:The 'fastparquet' engine is deprecated"),
]

WANTS = {"a.parquet": "fastparquet", "a.icechunk": "icechunk"}
FORMS = ["a.json", *WANTS]


def forms(*quick):
    """Every form of references, those not named in `make test-all` only, where its package is installed."""
    for ending in FORMS:
        absent = ending in WANTS and importlib.util.find_spec(WANTS[ending]) is None
        marks = [pytest.mark.skipif(absent, reason=f"needs the package {WANTS.get(ending)}")]
        yield pytest.param(ending, marks=marks if ending in quick else [*marks, pytest.mark.slow])


FRAMES = np.random.default_rng(3).integers(0, 4000, (5, 7, 6, 9)).astype(np.uint16)


def opened(path, remote="file", allow=None, **more):
    """Open references as a foreign program does: stemstore takes no part."""
    if Path(path).suffix == ".icechunk":
        import icechunk

        allowed = {allow or f"{Path(path).parent.as_uri()}/": None}
        storage = icechunk.local_filesystem_storage(str(path))
        repository = icechunk.Repository.open(storage, authorize_virtual_chunk_access=allowed)
        return xr.open_zarr(repository.readonly_session("main").store, consolidated=False, chunks=None)
    options = {"fo": str(path), "remote_protocol": remote, **more}
    return xr.open_dataset("reference://", engine="zarr", backend_kwargs={"storage_options": options})


def made(folder, array=FRAMES, name="scan.npy"):
    """Write frames as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / name, array)
    return folder / name


def origin(dataset):
    """What references say they were made from."""
    return json.loads(dataset.attrs["stemstore_references"])


@pytest.mark.parametrize("ending", [*forms(*FORMS)])
def test_raw_frames_are_read_where_they_lie(tmp_path, ending):
    """Pixels, type, axes in their units and acquisition are those of `stemstore.open`, though no pixel is copied."""
    raw = made(tmp_path, FRAMES.astype(">u2"))
    given = {"beam_energy": 300, "scan_step": 0.5, "detector_step": "2 mrad"}
    report = export(raw, tmp_path / ending, **given)
    truth, found = stemstore.open(raw, **given), opened(tmp_path / ending)
    np.testing.assert_array_equal(found.intensity.values, FRAMES)
    assert found.intensity.dtype == np.uint16
    assert found.intensity.dims == ("y", "x", "ky", "kx")
    for name in truth.coords:
        np.testing.assert_array_equal(found[name].values, truth[name].values)
        assert found[name].attrs["units"] == truth[name].attrs["units"]
    assert set(found.coords) == set(truth.coords)
    assert found.attrs["beam_energy_keV"] == 300
    assert report.shape == FRAMES.shape
    assert (report.n_references, report.n_missing, report.chunk) == (1, 0, FRAMES.shape)
    files = [path for path in [tmp_path / ending, *(tmp_path / ending).rglob("*")] if path.is_file()]
    assert report.n_bytes == sum(path.stat().st_size for path in files)
    assert not [path for path in tmp_path.iterdir() if path.name not in (ending, "scan.npy")]


@pytest.mark.parametrize("ending", [*forms("a.json")])
@pytest.mark.parametrize("profile", ["fast", pytest.param("balanced", marks=pytest.mark.slow), "small", "raw"])
def test_chunks_of_stores_are_read_without_shards(tmp_path, ending, profile):
    """A store of several shards, whose chunks reach beyond the scan, opens in programs that know no shards."""
    dtype = {"fast": "u1", "balanced": "u2", "small": "f4", "raw": "i4"}[profile]
    cut = {"chunks": (2, 2, 6, 9), "shards": (4, 4)}
    stemstore.convert(made(tmp_path, FRAMES.astype(dtype)), tmp_path / "a.zarr", profile=profile, **cut)
    report = export(tmp_path / "a.zarr", tmp_path / ending)
    found = opened(tmp_path / ending)
    np.testing.assert_array_equal(found.intensity.values, FRAMES.astype(dtype))
    assert found.intensity.dtype == dtype
    assert len(report.files) > 1
    assert report.n_references == np.prod([-(-n // c) for n, c in zip(FRAMES.shape, report.chunk, strict=True)])


def test_frames_cut_into_tiles(tmp_path):
    """Chunks that hold a part of a frame are put together to whole ones."""
    stemstore.convert(made(tmp_path), tmp_path / "a.zarr", chunks=(3, 2, 4, 5))
    report = export(tmp_path / "a.zarr", tmp_path / "a.json")
    assert report.chunk == (3, 2, 4, 5)
    np.testing.assert_array_equal(opened(tmp_path / "a.json").intensity.values, FRAMES)


def test_packed_stores(tmp_path):
    """Chunks of a store in one zip are ranges of that file."""
    stemstore.convert(made(tmp_path), tmp_path / "a.zarr")
    stemstore.pack_store(tmp_path / "a.zarr", tmp_path / "b.zarr.zip")
    shutil.rmtree(tmp_path / "a.zarr")
    report = export(tmp_path / "b.zarr.zip", tmp_path / "a.json")
    assert report.files == [f"file://{tmp_path}/b.zarr.zip"]
    np.testing.assert_array_equal(opened(tmp_path / "a.json").intensity.values, FRAMES)


def test_saved_calibration_is_carried(tmp_path):
    """Origins and units that were saved in a store come with its references; an image of the detector is named."""
    stemstore.convert(made(tmp_path), tmp_path / "a.zarr")
    origin = tuple(xr.DataArray(np.linspace(2, at, 35).reshape(5, 7), dims=("y", "x")) for at in (3, 4))
    values = {"origin": origin, "mask": np.ones((6, 9), bool), "beam_energy": 200}
    save_calibration(values, tmp_path / "a.zarr")
    report = export(tmp_path / "a.zarr", tmp_path / "a.json")
    truth, found = stemstore.open(tmp_path / "a.zarr"), opened(tmp_path / "a.json")
    np.testing.assert_array_equal(found.origin_ky.values, truth.origin_ky.values)
    assert found.attrs["beam_energy_keV"] == 200
    assert "mask of the detector are not written" in " ".join(report.notes)


@pytest.mark.parametrize("ending", [*forms(*FORMS)])
@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_missing_frames_have_no_reference(tmp_path, ending, dtype):
    """Of a scan that was stopped, frames that are nowhere read as zero, or NaN for floats, and `valid` says which."""
    raw = made(tmp_path, FRAMES.reshape(35, 6, 9).astype(dtype))
    report = export(raw, tmp_path / ending, scan_shape=(6, 7))
    found, chunks = opened(tmp_path / ending), report.n_references + report.n_missing
    assert report.n_missing * 6 == chunks
    assert any("valid says which" in note for note in report.notes)
    assert found.intensity.dtype == dtype
    np.testing.assert_array_equal(found.intensity.values[:5], FRAMES.astype(dtype))
    np.testing.assert_array_equal(found.intensity.values[5], np.full((7, 6, 9), np.nan if dtype == "f4" else 0))
    np.testing.assert_array_equal(found.valid.values, np.repeat([2, 2, 2, 2, 2, 0], 7).reshape(6, 7))
    assert "valid" in found.coords


@pytest.mark.parametrize("ending", [*forms("a.json")])
def test_files_with_odd_names(tmp_path, ending):
    """Blanks and marks that URLs reserve do no harm."""
    raw = made(tmp_path / "a scan #1 50%", name="x y#2.npy")
    export(raw, tmp_path / ending)
    np.testing.assert_array_equal(opened(tmp_path / ending).intensity.values, FRAMES)


@pytest.mark.parametrize("ending", [*forms("a.json")])
def test_files_that_will_be_moved(tmp_path, ending):
    """With a prefix, references lead to where the files will be, whatever lies where they were."""
    paths = [made(tmp_path / "here" / f"part{at}", FRAMES.reshape(35, 6, 9)[at * 5 :][:5], "x.npy") for at in range(7)]
    stated = {"shape": (5, 7, 6, 9), "dtype": "<u2", "offset": 128, "reader": "raw_binary"}
    there = tmp_path / "there" / "raw"
    report = export(paths, tmp_path / ending, prefix=f"file://{there}", **stated)
    assert report.files[6] == f"file://{there}/part6/x.npy"
    shutil.move(tmp_path / "here", there)
    np.testing.assert_array_equal(opened(tmp_path / ending, allow=f"{there.as_uri()}/").intensity.values, FRAMES)


def test_store_that_will_be_moved(tmp_path):
    """A prefix takes the place of the folder of a store, whose name stays."""
    stemstore.convert(made(tmp_path), tmp_path / "a.zarr")
    report = export(tmp_path / "a.zarr", tmp_path / "a.json", prefix="s3://bucket/raw/")
    assert report.files[0] == "s3://bucket/raw/a.zarr/intensity/c/0/0/0/0"


@pytest.mark.parametrize("ending", [*forms("a.json")][:2])
def test_relative_references(tmp_path, ending, monkeypatch):
    """An empty prefix gives paths relative to the folder, which may be moved as a whole."""
    export(made(tmp_path / "here"), tmp_path / "here" / ending, prefix="")
    shutil.move(tmp_path / "here", tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    np.testing.assert_array_equal(opened(ending).intensity.values, FRAMES)


@pytest.mark.parametrize("ending", [*forms("a.json")][:2])
def test_references_on_a_web_server(tmp_path, ending):
    """Pixels come by range requests from a server that holds the file; the references are read from there as well."""
    pytest.importorskip("aiohttp")
    raw = made(tmp_path)
    with FileServer(tmp_path) as server:
        export(raw, tmp_path / ending, prefix=server.url)
        options = {"remote_options": {"asynchronous": True}}
        np.testing.assert_array_equal(opened(tmp_path / ending, "http", **options).intensity.values, FRAMES)


def test_raw_files_on_a_web_server(tmp_path):
    """A file that lies on a server is referred to there."""
    pytest.importorskip("aiohttp")
    made(tmp_path)
    with FileServer(tmp_path) as server:
        report = export(f"{server.url}/scan.npy", tmp_path / "a.json")
        assert report.files == [f"{server.url}/scan.npy"]
        found = opened(tmp_path / "a.json", "http", remote_options={"asynchronous": True})
        np.testing.assert_array_equal(found.intensity.values, FRAMES)


@pytest.mark.parametrize("ending", [*forms("a.json")])
def test_references_say_what_they_were_made_from(tmp_path, ending):
    """Size and time of a raw file, or identity and digest of a store, are in the attributes."""
    raw = made(tmp_path)
    stemstore.convert(raw, tmp_path / "a.zarr")
    export(raw, tmp_path / ending)
    export(tmp_path / "a.zarr", tmp_path / f"b{ending}")
    (of_file,), (of_store,) = (origin(opened(tmp_path / name))["sources"] for name in (ending, f"b{ending}"))
    assert (of_file["path"], of_file["size"]) == (str(raw), raw.stat().st_size)
    assert of_file["mtime"].startswith("20")
    assert of_store["uuid"] == stemstore.open(tmp_path / "a.zarr").attrs["stemstore_uuid"]
    assert of_store["digest"]


def test_icechunk_refuses_a_replaced_file(tmp_path):
    """A file that was changed after the references were made is not read."""
    icechunk = pytest.importorskip("icechunk")
    raw = made(tmp_path)
    export(raw, tmp_path / "a.icechunk")
    later = raw.stat().st_mtime + 60
    os.utime(raw, (later, later))
    with pytest.raises(icechunk.IcechunkError, match="has changed"):
        opened(tmp_path / "a.icechunk").intensity.load()


def test_document_is_what_its_form_demands(tmp_path):
    """The JSON is version 1, its keys are Zarr's of format 2, and consolidated metadata repeat the others."""
    export(made(tmp_path), tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    refs = document["refs"]
    assert document["version"] == 1
    assert refs["intensity/0.0.0.0"] == [f"file://{tmp_path}/scan.npy", 128, FRAMES.nbytes]
    metadata = json.loads(refs[".zmetadata"])["metadata"]
    assert metadata == {key: json.loads(refs[key]) for key in refs if ".z" in key and key != ".zmetadata"}
    assert metadata["intensity/.zarray"]["fill_value"] is None
    assert metadata["intensity/.zattrs"]["coordinates"] == "kx_pixel ky_pixel x_pixel y_pixel"


def test_parquet_in_several_records(tmp_path, monkeypatch):
    """References that fill several files, one of them the last without its full number, lead to their pixels."""
    pytest.importorskip("fastparquet")
    monkeypatch.setattr("stemstore.exchange.kerchunk.RECORD", 16)
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    export(made(tmp_path, FRAMES.reshape(35, 6, 9)), tmp_path / "a.parq", scan_shape=(6, 7))
    assert sorted(path.name for path in (tmp_path / "a.parq" / "intensity").iterdir()) == [
        "refs.0.parq",
        "refs.1.parq",
        "refs.2.parq",
    ]
    found = opened(tmp_path / "a.parq").intensity
    np.testing.assert_array_equal(found.values, np.concatenate([FRAMES, np.zeros_like(FRAMES[:1])]))


def test_record_of_missing_references_alone(tmp_path, monkeypatch):
    """A Parquet file all of whose references are missing is read as any other."""
    pytest.importorskip("fastparquet")
    monkeypatch.setattr("stemstore.exchange.kerchunk.RECORD", 7)
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    export(made(tmp_path, FRAMES.reshape(35, 6, 9)), tmp_path / "a.parq", scan_shape=(6, 7))
    np.testing.assert_array_equal(opened(tmp_path / "a.parq").intensity.values[5], np.zeros((7, 6, 9)))


def test_file_that_changes_meanwhile(tmp_path, monkeypatch):
    """References to a file that is replaced while they are made are not written."""
    from stemstore.sources.records import RecordSource

    raw, real = made(tmp_path), RecordSource.frame_extents

    def replaced(self, start, stop):
        made(tmp_path, FRAMES[:2])
        return real(self, start, stop)

    monkeypatch.setattr(RecordSource, "frame_extents", replaced)
    with pytest.raises(StaleStoreError, match="was changed after it was opened"):
        export(raw, tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def test_events_are_refused_with_the_ways_out(tmp_path, store):
    """Electron events have no pixels; the message names what can be done."""
    export(store, tmp_path / "b.toml")
    for source in (store, tmp_path / "b.toml"):
        with pytest.raises(InputError, match=r"holds electron events, .*'raw-csr', .*count=False\)"):
            export(source, tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def test_frames_of_stores_made_of_events_are_referred_to(tmp_path, store):
    """The way out that the message names is one."""
    stemstore.convert(store, tmp_path / "frames.zarr", count=False)
    export(tmp_path / "frames.zarr", tmp_path / "a.json")
    truth = stemstore.open(store).intensity.values
    np.testing.assert_array_equal(opened(tmp_path / "a.json").intensity.values, truth)


def test_packed_frames_are_refused_with_the_way_out(tmp_path):
    """Frames that are spread or compressed cannot be referred to; convert them."""
    raw = made(tmp_path, np.asfortranarray(FRAMES))
    with pytest.raises(InputError, match=r"are packed, compressed or spread over the file, .*stemstore\.convert"):
        export(raw, tmp_path / "a.json")


def test_damaged_shard_is_found(tmp_path):
    """A shard that is gone is named when references are made."""
    stemstore.convert(made(tmp_path), tmp_path / "a.zarr")
    (tmp_path / "a.zarr/intensity/c/0/0/0/0").unlink()
    with pytest.raises(CorruptDataError, match="is missing; restore it"):
        export(tmp_path / "a.zarr", tmp_path / "a.json")


@pytest.mark.parametrize("ending", [*forms(*FORMS)])
def test_only_own_references_are_replaced(tmp_path, ending):
    """Nothing is overwritten unasked, and asked only what was exported from here."""
    raw, target = made(tmp_path), tmp_path / ending
    export(raw, target)
    with pytest.raises(DestinationExistsError, match="exists; choose another name or pass overwrite=True"):
        export(raw, target)
    export(raw, target, scan_shape=(7, 5), overwrite=True)
    assert opened(target).intensity.shape == (7, 5, 6, 9)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([ending, "scan.npy"])
    if target.is_dir():
        shutil.rmtree(target)
        target.mkdir()
        (target / "precious").write_text("mine")
    else:
        target.write_text('{"mine": 1}')
    with pytest.raises(DestinationExistsError, match="was not exported from here, so it is not overwritten"):
        export(raw, target, overwrite=True)


def test_foreign_files_in_a_folder_of_references_stay(tmp_path):
    """A folder into which somebody put a file is no longer ours to replace."""
    pytest.importorskip("fastparquet")
    raw = made(tmp_path)
    export(raw, tmp_path / "a.parquet")
    (tmp_path / "a.parquet" / "valid").mkdir()
    (tmp_path / "a.parquet" / "valid" / "notes.txt").write_text("mine")
    with pytest.raises(DestinationExistsError, match="remove it yourself"):
        export(raw, tmp_path / "a.parquet", overwrite=True)


@pytest.mark.parametrize("ending", [*forms("a.json")])
def test_failure_leaves_nothing_behind(tmp_path, ending, monkeypatch):
    """Where the device refuses in the middle, the old references stay and nothing new appears."""
    raw = made(tmp_path)
    export(raw, tmp_path / ending)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stemstore.exchange.place._make_durable", full)
    with pytest.raises(stemstore.errors.StorageError, match="No space left"):
        export(raw, tmp_path / ending, scan_shape=(7, 5), overwrite=True)
    assert opened(tmp_path / ending).intensity.shape == (5, 7, 6, 9)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("target", "options", "text"),
    [
        ("a.h5", {"prefix": "s3://b"}, "prefix='s3://b' is for references, not for stempy files"),
        ("a.txt", {}, "or .* for kerchunk; .*icechunk for icechunk"),
        ("scan.npy", {"to": "kerchunk", "overwrite": True}, "is read and cannot be written in the same step"),
        ("s3://bucket/a.json", {}, "is not on this machine"),
    ],
)
def test_wrong_arguments(tmp_path, target, options, text):
    """What is wrong is said before anything is written."""
    raw = made(tmp_path)
    before = raw.read_bytes()
    with pytest.raises(InputError, match=text):
        export(raw, target if "://" in target else tmp_path / target, **options)
    assert raw.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npy"]


@pytest.mark.parametrize(("prefix", "text"), [("", "reads absolute URLs only"), ("ftp://x", "not 'ftp'")])
def test_icechunk_takes_few_kinds_of_urls(tmp_path, prefix, text):
    """What Icechunk cannot read is refused, and no repository is left."""
    pytest.importorskip("icechunk")
    with pytest.raises(InputError, match=text):
        export(made(tmp_path), tmp_path / "a.icechunk", prefix=prefix)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npy"]


@pytest.mark.parametrize(("ending", "package"), [("a.parquet", "fastparquet"), ("a.icechunk", "icechunk")])
def test_missing_packages_are_named(tmp_path, monkeypatch, ending, package):
    """What has to be installed is said before anything is read."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionalDependencyError, match=rf"need the package {package}; pip install .*\.json"):
        export(tmp_path / "absent.npy", tmp_path / ending)


def test_frames_are_joined_only_where_they_follow_each_other():
    """A chunk is a run of one file that divides the scan; gaps, other files and missing frames cut it."""
    offset = np.arange(24).reshape(4, 6) * 10
    none = np.zeros_like(offset)
    assert together(none, offset, 10) == (4, 6)
    assert together(none, offset * 2, 10) == (1, 1)
    assert together(none[:, :4], offset[:, :4], 10) == (1, 4)  # cut columns part the rows
    lost = offset.copy()
    lost[2:] = -1
    assert together(none, lost, 10) == (2, 6)
    lost[1, 3:] = -1
    assert together(none, lost, 10) == (1, 3)
    files = np.repeat([0, 1], 12).reshape(4, 6)
    assert together(files, offset, 10) == (2, 6)


@given(st.data())
def test_chunks_hold_the_bytes_of_their_frames(data):
    """Whatever lies where, the bytes from a chunk's first frame on are those of all its frames, or none is there."""
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    size = math.prod(shape)
    steps = data.draw(st.lists(st.sampled_from([5, 5, 5, 5, 9]), min_size=size, max_size=size))
    offset = np.cumsum(steps).reshape(shape)
    if data.draw(st.booleans()):
        offset[offset > data.draw(st.integers(0, int(offset.max())))] = -1
    number = np.where(np.arange(size) < data.draw(st.integers(0, size)), 0, 1).reshape(shape)
    chunk = together(number, offset, 5)
    for corner in np.ndindex(*(n // c for n, c in zip(shape, chunk, strict=True))):
        part = tuple(slice(at * c, (at + 1) * c) for at, c in zip(corner, chunk, strict=True))
        places, files = offset[part].reshape(-1), number[part].reshape(-1)
        if (places == -1).all():
            continue
        assert len(set(files.tolist())) == 1
        np.testing.assert_array_equal(places, places[0] + 5 * np.arange(len(places)))


def test_chunks_stay_small(monkeypatch):
    """No more frames are joined than a chunk may have bytes."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 45)
    offset = np.arange(24).reshape(4, 6) * 10
    assert together(np.zeros_like(offset), offset, 10) == (1, 3)


def test_common_folders():
    """What several files share is found by whole names."""
    assert common_folder(["/a/bc/x", "/a/bd/y"]) == "/a"
    assert common_folder(["/a/b/x", "/a/b/c/y"]) == "/a/b"
    assert common_folder(["s3://b/x/y.mib"]) == "s3://b/x"
