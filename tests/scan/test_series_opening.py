"""What a series shows besides pixels, when scans are one array, and what is said where they are not."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import (
    ConversionIncompleteError,
    InputError,
    NotFoundError,
    ScanWarning,
    StaleStoreError,
    StemStoreError,
)
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import Found, Known
from stemstore.scan.series.agreement import difference
from stemstore.scan.series.dataset import Opened, instants, one_dataset, one_tree
from stemstore.scan.series.members import Meant, Named, label
from stemstore.scan.series.open import open_series
from stemstore.sources.streaming import scan_source
from stemstore.store.series.entry import index_series
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition, Axis, Quantity

SHAPE = (3, 4, 6, 5)


def found(counts=None, *, events=False, validity=None, axes=(), **acquisition):
    """Describe a scan in memory as opening one would."""
    counts = np.ones(SHAPE, np.uint16) if counts is None else counts
    source = scan_source((ArrayEvents if events else ArrayFrames)(counts, validity))
    quantities = {name: of_header(name, value) for name, value in acquisition.items()}
    return Found(source, list(axes), Acquisition(**quantities), Known(), "memory")


def of_header(name, value):
    """Give values of a header their units."""
    units = {"beam_energy": "keV", "camera_length": "mm", "dwell_time": "s", "scan_rotation": "deg"}
    return Quantity(value=value, unit=units[name], source="header") if name in units else value


def opened(*scans, dim="time", flyback=False, **given):
    """Put scans together without looking whether they fit."""
    names = [Named(f"s{number}", "memory") for number in range(len(scans))]
    return Opened(Meant(names), list(scans), dim, Calibration(**given), flyback)


@pytest.fixture(scope="module")
def stores(tmp_path_factory, store_of):
    """Write three stores once."""
    rng, folder = np.random.default_rng(5), tmp_path_factory.mktemp("once")
    for name in ("scan_2", "scan_10", "scan_1"):
        store_of(folder / f"{name}.zarr", rng.poisson(0.5, SHAPE).astype(np.uint16), counted=False)
    return folder


@pytest.fixture
def folder(tmp_path, stores):
    """A folder of three stores that a test may change."""
    return Path(shutil.copytree(stores, tmp_path / "stores"))


def test_scans_may_be_named_in_many_ways(folder, tmp_path):
    """A folder, a pattern, a list, a mapping and an index give the same scans."""
    by_folder = open_series(folder)
    assert by_folder.scan.values.tolist() == ["scan_1", "scan_2", "scan_10"]
    assert by_folder.equals(open_series(str(folder / "*.zarr")))
    assert by_folder.equals(open_series([folder / f"scan_{n}.zarr" for n in (1, 2, 10)]))
    named = open_series({"b": folder / "scan_2.zarr", "a": [folder / "scan_1.zarr"]})
    assert named.scan.values.tolist() == ["b", "a"]
    assert open_series(folder / "scan_1.zarr").sizes["time"] == 1
    assert by_folder.attrs["source_urls"] == [str(folder / f"scan_{n}.zarr") for n in (1, 2, 10)]
    assert "source_url" not in by_folder.attrs
    index_series(folder)
    assert by_folder.drop_attrs().equals(open_series(folder).drop_attrs())
    assert open_series(folder).attrs["source_url"] == str(folder)
    assert (tmp_path / "stores" / "zarr.json").exists()


def test_packed_stores_are_scans_too(folder):
    """Stores of one file are entered and opened like the others, under the same names."""
    stemstore.pack_store(folder / "scan_2.zarr", folder / "scan_2.zarr.zip")
    shutil.rmtree(folder / "scan_2.zarr")
    by_folder = open_series(folder)
    assert by_folder.scan.values.tolist() == ["scan_1", "scan_2", "scan_10"]
    index_series(folder)
    assert open_series(folder).intensity.equals(by_folder.intensity)


def test_names_come_from_places(tmp_path):
    """Files lose their ending, folders only that of stores."""
    (tmp_path / "2024.05.17").mkdir()
    (tmp_path / "a.b.zarr").mkdir()
    assert [label(tmp_path / name) for name in ("2024.05.17", "a.b.zarr", "x.1.mib")] == ["2024.05.17", "a.b", "x.1"]
    assert label(["s3://lab/day/scan.mib", "s3://lab/day/scan.hdr"]) == "scan"


def test_time_is_seconds_where_all_scans_tell():
    """Start times become seconds since the first scan, in whatever zone they were written; else scans are counted."""
    times = ["2024-05-17T09:30:00+00:00", "2024-05-17T11:30:10+02:00", "2024-05-17T09:29:55+00:00"]
    ds = one_dataset(opened(*(found(start_time=time) for time in times)))
    assert ds.time.values.tolist() == [5.0, 15.0, 0.0]
    assert (ds.time.attrs["units"], ds.time.attrs["since"]) == ("s", "2024-05-17T09:29:55+00:00")
    for unclear in (None, "2024-05-17T09:30:00", times[0]):
        ds = one_dataset(opened(found(start_time=times[0]), found(start_time=unclear)))
        assert ds.time.values.tolist() == [0, 1]
    assert one_dataset(opened(*(found(start_time=time) for time in times), dim="tilt")).tilt.values.tolist() == [
        0,
        1,
        2,
    ]
    assert len(instants(["2024-05-17T09:30:00", "2024-05-17T09:30:01"])) == 2


def test_states_are_those_of_every_scan():
    """Missing frames of one scan are told for that scan, and left out of its results."""
    states = np.full(SHAPE[:2], 2, np.uint8)
    states[1, 2] = 0
    ds = one_dataset(opened(found(), found(validity=states), found()))
    assert ds.valid.dims == ("time", "y", "x")
    assert ds.valid.values.tolist() == [np.full(SHAPE[:2], 2).tolist(), states.tolist(), np.full(SHAPE[:2], 2).tolist()]
    com = stemstore.center_of_mass(ds)
    assert np.isnan(com.com_y).sum() == 1
    assert np.isnan(com.com_y[1, 1, 2])
    assert "valid" not in one_dataset(opened(found(), found())).coords


def test_flyback_is_hidden_in_every_scan():
    """Columns of the flyback are cut off all scans, and shown on demand."""
    scans = [found(flyback_columns=1, scan_shape=SHAPE[:2], scan_shape_source="header") for _ in range(2)]
    assert one_dataset(opened(*scans)).sizes["x"] == SHAPE[1] - 1
    assert one_dataset(opened(*scans, flyback=True)).sizes["x"] == SHAPE[1]
    hidden = one_dataset(opened(*scans)).intensity
    np.testing.assert_array_equal(hidden.sum(("ky", "kx")), np.full((2, 3, 3), 30))


KY = Axis(name="ky", size=6, unit="mrad", step=0.5, origin=-1.25, source="header")


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({}, {"counts": np.ones((3, 4, 6, 4), np.uint16)}, r"shape of scan 's1' is \(3, 4, 6, 4\), of scan 's0' "),
        ({}, {"events": True, "counts": np.ones(SHAPE, np.uint8)}, "kind of data of scan 's1' is events, .* frames"),
        ({}, {"counts": np.ones(SHAPE, np.float32)}, "pixel type of scan 's1' is float32, of scan 's0' uint16"),
        ({"axes": [KY]}, {}, "axis 'ky' of scan 's1' is not calibrated, of scan 's0' 6 steps of 0.5 mrad from -1.25"),
        (
            {"axes": [KY]},
            {"axes": [KY.model_copy(update={"step": 0.51})]},
            "axis 'ky' of scan 's1' is 6 steps of 0.51 ",
        ),
        ({"axes": [KY]}, {"axes": [KY.model_copy(update={"origin": -1.2})]}, "axis 'ky' .* from -1.2, of scan"),
        ({"camera_length": 100}, {"camera_length": 120}, "camera_length of scan 's1' is 120 mm, of scan 's0' 100 mm"),
        ({"beam_energy": 300}, {}, "beam_energy of scan 's1' is not known, of scan 's0' 300 keV"),
    ],
)
def test_what_keeps_scans_apart(one, other, told):
    """Scans that differ in shape, kind or calibration are not one array; the first difference is told."""
    scans = [found(**one), found(**other)]
    assert re.search(told, str(difference(["s0", "s1"], scans, Calibration())))


def test_what_does_not_keep_scans_apart():
    """Rounding of headers, width of integers and what the user states for all leave scans together."""
    near = KY.model_copy(update={"step": 0.5 * (1 + 1e-5), "origin": -1.25 * (1 - 1e-6)})
    same = [
        (found(axes=[KY]), found(axes=[near])),
        (found(), found(np.ones(SHAPE, np.uint8))),
        (found(camera_length=100), found(camera_length=100.00000001)),
        (found(dwell_time=1e-3), found(dwell_time=2e-3)),
    ]
    for scans in same:
        assert difference(["a", "b"], scans, Calibration()) is None
    apart = [found(camera_length=100), found(camera_length=120)]
    assert difference(["a", "b"], apart, Calibration(camera_length=110)) is None
    ds = one_dataset(opened(*same[3]))
    assert "dwell_time_s" not in ds.attrs
    assert one_dataset(opened(*same[1])).intensity.dtype == np.uint16


def test_a_tree_keeps_what_each_scan_says():
    """Nodes are the scans as they open alone, with their places along the series."""
    tree = one_tree(opened(found(camera_length=100), found(camera_length=120)), "because")
    assert [tree[name].attrs["camera_length_mm"] for name in ("s0", "s1")] == [100, 120]
    assert tree["s1"].time.item() == 1
    assert (tree.attrs["not_one_array"], tree.attrs["dim"]) == ("because", "time")


def test_calibrations_that_differ(folder):
    """Stores whose calibrations differ are a tree with a warning, an error, or one dataset once one is stated."""
    for name, step in (("scan_1", 0.5), ("scan_2", 0.5), ("scan_10", 0.6)):
        stemstore.save_calibration({"detector_step": step}, folder / f"{name}.zarr")
    with pytest.warns(
        ScanWarning, match=r"axis 'ky' of scan 'scan_10' is .* state it for all of them, detector_step=…"
    ):
        tree = open_series(folder)
    assert isinstance(tree, xr.DataTree)
    with pytest.raises(InputError, match=r"do not fit into one array: axis 'ky' of scan 'scan_10'") as caught:
        open_series(folder, tree=False)
    assert (caught.value.context["scan"], caught.value.context["key"]) == ("scan_10", "axis 'ky'")
    assert open_series(folder, detector_step=0.5).intensity.dims[0] == "time"
    assert open_series(folder, calibration=False).intensity.dims[0] == "time"


def test_maps_of_some_scans_only(folder):
    """Where only some scans have maps of the optic axis, they are not one array; images of the detector are dropped."""
    ds = stemstore.open(folder / "scan_2.zarr")
    mask = np.ones(SHAPE[2:], bool)
    for name in ("scan_1", "scan_2", "scan_10"):
        stemstore.save_calibration(
            {"mask": mask} | ({"dark": mask * 1.0} if name == "scan_1" else {}), folder / f"{name}.zarr"
        )
    series = open_series(folder)
    assert series.mask.dims == ("time", "ky", "kx")
    assert "dark" not in series
    assert stemstore.virtual_image(series, np.ones(SHAPE[2:])).compute().shape == (3, 3, 4)
    maps = np.full(SHAPE[:2], 2.0)
    stemstore.save_calibration(stemstore.calibrate(ds, origin=(maps, maps)))
    with pytest.raises(
        InputError, match=r"origin maps of scan 'scan_2' is saved, of scan 'scan_1' none; .*calibration=F"
    ):
        open_series(folder, tree=False)


def test_damaged_series_are_told(folder, store_of):
    """A scan that is gone, unfinished, or another one now is named, with what to do."""
    index_series(folder)
    (folder / "scan_2.zarr").rename(folder.parent / "away")
    with pytest.raises(NotFoundError, match=r"scan 'scan_2' of the series .* is missing: .*renew=True"):
        open_series(folder)
    store_of(folder / "scan_2.zarr", np.ones(SHAPE, np.uint16), counted=False)
    with pytest.raises(StaleStoreError, match=r"scan 'scan_2' of the series .* was replaced: .*renew=True"):
        open_series(folder)
    (folder / "scan_2.zarr" / "stemstore.commit.json").unlink()
    with pytest.raises(ConversionIncompleteError, match=r"no stemstore\.commit\.json") as caught:
        open_series(folder)
    assert caught.value.__notes__ == ["scan 'scan_2' of the series"]
    shutil.rmtree(folder / "scan_2.zarr")
    index_series(folder, renew=True)
    assert open_series(folder).scan.values.tolist() == ["scan_1", "scan_10"]


def test_a_store_replaced_while_a_series_is_open(folder, store_of):
    """Data that are exchanged behind an open series are noticed when they are read."""
    ds = open_series(folder)
    shutil.rmtree(folder / "scan_2.zarr")
    store_of(folder / "scan_2.zarr", np.ones(SHAPE, np.uint16), counted=False)
    assert ds.intensity.isel(time=0).values.shape == SHAPE
    with pytest.raises(StaleStoreError, match="open it again"):
        ds.intensity.values  # noqa: B018  # reading is what fails


@pytest.mark.parametrize(
    ("urls", "options", "error", "told"),
    [
        ("nothing", {}, NotFoundError, "is no series of scans: there is no such place"),
        ("empty", {}, NotFoundError, "no store lies in it"),
        ("stores/*.nothing", {}, NotFoundError, "nothing matches"),
        ([], {}, InputError, "no scans are named"),
        (3, {}, InputError, "not int"),
        ({"a/b": "stores/scan_1.zarr"}, {}, InputError, "cannot be called 'a/b'"),
        (["stores/scan_1.zarr", "copy/scan_1.zarr"], {}, InputError, "two scans are called 'scan_1'"),
        ("stores", {"dim": "x"}, InputError, "dim='x' cannot name the axis in front"),
        ("stores", {"dim": "a b"}, InputError, "dim='a b' cannot name"),
        ("stores", {"storage_options": {"anon": True}}, InputError, "path of this machine"),
        ("stores", {"shape": (1, 2)}, InputError, "takes no options"),
    ],
)
def test_wrong_calls(folder, monkeypatch, urls, options, error, told):
    """Mistakes are named."""
    monkeypatch.chdir(folder.parent)
    (folder.parent / "empty").mkdir()
    shutil.copytree(folder, folder.parent / "copy")
    with pytest.raises(error, match=told) as caught:
        open_series(urls, **options)
    assert isinstance(caught.value, StemStoreError)


def test_a_series_without_scans(tmp_path):
    """A series that was begun and has no scan yet says so."""
    from stemstore.store.series.index import change_series, new_document

    change_series(tmp_path / "new.zarr", lambda before: before or new_document())
    with pytest.raises(NotFoundError, match="has no scans yet"):
        open_series(tmp_path / "new.zarr")


def test_scans_with_repeated_frames(tmp_path):
    """Scans that have leading axes of their own keep them behind the axis of the series."""
    frames = np.random.default_rng(2).poisson(1.0, (2, 3, *SHAPE)).astype(np.uint16)
    for number in range(2):
        np.save(tmp_path / f"s{number}.npy", frames[number])
    ds = open_series(tmp_path / "s*.npy")
    assert ds.intensity.dims == ("time", "frame", "y", "x", "ky", "kx")
    np.testing.assert_array_equal(stemstore.mean_pattern(ds), frames.mean((0, 1, 2, 3)))


def test_scans_that_have_a_time_of_their_own(monkeypatch):
    """The axis in front gets another name then."""
    scan = found(np.ones((2, 1, *SHAPE), np.uint16))
    monkeypatch.setattr("stemstore.scan.series.open.find_scan", lambda *_, **__: scan)
    with pytest.raises(InputError, match="scans have an axis 'time' of their own; name the one in front"):
        open_series(["a", "b"])
    assert open_series(["a", "b"], dim="tilt").intensity.dims[:3] == ("tilt", "time", "frame")
