"""The index of a series: replaced as a whole, never in the way of the scans, and checked before it is believed."""

import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import stemstore
from stemstore.conversion.series.run import convert_series
from stemstore.errors import (
    CorruptDataError,
    DestinationExistsError,
    FormatVersionError,
    InputError,
    NotFoundError,
    SeriesIncompleteError,
    UnknownFormatError,
)
from stemstore.scan.series.open import open_series
from stemstore.store.commit import digest
from stemstore.store.series.entry import index_series, orders_of, with_scans
from stemstore.store.series.index import change_series, is_series, open_series_group

SAVED = "calibration/saved/zarr.json"


@pytest.fixture
def data():
    """A small scan."""
    return np.random.default_rng(2).poisson(1.0, (4, 5, 8, 7)).astype(np.uint16)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """Where the stores are written once, to be copied by every test."""
    return tmp_path_factory.mktemp("once") / "experiment.zarr"


@pytest.fixture
def group(tmp_path, write_dense, data, once):
    """Three stores in a folder."""
    if not once.exists():
        for number in (1, 2, 10):
            write_dense(once / f"scan_{number}", data + number)
    return Path(shutil.copytree(once, tmp_path / once.name))


def contents(folder):
    """Every file below a folder with its bytes and time."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def change_root(folder, change):
    """Change the index by hand."""
    root = json.loads((folder / "zarr.json").read_text())
    change(root["attributes"]["stemstore"])
    (folder / "zarr.json").write_text(json.dumps(root))


def test_stores_of_a_folder_become_a_series(group):
    """Names come in natural order, with identity and place; the stores keep every byte."""
    before = contents(group)
    document = index_series(group, order=[-1.5, 0, 1.5], unit="deg", dim="tilt", title="wedge")
    assert [scan.name for scan in document.scans] == ["scan_1", "scan_2", "scan_10"]
    assert [scan.order for scan in document.scans] == [-1.5, 0.0, 1.5]
    assert open_series_group(group).document == document
    after = contents(group)
    assert after.keys() - before.keys() == {"zarr.json"}
    assert all(after[key] == before[key] for key in before)


def test_new_stores_are_added(group, write_dense, data):
    """A scan that appears later is added at the end; identity, entries and stores of the others stay."""
    first = index_series(group)
    assert index_series(group) == first  # nothing new: the index is not even written
    stores = contents(group)
    write_dense(group / "scan_3", data)
    second = index_series(group, title="later")
    assert (second.uuid, second.scans[:3]) == (first.uuid, first.scans)
    assert second.scans[3].name == "scan_3"
    assert all(contents(group)[key] == stores[key] for key in stores if key != "zarr.json")


def test_other_programs_see_a_group(group):
    """Zarr and xarray open the whole series as what it is: a Zarr group of groups."""
    index_series(group)
    assert sorted(name for name, _ in zarr.open_group(str(group), mode="r").members()) == [
        "scan_1",
        "scan_10",
        "scan_2",
    ]
    tree = xr.open_datatree(group, engine="zarr", consolidated=False)
    assert tree["scan_2"].intensity.shape == (4, 5, 8, 7)


def test_attributes_of_others_stay(group):
    """What somebody else keeps in the attributes of the group is carried on; lists of nodes are not."""
    index_series(group)
    root = json.loads((group / "zarr.json").read_text())
    root["attributes"]["project"] = "P7"
    root["consolidated_metadata"] = {"metadata": {}, "kind": "inline", "must_understand": False}
    (group / "zarr.json").write_text(json.dumps(root))
    index_series(group, title="new")
    root = json.loads((group / "zarr.json").read_text())
    assert root["attributes"]["project"] == "P7"
    assert "consolidated_metadata" not in root


def test_unfinished_stores_are_left_out(group, data, make_document, small_layout):
    """What is being written, and what is no store, is no scan yet."""
    from stemstore.store.writer import StoreWriter

    StoreWriter.init(group / "scan_4", make_document(data.shape), small_layout(data))
    (group / "notes").mkdir()
    (group / "readme.txt").write_text("…")
    assert [scan.name for scan in index_series(group).scans] == ["scan_1", "scan_2", "scan_10"]


def test_replaced_and_lost_stores_are_taken_as_they_are(group, write_dense, data):
    """With `renew` the index follows the stores: gone ones leave, exchanged ones are entered anew in their place."""
    first = index_series(group, order={"scan_1": 0, "scan_2": 1, "scan_10": 2}, unit="s")
    shutil.rmtree(group / "scan_1")
    shutil.rmtree(group / "scan_2")
    write_dense(group / "scan_2", data)
    assert index_series(group) == first
    document = index_series(group, renew=True)
    assert [(scan.name, scan.order) for scan in document.scans] == [("scan_10", 2.0), ("scan_2", 1.0)]
    assert document.scans[1].uuid != first.scans[1].uuid


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ([1, 2], "order has 2 places for 3 scans"),
        ({"scan_1": 1, "scan_2": 2, "scan_3": 3}, "differ in scan_10, scan_3"),
        ([1, 2, float("nan")], "place of scan 'scan_10' is nan; give a finite number"),
        ([1, 2, "late"], "place of scan 'scan_10' is 'late'"),
    ],
)
def test_wrong_orders_are_refused(group, order, reason):
    """Nothing is written where the places do not belong to the scans."""
    with pytest.raises(InputError, match=reason):
        index_series(group, order=order, unit="s")
    assert not is_series(group)


def test_the_axis_stays(group, write_dense, data):
    """Axis and unit of a series are those of its first scans, and a later scan needs a place as they have."""
    index_series(group, order=[1, 2, 3], unit="s")
    with pytest.raises(InputError, match="the series has dim 'time', not 'tilt'"):
        index_series(group, dim="tilt")
    write_dense(group / "scan_11", data)
    with pytest.raises(InputError, match=r"scan 'scan_1' of '.*' has a place along 'time', 'scan_11' has none"):
        index_series(group)
    assert [scan.order for scan in index_series(group, order=[4]).scans] == [1, 2, 3, 4]


def test_axes_have_names_of_their_own(group):
    """The axis in front cannot be called like one of the scans."""
    with pytest.raises(InputError, match=r"dim='ky' .*cannot be stored"):
        index_series(group, dim="ky")
    assert not is_series(group)


def test_the_same_scan_twice(group):
    """A copy of a store is no further scan."""
    index_series(group)
    shutil.copytree(group / "scan_1", group / "copy")
    with pytest.raises(DestinationExistsError, match=r"scan 'copy' cannot be entered: .* holds it, as scan 'scan_1'"):
        index_series(group)


def test_what_is_no_series(tmp_path, group, write_dense, data):
    """Nothing, an empty folder, a single scan and somebody else's group are told apart."""
    with pytest.raises(NotFoundError, match="no such place"):
        index_series(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="no finished store lies in it"):
        index_series(tmp_path / "empty")
    write_dense(tmp_path / "scan.zarr", data)
    with pytest.raises(UnknownFormatError, match=r"is no series of scans .*stemstore\.open"):
        open_series_group(tmp_path / "scan.zarr")
    zarr.create_group(str(tmp_path / "foreign.zarr"))
    with pytest.raises(UnknownFormatError, match="without the attribute 'stemstore', so no series"):
        open_series_group(tmp_path / "foreign.zarr")
    index_series(group)
    with pytest.raises(UnknownFormatError, match=r"is a series of scans; open it with stemstore\.open_series"):
        stemstore.open(group)


def test_newer_and_damaged_indices_are_refused(group):
    """An index of a newer release is not guessed at, nor one that contradicts itself; neither is written over."""
    index_series(group)
    good = (group / "zarr.json").read_bytes()
    change_root(group, lambda found: found.update(version=2))
    for call in (open_series_group, lambda url: index_series(url, title="x")):
        with pytest.raises(FormatVersionError, match="version 2, this release reads version 1"):
            call(group)
    (group / "zarr.json").write_bytes(good)
    change_root(group, lambda found: found["scans"].append(found["scans"][0]))
    for call in (open_series_group, lambda url: index_series(url, title="x")):
        with pytest.raises(CorruptDataError, match=r"damaged: (.|\n)*occurs twice(.|\n)*move zarr.json away"):
            call(group)
    (group / "zarr.json").write_bytes(good[:-20])
    with pytest.raises(CorruptDataError, match="not JSON"):
        open_series_group(group)


def test_no_conversion_replaces_a_series(group, tmp_path, data):
    """`overwrite` is for stores; a whole series is not removed by mistake."""
    index_series(group)
    np.save(tmp_path / "raw.npy", data)
    with pytest.raises(DestinationExistsError, match="is a series of scans, so it is not overwritten"):
        stemstore.convert(tmp_path / "raw.npy", group, overwrite=True)


def enter_at_once(url, entries):
    """Let a thread enter each scan, all at the same time."""

    def enter(entry):
        change_series(url, lambda before: with_scans(before, before.scans, [entry], ""))

    threads = [threading.Thread(target=enter, args=(entry,)) for entry in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def made_up(group, n):
    """Describe scans that nobody has written."""
    known = open_series_group(group).document.scans[0]
    return [known.model_copy(update={"name": f"n{i}", "path": f"n{i}", "uuid": str(uuid.uuid4()), "source": None})
            for i in range(n)]  # fmt: skip


def test_changes_at_the_same_time_are_all_there(group):
    """Threads that enter scans at once lose none."""
    index_series(group)
    more = made_up(group, 40)
    enter_at_once(group, more)
    assert {scan.name for scan in open_series_group(group).document.scans[3:]} == {entry.name for entry in more}
    assert not (group / ".stemstore.lock").exists()


@pytest.mark.slow
def test_changes_on_a_server_wait_for_each_other(group, s3):
    """The same holds where an object written under a condition is the lock."""
    index_series(group)
    url = stemstore.remote(s3.keep(group), endpoint_url=s3.proxy.url)
    more = made_up(group, 6)
    enter_at_once(url, more)
    assert {scan.name for scan in open_series_group(url).document.scans[3:]} == {entry.name for entry in more}
    assert not s3.fs.exists(f"{url.removeprefix('s3://')}/.stemstore.lock")


def test_a_lock_of_the_dead_is_not_for_ever(group, monkeypatch):
    """A lock that stays behind is removed after a while."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr("stemstore.store.series.index.LEASE", 0.2)
    (group / ".stemstore.lock").write_text("somebody")
    assert len(index_series(group).scans) == 3
    assert not (group / ".stemstore.lock").exists()


def test_a_killed_writer_leaves_the_old_index(group, write_dense, data):
    """Killed while the new index is written, the old one is read; then the scan is found and entered."""
    before = index_series(group)
    write_dense(group / "scan_11", data)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from stemstore.store.series.entry import index_series\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "index_series(sys.argv[1])\n"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    ended = subprocess.run(
        [sys.executable, "-c", script, str(group)], env=os.environ | {"PYTHONPATH": paths}, check=False
    )
    assert ended.returncode == -9
    assert open_series_group(group).document == before
    assert [scan.name for scan in index_series(group).scans] == [scan.name for scan in before.scans] + ["scan_11"]


def test_places_stay_where_nothing_is_said():
    """Without an order there are no places."""
    assert orders_of(["a", "b"], None) == {}
    assert orders_of(["a", "b"], {"b": 2, "a": 1.0}) == {"a": 1.0, "b": 2.0}


def test_a_series_on_a_server(group, s3):
    """The index is one object there as well, written last; changes of others are not undone."""
    index_series(group)
    url = s3.keep(group)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there = stemstore.remote(url, endpoint_url=s3.proxy.url)
        assert is_series(there)
        document = index_series(there, title="on a server")
    assert document.title == "on a server"
    assert open_series_group(there).child("scan_1") == f"{url}/scan_1"
    assert Path(open_series_group(group).child("scan_1")) == group / "scan_1"


def test_sixty_scans_take_one_request_and_three_each(tmp_path, group, web):
    """The index is one request, every scan the three that it takes alone, those of many scans at a time."""
    for number in range(57):
        copy_of(group / "scan_1", group / f"more_{number}")
    index_series(group)
    url = web.keep(group)
    web.proxy.latency = 0.02
    ds = open_series(url)
    requests = [request.target.partition("experiment.zarr/")[2] for request in web.requests()]
    assert ds.sizes["time"] == 60
    assert requests[0] == "zarr.json"
    assert sorted(requests[1:]) == sorted(
        f"{name}/{key}" for name in ds.scan.values for key in ("zarr.json", "stemstore.commit.json", SAVED)
    )
    assert len({target.partition("/")[0] for target in requests[1:31]}) > 5


def copy_of(store, target):
    """Copy a store and give it an identity of its own."""
    shutil.copytree(store, target)
    root, commit = ((target / name).read_text() for name in ("zarr.json", "stemstore.commit.json"))
    before = json.loads(root)["attributes"]["stemstore"]["uuid"]
    now = str(uuid.uuid5(uuid.UUID(before), target.name))
    made = root.replace(before, now)
    commit = commit.replace(before, now).replace(digest(root.encode()), digest(made.encode()))
    (target / "zarr.json").write_text(made)
    (target / "stemstore.commit.json").write_text(commit)


def test_a_series_is_read_from_a_server(group, s3, data):
    """Pixels and results come from the stores of a bucket, each task asking for one of them."""
    index_series(group, order=[1, 2, 3], unit="s")
    url = s3.keep(group)
    ds = open_series(url, storage_options={"endpoint_url": s3.proxy.url})
    np.testing.assert_array_equal(ds.intensity.isel(time=1).values, data + 2)
    s3.requests()
    image = stemstore.virtual_image(ds, np.ones((8, 7)))
    np.testing.assert_array_equal(image.isel(time=2).values, (data + 10).sum((-1, -2)))
    np.testing.assert_array_equal(image.values[0], (data + 1).sum((-1, -2)))
    assert ds.attrs["source_url"] == url
    some = open_series(stemstore.remote(f"{url}/scan_1*", endpoint_url=s3.proxy.url))
    assert some.scan.values.tolist() == ["scan_1", "scan_10"]
    s3.fs.rm(f"{url.removeprefix('s3://')}/scan_2", recursive=True)
    with pytest.raises(NotFoundError, match=r"scan 'scan_2' of the series .* is missing"):
        open_series(stemstore.remote(url, endpoint_url=s3.proxy.url))


@pytest.mark.slow
def test_scans_are_converted_to_a_server(tmp_path, s3, data):
    """A series grows in a bucket; a repeated call leaves alone what is there, and a duplicate leaves nothing behind."""
    for number in (1, 2):
        np.save(tmp_path / f"s{number}.npy", data + number)
    there = s3.url.replace("scan.zarr", "series.zarr")
    options = {"storage_options": {"endpoint_url": s3.proxy.url}}
    report = convert_series([tmp_path / "s1.npy"], there, **options)
    assert [scan.url for scan in report.scans] == [f"{there}/s1"]
    with pytest.raises(DestinationExistsError, match="add scans with append=True"):
        convert_series([tmp_path / "s2.npy"], there, **options)
    shutil.copyfile(tmp_path / "s1.npy", tmp_path / "twin.npy")
    with pytest.raises(SeriesIncompleteError, match="converted: twin"):
        convert_series([tmp_path / f"{name}.npy" for name in ("s1", "s2", "twin")], there, append=True, **options)
    ds = open_series(there, **options)
    assert ds.scan.values.tolist() == ["s1", "s2"]
    np.testing.assert_array_equal(ds.intensity, np.stack([data + 1, data + 2]))
    assert not s3.fs.exists(f"{there.removeprefix('s3://')}/twin")
    assert s3.proxy.url not in repr(report)
