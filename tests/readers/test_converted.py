"""A scan of every format that was converted opens with the pixels, axes and units of its files."""

from __future__ import annotations

import importlib
import inspect
import pickle
import warnings
from importlib.metadata import entry_points
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

import stemstore
from stemstore.errors import ScanWarning
from stemstore.testing import ReaderTests

AXES = ("y", "x", "ky", "kx")
ALL, SCAN, DETECTOR = frozenset(AXES), frozenset(AXES[:2]), frozenset(AXES[2:])

STATED = {
    **dict.fromkeys(("blockfile", "dm", "emd_ncem", "emd_py4dstem", "empad", "hspy", "mrc"), ALL),
    **dict.fromkeys(("nexus", "nion", "pantarhei", "tia", "topspin", "zspy"), ALL),
    **dict.fromkeys(("dectris", "fpd"), SCAN),
    **dict.fromkeys(("emd_velox", "tiff"), DETECTOR),
}
"""Axes whose steps the files of a format state; the user states the others, and all of the formats not named here."""

GIVEN = {"y": {"scan_step": "0.5 nm"}, "ky": {"detector_step": "2 mrad", "detector_center": (1, 2)}}
"""What the user says where the files are silent, by one axis of each plane."""

UNMARKED = ("raw_binary",)
"""Readers of files without any mark, which have to be named; all others are found by looking at the files."""


def conformance_tests():
    """All subclasses of `ReaderTests` in this folder: each brings an encoder that was written for its reader."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path != Path(__file__):
            module = importlib.import_module(path.stem)
            for name, cls in inspect.getmembers(module, inspect.isclass):
                if issubclass(cls, ReaderTests) and cls.__module__ == path.stem:
                    yield pytest.param(cls, id=f"{cls.reader_cls.name}-{name}", marks=getattr(cls, "pytestmark", ()))


CASES = list(conformance_tests())


def written(cls, folder):
    """Encode a scan; gives where it lies, its pixels, and what has to be said to open it."""
    folder.mkdir(exist_ok=True)
    url, truth, options = cls().make_file(folder)
    name = cls.reader_cls.name
    return url, truth, options | ({"reader": name} if name in UNMARKED else {})


def opened(url, **options):
    """Open with the columns of the flyback, whatever is warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScanWarning)
        return stemstore.open(url, flyback=True, **options)


def uncalibrated(dataset):
    """Axes of a scan and of its detector that count pixels."""
    return {dim for dim in dataset.intensity.dims if dim in AXES and dataset[dim].attrs["units"] == "pixel"}


@pytest.mark.parametrize("cls", CASES)
def test_pixels_axes_and_units_are_kept(cls, tmp_path):
    """Converted and opened again, a scan has the encoded pixels, and every coordinate with its numbers and its unit."""
    url, truth, options = written(cls, tmp_path)
    for axis in uncalibrated(opened(url, **options)) & set(GIVEN):
        options |= GIVEN[axis]
    raw = opened(url, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScanWarning)
        stemstore.convert(url, tmp_path / "out.zarr", **options)
    stored = opened(tmp_path / "out.zarr")
    np.testing.assert_array_equal(stored.intensity.values, truth)
    assert stored.intensity.dims == raw.intensity.dims
    assert set(stored.coords) == set(raw.coords)
    for name, coordinate in raw.coords.items():
        np.testing.assert_allclose(stored[name].values, coordinate.values, rtol=1e-12, err_msg=str(name))
        assert stored[name].attrs == coordinate.attrs
    assert not uncalibrated(stored)
    assert {stored[axis].attrs["units"] for axis in DETECTOR} <= {"mrad", "1/angstrom"}


@pytest.mark.parametrize("cls", CASES)
def test_lazy_scans_pickle(cls, tmp_path):
    """The chunks of a lazy scan give its pixels behind a pickle, as they would in another process.

    With RosettaSciIO 0.15 those of EMD, Velox, NeXus, hspy and TIFF do not pickle; ARINA and TopSpin are not lazy.
    """
    url, truth, options = written(cls, tmp_path)
    lazy = pickle.loads(pickle.dumps(opened(url, **options).intensity.data))
    assert isinstance(lazy, da.Array)
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), truth)


@pytest.fixture(scope="module")
def worker():
    """Start a worker of dask.distributed in a process of its own."""
    distributed = pytest.importorskip("distributed", reason="needs dask.distributed (extra cluster)")
    with (
        stemstore.local_cluster(1, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.mark.parametrize("cls", CASES)
def test_workers_of_a_cluster_read(cls, tmp_path, worker):
    """A worker in another process reads the chunks of a lazy scan from the files themselves."""
    url, truth, options = written(cls, tmp_path)
    lazy = opened(url, **options).intensity.data
    np.testing.assert_array_equal(worker.compute(lazy).result(timeout=60), truth)


def test_no_reader_is_left_out():
    """Every built-in reader has an encoder among these tests."""
    ours = {entry.name for entry in entry_points(group="stemstore.readers") if entry.dist.name == "stemstore"}
    assert {case.values[0].reader_cls.name for case in CASES} == ours


def test_the_files_state_what_their_formats_can(tmp_path):
    """Where a format states the steps of an axis its encoder writes them: no stated unit goes uncompared."""
    found = {}
    for case in CASES:
        if not any(mark.args[0] for mark in case.marks if mark.name == "skipif"):
            url, _, options = written(case.values[0], tmp_path / case.id)
            dataset = opened(url, **options)
            stated = set(AXES) & set(dataset.intensity.dims) - uncalibrated(dataset)
            found[case.values[0].reader_cls.name] = found.get(case.values[0].reader_cls.name, set()) | stated
    assert {name: axes for name, axes in found.items() if axes} == STATED
