"""The ragged list of disks: out of its dataset and back, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.ops.disks.table import DiskTable, dataset_of_table, table_of

if TYPE_CHECKING:
    import xarray as xr


@pytest.fixture
def table() -> DiskTable:
    """Five disks at 2 x 2 positions: two, none, three, not looked at."""
    values = np.arange(5, dtype=np.float32)
    processed = np.array([[True, True], [True, False]])
    offset = np.array([0, 2, 2, 5, 5])
    return DiskTable((2, 2), ("y", "x"), offset, values, values + 1, values, values, None, processed, (8, 6), "e-")


@pytest.fixture
def disks(table: DiskTable) -> xr.Dataset:
    """Label the table; the scan has a step, the detector is calibrated along kx."""
    coords = {
        "y": ("y", [0.0, 2.0], {"units": "nm"}),
        "kx": ("kx", np.arange(6) * 0.5, {"units": "mrad"}),
        "time": ("frame", [1, 2, 3]),
    }
    return dataset_of_table(table, coords, {"radius": 3.0})


def test_labels(disks: xr.Dataset) -> None:
    """Units, axes and attributes are there; a detector axis that is not calibrated is counted in pixels."""
    assert disks.sizes == {"y": 2, "x": 2, "peak": 5, "bound": 5, "ky": 8, "kx": 6}
    assert {name: disks[name].units for name in ("qy", "intensity", "ky", "kx", "y")} == {
        "qy": "pixel",
        "intensity": "e-",
        "ky": "pixel",
        "kx": "mrad",
        "y": "nm",
    }
    assert disks.n_disks.values.tolist() == [[2, 0], [3, 0]]
    assert disks.n_disks.coords["processed"].values.tolist() == [[True, True], [True, False]]
    assert "time" not in disks.coords
    assert disks.attrs == {"radius": 3.0}


def test_table_comes_back(table: DiskTable, disks: xr.Dataset) -> None:
    """The arrays are the same after labelling, also where the dataset is lazy or transposed."""
    for given in (disks, disks.chunk(peak=2, y=1), disks.transpose("x", "y", ...).transpose("y", "x", ...)):
        found = table_of(given)
        for name in DiskTable.__slots__:
            np.testing.assert_array_equal(getattr(found, name), getattr(table, name), err_msg=name)


def test_disks_of_a_position(table: DiskTable) -> None:
    """A position finds its disks, and a disk its position."""
    assert table.qy[table.disks_of((1, 0))].tolist() == [2, 3, 4]
    assert table.qy[table.disks_of((0, 1))].size == 0
    assert table.position.tolist() == [0, 0, 2, 2, 2]


def test_a_single_pattern_has_no_scan_dims() -> None:
    """Without scan axes there is one position."""
    one = np.ones(3, np.float32)
    table = DiskTable((), (), np.array([0, 3]), one, one, one, one, one, np.array(True), (8, 6))
    disks = dataset_of_table(table, {}, {})
    assert disks.n_disks.shape == ()
    found = table_of(disks)
    assert found.disks_of(()) == slice(0, 3)
    np.testing.assert_array_equal(found.sigma_q, one)


def test_other_objects_are_refused(disks: xr.Dataset) -> None:
    """Arrays, datasets without the variables, other dims and other units say what is wrong."""
    with pytest.raises(InputError, match="expected the dataset of disks that find_disks returns, got DataArray"):
        table_of(disks.qy)
    with pytest.raises(InputError, match=r"no list of disks: .* lacks \['correlation', 'processed'\]"):
        table_of(disks.drop_vars(["correlation", "processed"]))
    with pytest.raises(InputError, match=r"'offset' of the disks has dims \('peak',\), expected \('bound',\)"):
        table_of(disks.drop_vars("offset").assign(offset=("peak", np.zeros(5, np.int64))))
    with pytest.raises(InputError, match="'qx' of the disks is in 'mrad', expected pixels"):
        table_of(disks.assign(qx=disks.qx.assign_attrs(units="mrad")))
    with pytest.raises(InputError, match="'qy' of the disks holds values that are not finite"):
        table_of(disks.assign(qy=disks.qy.where(disks.qy > 0)))


@pytest.mark.parametrize("cut", [{"y": 0}, {"x": slice(1)}, {"y": slice(None, None, -1)}, {"peak": slice(3)}])
def test_cut_disks_are_refused(disks: xr.Dataset, cut: dict[str, object]) -> None:
    """After a cut or a turn along the scan or the disks the offsets no longer hold."""
    with pytest.raises(InputError, match="offsets of the disks do not fit"):
        table_of(disks.isel(cut))


def test_coordinates_of_other_extents_are_refused(table: DiskTable) -> None:
    """A coordinate that does not have the extent of its axis is named."""
    with pytest.raises(InputError, match=r"disks of a scan of \{'y': 2, .* do not fit their coordinates"):
        dataset_of_table(table, {"y": ("y", [0, 1, 2])}, {})
