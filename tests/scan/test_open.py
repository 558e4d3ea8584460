"""Stores and raw files open as the same labelled dataset."""

import os

import dask
import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import InputError, NotFoundError, ScanWarning, StaleStoreError
from stemstore.scan.lazy import selection_of
from stemstore.testing.arrays import ArrayFrames
from stemstore_schemas import Acquisition, SourceMetadata

FRAMES = np.random.default_rng(8).integers(0, 500, (5, 6, 12, 10)).astype(np.uint16)


@pytest.fixture
def files(tmp_path):
    """A raw file and the stores made of it."""
    np.save(tmp_path / "raw.npy", FRAMES)
    limits = {"background_threshold": 400, "xray_threshold": 10_000}
    known = {"scan_step": "0.5 nm", "detector_step": "1 mrad", "beam_energy": 300}
    stemstore.convert(tmp_path / "raw.npy", tmp_path / "dense.zarr", **known)
    stemstore.convert(tmp_path / "raw.npy", tmp_path / "counted.zarr", count=True, **limits, **known)
    return tmp_path


def test_raw_file_and_store_give_the_same_dataset(files):
    """Values, dims, coordinates and units are the same."""
    raw = stemstore.open(files / "raw.npy", scan_step=0.5, detector_step=1.0, beam_energy=300)
    store = stemstore.open(files / "dense.zarr")
    xr.testing.assert_allclose(raw, store)
    assert {c: store[c].attrs["units"] for c in "yx"} == {"y": "nm", "x": "nm"}
    assert store.kx.attrs["units"] == raw.kx.attrs["units"] == "1/angstrom"
    assert store.intensity.dims == ("y", "x", "ky", "kx")


def test_pixel_numbers_are_coordinates_too(files):
    """Stored indices survive any selection."""
    part = stemstore.open(files / "dense.zarr").isel(y=slice(1, 4), kx=[7, 2])
    assert list(part.y_pixel.values) == [1, 2, 3]
    assert list(part.kx_pixel.values) == [7, 2]
    assert part.sel(y=1.0).y_pixel.item() == 2


def test_zero_of_the_detector_axes_is_the_optic_axis(files):
    """Without a stated centre the middle of the frame is taken; a stated one is kept."""
    ds = stemstore.open(files / "raw.npy", detector_step=2.0)
    np.testing.assert_allclose(ds.ky, 2.0 * (np.arange(12) - 5.5))
    ds = stemstore.open(files / "raw.npy", detector_step=(2.0, 3.0), detector_center=(4, 2.5))
    np.testing.assert_allclose(ds.kx, 3.0 * (np.arange(10) - 2.5))
    assert ds.ky.attrs["units"] == "mrad"


def test_counted_scans_look_like_arrays(files):
    """A counted scan is an array of electrons per pixel with the same axes."""
    ds = stemstore.open(files / "counted.zarr")
    assert ds.intensity.dtype == np.uint8
    assert ds.intensity.shape == FRAMES.shape
    assert stemstore.explain(ds).startswith("fused")


def test_opening_reads_no_pixel(files, monkeypatch):
    """Opening and selecting touch metadata only."""
    from stemstore.store.arrays import StoredFrames

    def fail(self, *_):
        raise AssertionError("pixels were read")  # noqa: EM101  # fails the test

    monkeypatch.setattr(StoredFrames, "read", fail)
    part = stemstore.open(files / "dense.zarr").isel(y=2)
    assert "dask" in repr(part)
    with pytest.raises(AssertionError, match="pixels were read"):
        part.compute(scheduler="sync")


def test_repeated_frames_keep_an_axis_of_their_own(dataset_of):
    """Exposures of one position are never merged."""
    ds = dataset_of(ArrayFrames(np.arange(2 * 3 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 3, 4, 5, 6)))
    assert ds.intensity.dims == ("frame", "y", "x", "ky", "kx")
    assert stemstore.center_of_mass(ds).com_y.dims == ("frame", "y", "x")


def test_stack_without_scan_shape_stays_a_stack(tmp_path):
    """No square root is taken: 16 frames are 16 frames."""
    np.save(tmp_path / "stack.npy", FRAMES.reshape(30, 12, 10)[:16])
    ds = stemstore.open(tmp_path / "stack.npy")
    assert ds.intensity.dims == ("frame", "ky", "kx")
    ds = stemstore.open(tmp_path / "stack.npy", scan_shape=(2, 8))
    assert ds.sizes["x"] == 8


def test_oddities_of_raw_files_are_told(tmp_path):
    """A truncated file opens with a warning, which also stands in the attributes."""
    (tmp_path / "a.raw").write_bytes(FRAMES.tobytes()[:-7])
    with pytest.warns(ScanWarning, match=r"a\.raw"):
        ds = stemstore.open(tmp_path / "a.raw", reader="raw_binary", detector_shape=(12, 10), dtype="<u2")
    assert ds.sizes["frame"] == 29
    assert len(ds.attrs["warnings"]) >= 1


def test_flyback_columns_are_hidden_unless_asked_for():
    """The last columns of every row are there but not shown."""
    from stemstore.scan.calibration import Calibration
    from stemstore.scan.open import build
    from stemstore.sources.streaming import FrameScan

    scan = FrameScan(ArrayFrames(FRAMES))
    args = (scan, [], Acquisition(flyback_columns=1, scan_shape=(5, 6), scan_shape_source="header"), Calibration(), "a")
    hidden, shown = build(*args, flyback=False), build(*args, flyback=True)
    assert (hidden.sizes["x"], shown.sizes["x"]) == (5, 6)
    assert stemstore.virtual_image(hidden, np.ones((12, 10), bool)).sum() == FRAMES[:, :5].sum()


def test_axes_of_the_files_are_used():
    """What a reader knows about axes becomes coordinates; the user's word comes first."""
    from stemstore.scan.calibration import Calibration, complete_axes
    from stemstore_schemas import Axis

    known = [Axis(name="y", size=5, unit="nm", step=0.2, origin=7.0, source="header")]
    acquisition = SourceMetadata().acquisition
    y, x, *_ = complete_axes(known, FRAMES.shape, acquisition)
    assert (y.step, y.origin, x.unit) == (0.2, 7.0, "pixel")
    y, *_ = complete_axes(known, FRAMES.shape, acquisition, Calibration(scan_step="3 angstrom"))
    assert (y.step, y.unit, y.source) == (pytest.approx(0.3), "nm", "user")


def test_a_stated_step_keeps_the_centre_that_the_file_knows():
    """What is not stated stays."""
    from stemstore.scan.calibration import Calibration, complete_axes
    from stemstore_schemas import Axis

    known = [Axis(name="ky", size=12, unit="mrad", step=0.5, origin=-2.0, source="header")]
    *_, ky, kx = complete_axes(known, FRAMES.shape, Acquisition(), Calibration(detector_step="2 mrad"))
    assert (ky.step, ky.origin, kx.origin) == (2.0, -8.0, -9.0)


def test_a_centre_alone_is_for_open_datasets(files):
    """Axes stay in pixels and know their zero; a store has no place for that in its axes, but in its calibration."""
    ds = stemstore.open(files / "raw.npy", detector_center=(3, 2))
    assert (ds.ky.attrs["optic_axis"], ds.ky.attrs["units"]) == (3, "pixel")
    with pytest.raises(InputError, match=r"stemstore\.calibrate"):
        stemstore.convert(files / "raw.npy", files / "new.zarr", detector_center=(3, 2))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scan_step": -1}, "must be positive"),
        ({"scan_step": (1, 2, 3)}, "pair"),
        ({"detector_step": "3 bananas"}, "bananas"),
        ({"beam_energy": "fast"}, "beam_energy"),
        ({"detector_step": "1 nm"}, "1 nm"),
    ],
    ids=["negative", "triple", "unit", "text", "kind"],
)
def test_calibrations_that_make_no_sense_are_refused(files, options, match):
    """The message names the option."""
    with pytest.raises(InputError, match=match):
        stemstore.open(files / "raw.npy", **options)


def test_reader_options_are_refused_for_stores(files):
    """A store knows its shape."""
    with pytest.raises(InputError, match="scan_shape"):
        stemstore.open(files / "dense.zarr", scan_shape=(6, 5))


def test_missing_paths_are_named(tmp_path):
    """A path that is not there."""
    with pytest.raises(NotFoundError, match=r"nothing\.zarr"):
        stemstore.open(tmp_path / "nothing.zarr")


def test_replacing_a_store_under_its_path_is_noticed(files):
    """An open scan does not silently read another store; opening again gives the new one."""
    ds = stemstore.open(files / "dense.zarr")
    assert ds.intensity[0, 0, 0, 0].values == FRAMES[0, 0, 0, 0]
    np.save(files / "raw.npy", FRAMES + 1)
    stemstore.convert(files / "raw.npy", files / "dense.zarr", overwrite=True)
    with pytest.raises(StaleStoreError, match="open it again"):
        ds.intensity[0, 0, 0, 0].compute()
    assert stemstore.open(files / "dense.zarr").intensity[0, 0, 0, 0].values == FRAMES[0, 0, 0, 0] + 1


def test_xarray_engine_opens_stores_and_raw_files(files):
    """engine="stemstore" gives the dataset; a finished store is recognised without it."""
    for target in ("dense.zarr", "raw.npy"):
        with xr.open_dataset(files / target, engine="stemstore") as ds:
            np.testing.assert_array_equal(ds.intensity, FRAMES)
    with xr.open_dataset(files / "raw.npy", engine="stemstore", options={"scan_step": 2}, chunks={}) as ds:
        assert ds.y.values[1] == 2
        mask = np.ones((12, 10), bool)
        np.testing.assert_array_equal(stemstore.virtual_image(ds, mask), FRAMES.sum((2, 3)))


def test_lazy_scans_travel_to_other_processes(files):
    """The process scheduler reads through pickled sources."""
    ds = stemstore.open(files / "counted.zarr")
    image = stemstore.virtual_image(ds, np.ones((12, 10), bool))
    expected = image.compute(scheduler="sync")
    with dask.config.set(scheduler="processes", num_workers=2):
        np.testing.assert_array_equal(image.compute(), expected)
    assert selection_of(ds.intensity.data) is not None


def test_distributed_workers_run_operations(files):
    """The same numbers come from a cluster of two processes."""
    distributed = pytest.importorskip("distributed")
    ds = stemstore.open(files / "dense.zarr")
    mask = np.ones((12, 10), bool)
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster, distributed.Client(cluster):
        np.testing.assert_array_equal(stemstore.virtual_image(ds, mask).compute(), FRAMES.sum((2, 3)))
        np.testing.assert_allclose(stemstore.mean_pattern(ds).compute(), FRAMES.mean((0, 1)))
        image, pattern = stemstore.compute(stemstore.virtual_image(ds, mask), stemstore.mean_pattern(ds))
        np.testing.assert_array_equal(image, FRAMES.sum((2, 3)))
        np.testing.assert_allclose(pattern, FRAMES.mean((0, 1)))
        moved = stemstore.max_pattern(ds)
        (files / "dense.zarr").rename(files / "elsewhere.zarr")
        with pytest.raises((StaleStoreError, NotFoundError), match=r"dense\.zarr"):
            moved.compute()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"beam_energy": -300}, "above zero"),
        ({"beam_energy": 0}, "above zero"),
        ({"camera_length": "-1 m"}, "camera_length"),
        ({"scan_step": float("inf")}, "not finite"),
        ({"scan_rotation": float("nan")}, "not finite"),
        ({"detector_step": 1, "detector_center": (1, 2, 3)}, "two finite numbers"),
        ({"detector_step": 1, "detector_center": 5}, "two finite numbers"),
        ({"detector_step": 1, "detector_center": "xy"}, "two finite numbers"),
        ({"detector_step": 1, "detector_center": (float("nan"), 1)}, "two finite numbers"),
    ],
)
def test_impossible_calibration_is_refused(files, given, match):
    """No number that cannot be a calibration reaches the axes, neither of raw data nor of stores."""
    for name in ("raw.npy", "dense.zarr"):
        with pytest.raises(InputError, match=match):
            stemstore.open(files / name, **given)


@pytest.mark.parametrize(
    ("url", "error", "match"),
    [
        (None, InputError, "is no path"),
        (7, InputError, "is no path"),
        ("nosuch://a/b", InputError, "cannot be reached: Protocol not known"),
        ("memory://nothing/here.zarr", NotFoundError, "does not exist"),
    ],
)
def test_what_cannot_be_opened_at_all(url, error, match):
    """What is no path, no known protocol, or not there is told apart."""
    with pytest.raises(error, match=match):
        stemstore.open(url)
    with pytest.raises(error, match=match):
        stemstore.inspect(url)


def test_raw_data_survive_a_change_of_folder(files, monkeypatch):
    """A lazy dataset opened by a relative path computes from anywhere."""
    monkeypatch.chdir(files)
    ds = stemstore.open("raw.npy")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(ds.intensity, FRAMES)


@pytest.mark.parametrize("change", ["replace", "shorten", "remove"])
def test_raw_file_that_changed_after_opening(files, change):
    """A dataset never shows other pixels than those of the file it was opened on."""
    path = files / "raw.npy"
    ds = stemstore.open(path)
    if change == "replace":
        np.save(path, FRAMES[::-1])
    elif change == "shorten":
        os.truncate(path, path.stat().st_size - 100)
    else:
        path.unlink()
    error, match = (NotFoundError, "does not exist") if change == "remove" else (StaleStoreError, "open it again")
    with pytest.raises(error, match=match):
        stemstore.mean_pattern(ds).compute()
    with pytest.raises(error, match=match):
        ds.intensity[0, 0].compute()
