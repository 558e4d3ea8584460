"""Energies and places of electrons from raw frames to a list per selection."""

import math

import numpy as np
import pytest
from typer.testing import CliRunner

import stemstore
from stemstore.cli.main import app
from stemstore.errors import ChecksumError, CorruptDataError, InputError, MemoryBudgetError
from stemstore.exchange.run import export
from stemstore.kernels.counting import Limits
from stemstore.kernels.event_columns import measure_events
from stemstore.ops.imaging.event_columns import event_columns
from stemstore.store.metadata import read_document
from stemstore.store.verify import verify_store

BOTH = ("energy", "position")
SHAPE = (7, 6, 20, 18)


def camera(dtype=np.uint16):
    """Make frames: pedestal, noise, and electrons that leave charge in pixels beside them."""
    rng = np.random.default_rng(5)
    hit = rng.random(SHAPE) < 0.02
    charge = 60.0 * hit
    charge[..., 1:, :] += 25.0 * hit[..., :-1, :]
    charge[..., :-1] += 15.0 * hit[..., 1:]
    frames = rng.normal(20.5, 1.8, SHAPE) + charge
    return np.rint(frames).clip(0).astype(dtype)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Write the frames as a file."""
    path = tmp_path_factory.mktemp("raw") / "scan.npy"
    np.save(path, camera())
    return path


@pytest.fixture(scope="module")
def counted(raw):
    """Count the frames with all columns."""
    stemstore.convert(raw, raw.parent / "counted.zarr", count=True, event_columns=BOTH)
    return raw.parent / "counted.zarr"


def listed(url, **selection):
    """List events with their columns as plain arrays."""
    return {name: values.values for name, values in event_columns(stemstore.open(url).isel(**selection)).items()}


@pytest.mark.parametrize("rule", ["stemstore", "stempy"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_columns_are_those_of_the_kernel(tmp_path, rule, dtype):
    """Counting a file stores what the kernel measures, with the fitted pedestal; integers are rounded to 16 bits."""
    frames = camera(dtype)
    np.save(tmp_path / "a.npy", frames)
    report = stemstore.convert(tmp_path / "a.npy", tmp_path / "a.zarr", count=True, rule=rule, event_columns=BOTH)
    (region,) = report.thresholds["regions"]
    peak = region["peak"]
    limits = Limits.make((20, 18), frames.dtype, region["background"], region["xray"], rule)
    stack = frames.reshape(-1, 20, 18)
    indptr, indices, _ = limits.count(stack)
    levels = np.full((20, 1), peak["mean"]), np.full((20, 1), peak["mean"] + 2 * peak["width"])
    energy, offsets = measure_events(stack, indptr, indices, limits, levels)
    found = listed(tmp_path / "a.zarr")
    np.testing.assert_array_equal(found["frame"], np.repeat(np.arange(42), np.diff(indptr)))
    np.testing.assert_array_equal(found["ky"] * 18 + found["kx"], indices)
    np.testing.assert_array_equal(np.stack([found["offset_ky"], found["offset_kx"]], axis=1), offsets / 128)
    expected = np.rint(energy).astype(np.uint16) if dtype is np.uint16 else energy.astype(np.float32)
    assert found["energy"].dtype == expected.dtype
    np.testing.assert_array_equal(found["energy"], expected)
    assert np.median(found["energy"]) == pytest.approx(100, abs=4)
    assert verify_store(tmp_path / "a.zarr") == []


@pytest.mark.parametrize(
    "options",
    [
        {"gain": np.full((20, 18), 0.5)},
        {"xray_threshold": math.inf},
        {"background_threshold": 40, "xray_threshold": 500, "dark": np.full((20, 18), 3.0)},
        {"row_dark": "median", "threshold": "half-row"},
    ],
)
def test_corrected_values_and_stated_thresholds(tmp_path, raw, options):
    """Energies are of corrected values; the pedestal is fitted where thresholds made that needless."""
    report = stemstore.convert(raw, tmp_path / "a.zarr", count=True, event_columns="energy", **options)
    found = event_columns(stemstore.open(tmp_path / "a.zarr"))
    assert set(found) == {"frame", "ky", "kx", "energy"}
    scale = 0.5 if "gain" in options else 1
    assert np.median(found.energy) == pytest.approx(100 * scale, abs=4 * scale)
    wide = "gain" in options or "row_dark" in options or options.get("xray_threshold") == math.inf
    assert found.energy.dtype == (np.float32 if wide else np.uint16)
    counting = read_document(tmp_path / "a.zarr").counting
    assert all(region.pedestal_mean is not None for region in counting.regions)
    assert len(counting.regions) == (2 if "threshold" in options else 1)
    assert report.thresholds["pedestal_mean"] is None or "background_threshold" not in options


def test_the_events_are_those_without_columns(tmp_path, raw, counted):
    """Columns change no event, and a store without them has no trace of them."""
    stemstore.convert(raw, tmp_path / "a.zarr", count=True)
    plain = stemstore.open(tmp_path / "a.zarr")
    np.testing.assert_array_equal(plain.intensity.values, stemstore.open(counted).intensity.values)
    assert sorted(path.name for path in (tmp_path / "a.zarr/events").iterdir()) == ["gap", "n_slots", "zarr.json"]
    with pytest.raises(InputError, match="has no event columns; count the raw frames again"):
        event_columns(plain)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(tmp_path, raw, counted, workers):
    """Every shard is the same, byte for byte."""
    stemstore.convert(raw, tmp_path / "a.zarr", count=True, event_columns=BOTH, workers=workers)
    shards = sorted(path.relative_to(counted) for path in (counted / "events").rglob("c/*/*"))
    assert len(shards) == 5
    assert all((counted / path).read_bytes() == (tmp_path / "a.zarr" / path).read_bytes() for path in shards)


def test_selections(counted):
    """Events come in the order of the selected frames, those outside of the selected pixels are left out."""
    whole, stored = listed(counted), np.arange(42).reshape(7, 6)
    chosen = {"y": slice(5, 1, -2), "x": [4, 0, 3], "ky": slice(3, 15), "kx": slice(None, None, 2)}
    found = listed(counted, **chosen)
    picked = stored[5:1:-2][:, [4, 0, 3]].reshape(-1)
    rows = []
    for place, frame in enumerate(picked):
        mine = (whole["frame"] == frame) & (whole["ky"] >= 3) & (whole["ky"] < 15) & (whole["kx"] % 2 == 0)
        rows.append(
            {name: np.full(mine.sum(), place) if name == "frame" else column[mine] for name, column in whole.items()}
        )
    for name, values in found.items():
        np.testing.assert_array_equal(values, np.concatenate([row[name] for row in rows]))
    assert len(found["frame"]) >= 10
    one = event_columns(stemstore.open(counted).isel(y=2), names=["offset_kx"])
    assert list(one) == ["frame", "ky", "kx", "offset_kx"]
    assert one.attrs["scan_dims"] == ["x"]
    assert one.attrs["scan_shape"] == [6]
    assert len(listed(counted, y=slice(0, 0))["energy"]) == 0


def test_what_is_no_selection_of_a_counted_store(counted, raw):
    """Raw files, changed arrays and thinned scans have no columns, nor has any store one that is not known."""
    scan = stemstore.open(counted)
    for other in (stemstore.open(raw), scan.intensity * 2, stemstore.thin(scan, 0.5, seed=1)):
        with pytest.raises(InputError, match="no selection of a counted store"):
            event_columns(other)
    with pytest.raises(InputError, match=r"has only energy, offset_ky, offset_kx, not 'time'"):
        event_columns(scan, "time")


def test_lists_that_exceed_the_budget_are_refused(counted, monkeypatch):
    """The memory is known before anything is read."""
    monkeypatch.setenv("STEMSTORE_MAX_MEMORY", "1KiB")
    scan = stemstore.open(counted)
    with pytest.raises(MemoryBudgetError, match="select fewer frames"):
        event_columns(scan)
    assert len(event_columns(scan.isel(y=0, x=0)).event) > 0


def test_damaged_columns_are_noticed(tmp_path, raw):
    """A flipped bit in a column is an error where the column is read, and nowhere else."""
    url = tmp_path / "a.zarr"
    stemstore.convert(raw, url, count=True, event_columns=BOTH)
    shard = url / "events/energy/c/0/0"
    body = bytearray(shard.read_bytes())
    body[40] ^= 16
    shard.write_bytes(bytes(body))
    with pytest.raises(ChecksumError, match="events/energy"):
        event_columns(stemstore.open(url))
    assert len(event_columns(stemstore.open(url), "offset_kx").event) > 0
    assert "events/energy/c/0/0" in {problem.key for problem in verify_store(url)}


def test_stores_hand_their_columns_on(tmp_path, counted):
    """A counted store that is laid out anew keeps its columns; frames of it and exports say what stays behind."""
    stemstore.convert(counted, tmp_path / "a.zarr", profile="small")
    before, after = listed(counted), listed(tmp_path / "a.zarr")
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)
    assert verify_store(tmp_path / "a.zarr") == []
    with pytest.raises(InputError, match="event_columns cannot be used: the source is counted already"):
        stemstore.convert(counted, tmp_path / "b.zarr", event_columns="energy")
    dense = stemstore.convert(counted, tmp_path / "b.zarr", count=False)
    assert "energy, offset_ky, offset_kx of every event" in " ".join(dense.warnings)
    assert "energy, offset_ky, offset_kx of every event" in export(counted, tmp_path / "a.h5").not_carried


def test_columns_that_cannot_be_made(tmp_path, raw):
    """Unknown names, frames that are not counted, and frames without noise are told."""
    with pytest.raises(InputError, match=r"'time', which is not known; choose from energy, position"):
        stemstore.convert(raw, tmp_path / "a.zarr", count=True, event_columns=["time"])
    with pytest.raises(InputError, match="event_columns cannot be used: frames are stored as they are"):
        stemstore.convert(raw, tmp_path / "a.zarr", event_columns="energy")
    np.save(tmp_path / "flat.npy", np.zeros((4, 4, 8, 8), np.uint16))
    limits = {"background_threshold": 5, "xray_threshold": 50}
    with pytest.raises(CorruptDataError, match=r"rest on the pedestal, .* leave event_columns out"):
        stemstore.convert(tmp_path / "flat.npy", tmp_path / "a.zarr", count=True, event_columns="energy", **limits)
    assert not (tmp_path / "a.zarr").exists()


def test_command_line(tmp_path, raw):
    """The option of the command takes names between commas."""
    given = ["convert", str(raw), str(tmp_path / "a.zarr"), "--count", "--event-columns", "position, energy"]
    assert CliRunner().invoke(app, given).exit_code == 0
    assert read_document(tmp_path / "a.zarr").history[-1].parameters["event_columns"] == list(BOTH)
    assert len(event_columns(stemstore.open(tmp_path / "a.zarr")).energy) > 0
