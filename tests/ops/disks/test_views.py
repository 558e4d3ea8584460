"""The disks of one position, and filters on disks that were found."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.ops.disks.calibration import calibrate_disks
from stemstore.ops.disks.table import table_of
from stemstore.ops.disks.views import disks_at, select_disks
from stemstore.ops.geometry.detectors import annulus, disk
from stemstore.testing.disks import lattice_disks

COORDS = {
    "y": ("y", 1.5 + 2.0 * np.arange(4), {"units": "nm", "step": 2.0}),
    "x": ("x", [0.0, 1.0, 2.0, 3.0, 4.0], {"units": "nm", "step": 1.0}),
}


@pytest.fixture
def disks():
    """Disks of a lattice whose origin moves, on a scan with steps of 2 and 1 nm."""
    y, x = np.indices((4, 5))
    return lattice_disks(origin=np.stack([44.5 + y, 54.5 - x], -1), coords=COORDS)


def at(disks, y, x):
    """Slice of the disks of a position."""
    first = disks.offset.values[y * 5 + x :]
    return slice(first[0], first[1])


def test_by_index_and_by_coordinate(disks):
    """Both name the same position; its disks come with its coordinates and all their columns."""
    disks = calibrate_disks(disks)
    found = disks_at(disks, y=2, x=3)
    mine = at(disks, 2, 3)
    for name in ("qy", "qx", "gy", "gx", "intensity", "correlation", "sigma_q"):
        np.testing.assert_array_equal(found[name], disks[name][mine])
    assert set(found.data_vars) == {"qy", "qx", "gy", "gx", "intensity", "correlation", "sigma_q"}
    assert (found.y, found.x, bool(found.processed)) == (5.5, 3, True)
    assert found.qy.units == "pixel"
    for other in (disks_at(disks, y=-2, x=-2), disks_at(disks, y=6.3, x=2.6, by="coordinate")):
        assert other.identical(found)


def test_lazy_disks_are_read_for_one_position(disks):
    """Of disks in a store only those of the position are loaded."""
    lazy = disks.chunk(peak=5)
    found = disks_at(lazy, y=2, x=3)
    assert found.identical(disks_at(disks, y=2, x=3))
    assert not any(hasattr(one.data, "dask") for one in found.variables.values())


def test_what_is_no_list_of_disks(disks):
    """Foreign datasets, and lists that were cut, are refused as everywhere."""
    with pytest.raises(InputError, match="the dataset is no list of disks"):
        disks_at(disks.drop_vars("offset"), y=0, x=0)
    with pytest.raises(InputError, match="the dataset was cut"):
        disks_at(disks.isel(y=slice(1, 3)), y=0, x=0)


def test_a_single_pattern(disks):
    """Disks without scan axes need no position."""
    import xarray as xr

    one = disks_at(disks, y=1, x=1)
    alone = xr.Dataset(
        {name: one[name] for name in one.data_vars}
        | {"offset": ("bound", [0, one.sizes["peak"]]), "n_disks": one.sizes["peak"]},
        {"processed": True, "ky": disks.ky, "kx": disks.kx},
    )
    np.testing.assert_array_equal(disks_at(alone).qy, one.qy)
    assert select_disks(alone, max_peaks=3).n_disks == 3


def test_positions_that_are_none(disks):
    """Axes that are missing or foreign, and places outside of the scan, are named."""
    for given, text in [
        ({"y": 1}, r"has the axes \('y', 'x'\), got \('y',\)"),
        ({"y": 1, "z": 1}, "give y=…, x=…"),
        ({"y": 4, "x": 0}, "y = 4 lies outside of the scan, which has 4 positions"),
        ({"y": 1.0, "x": 0}, "y = 1.0 is no index; give a whole number, or pass by='coordinate'"),
        ({"y": 0.4, "x": 0, "by": "coordinate"}, r"spans 1.5 … 7.5 nm along y"),
        ({"y": 0, "x": 0, "by": "name"}, "by='name' is not known"),
    ]:
        with pytest.raises(InputError, match=text):
            disks_at(disks, **given)


def test_limits(disks):
    """Every limit holds for what is left, in the order of disk detection, and counts are those of the result."""
    found = select_disks(disks, min_correlation=5, min_rel=0.5, relative_to=1, min_spacing=19, max_peaks=4)
    table = table_of(found)  # checks the offsets
    for i in range(20):
        old, new = slice(*disks.offset.values[i : i + 2]), slice(*table.offset[i : i + 2])
        keep = disks.correlation.values[old] >= 5
        keep &= disks.correlation.values[old] >= 0.5 * disks.correlation.values[old][1]
        places = np.column_stack([disks.qy[old], disks.qx[old]])[keep]
        apart: list = []
        for place in places:
            if all(np.hypot(*(place - other)) >= 19 for other in apart):
                apart.append(place)
        np.testing.assert_array_equal(np.column_stack([table.qy[new], table.qx[new]]), apart[:4])
    assert 1 < len(apart) < len(places)
    assert "select_disks(min_correlation=5, min_rel=0.5, relative_to=1, min_spacing=19, max_peaks=4)" in found.history


def test_intensity_and_no_limit(disks):
    """Intensity has its own limit; without limits nothing changes."""
    found = select_disks(disks, min_intensity=300)
    assert found.intensity.min() >= 300
    assert found.sizes["peak"] == (disks.intensity >= 300).sum() < disks.sizes["peak"]
    assert select_disks(disks).drop_attrs().equals(disks.drop_attrs())


def test_inside_of_a_detector(disks):
    """A shape keeps the disks whose centre lies in it, and moves with the origin; an array does by its pixels."""
    y, x = np.indices((4, 5))
    origin = 44.5 + y, 54.5 - x
    found = select_disks(disks, inside=annulus(10, 25), origin=origin)
    assert (found.n_disks == 4).all()  # the lattice vectors around the centre
    assert (select_disks(disks, inside=disk(1), origin=False).n_disks.values == (y**2 + x**2 < 1)).all()
    mask = np.zeros((90, 110), bool)
    mask[44:46, 54:56] = True
    assert (select_disks(disks, inside=mask, origin=origin).n_disks == 1).all()
    assert "annulus" in found.history


def test_region_of_the_scan(disks):
    """Positions outside of a region have no disks and count as not processed."""
    roi = disks.y + disks.x > 5
    found = select_disks(disks, roi=roi.transpose("x", "y"), max_peaks=2)
    assert found.n_disks.values.tolist() == np.where(roi, 2, 0).tolist()
    assert found.processed.values.tolist() == roi.values.tolist()
    assert found.processed.attrs == disks.processed.attrs


def test_limits_that_are_none(disks):
    """Names and values that mean nothing are refused."""
    for given, text in [
        ({"min_sharpness": 1}, "min_sharpness is no limit on disks; use some of min_correlation"),
        ({"min_rel": np.nan}, "min_rel = nan is not a finite number"),
        ({"max_peaks": 1.5}, "max_peaks = 1.5 is not a whole number"),
        ({"min_rel": 0.1, "relative_to": -1}, "relative_to = -1"),
        ({"relative_to": 1}, "give min_rel with it"),
    ]:
        with pytest.raises(InputError, match=text):
            select_disks(disks, **given)
