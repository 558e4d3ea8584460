"""Bragg vectors of py4DSTEM: files written as its description says, and files read that are written so."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from stemstore.errors import (
    CorruptDataError,
    DestinationExistsError,
    InputError,
    NotFoundError,
    TruncatedFileError,
    UnknownFormatError,
)
from stemstore.exchange.bragg_vectors import export_disks, open_disks
from stemstore.ops.disks.calibration import calibrate_disks
from stemstore.ops.disks.table import table_of
from stemstore.ops.disks.vector_map import bragg_vector_map
from stemstore.ops.disks.views import disks_at, select_disks
from stemstore.scan.calibrate import calibrate
from stemstore.testing.arrays import ArrayFrames
from stemstore.testing.disks import lattice_disks

Y, X = np.indices((4, 5))
PLACES = np.stack([44.25 + 0.3 * Y, 54.5 - 0.2 * X], -1)


@pytest.fixture
def calibrated(dataset_of):
    """Make disks of a scan that is calibrated as far as py4DSTEM goes, on a cut detector."""

    def make(detector_step="0.02 1/angstrom", scan_step=2, cut=(slice(4, 94), slice(8, 118)), shape=(96, 120), **more):
        scan = dataset_of(ArrayFrames(np.zeros((4, 5, *shape), np.uint8)), detector_step=detector_step)
        scan = calibrate(scan, scan_step=scan_step, detector_center=(48, 62), scan_rotation=-20)
        scan = calibrate(scan, detector_transpose=True, semi_convergence_angle=1.5, beam_energy=300)
        origin = (PLACES[..., 0] + 4 - 48) * 0.02, (PLACES[..., 1] + 8 - 62) * 0.02
        scan = calibrate(scan, **{"origin": origin, "ellipse": {"a": 50, "b": 48, "theta": 25}} | more)
        scan = scan.isel(ky=cut[0], kx=cut[1])
        attrs = {**scan.intensity.attrs, "radius": 5.0, "template": "synthetic disk", "max_peaks": 70}
        return lattice_disks(origin=PLACES, noise=0.2, coords=scan.coords, attrs=attrs)

    return make


def vectors_of(disks, **options):
    """Calibrated vectors of all disks."""
    found = calibrate_disks(disks, **options)
    return np.column_stack([found.gy, found.gx])


def test_the_file_is_as_described(calibrated, tmp_path):
    """Groups, attributes, lists and shapes stand where EMD 1.0 and py4DSTEM want them."""
    disks = calibrated()
    report = export_disks(disks, tmp_path / "a.h5")
    assert report.shape == (4, 5, 90, 110)
    assert report.n_disks == disks.sizes["peak"]
    assert report.not_carried == ["intensity, sigma_q of every disk"]
    with h5py.File(report.url) as file:
        assert {k: file.attrs[k] for k in ("emd_group_type", "version_major", "version_minor")} == {
            "emd_group_type": "file",
            "version_major": 1,
            "version_minor": 0,
        }
        root = file["braggvectors_root"]
        assert (root.attrs["emd_group_type"], root.attrs["python_class"]) == ("root", "Root")
        node = root["braggvectors"]
        assert (node.attrs["emd_group_type"], node.attrs["python_class"]) == ("custom", "BraggVectors")
        points = node["_v_uncal"]
        assert (points.attrs["emd_group_type"], points.attrs["python_class"]) == (
            "custom_pointlistarray",
            "PointListArray",
        )
        mine = disks_at(disks, y=2, x=3)
        found = points["data"][2, 3]
        for field, name in (("qx", "qy"), ("qy", "qx"), ("intensity", "correlation")):
            np.testing.assert_array_equal(found[field], mine[name].values.astype(float))
        shape = node["metadatabundle/_braggvectors_shape"]
        assert shape["Rshape"][()].tolist() == [4, 5]
        assert shape["Qshape"][()].tolist() == [90, 110]
        assert shape["Qshape"].attrs["type"] == "tuple"
        assert node["metadatabundle/gen_params/radius"][()] == 5
        calibration = root["metadatabundle/calibration"]
        np.testing.assert_allclose(calibration["qx0"], PLACES[..., 0])
        assert calibration["Q_pixel_units"][()] == b"A^-1"
        assert calibration["QR_rotation_degrees"][()] == -20
        assert calibration["_target_paths/0"][()] == b"/braggvectors"


def test_round_trip(calibrated, tmp_path):
    """Positions, correlations and all calibrated vectors are the same after writing and opening."""
    disks = calibrated()
    export_disks(disks, tmp_path / "a.h5")
    found = open_disks(tmp_path / "a.h5")
    for name in ("qy", "qx", "correlation", "offset", "n_disks", "y", "x"):
        np.testing.assert_array_equal(found[name], disks[name])
        assert found[name].attrs.get("units") == disks[name].attrs.get("units")
    for name, middle in (("ky", PLACES[..., 0]), ("kx", PLACES[..., 1])):  # the axes count from the mean origin
        np.testing.assert_allclose(found[name], (np.arange(found.sizes[name]) - middle.mean()) * 0.02, atol=1e-12)
    for options in ({}, {"axes": "scan"}, {"ellipse": False, "unit": "mrad"}):
        want = vectors_of(disks.assign_attrs(beam_energy_keV=300), **options)
        got = vectors_of(found.assign_attrs(beam_energy_keV=300), **options)
        np.testing.assert_allclose(got, want, atol=1e-9)
    assert found.intensity.isnull().all()
    assert found.semi_convergence_angle_mrad == 1.5
    assert (found.radius, found.template) == (5.0, "synthetic disk")
    assert "open_disks(path='a.h5'" in found.history
    assert "notes" not in found.attrs
    assert bragg_vector_map(found, weights="correlation").sum() > 0
    with pytest.raises(InputError, match="pass weights='correlation'"):
        bragg_vector_map(found)


def test_scale_of_the_ellipse(calibrated, tmp_path):
    """A correction that preserves areas goes over: its scale becomes part of the size of a pixel."""
    u = np.array([np.cos(0.4), np.sin(0.4)])
    disks = calibrated(ellipse=(np.eye(2) - 0.1 * np.outer(u, u)) / np.sqrt(0.9))
    export_disks(disks, tmp_path / "a.h5")
    np.testing.assert_allclose(vectors_of(open_disks(tmp_path / "a.h5")), vectors_of(disks), atol=1e-9)


def test_thinned_and_flipped_views(calibrated, tmp_path):
    """Every second pixel goes over with its own size; reversed axes and gaps have no place."""
    disks = calibrated(cut=(slice(0, 180, 2), slice(0, 220, 2)), shape=(180, 220))
    export_disks(disks, tmp_path / "a.h5")
    np.testing.assert_allclose(vectors_of(open_disks(tmp_path / "a.h5")), vectors_of(disks), atol=1e-9)
    back = calibrated(cut=(slice(93, 3, -1), slice(8, 118)))
    assert "pixels of -0.02 x 0.02 1/angstrom" in export_disks(back, tmp_path / "b.h5").not_carried[0]
    gaps = calibrated(cut=([*range(89), 95], slice(8, 118)))
    assert export_disks(gaps, tmp_path / "c.h5").not_carried[0].endswith("a detector with gaps along ky")


def test_what_has_no_place(calibrated, tmp_path):
    """Oblong pixels and steps, correction matrices of any form, and positions not looked at are reported."""
    disks = calibrated(
        ellipse=[[1, 0.02], [0, 1]], detector_step=("0.02 1/angstrom", "0.03 1/angstrom"), scan_step=(2, 3)
    )
    roi = np.ones((4, 5), bool)
    roi[0, 0] = False
    report = export_disks(select_disks(disks, roi=roi), tmp_path / "a.h5", intensity="intensity")
    text = "; ".join(report.not_carried)
    for what in (
        "not symmetric",
        "0.02 x 0.03",
        "scan steps 2 and 3 nm",
        "correlation, sigma_q",
        "mark of 1 positions",
    ):
        assert what in text
    found = open_disks(tmp_path / "a.h5")
    assert found.ky.units == found.y.units == "pixel"
    np.testing.assert_array_equal(found.correlation, select_disks(disks, roi=roi).intensity)
    np.testing.assert_allclose(calibrate_disks(found).gy[:1], found.qy[:1] - PLACES[0, 1, 0], atol=1e-5)


def test_uncalibrated_lines_and_patterns(tmp_path):
    """A line of positions is a row, a single pattern one position; nothing is stated that nobody knows."""
    import xarray as xr

    one = disks_at(lattice_disks(), y=1, x=1)
    columns = {name: one[name] for name in one.data_vars}
    for dims, shape in (((), (1, 1)), (("frame",), (1, 2))):
        n = one.sizes["peak"]
        extent = {"offset": ("bound", [0, n]), "n_disks": n} if not dims else {}
        if dims:
            extent = {"offset": ("bound", [0, 4, n]), "n_disks": ("frame", [4, n - 4])}
        processed = (dims, np.ones([2] * len(dims), bool))
        axes = {"processed": processed, "ky": np.arange(90), "kx": np.arange(110)}
        disks = xr.Dataset({k: v.drop_vars("processed") for k, v in columns.items()} | extent, axes)
        report = export_disks(disks, tmp_path / f"{len(dims)}.h5")
        assert report.shape[:2] == shape
        found = open_disks(report.url)
        assert found.n_disks.values.ravel().tolist() == disks.n_disks.values.ravel().tolist()
        with h5py.File(report.url) as file:
            assert "qx0" not in file["braggvectors_root/metadatabundle/calibration"]
    big = disks.assign(n_disks=(("a", "b", "c"), disks.n_disks.values.reshape(1, 2, 1)))
    big = big.assign_coords(processed=(("a", "b", "c"), np.ones((1, 2, 1), bool)))
    with pytest.raises(InputError, match="Bragg vectors of py4DSTEM have two"):
        export_disks(big, tmp_path / "b.h5")


def test_many_positions(tmp_path, monkeypatch):
    """Positions go in blocks of whole rows, empty ones among them."""
    monkeypatch.setattr("stemstore.exchange.bragg_vector_nodes.ROWS", 11)
    roi = np.random.default_rng(0).random((7, 5)) > 0.4
    disks = select_disks(lattice_disks((7, 5), noise=0.3), roi=roi)
    export_disks(disks, tmp_path / "a.h5")
    found = open_disks(tmp_path / "a.h5")
    np.testing.assert_array_equal(found.qx, disks.qx)
    np.testing.assert_array_equal(found.n_disks, disks.n_disks)
    empty = select_disks(disks, max_peaks=0)
    export_disks(empty, tmp_path / "b.h5")
    assert table_of(open_disks(tmp_path / "b.h5")).n_disks.tolist() == np.zeros((7, 5)).tolist()


def write_peer(path, lists, calibration=None, *, name="braggvectors", mode="w", fields=("qx", "qy", "intensity")):
    """Write Bragg vectors as emdfile does: one list at a time, texts as bytes."""
    with h5py.File(path, mode) as file:
        file.attrs.update({"emd_group_type": "file", "version_major": 1, "version_minor": 0})
        root = file.require_group("dc_root")
        root.attrs.update({"emd_group_type": "root", "python_class": "Root"})
        if calibration is not None:
            group = root.create_group("metadatabundle/calibration")
            group.attrs.update({"emd_group_type": "metadata", "python_class": "Calibration"})
            for key, value in calibration.items():
                group[key] = value.encode() if isinstance(value, str) else value
        node = root.create_group(name)
        node.attrs.update({"emd_group_type": "custom", "python_class": "BraggVectors"})
        shape = node.create_group("metadatabundle/_braggvectors_shape")
        shape.attrs["emd_group_type"] = "metadata"
        shape["Rshape"], shape["Qshape"] = (2, 2), (64, 48)
        kind = np.dtype([(field, "f8") for field in fields])
        data = node.create_dataset("_v_uncal/data", (2, 2), h5py.vlen_dtype(kind))
        for place, rows in enumerate(lists):
            data[place // 2, place % 2] = np.array([tuple(row) for row in rows], kind)
    return path


LISTS = [[(10, 20, 1.5), (30, 40, 7)], [], [(1, 2, 3)], [(5, 6, 2), (7, 8, 9), (9, 1, 4)]]


def test_files_of_py4dstem(tmp_path):
    """Lists are sorted by correlation; scalars, texts and maps of the calibration are understood."""
    origin = np.array([[31.0, 32], [33, 34]])
    calibration = {"Q_pixel_size": 0.25, "Q_pixel_units": "A^-1", "R_pixel_size": 20.0, "R_pixel_units": "A"}
    calibration |= {"qx0": origin, "qy0": origin - 10, "qx0_mean": 32.5, "QR_rotation": np.pi / 6, "QR_flip": True}
    calibration |= {"a": 2.0, "b": 1.0, "theta": np.pi / 2}
    found = open_disks(write_peer(tmp_path / "a.h5", LISTS, calibration))
    assert found.n_disks.values.tolist() == [[2, 0], [1, 3]]
    assert found.correlation.values.tolist() == [7, 1.5, 3, 9, 4, 2]
    assert found.qy.values.tolist() == [30, 10, 1, 7, 9, 5]
    assert (found.ky.units, found.y.units, float(found.y[1])) == ("1/angstrom", "nm", 2.0)
    assert float(found.ky[32] + found.ky[33]) == pytest.approx(0)
    vectors = calibrate_disks(found)
    np.testing.assert_allclose(vectors.gy[:2], [(30 - 31) * 0.25, (10 - 31) * 0.25], atol=1e-12)
    np.testing.assert_allclose(vectors.gx[:2], [(40 - 21) * 0.125, (20 - 21) * 0.125], atol=1e-12)
    turned = calibrate_disks(found, axes="scan")
    assert (turned.gy.attrs["rotation_deg"], turned.gy.attrs["transpose"]) == (pytest.approx(30), 1)


@pytest.mark.parametrize(
    ("calibration", "text"),
    [
        ({"Q_pixel_size": 0.25}, "Q_pixel_size is 0.25 without a unit"),
        ({"Q_pixel_size": 0.25, "Q_pixel_units": "furlong"}, "Q_pixel_size is left out"),
        ({"Q_pixel_size": -1.0, "Q_pixel_units": "mrad"}, "detector_step of the calibration is left out"),
        ({"qx0": np.array([[1.0, np.nan], [2, 3]]), "qy0": np.ones((2, 2))}, "origin of the calibration is left out"),
        ({"a": 2.0, "b": -1.0, "theta": 0.0}, "ellipse of the calibration is left out"),
        ({"qx0": np.ones((3, 2)), "qy0": np.ones((3, 2))}, "no maps of (2, 2) positions"),
        (
            {"Q_pixel_size": "wide", "QR_rotation": "left", "qx0": "here", "R_pixel_size": 2.0},
            "R_pixel_size is 2 without",
        ),
    ],
)
def test_odd_calibrations(tmp_path, calibration, text):
    """What cannot be right is left out with a note; the vectors open all the same."""
    found = open_disks(write_peer(tmp_path / "a.h5", LISTS, calibration))
    assert text in found.notes
    assert found.sizes["peak"] == 6


def test_several_vectors_in_a_file(tmp_path):
    """They are named; one is chosen by its path."""
    path = write_peer(tmp_path / "a.h5", LISTS)
    write_peer(path, LISTS[::-1], name="other", mode="a")
    with pytest.raises(InputError, match=r"several BraggVectors; pass vectors= one of \['/dc_root/braggvectors'"):
        open_disks(path)
    with pytest.raises(InputError, match="no BraggVectors 'dc_root/third'"):
        open_disks(path, vectors="dc_root/third")
    assert open_disks(path, vectors="dc_root/other").n_disks.values.tolist() == [[3, 1], [0, 2]]


def test_what_is_no_such_file(tmp_path):
    """Foreign, incomplete and damaged files raise the error of their kind."""
    with pytest.raises(NotFoundError, match=r"a\.h5"):
        open_disks(tmp_path / "a.h5")
    (tmp_path / "t.h5").write_bytes(b"text")
    with pytest.raises(UnknownFormatError, match="no HDF5 file"):
        open_disks(tmp_path / "t.h5")
    with h5py.File(tmp_path / "e.h5", "w"):
        pass
    with pytest.raises(UnknownFormatError, match="holds no BraggVectors"):
        open_disks(tmp_path / "e.h5")
    bare = write_peer(tmp_path / "f.h5", [[(1, 2)]] * 4, fields=("qx", "qy"))
    with pytest.raises(CorruptDataError, match=r"fields \['qx', 'qy'\]"):
        open_disks(bare)
    with pytest.raises(CorruptDataError, match="positions that are not finite"):
        open_disks(write_peer(tmp_path / "n.h5", [[(np.nan, 2, 3)]] * 4))
    for part, text in (("_v_uncal", "has no lists of points"), ("metadatabundle", "does not say the shape")):
        path = write_peer(tmp_path / f"{part}.h5", LISTS)
        with h5py.File(path, "a") as file:
            del file["dc_root/braggvectors"][part]
        with pytest.raises(CorruptDataError, match=text):
            open_disks(path)
    whole = write_peer(tmp_path / "w.h5", LISTS).read_bytes()
    (tmp_path / "w.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises((TruncatedFileError, CorruptDataError), match=r"w\.h5"):
        open_disks(tmp_path / "w.h5")


def test_places_that_are_taken(tmp_path):
    """A file of our own is replaced where that is asked for; no other, and nothing is left beside."""
    disks = lattice_disks()
    export_disks(disks, tmp_path / "a.h5")
    with pytest.raises(DestinationExistsError, match="pass overwrite=True"):
        export_disks(disks, tmp_path / "a.h5")
    export_disks(select_disks(disks, max_peaks=2), tmp_path / "a.h5", overwrite=True)
    assert (open_disks(tmp_path / "a.h5").n_disks == 2).all()
    write_peer(tmp_path / "p.h5", LISTS)
    for name in ("p.h5", "t.h5"):
        (tmp_path / "t.h5").write_bytes(b"text")
        with pytest.raises(DestinationExistsError, match="is no py4DSTEM Bragg vectors file"):
            export_disks(disks, tmp_path / name, overwrite=True)
    with pytest.raises(InputError, match="is not on this machine"):
        export_disks(disks, "s3://bucket/a.h5")
    with pytest.raises(InputError, match="intensity='counts' is not known"):
        export_disks(disks, tmp_path / "b.h5", intensity="counts")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "p.h5", "t.h5"]
