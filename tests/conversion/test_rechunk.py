"""Stores laid out anew: the same pixels or events and all that is kept beside them, in other pieces."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.conversion.rechunk import rechunk_store
from stemstore.errors import ChunkingError, InputError, MemoryBudgetError, NotFoundError, UnknownFormatError
from stemstore.store.open import open_store
from stemstore.store.stream import ShardedArray
from stemstore.store.verify import verify_store

LIMITS = {"background_threshold": 40, "xray_threshold": 500}


@pytest.fixture
def dense(tmp_path, raw):
    """Convert the frames to a dense store."""
    stemstore.convert(raw, tmp_path / "dense.zarr", beam_energy=300, scan_step="0.5 nm", count=False)
    return tmp_path / "dense.zarr"


@pytest.fixture
def counted(tmp_path, raw):
    """Count the frames, with the energy of every electron."""
    stemstore.convert(raw, tmp_path / "counted.zarr", count=True, **LIMITS, event_columns="energy")
    return tmp_path / "counted.zarr"


def layout_of(store):
    """Chunks and shards of the frames or events of a store, as its plain metadata say."""
    root = json.loads((store / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    node = root.get("intensity") or root["events/gap"]
    shard = node["chunk_grid"]["configuration"]["chunk_shape"]
    return tuple(node["codecs"][0]["configuration"]["chunk_shape"]), tuple(shard)


def test_everything_stays_but_the_pieces(tmp_path, dense, camera_frames):
    """Pixels, axes and all that the store says stay; identity and one line of history are new."""
    report = rechunk_store(dense, tmp_path / "b.zarr", chunks=(2, 3, 8, 5), shards=(4, 6))
    assert layout_of(tmp_path / "b.zarr") == ((2, 3, 8, 5), (4, 6, 24, 20))
    before, after = open_store(dense).document, open_store(tmp_path / "b.zarr").document
    np.testing.assert_array_equal(stemstore.open(report.url).intensity.values, camera_frames)
    np.testing.assert_array_equal(zarr.open(tmp_path / "b.zarr", mode="r")["intensity"][:], camera_frames)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "b.zarr").intensity.values, camera_frames)
    assert after.uuid != before.uuid
    assert after.history[:-1] == before.history
    assert after.model_copy(update={"uuid": before.uuid, "history": before.history}) == before
    last = after.history[-1]
    assert (last.operation, last.inputs[0].uuid) == ("rechunk", before.uuid)
    assert last.parameters == {"profile": "fast", "chunks": [2, 3, 8, 5], "shards": [4, 6]}
    assert verify_store(tmp_path / "b.zarr") == []
    assert stemstore.validate(tmp_path / "b.zarr", deep=True).valid


def test_summaries_are_those_of_the_frames(tmp_path, dense):
    """Images and patterns that are made on the way do not depend on the pieces."""
    rechunk_store(dense, tmp_path / "b.zarr", chunks=(3, 2, 7, 18), shards=(3, 2), max_memory="16MiB")
    old, new = (zarr.open(store, mode="r")["summary"] for store in (dense, tmp_path / "b.zarr"))
    assert sorted(old) == sorted(new)
    for name in old:
        np.testing.assert_array_equal(new[name][:], old[name][:])


@pytest.mark.parametrize("profile", ["balanced", pytest.param("raw", marks=pytest.mark.slow), None])
def test_events_stay_what_they_are(tmp_path, counted, profile):
    """Events and what is known of each go over to other blocks; how they were counted stays."""
    report = rechunk_store(counted, tmp_path / "b.zarr", profile=profile, chunks=5, shards=15)
    old, new = open_store(counted), open_store(tmp_path / "b.zarr")
    assert (new.frames_per_block, new.head.arrays["events/gap"].shard[0]) == (5, 3)
    ours, theirs = (scan.read_events(0, 42) for scan in (old, new))
    np.testing.assert_array_equal(theirs.indptr, ours.indptr)
    np.testing.assert_array_equal(theirs.indices, ours.indices)
    energies = [stemstore.event_columns(stemstore.open(store)).energy for store in (counted, tmp_path / "b.zarr")]
    np.testing.assert_array_equal(*energies)
    assert new.document.counting == old.document.counting
    assert report.n_events == len(ours.indices)


@pytest.mark.parametrize("kind", ["dense", "counted"])
def test_what_is_kept_beside_the_scan_goes_over(request, tmp_path, kind):
    """Saved calibration and saved results are those of the old store, and belong to the new one."""
    store = request.getfixturevalue(kind)
    mask = np.ones((20, 18), bool)
    stemstore.save_calibration({"beam_energy": 200, "mask": mask}, store)
    stemstore.save(stemstore.center_of_mass(stemstore.open(store)), store, "com", parameters={"note": "why"})
    stemstore.save(stemstore.mean_pattern(stemstore.open(store)), store, "mean")
    report = rechunk_store(store, tmp_path / "b.zarr", profile="small")
    assert report.warnings == []
    new = stemstore.open(tmp_path / "b.zarr")
    assert new.attrs["beam_energy_keV"] == stemstore.open(store).attrs["beam_energy_keV"] == 200
    np.testing.assert_array_equal(new.mask, mask)
    assert sorted(stemstore.results(new)) == ["com", "mean"]
    for name in ("com", "mean"):
        old, brought = stemstore.open_result(store, name), stemstore.open_result(new, name)
        xr.testing.assert_equal(brought, old)
        stemstore.save(brought, new, f"{name}_again")  # belongs to the new scan
    assert stemstore.validate(tmp_path / "b.zarr", deep=True).valid


def test_references_of_the_conversion_go_over(tmp_path, raw):
    """Images that the conversion applied and kept lie in the new store under their names."""
    dark = np.arange(360, dtype=np.float32).reshape(20, 18)
    stemstore.convert(raw, tmp_path / "a.zarr", count=True, dark=dark, **LIMITS)
    rechunk_store(tmp_path / "a.zarr", tmp_path / "b.zarr")
    stored = zarr.open(tmp_path / "b.zarr", mode="r")["calibration/counting_dark"]
    np.testing.assert_array_equal(stored[:], dark)


def test_verification_still_finds_the_raw_data(tmp_path, dense, counted):
    """The history leads from a store laid out twice to the file that it was made of."""
    for store in (dense, counted):
        rechunk_store(store, tmp_path / f"b-{store.name}", profile="balanced")
        rechunk_store(tmp_path / f"b-{store.name}", tmp_path / f"c-{store.name}", profile="raw")
        assert stemstore.verify(tmp_path / f"c-{store.name}").equal


def test_packed_stores_jobs_and_crates(tmp_path, raw, camera_frames):
    """A store is planned tiled, written by jobs, packed, laid out anew from the archive, and tells its origin."""
    plan = stemstore.plan_conversion(raw, tmp_path / "a.zarr", layout="tiled", shards=(8, 8), count=False)
    for task in range(plan.n_tasks):
        stemstore.convert_partition(tmp_path / "a.zarr", task)
    stemstore.finalise_conversion(tmp_path / "a.zarr")
    assert layout_of(tmp_path / "a.zarr") == ((8, 8, 20, 18), (8, 8, 20, 18))
    stemstore.save(stemstore.mean_pattern(stemstore.open(tmp_path / "a.zarr")), tmp_path / "a.zarr", "mean")
    stemstore.pack_store(tmp_path / "a.zarr", tmp_path / "a.zarr.zip")
    rechunk_store(tmp_path / "a.zarr.zip", tmp_path / "b.zarr", chunks=np.array([2, 2, 20, 18]))
    np.testing.assert_array_equal(stemstore.open(tmp_path / "b.zarr").intensity.values, camera_frames)
    assert list(stemstore.results(tmp_path / "b.zarr")) == ["mean"]
    text = Path(stemstore.crate(tmp_path / "b.zarr", tmp_path)).read_text()
    assert "rechunk" in text
    assert open_store(tmp_path / "a.zarr").uuid in text


def test_nothing_said_keeps_the_pieces(tmp_path, dense, counted):
    """Another codec alone leaves chunks and shards as they are, and the codec stays where only chunks are given."""
    for store, chunks in ((dense, (1, 1, 20, 9)), (counted, 6)):
        rechunk_store(store, tmp_path / f"b-{store.name}", chunks=chunks, profile="balanced")
        rechunk_store(tmp_path / f"b-{store.name}", tmp_path / f"c-{store.name}", profile="raw")
        rechunk_store(tmp_path / f"b-{store.name}", tmp_path / f"d-{store.name}", chunks=chunks)
        assert layout_of(tmp_path / f"c-{store.name}") == layout_of(tmp_path / f"b-{store.name}")
        codecs = [open_store(tmp_path / f"{one}-{store.name}").head.arrays for one in "bd"]
        path = next(path for path in ("intensity", "events/gap") if path in codecs[0])
        assert codecs[0][path].codec == codecs[1][path].codec


@pytest.mark.parametrize(
    "dtype", ["f4", *(pytest.param(one, marks=pytest.mark.slow) for one in ("u1", "i2", "u4", "f8"))]
)
def test_every_pixel_type(tmp_path, dtype):
    """Values of any type arrive as they are, those that are no numbers included."""
    values = np.random.default_rng(3).normal(50, 20, (5, 4, 9, 8)).astype(dtype)
    if values.dtype.kind == "f":
        values[2, 1, 3, 3] = np.nan
    np.save(tmp_path / "a.npy", values)
    stemstore.convert(tmp_path / "a.npy", tmp_path / "a.zarr", count=False)
    rechunk_store(tmp_path / "a.zarr", tmp_path / "b.zarr", layout="tiled")
    rechunk_store(tmp_path / "b.zarr", tmp_path / "c.zarr", chunks=(1, 3, 4, 3), shards=(2, 3))
    np.testing.assert_array_equal(stemstore.open(tmp_path / "c.zarr").intensity.values, values)


def test_missing_frames_stay_missing(tmp_path, raw):
    """Frames that were never recorded are marked in the new store as in the old one."""
    stemstore.convert(raw, tmp_path / "a.zarr", scan_shape=(8, 6))
    rechunk_store(tmp_path / "a.zarr", tmp_path / "b.zarr", chunks=(3, 4, 8, 8), shards=(3, 4))
    old, new = open_store(tmp_path / "a.zarr"), open_store(tmp_path / "b.zarr")
    np.testing.assert_array_equal(new.validity, old.validity)
    assert new.document.frames == old.document.frames
    assert new.document.frames.missing == 6


SHAPE = (9, 11, 10, 8)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Random frames in chunks and shards of which none divides an axis."""
    folder = tmp_path_factory.mktemp("odd")
    np.save(folder / "a.npy", np.random.default_rng(5).integers(0, 2**16, SHAPE, np.uint16))
    stemstore.convert(folder / "a.npy", folder / "a.zarr", chunks=(4, 2, 3, 5), shards=(4, 4), count=False)
    return folder


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_pieces(odd, tmp_path_factory, data):
    """Whatever is asked for is written and holds the same pixels; where memory allows, every chunk is decoded once."""
    chunks = tuple(data.draw(st.integers(n // 3, n + 3)) for n in SHAPE)
    shards = tuple(c * data.draw(st.integers(1, 3)) for c in chunks[:2])
    target = tmp_path_factory.mktemp("any") / "b.zarr"
    decoded, stream = [], ShardedArray.stream
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ShardedArray, "stream", lambda self, wanted, visit: (decoded.extend(wanted), stream(self, wanted, visit))[1]
        )
        rechunk_store(odd / "a.zarr", target, chunks=chunks, shards=shards, profile="raw", max_memory="32MiB")
    _, times = np.unique([(*shard, number) for shard, number in decoded], axis=0, return_counts=True)
    assert set(times) == {1}
    np.testing.assert_array_equal(zarr.open(target, mode="r")["intensity"][:], np.load(odd / "a.npy"))


def test_the_old_place_is_refused(tmp_path, dense):
    """A store is not written over while it is read; the message says how two stores change places."""
    for target in (dense, dense / "new.zarr"):
        with pytest.raises(InputError, match=r"overlap; .*mv scan.zarr old.zarr && mv new.zarr scan.zarr"):
            rechunk_store(dense, target, overwrite=True, profile="raw")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"layout": "cubes"}, "layout='cubes' is not known; choose from frames, tiled"),
        ({"layout": "tiled", "chunks": (2, 2, 4, 4)}, "exclude each other"),
        ({"chunks": (2, 2, 4)}, r"chunks=2x2x4 have 3 extents, expected 4"),
        ({"chunks": (2, 0, 4, 4)}, "no extents; give whole numbers above zero"),
        ({"chunks": 2.5}, "no extents"),
        ({"chunks": (2, True, 4, 4)}, "no extents"),
        ({"chunks": (2, 2, 4, 4), "shards": (3, 4)}, "shards=3x4 are no whole number of chunks of 2x2x4x4"),
        ({"chunks": (2, 2, 4, 4), "shards": (4, 4, 8, 8)}, "cut frames of 10x8; a shard is written at once"),
        ({"shards": (9, 9)}, "no whole number of chunks"),
        ({"shards": (8, 8, 8)}, "have 3 extents, expected 4 or 2"),
        ({"chunks": (4, 4, 10, 8), "max_memory": "20KB"}, "more than one may hold"),
        ({"max_memory": "1kB", "chunks": (1, 1, 10, 8)}, "one worker needs"),
    ],
)
def test_what_cannot_be_cut(tmp_path, odd, options, match):
    """Every mistake is told before anything is written."""
    with pytest.raises((ChunkingError, MemoryBudgetError), match=match):
        rechunk_store(odd / "a.zarr", tmp_path / "b.zarr", **options)
    assert not list(tmp_path.glob("b.zarr*"))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"layout": "tiled"}, "counted stores hold events"),
        ({"chunks": (2, 2, 4, 4)}, "give one number, the frames of a block"),
        ({"chunks": 4, "shards": 6}, "no whole number of chunks"),
    ],
)
def test_events_are_cut_into_runs(tmp_path, counted, options, match):
    """What makes sense for frames only is refused for events."""
    with pytest.raises(ChunkingError, match=match):
        rechunk_store(counted, tmp_path / "b.zarr", **options)


def test_what_is_no_finished_store(tmp_path, raw, dense):
    """Raw data are to be converted, and what is not there is not there."""
    with pytest.raises(UnknownFormatError, match="is not a stemstore store; convert raw data"):
        rechunk_store(raw, tmp_path / "b.zarr")
    with pytest.raises(NotFoundError, match="does not exist"):
        rechunk_store(tmp_path / "none.zarr", tmp_path / "b.zarr")
    with pytest.raises(InputError, match="workers=0"):
        rechunk_store(dense, tmp_path / "b.zarr", workers=0)
