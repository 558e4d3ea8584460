"""Counted HDF5 of version 3 as stempy describes it, looked at with h5py alone."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import stemstore
from stemstore.errors import InputError
from stemstore.exchange.run import export
from stemstore.exchange.stempy import STEMPY, counting_attributes
from stemstore.exchange.target import CountedScan
from stemstore.progress import NoProgress
from stemstore.sources.electrons import multiplicity
from stemstore.testing.arrays import ArrayEvents
from stemstore_schemas import CountingDescription


def written(path, counts):
    """Write electrons per pixel and give rows, as lists of lists, and notes."""
    source = ArrayEvents(np.asarray(counts))
    scan = CountedScan("memory", None, source, multiplicity(source))
    STEMPY.check(scan)
    _, notes = STEMPY.write(scan, [path], NoProgress())
    with h5py.File(path) as file:
        return [row.tolist() for row in file["electron_events/frames"]], notes


def test_layout(tmp_path, store):
    """Version, datasets, types and the attributes whose names mean different things for scan and frame."""
    export(store, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["version"] == 3
        assert file.attrs["version"].dtype == np.int64
        frames, positions = file["electron_events/frames"], file["electron_events/scan_positions"]
        assert frames.shape == (48,)
        assert h5py.check_vlen_dtype(frames.dtype) == np.uint32
        assert (frames.chunks, frames.compression) == (None, None)
        assert dict(frames.attrs) == {"Nx": 7, "Ny": 9}
        assert dict(positions.attrs) == {"Nx": 8, "Ny": 6}
        assert positions.dtype == np.int64
        assert positions[:].tolist() == list(range(48))
        counting = file["metadata/electron_counting"].attrs
        assert (counting["background_threshold"], counting["x_ray_threshold"]) == (5, 99)
        assert counting["background_threshold"].dtype == np.float64
        assert file["metadata/stemstore"].attrs["version"] == stemstore.__version__
        rows = [row.tolist() for row in frames]
    dense = stemstore.open(store).intensity.values.reshape(48, 63)
    assert rows == [np.flatnonzero(frame).tolist() for frame in dense]


def test_index_is_row_times_columns_plus_column(tmp_path):
    """An electron in row 2, column 7 of a 4 x 10 frame is the event 27."""
    counts = np.zeros((1, 2, 4, 10), int)
    counts[0, 1, 2, 7] = 1
    assert written(tmp_path / "a.h5", counts)[0] == [[], [27]]


@pytest.mark.parametrize("value", [0, 1])
def test_rows_of_equal_length(tmp_path, value):
    """Scans whose rows are all empty, or all full, are written like any other; stempy 3.6 itself fails on them."""
    rows, _ = written(tmp_path / "a.h5", np.full((3, 5, 2, 2), value))
    assert rows == [[0, 1, 2, 3] if value else []] * 15


def test_frames_of_a_position_keep_their_order(tmp_path):
    """Rows are position-major; exposure e of a position is row e of it, an order that stempy 3.6 does not keep."""
    counts = np.zeros((3, 2, 2, 2, 4), int)
    for exposure in range(3):
        for place in range(4):
            counts[exposure, place // 2, place % 2].flat[exposure + place] = 1
    rows, notes = written(tmp_path / "a.h5", counts)
    assert rows == [[exposure + place] for place in range(4) for exposure in range(3)]
    assert notes == []


def test_several_electrons_in_a_pixel_take_further_rows(tmp_path):
    """A row lists a pixel once; what is beyond goes to rows behind the frames, which every position then has."""
    counts = np.zeros((2, 1, 3, 1, 8), int)
    counts[0, 0, 0, 0, [1, 5]] = [3, 2]
    counts[1, 0, 0, 0, [1, 6]] = [2, 1]
    counts[1, 0, 2, 0, 7] = 2
    rows, notes = written(tmp_path / "a.h5", counts)
    first, second, third = [[1, 5], [1, 6], [1, 5], [1], [1]], [[]] * 5, [[], [7], [7], [], []]
    assert rows == [*first, *second, *third]
    assert "3 frames have pixels with several electrons" in notes[0]
    assert "every position has 5 rows for 2 frames" in notes[0]
    read = stemstore.open(tmp_path / "a.h5").intensity.values
    np.testing.assert_array_equal(read.sum(axis=0), counts.sum(axis=0))


def test_more_electrons_than_rows(tmp_path):
    """Counts that would fill the file with empty rows are refused before it is made."""
    counts = np.zeros((1, 2, 2, 2), int)
    counts[0, 0, 0, 0] = 300
    with pytest.raises(InputError, match=r"would need 300 rows, .* at most 256 are written, pass to='raw-csr'"):
        written(tmp_path / "a.h5", counts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "text"), [((6,), "is a flat stack of frames"), ((2, 2, 2, 2), "is a series of scans")]
)
def test_scans_without_a_grid_are_refused(tmp_path, shape, text):
    """What stempy cannot hold is said with a way out."""
    with pytest.raises(InputError, match=f"{text}.*pass to='raw-csr'"):
        written(tmp_path / "a.h5", np.ones((*shape, 2, 2), int))


VERBATIM = {
    "background_threshold": 28.67,
    "x_ray_threshold": 384.98,
    "number_of_samples": 40,
    "threshold_calculated": True,
    "variance": "NaN",
    "nested": {"program": "stempy"},
}


def test_attributes_of_stempy_itself_come_back(tmp_path):
    """What stempy had noted goes through a store and back as it was, NaN and groups included."""
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["version"] = 3
        frames = file.create_dataset("electron_events/frames", (2,), dtype=h5py.vlen_dtype(np.uint32))
        frames[0] = np.array([3, 5], np.uint32)
        frames.attrs.update(Nx=2, Ny=3)
        file["electron_events/scan_positions"] = np.arange(2)
        file["electron_events/scan_positions"].attrs.update(Nx=2, Ny=1)
        group = file.create_group("metadata/electron_counting")
        group.attrs.update({key: value for key, value in VERBATIM.items() if not isinstance(value, dict)})
        group.attrs["variance"] = np.nan
        group.create_group("nested").attrs["program"] = "stempy"
        file.create_group("user").attrs["threshold sigma"] = 4.5
    stemstore.convert(tmp_path / "old.h5", tmp_path / "a.zarr")
    export(tmp_path / "a.zarr", tmp_path / "new.h5")
    with h5py.File(tmp_path / "old.h5") as old, h5py.File(tmp_path / "new.h5") as new:
        before, after = (dict(file["metadata/electron_counting"].attrs) for file in (old, new))
        assert before.keys() == after.keys()
        np.testing.assert_equal(after, before)
        assert new["metadata/electron_counting/nested"].attrs["program"] == "stempy"
        assert new["user"].attrs["threshold sigma"] == 4.5


def test_attributes_of_another_counting_are_not_taken_over():
    """Where events were counted anew, the old attributes do not describe them."""
    counting = CountingDescription(rule="stemstore", background_threshold=[30.0], xray_threshold=np.inf)
    assert counting_attributes(counting, VERBATIM) == {"background_threshold": 30.0, "x_ray_threshold": np.inf}
    stempy = CountingDescription(rule="stempy", background_threshold=[30.0])
    assert counting_attributes(stempy, VERBATIM) == {"background_threshold": 30.0}


def test_thresholds_of_sectors_stay_a_list(tmp_path):
    """Several background thresholds are an array, not one of them."""
    counting = CountingDescription(rule="stemstore", background_threshold=[30.0, 31.0], n_sampled_frames=7)
    found = counting_attributes(counting, None)
    assert found["background_threshold"].tolist() == [30, 31]
    assert found["number_of_samples"] == 7


def test_long_attributes_are_left_out_and_named(tmp_path, store):
    """An attribute beyond what HDF5 holds does not stop the export."""
    from stemstore.exchange.stempy import _write_tree

    with h5py.File(tmp_path / "a.h5", "w") as file:
        lost = _write_tree(
            file.create_group("g"), {"long": [0.5] * 20_000, "odd": [[1], [2, 3]], "good": 1, "none": None}
        )
        assert lost == ["/g/long", "/g/odd"]
        assert dict(file["g"].attrs) == {"good": 1}
