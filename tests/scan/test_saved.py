"""A calibration kept in the store: opened with it, and beside a scan that stays as it was written."""

import json
import uuid
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import stemstore
from stemstore.errors import ConversionIncompleteError, CorruptDataError, FormatVersionError, InputError
from stemstore.scan.calibrate import calibrate
from stemstore.scan.saved import save_calibration
from stemstore.store.layout import dense_layout
from stemstore.store.verify import verify_store
from stemstore.store.writer import StoreWriter
from stemstore_schemas import Acquisition, Axis, Ellipse, FrameCounts, Quantity, ScanDocument

SHAPE = (5, 6, 12, 10)
RNG = np.random.default_rng(8)
FRAMES = RNG.integers(0, 500, SHAPE).astype(np.uint16)
ORIGIN = RNG.normal(5, 1, (2, 5, 6))
DARK = RNG.normal(size=SHAPE[2:])
MASK = RNG.random(SHAPE[2:]) < 0.9
VALUES = {
    "beam_energy": Quantity(value=300, unit="keV", source="measured", uncertainty=0.1),
    "detector_step": "0.5 mrad",
    "detector_center": (5.25, 4),
    "scan_rotation": 12,
    "detector_transpose": True,
    "ellipse": Ellipse.of_axes(1.1, 1, 12),
}


def origin_maps():
    return [xr.DataArray(part, dims=("y", "x"), attrs={"units": "pixel"}) for part in ORIGIN]


@pytest.fixture
def url(tmp_path):
    """A finished store without any calibration."""
    np.save(tmp_path / "raw.npy", FRAMES)
    return stemstore.convert(tmp_path / "raw.npy", tmp_path / "scan.zarr").url


@pytest.fixture(params=["dense", "counted"])
def either(request, url, tmp_path):
    """The same, of frames and of electrons."""
    if request.param == "dense":
        return url
    limits = {"background_threshold": 400, "xray_threshold": 10_000}
    return stemstore.convert(tmp_path / "raw.npy", tmp_path / "counted.zarr", count=True, **limits).url


@pytest.fixture
def dense(tmp_path):
    """A store as a conversion may leave it: with arrays of its own below ``calibration``, and flyback columns."""
    axes = [Axis(name=name, size=n) for name, n in zip(("y", "x", "ky", "kx"), SHAPE, strict=True)]
    flyback = Acquisition(flyback_columns=1, scan_shape=SHAPE[:2], scan_shape_source="header")
    document = ScanDocument(
        uuid=str(uuid.uuid4()), profile="dense", axes=axes, frames=FrameCounts(valid=30), acquisition=flyback
    )
    layout = dense_layout(SHAPE[:2], SHAPE[2:], FRAMES.dtype)
    writer = StoreWriter.init(str(tmp_path / "made.zarr"), document, layout)
    for number, part in enumerate(layout.partitions):
        writer.write_frames(number, FRAMES[part])
    return writer.finalise(arrays={"calibration/dark": (("ky", "kx"), DARK), "calibration/other": (("a",), DARK[0])})


def objects(url):
    """All objects of a store that belong to the scan itself."""
    root = Path(url)
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files if "saved" not in path.parts}


def test_a_store_opens_with_what_was_saved(either):
    """Axes, attributes, origin and frames come back; the scan, its commit object and its verification stay."""
    before, ds = objects(either), calibrate(stemstore.open(either), **VALUES, origin=origin_maps())
    save_calibration(ds.assign(dark=(("ky", "kx"), DARK), mask=(("ky", "kx"), MASK)))
    after = objects(either)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"calibration/zarr.json"}
    assert verify_store(either) == []
    again = stemstore.open(either)
    xr.testing.assert_allclose(again.drop_vars(["dark", "mask"]), ds)
    assert again.attrs == ds.attrs
    assert stemstore.explain(again).startswith("fused")
    np.testing.assert_array_equal(again.dark, DARK)
    assert again["mask"].dtype == bool
    assert again.intensity.attrs["ellipse_matrix"] == ds.intensity.attrs["ellipse_matrix"]
    disk = stemstore.disk(1.5, unit="mrad")
    np.testing.assert_array_equal(stemstore.virtual_image(again, disk), stemstore.virtual_image(ds, disk))
    image = stemstore.virtual_image(again, np.ones(SHAPE[2:], bool), origin=False)
    np.testing.assert_array_equal(image, again.intensity.sum(("ky", "kx")))  # nothing is corrected by itself


def test_the_saved_group_is_plain_zarr(url):
    """Other programs read document and maps."""
    save_calibration(calibrate(stemstore.open(url), **VALUES, origin=origin_maps()))
    group = zarr.open_group(f"{url}/calibration/saved", mode="r")
    np.testing.assert_array_equal(group["origin_ky"][...], ORIGIN[0])
    assert group["origin_kx"].attrs["units"] == "pixel"
    document = group.attrs["stemstore"]
    assert (document["kind"], document["version"]) == ("stemstore.calibration", 1)
    assert document["beam_energy"] == {"value": 300, "unit": "keV", "source": "measured", "uncertainty": 0.1}


def test_later_values_win_and_earlier_ones_stay_in_the_history(url):
    """The user's word at opening comes before what was saved, what was saved before what the data say."""
    save_calibration({"beam_energy": 200, "detector_step": "1 mrad"}, url)
    save_calibration({"beam_energy": 300, "dark": DARK}, url)
    document = save_calibration({"scan_rotation": -3}, url)
    ds = stemstore.open(url)
    assert (ds.attrs["beam_energy_keV"], ds.attrs["scan_rotation_deg"]) == (300, -3)
    np.testing.assert_array_equal(ds.dark, DARK)
    xr.testing.assert_allclose(
        ds, stemstore.open(url, calibration=False, beam_energy=300, detector_step=1).assign(dark=(("ky", "kx"), DARK))
    )
    assert [entry.parameters["beam_energy"]["value"] for entry in document.history] == [200, 300, 300]
    assert [sorted(entry.outputs) for entry in document.history] == [[], ["dark"], ["dark"]]
    given = stemstore.open(url, beam_energy=80)
    assert given.attrs["beam_energy_keV"] == 80
    np.testing.assert_allclose(given.ky, stemstore.open(url, calibration=False, beam_energy=80, detector_step=1).ky)
    plain = stemstore.open(url, calibration=False)
    assert plain.ky.attrs["units"] == "pixel"
    assert "dark" not in plain


def test_a_dataset_takes_the_place_of_what_was_saved(url):
    """What the dataset does not carry any more is not saved any more."""
    save_calibration(calibrate(stemstore.open(url), **VALUES, origin=origin_maps()))
    ds = calibrate(stemstore.open(url), origin=False, ellipse=False)
    save_calibration(ds)
    again = stemstore.open(url)
    assert "origin_ky" not in again.coords
    assert "ellipse_matrix" not in again.intensity.attrs
    assert again.attrs["beam_energy_keV"] == 300


def test_arrays_of_the_conversion_stay_and_are_shown(dense):
    """What a conversion wrote is seen until something is saved in its place, and remains in the store."""
    ds = stemstore.open(dense)
    np.testing.assert_array_equal(ds.dark, DARK)
    save_calibration(ds.assign(dark=ds.dark + 1))
    np.testing.assert_array_equal(stemstore.open(dense).dark, DARK + 1)
    np.testing.assert_array_equal(zarr.open(dense)["calibration/dark"][...], DARK)
    np.testing.assert_array_equal(zarr.open(dense)["calibration/other"][...], DARK[0])
    assert verify_store(dense) == []


def test_hidden_flyback_columns_need_no_origin(dense):
    """Maps of the visible positions are put in their places, whatever the order; the flyback has none."""
    part = stemstore.open(dense).isel(y=slice(None, None, -1))
    maps = [part_map.isel(x=slice(0, 5), y=slice(None, None, -1)) for part_map in origin_maps()]
    save_calibration(calibrate(part, origin=maps))
    np.testing.assert_array_equal(stemstore.open(dense).origin_ky, ORIGIN[0][:, :5])
    shown = stemstore.open(dense, flyback=True)
    np.testing.assert_array_equal(np.isnan(shown.origin_kx), np.arange(6)[None, :] + np.zeros((5, 1)) == 5)


def test_opening_costs_one_request_more(url, monkeypatch):
    """Three small objects are read in all, and no array before it is used."""
    import fsspec

    from stemstore.store.remote import RemoteStorage

    save_calibration({**VALUES, "origin": origin_maps(), "dark": DARK}, url)
    memory = fsspec.filesystem("memory")
    memory.put(str(url), "/saved_scan.zarr", recursive=True)
    asked, get = [], RemoteStorage.get
    monkeypatch.setattr(RemoteStorage, "get", lambda self, key: (asked.append(key), get(self, key))[1])
    ds = stemstore.open("memory://saved_scan.zarr")
    assert asked == ["zarr.json", "stemstore.commit.json", "calibration/saved/zarr.json"]
    np.testing.assert_array_equal(ds.dark.compute(scheduler="sync"), DARK)
    np.testing.assert_allclose(ds.origin_ky[2:4, ::-2].compute(scheduler="sync"), ORIGIN[0][2:4, ::-2])
    for _ in range(3):
        stemstore.virtual_image(ds, stemstore.disk(1.5, unit="mrad"))
    read = [f"calibration/saved/{name}/c/0/0" for name in ("dark", "origin_ky", "origin_kx")]
    assert sorted(asked[3:]) == sorted(read)  # each array once
    memory.rm("/saved_scan.zarr", recursive=True)


def test_saved_maps_travel_to_other_processes(url):
    """Lazy maps are read where the tasks run."""
    save_calibration({"origin": origin_maps()}, url)
    ds = stemstore.open(url)
    np.testing.assert_array_equal(ds.origin_ky.compute(scheduler="processes"), ORIGIN[0])
    com = stemstore.center_of_mass(ds, unit="pixel")
    plain = stemstore.center_of_mass(ds, unit="pixel", center=(0, 0))
    np.testing.assert_allclose(com.com_y, plain.com_y - ORIGIN[0])


def test_a_look_at_the_store_tells_what_was_saved(url):
    """Inspecting knows the values that the store opens with, and tells of a calibration that it cannot read."""
    save_calibration({"detector_center": (5.25, 4)}, url)
    assert "detector_step" in stemstore.inspect(url).missing
    save_calibration({"beam_energy": 300, "detector_step": "1 mrad"}, url)
    found = stemstore.inspect(url, scan_step=1)
    assert found.known["beam_energy"] == "300 keV (from user)"
    assert not {"detector_step", "scan_step"} & set(found.missing)
    change(url, lambda document, _: document.update(version=2))
    found = stemstore.inspect(url)
    assert "beam_energy" in found.missing
    assert "install a newer stemstore" in found.warnings[-1]


def change(url, edit):
    """Edit the saved document."""
    path = Path(url) / "calibration" / "saved" / "zarr.json"
    root = json.loads(path.read_text())
    edit(root["attributes"]["stemstore"], root)
    path.write_text(json.dumps(root))


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        (lambda document, _: document.update(version=2), FormatVersionError, "install a newer stemstore; or open"),
        (lambda document, _: document.update(uuid=str(uuid.uuid4())), CorruptDataError, "belongs to scan"),
        (lambda document, _: document.update(kind="other"), CorruptDataError, "calibration=False"),
        (lambda document, _: document.update(beam_energy=3), CorruptDataError, "calibration=False"),
        (lambda document, _: document["arrays"].append("gain"), CorruptDataError, "'gain' .* is nothing"),
        (lambda _, root: root.update(attributes={}), CorruptDataError, "calibration=False"),
        (lambda _, root: root.pop("consolidated_metadata"), CorruptDataError, "save the group again"),
    ],
    ids=["newer", "other scan", "kind", "value", "array", "empty", "bare"],
)
def test_calibrations_that_do_not_belong_or_are_damaged(url, edit, error, match):
    """Opening says what is wrong; without the calibration the store opens, and a new one can be saved."""
    save_calibration({"beam_energy": 300, "dark": DARK}, url)
    change(url, edit)
    with pytest.raises(error, match=match):
        stemstore.open(url)
    ds = stemstore.open(url, calibration=False, beam_energy=80)
    if error is FormatVersionError:
        with pytest.raises(FormatVersionError, match="version 2"):
            save_calibration(ds)
        return
    document = save_calibration(ds)
    assert "could not be read" in document.history[0].warnings[0]
    assert stemstore.open(url).attrs["beam_energy_keV"] == 80


def test_damaged_arrays_are_noticed_when_they_are_used(url):
    """The checksum of a map tells; the store itself opens."""
    save_calibration({"dark": DARK}, url)
    path = Path(url) / "calibration" / "saved" / "dark" / "c" / "0" / "0"
    body = path.read_bytes()
    path.write_bytes(body[:-9] + bytes([body[-9] ^ 1]) + body[-8:])
    ds = stemstore.open(url)
    with pytest.raises(CorruptDataError, match="dark"):
        ds.dark.compute()


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"colour": 1}, "'colour' is no calibration"),
        ({"dark": DARK[1:]}, r"dark has shape \(11, 10\)"),
        ({"dark": np.full(SHAPE[2:], np.nan)}, "finite"),
        ({"mask": np.ones(SHAPE[2:])}, "boolean"),
        ({"beam_energy": -1}, "above zero"),
    ],
)
def test_values_that_cannot_be_saved(url, values, match):
    """The message names the value, and nothing is written."""
    before = objects(url)
    with pytest.raises(InputError, match=match):
        save_calibration(values, url)
    assert objects(url) == before


def test_places_that_cannot_be_saved_to(url, tmp_path):
    """A store has to be named where it is not known, finished, and shown whole."""
    ds = calibrate(stemstore.open(url), origin=origin_maps())
    with pytest.raises(InputError, match="origin_ky shows 4 of 5 places along 'y'"):
        save_calibration(ds.isel(y=slice(1, None)))
    with pytest.raises(InputError, match="together with store"):
        save_calibration({"beam_energy": 300})
    with pytest.raises(InputError, match="name it with store"):
        save_calibration(ds.drop_attrs(deep=False))
    with pytest.raises(InputError, match="not a stemstore store"):
        save_calibration(stemstore.open(tmp_path / "raw.npy", beam_energy=300))
    (Path(url) / "stemstore.commit.json").unlink()
    with pytest.raises(ConversionIncompleteError, match="commit"):
        save_calibration(ds)


def test_calibrations_of_other_data_are_saved_by_name(url, tmp_path):
    """The raw files that were converted, or a scan of vacuum: named on purpose, and told in the history."""
    raw = calibrate(stemstore.open(tmp_path / "raw.npy"), beam_energy=200, origin=origin_maps())
    document = save_calibration(raw, url)
    assert document.history[0].parameters["scan"] == raw.attrs["stemstore_uuid"] != document.uuid
    np.testing.assert_array_equal(stemstore.open(url).origin_ky, ORIGIN[0])
    with pytest.raises(InputError, match="open it again"):
        save_calibration(raw.assign_attrs(source_url=str(url)))
