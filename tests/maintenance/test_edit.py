"""Metadata change, pixels do not, and whoever kills the process at any moment finds a store."""

import json
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import ChecksumError, CorruptDataError, InputError, NotFoundError
from stemstore.maintenance import edit
from stemstore.maintenance.edit import EDIT, edit_store, finish_edit
from stemstore.maintenance.fields import editable
from stemstore.maintenance.pack import pack_store
from stemstore.store.local import LocalStorage
from stemstore.store.metadata import read_document
from stemstore.store.open import open_store
from stemstore.store.urls import open_storage
from stemstore_schemas import Quantity


@pytest.fixture
def store(kept, tmp_path):
    """Copy the dense store."""
    return Path(shutil.copytree(kept / "dense.zarr", tmp_path / "a.zarr"))


def problems(store):
    """What a deep look finds, apart from what is not known of the scan."""
    found = stemstore.validate(store, deep=True)
    return found.errors + [one for one in found.warnings if one.key == EDIT]


def test_a_change_is_made_and_recorded(store, shards, kept):
    """Old and new values are in report and history; pixels and identity are as they were, and all fits."""
    before = read_document(store)
    report = edit_store(store, {"acquisition.sample": "MoS2", "beam_energy": "80 keV"}, note="wrong session")
    after = read_document(store)
    assert (after.acquisition.sample, after.uuid) == ("MoS2", before.uuid)
    assert after.acquisition.beam_energy == Quantity(value=80, unit="keV", source="user")
    assert set(report.changes) == {"acquisition.sample", "acquisition.beam_energy"}
    assert report.changes["acquisition.sample"] == {"old": None, "new": "MoS2"}
    *earlier, last = after.history
    assert earlier == before.history
    assert last.operation == "edit"
    assert last.parameters == {"changes": report.changes, "note": "wrong session"}
    assert last.software["stemstore"] == stemstore.__version__
    assert problems(store) == []
    names = [path.relative_to(store) for path in shards(store)]
    assert all((store / name).read_bytes() == (kept / "dense.zarr" / name).read_bytes() for name in names)
    assert not (store / ".journal").exists()


def test_counted_stores_too(kept, tmp_path):
    """Events are no obstacle."""
    store = Path(shutil.copytree(kept / "counted.zarr", tmp_path / "c.zarr"))
    edit_store(store, {"scan_step": "0.2 nm"})
    assert problems(store) == []
    assert stemstore.open(store).y.values[1] == pytest.approx(0.2)


def test_steps_rewrite_coordinates_everywhere(store):
    """Our own opening, xarray's and the arrays themselves show the new axes."""
    edit_store(store, {"scan_step": ("0.2 nm", "400 pm"), "detector_step": "2 mrad"})
    ours = stemstore.open(store, calibration=False)
    np.testing.assert_allclose(ours.x.values, 0.4 * np.arange(9))
    with xr.open_zarr(store) as theirs:
        np.testing.assert_allclose(theirs.y.values, 0.2 * np.arange(10))
        np.testing.assert_allclose(theirs.kx.values, 2 * (np.arange(24) - 11.5))
        assert (theirs.x.attrs["units"], theirs.kx.attrs["units"]) == ("nm", "mrad")
        assert json.loads((store / "kx" / "zarr.json").read_text())["attributes"]["units"] == "mrad"
    assert problems(store) == []


def test_single_axes(store):
    """A new step leaves zero at its index; an origin may come with it, in any unit of length."""
    edit_store(store, {"axes.ky.step": "2 mrad", "axes.ky.origin": "-0.02 rad"})
    axes = {axis.name: axis for axis in read_document(store).axes}
    assert (axes["ky"].step, axes["ky"].origin, axes["ky"].unit, axes["ky"].source) == (2, -20, "mrad", "user")
    edit_store(store, {"axes.ky.step": 1})
    axes = {axis.name: axis for axis in read_document(store).axes}
    assert (axes["ky"].step, axes["ky"].origin) == (1, -10)
    edit_store(store, {"axes.ky.source": "measured"})
    assert problems(store) == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("acquisition.defocus", "1 um", 1000.0),
        ("acquisition.dwell_time", 0.001, 0.001),
        ("acquisition.flyback_columns", "2", 2),
        ("acquisition.scan_number", "42", 42),
        ("acquisition.operator", "42", "42"),
        ("detector.binning", "[2, 2]", (2, 2)),
        ("detector.transpose", "true", True),
        ("detector.pixel_size", "55 um, 55 um", (0.055, 0.055)),
        ("detector.thresholds", [30, "40 keV"], [30, 40]),
        ("camera_length", "0.1 m", 100.0),
    ],
)
def test_kinds_of_values(store, name, value, expected):
    """Texts become what the field holds; quantities are kept in their unit."""
    edit_store(store, {name: value})
    part, _, field = name.rpartition(".")
    found = getattr(getattr(read_document(store), part or "acquisition"), field)
    several = found if isinstance(found, (tuple, list)) else [found]
    wanted = expected if isinstance(expected, (tuple, list)) else [expected]
    assert [getattr(one, "value", one) for one in several] == list(wanted)


def test_emptying_and_changing_nothing(store, objects):
    """None empties a field; what is so already leaves no trace."""
    edit_store(store, {"acquisition.sample": "gold"})
    before = objects(store)
    assert edit_store(store, {"acquisition.sample": "gold"}).changes == {}
    assert edit_store(store).changes == {}
    assert objects(store) == before
    edit_store(store, {"acquisition.sample": None})
    assert read_document(store).acquisition.sample is None


@pytest.mark.parametrize(
    "name",
    [
        "uuid",
        "kind",
        "version",
        "profile",
        "encoding",
        "encoding.slots_per_chunk",
        "frames.valid",
        "history",
        "vendor.x",
        "counting.rule",
        "axes.kx.size",
        "axes.kx.name",
        "acquisition.scan_shape",
        "acquisition.sync_offset",
        "detector.shape",
        "detector.mask",
    ],
)
def test_what_describes_the_arrays_stays(store, objects, name):
    """These are facts about the store, and refused as such."""
    before = objects(store)
    with pytest.raises(InputError, match="describes what lies in the store"):
        edit_store(store, {name: 1})
    assert objects(store) == before


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"acquisition.smaple": "x"}, "no field that can be changed; choose one of acquisition"),
        ({"axes.kz.step": 1}, "no field that can be changed; choose one of axes"),
        ({"nonsense": 1}, "no field that can be changed"),
        ({"acquisition.beam_energy": "300 nm"}, "not understood"),
        ({"beam_energy": "fast"}, "not understood"),
        ({"axes.kx.step": 0}, "step 0"),
        ({"axes.kx.step": "1 kg"}, "cannot be changed so"),
        ({"axes.kx.unit": "furlong"}, "cannot be changed so"),
        ({"axes.y.origin": "3 mrad"}, "cannot be changed so"),
        ({"scan_step": -1}, "must be positive"),
        ({"acquisition.flyback_columns": "many"}, "cannot be changed so"),
        ({"detector.binning": "[0, 1]"}, "cannot be changed so"),
        ({"acquisition.start_time": "yesterday"}, "ISO 8601"),
        ({"acquisition.sample": "x", "beam_energy": -3}, "above zero"),
    ],
)
def test_wrong_values(store, objects, changes, match):
    """A value that does not fit is named, and nothing is written."""
    before = objects(store)
    with pytest.raises(InputError, match=match):
        edit_store(store, changes)
    assert objects(store) == before


def test_the_list_of_fields_is_right(store):
    """Every field that is listed exists in the document."""
    document = read_document(store)
    for name in editable(document):
        part, _, field = name.partition(".")
        assert part == "axes" or not field or hasattr(getattr(document, part), field)


def test_warnings_of_what_comes_first(store):
    """A saved calibration and axes made with another energy are told of."""
    (text,) = edit_store(store, {"beam_energy": 300}).warnings
    assert "beam_energy of the saved calibration" in text
    edit_store(store, {"detector_step": "0.01 1/angstrom"})
    assert any("state detector_step as well" in text for text in edit_store(store, {"beam_energy": 60}).warnings)


class StopError(OSError):
    """Ends a change in the middle."""


@pytest.mark.parametrize("number", range(8))
def test_killed_at_any_moment(store, monkeypatch, number):
    """Before the change is put down it has not happened; afterwards the store opens, and anyone finishes it."""
    scan = open_store(store)
    write, seen = LocalStorage._write, []

    def count(self, key, parts, **how):
        if len(seen) == number:
            raise StopError(5, "killed")
        seen.append(key)
        return write(self, key, parts, **how)

    def last(*_):
        raise StopError(5, "killed")

    monkeypatch.setattr(LocalStorage, "_write", count)
    monkeypatch.setattr(LocalStorage, "delete", last)
    with pytest.raises(StopError):
        edit_store(store, {"scan_step": 0.25, "acquisition.sample": "gold"})
    monkeypatch.undo()
    assert stemstore.open(store).sizes["x"] == 9
    scan.head.check_fresh()  # who had it open goes on
    sample = read_document(store).acquisition.sample
    if number:
        assert [one.key for one in problems(store) if one.severity == "warning"] == [EDIT]
    else:
        assert (problems(store), sample) == ([], None)
    report = edit_store(store)
    assert report.finished == bool(number)
    assert problems(store) == []
    assert read_document(store).acquisition.sample == ("gold" if number else None)
    assert [entry.operation for entry in read_document(store).history].count("edit") == bool(number)
    if number:
        assert stemstore.open(store).x.values[2] == 0.5


def test_the_order_of_writing(store, monkeypatch):
    """All that is new is put down first, and the commit object comes last."""
    write, seen = LocalStorage._write, []
    monkeypatch.setattr(
        LocalStorage, "_write", lambda self, key, *_, **how: seen.append(key) or write(self, key, *_, **how)
    )
    edit_store(store, {"scan_step": 0.25})
    assert seen == [EDIT, "y/c/0", "y/zarr.json", "x/c/0", "x/zarr.json", "zarr.json", "stemstore.commit.json"]


def test_an_interrupted_change_of_something_else(store, monkeypatch):
    """A change that was put down for other metadata is not carried out, and not thrown away."""
    monkeypatch.setattr(edit, "finish_edit", lambda _: False)
    edit_store(store, {"acquisition.sample": "gold"})
    monkeypatch.undo()
    root = store / "zarr.json"
    root.write_text(root.read_text() + " ")
    with pytest.raises(CorruptDataError, match="not of these metadata"):
        edit_store(store)
    assert (store / EDIT).exists()


@pytest.mark.parametrize("harm", ["away", "cut", "other"])
def test_a_change_that_is_none(store, tmp_path, harm):
    """What lies in the place of a change and is none writes nothing, least of all outside of the store."""
    (store / ".journal").mkdir()
    change = {"uuid": read_document(store).uuid, "before": "", "objects": {"../evil": "AAAA", "zarr.json": "AAAA"}}
    text = {"away": json.dumps(change), "cut": json.dumps(change)[:-9], "other": "[]"}[harm]
    (store / EDIT).write_text(text)
    with pytest.raises(CorruptDataError, match="not of these metadata"):
        edit_store(store, {"acquisition.sample": "gold"})
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("left", [[], [".edit.json.tmp-0123abcd"]])
def test_what_a_killed_change_left_goes_with_the_next(store, left):
    """A process that is killed before its change happened, or after, leaves an empty journal or a part of a file."""
    (store / ".journal").mkdir()
    for name in left:
        (store / ".journal" / name).write_bytes(b"{")
    assert not edit_store(store).finished
    assert not (store / ".journal").exists()
    assert not problems(store)


def test_metadata_that_others_changed_are_taken_when_asked(store):
    """A store with attributes of another program does not open; accepted, it does, and the history has both digests."""
    old = json.loads((store / "stemstore.commit.json").read_text())["metadata_digest"]
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["project"] = "grain boundaries"
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(ChecksumError, match="edit --accept"):
        stemstore.open(store)
    with pytest.raises(ChecksumError, match="edit --accept"):
        edit_store(store, {"acquisition.sample": "gold"})
    report = edit_store(store, {"acquisition.sample": "gold"}, note="project added by hand", accept=True)
    assert report.changes["zarr.json"]["old"] == old
    entry = open_store(store).document.history[-1]
    assert entry.parameters["changes"]["zarr.json"] == report.changes["zarr.json"]
    assert json.loads((store / "zarr.json").read_text())["attributes"]["project"] == "grain boundaries"
    assert not problems(store)
    assert edit_store(store, accept=True).changes == {}


def test_an_open_dataset_goes_on(store):
    """Pixels are read after the change as before it; tasks of other processes find the same identity."""
    scan = stemstore.open(store)
    first = scan.intensity[0].values
    edit_store(store, {"scan_step": 3})
    np.testing.assert_array_equal(scan.intensity[0].values, first)


def test_stores_on_a_server(store):
    """Any place that can be written."""
    there = f"memory://{store.parent.name}/edit.zarr"
    fsspec.filesystem("memory").put(str(store), there, recursive=True)
    edit_store(there, {"acquisition.sample": "gold", "scan_step": 2})
    assert read_document(there).acquisition.sample == "gold"
    assert problems(there) == []
    assert not finish_edit(open_storage(there))


def test_refusals(store, tmp_path):
    """Packed stores, metadata that were changed by hand, and nothing."""
    packed = pack_store(store, tmp_path / "a.zarr.zip").url
    with pytest.raises(InputError, match="packed store"):
        edit_store(packed, {"acquisition.sample": "gold"})
    root = store / "zarr.json"
    root.write_text(root.read_text() + " ")
    with pytest.raises(ChecksumError, match="has the digest"):
        edit_store(store, {"acquisition.sample": "gold"})
    with pytest.raises(NotFoundError, match="nowhere"):
        edit_store(tmp_path / "nowhere.zarr", {})
