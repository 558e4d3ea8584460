"""Stores as sources of a conversion: counted, densified, laid out anew, with all that is known of them."""

from __future__ import annotations

import numpy as np
import pytest

import stemstore
from stemstore.errors import ConversionIncompleteError, InputError
from stemstore.kernels.counting import count_frames
from stemstore.scan.saved import save_calibration
from stemstore.store.calibration import read_calibration
from stemstore.store.open import open_store

LIMITS = {"background_threshold": 40, "xray_threshold": 500}


@pytest.fixture
def dense(tmp_path, raw):
    """Convert the frames to a dense store."""
    stemstore.convert(raw, tmp_path / "dense.zarr", beam_energy=300, scan_step="0.5 nm")
    return tmp_path / "dense.zarr"


@pytest.fixture
def counted(tmp_path, raw):
    """Count the frames."""
    stemstore.convert(raw, tmp_path / "counted.zarr", count=True, **LIMITS, beam_energy=300)
    return tmp_path / "counted.zarr"


@pytest.mark.parametrize("workers", [1, 3])
def test_dense_to_counted_finds_the_events_of_the_raw_file(tmp_path, dense, camera_frames, workers):
    """Counting a store gives exactly what counting its frames gives."""
    report = stemstore.convert(dense, tmp_path / "b.zarr", count=True, workers=workers, **LIMITS)
    indptr, indices = count_frames(camera_frames.reshape(-1, 20, 18), 40, 500)
    stored = open_store(tmp_path / "b.zarr").read_events(0, 42)
    np.testing.assert_array_equal(stored.indptr, indptr)
    np.testing.assert_array_equal(stored.indices, indices)
    assert (report.profile, report.n_events) == ("counted", len(indices))


def test_thresholds_of_a_store_are_those_of_its_raw_file(tmp_path, dense, raw):
    """Estimated thresholds do not depend on where the frames are read from."""
    reports = [stemstore.convert(url, tmp_path / f"{url.stem}.out.zarr", count=True) for url in (raw, dense)]
    assert reports[0].thresholds == reports[1].thresholds
    assert reports[0].n_events == reports[1].n_events


def test_counted_to_dense_is_exact(tmp_path, counted):
    """Events become frames of electrons per pixel in one byte; how they were counted stays in the history."""
    report = stemstore.convert(counted, tmp_path / "b.zarr", count=False)
    made = open_store(tmp_path / "b.zarr")
    assert (report.profile, made.dtype) == ("dense", np.uint8)
    np.testing.assert_array_equal(
        stemstore.open(tmp_path / "b.zarr").intensity.values, stemstore.open(counted).intensity.values
    )
    assert made.document.counting is None
    assert made.document.history[-1].parameters["counting"]["background_threshold"] == [40]


def test_counted_file_to_dense_takes_a_type_wide_enough(tmp_path):
    """Raw events with 300 electrons in a pixel become 16-bit frames, and counting these again is a matter of choice."""
    values = np.array([1, 300, 2])
    for name, numbers in (("rowind", [0, 1, 3]), ("coords", [5, 5, 7]), ("values", values)):
        np.array(numbers, "<u4").tofile(tmp_path / f"{name}.dat")
    table = [f'{role}_file = "{name}.dat"\n{role}_dtype = "<u4"' for role, name in
             (("indptr", "rowind"), ("indices", "coords"), ("data", "values"))]  # fmt: skip
    text = '[params]\nfiletype = "raw_csr"\nnav_shape = [1, 2]\nsig_shape = [2, 4]\n[raw_csr]\n' + "\n".join(table)
    (tmp_path / "a.toml").write_text(text)
    stemstore.convert(tmp_path / "a.toml", tmp_path / "b.zarr", count=False)
    intensity = stemstore.open(tmp_path / "b.zarr").intensity.values
    assert intensity.dtype == np.uint16
    assert intensity.reshape(2, 8).tolist() == [[0, 0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 300, 0, 2]]


@pytest.mark.parametrize(("kind", "profile"), [("dense", "small"), ("counted", "balanced")])
def test_another_compression_keeps_everything(tmp_path, dense, counted, kind, profile):
    """Layout and codec change, the pixels do not."""
    source = {"dense": dense, "counted": counted}[kind]
    stemstore.convert(source, tmp_path / "b.zarr", profile=profile, max_memory="64MiB")
    np.testing.assert_array_equal(
        stemstore.open(tmp_path / "b.zarr").intensity.values, stemstore.open(source).intensity.values
    )
    before, after = open_store(source).document, open_store(tmp_path / "b.zarr").document
    assert after.uuid != before.uuid
    assert after.counting == before.counting


def test_history_goes_on(tmp_path, dense):
    """The steps of the old store come first; the new one names the store with its identity."""
    stemstore.convert(dense, tmp_path / "b.zarr", count=True, **LIMITS)
    stemstore.convert(tmp_path / "b.zarr", tmp_path / "c.zarr", count=False, semi_convergence_angle=20)
    before, document = open_store(dense).document, open_store(tmp_path / "c.zarr").document
    assert document.history[0] == before.history[0]
    assert [entry.inputs[0].uuid for entry in document.history[1:]] == [
        before.uuid,
        open_store(tmp_path / "b.zarr").uuid,
    ]
    assert document.acquisition.beam_energy.value == 300
    assert document.acquisition.semi_convergence_angle.value == 20
    assert (document.axes[0].unit, document.axes[0].step) == ("nm", 0.5)


def test_missing_frames_and_flyback_stay_marked(tmp_path, raw):
    """Validity and flyback go through counting of a store and back."""
    stemstore.convert(raw, tmp_path / "a.zarr", scan_shape=(8, 6))
    stemstore.convert(tmp_path / "a.zarr", tmp_path / "b.zarr", count=True, **LIMITS)
    stemstore.convert(tmp_path / "b.zarr", tmp_path / "c.zarr", count=False)
    for name in "abc":
        state = open_store(tmp_path / f"{name}.zarr").validity
        assert np.flatnonzero(state == 0).tolist() == list(range(42, 48))


def test_saved_calibration_goes_over(tmp_path, dense):
    """Maps and values are put on when the new store opens; what is stated for the conversion takes their place."""
    ds = stemstore.open(dense)
    origin = np.random.default_rng(0).normal(9, 1, ds.intensity.shape[:2])
    ds = ds.assign_coords(origin_ky=(("y", "x"), origin), origin_kx=(("y", "x"), origin + 1))
    ds = ds.assign(dark=(("ky", "kx"), np.full((20, 18), 2.0)), mask=(("ky", "kx"), np.ones((20, 18), bool)))
    save_calibration(stemstore.calibrate(ds, scan_rotation=12, detector_step=0.2))
    report = stemstore.convert(dense, tmp_path / "b.zarr", scan_rotation=15)
    new = stemstore.open(tmp_path / "b.zarr")
    np.testing.assert_array_equal(new.origin_ky, origin)
    assert float(new.dark[0, 0]) == 2
    assert new.attrs["scan_rotation_deg"] == 15
    assert new.ky.attrs["units"] == "1/angstrom"
    assert report.warnings == []
    saved = read_calibration(open_store(tmp_path / "b.zarr"))
    assert saved.document.uuid == open_store(tmp_path / "b.zarr").uuid


@pytest.mark.parametrize("count", [True, False])
def test_dark_reference_stays_with_its_pixels(tmp_path, dense, counted, count):
    """A dark reference does not go along where frames become events or events frames, and the report says so."""
    source = dense if count else counted
    save_calibration({"dark": np.zeros((20, 18)), "mask": np.ones((20, 18), bool)}, source)
    report = stemstore.convert(source, tmp_path / "b.zarr", count=count, **(LIMITS if count else {}))
    assert list(read_calibration(open_store(tmp_path / "b.zarr")).arrays) == ["mask"]
    assert "the saved dark of" in report.warnings[-1]


def test_saved_results_stay_and_are_named(tmp_path, dense):
    """Results belong to the store that they were saved in; report and history name them."""
    stemstore.save(stemstore.mean_pattern(stemstore.open(dense)), dense, "mean")
    report = stemstore.convert(dense, tmp_path / "b.zarr")
    assert "saved results (mean) stay with" in report.warnings[0]
    assert stemstore.results(tmp_path / "b.zarr") == {}
    assert open_store(tmp_path / "b.zarr").document.history[-1].warnings == report.warnings


def test_store_cannot_be_converted_onto_itself(tmp_path, dense):
    """The same place, and a place in it, are refused before anything is read, with or without overwriting."""
    for target in (dense, dense / "new.zarr"):
        with pytest.raises(InputError, match="overlap; choose another place"):
            stemstore.convert(dense, target, overwrite=True)
    assert stemstore.open(dense).sizes["y"] == 7


def test_what_cannot_be_converted(tmp_path, dense, counted):
    """Options of readers, thresholds without counting, and stores that are not finished are refused."""
    with pytest.raises(InputError, match=r"is a store and takes no options \['scan_shape'\]"):
        stemstore.convert(dense, tmp_path / "b.zarr", scan_shape=(42,))
    with pytest.raises(InputError, match="counted already"):
        stemstore.convert(counted, tmp_path / "b.zarr", background_threshold=3)
    (dense / "stemstore.commit.json").unlink()
    with pytest.raises(ConversionIncompleteError, match="nothing proves that it is whole"):
        stemstore.convert(dense, tmp_path / "b.zarr")
    assert not (tmp_path / "b.zarr").exists()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.float32])
def test_any_pixels_that_can_be_counted(tmp_path, camera_frames, dtype):
    """A dense store of any pixel type gives the events of its raw file."""
    np.save(tmp_path / "a.npy", camera_frames.clip(max=255).astype(dtype))
    stemstore.convert(tmp_path / "a.npy", tmp_path / "dense.zarr")
    limits = {"count": True, "background_threshold": 40, "xray_threshold": 250}
    found = []
    for source in ("a.npy", "dense.zarr"):
        stemstore.convert(tmp_path / source, tmp_path / f"{source}.counted.zarr", **limits)
        found.append(open_store(tmp_path / f"{source}.counted.zarr").read_events(0, 42))
    np.testing.assert_array_equal(found[0].indptr, found[1].indptr)
    np.testing.assert_array_equal(found[0].indices, found[1].indices)
    assert len(found[0].indices) > 100
