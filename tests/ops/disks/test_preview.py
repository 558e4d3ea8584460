"""The preview finds the disks of the patterns it shows, where they are, and tells kept from rejected ones."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import xarray as xr

from stemstore.errors import InputError, OptionalDependencyError
from stemstore.ops.disks.find import find_disks
from stemstore.ops.disks.preview import preview_disks
from stemstore.ops.disks.table import table_of

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def scan() -> xr.Dataset:
    """Give 3 x 4 patterns of three disks, one of them weak, on axes of -0.5 and 0.25 mrad per pixel."""
    rows, columns = np.indices((48, 40))
    image = sum(a * (np.hypot(rows - y, columns - x) < 4) for y, x, a in ((14, 12, 90), (30, 26, 20), (30, 9, 3)))
    counts = np.random.default_rng(2).poisson(image + 0.05, (3, 4, 48, 40)).astype(np.uint16)
    coords = {
        "x": ("x", np.arange(4) * 2.0, {"units": "nm"}),
        "ky": ("ky", (np.arange(48) - 20) * -0.5, {"units": "mrad"}),
        "kx": ("kx", (np.arange(40) - 20) * 0.25, {"units": "mrad"}),
    }
    return xr.Dataset({"intensity": (("y", "x", "ky", "kx"), counts)}, coords)


@pytest.fixture(autouse=True)
def _closed() -> Any:
    """Close the figures."""
    from matplotlib import pyplot as plt

    yield
    plt.close("all")


def circles(ax: Any, gid: str) -> list[Any]:
    """Find the circles that were drawn under a name."""
    return [patch for patch in ax.patches if patch.get_gid() == gid]


def test_disks_are_those_of_the_scan(scan: xr.Dataset) -> None:
    """The patterns asked for have the disks that the whole search gives, and know where they are."""
    _, some = preview_disks(scan.chunk(y=1), [(2, 1), (0, 3)], radius=4)
    whole, part = table_of(find_disks(scan, radius=4)), table_of(some)
    assert part.scan_dims == ("pattern",)
    assert some.x.values.tolist() == [2.0, 6.0]
    for number, position in enumerate([(2, 1), (0, 3)]):
        np.testing.assert_array_equal(part.qy[part.disks_of((number,))], whole.qy[whole.disks_of(position)])


def test_circles_stand_on_the_disks(scan: xr.Dataset) -> None:
    """In the units of the axes, as wide as the probe; what a filter rejects is drawn as rejected."""
    figure, disks = preview_disks(scan, [(1, 2)], radius=4, min_rel=0.5)
    (ax,) = figure.axes
    kept, rejected = circles(ax, "kept"), circles(ax, "rejected")
    assert disks.n_disks.values.tolist() == [2]
    middles = sorted(circle.get_center() for circle in kept)
    np.testing.assert_allclose(middles, [((12 - 20) * 0.25, 3.0), ((26 - 20) * 0.25, -5.0)], atol=0.15)
    assert (kept[0].width, kept[0].height) == (2.0, 4.0)
    near = [circle.get_center() for circle in rejected]
    assert any(np.allclose(middle, ((9 - 20) * 0.25, -5.0), atol=0.3) for middle in near)
    assert ax.get_title() == f"y 1, x 2: 2 disks, {len(rejected)} rejected"


def test_filters_that_exclude_everything_can_be_looked_at(scan: xr.Dataset) -> None:
    """Where nothing is left, all that was rejected is drawn."""
    figure, disks = preview_disks(scan, [(1, 2)], radius=4, min_rel=2.0, relative_to=0)
    assert disks.sizes["peak"] == 0
    assert len(circles(figure.axes[0], "rejected")) >= 3


def test_positions_are_chosen_among_those_with_frames(scan: xr.Dataset) -> None:
    """Without positions some with a frame inside the region are taken, always the same."""
    roi = np.zeros((3, 4), bool)
    roi[1] = True
    valid = np.full((3, 4), 2, np.uint8)
    valid[1, 0] = 0
    ds = scan.assign_coords(valid=(("y", "x"), valid))
    figure, disks = preview_disks(ds, radius=4, roi=roi)
    assert len(figure.axes) == 3
    assert disks.x.values.tolist() == [2.0, 4.0, 6.0]
    figure, disks = preview_disks(scan, radius=4)
    assert disks.sizes["pattern"] == 6
    assert preview_disks(scan, radius=4)[1].identical(disks)


def test_a_single_pattern_without_axes(scan: xr.Dataset) -> None:
    """A pattern without scan axes and coordinates is drawn in pixels."""
    one = scan.intensity[0, 0].drop_vars(["ky", "kx"])
    figure, disks = preview_disks(one, radius=4)
    assert disks.n_disks.shape == (1,)
    middles = [circle.get_center() for circle in circles(figure.axes[0], "kept")]
    np.testing.assert_allclose(middles, np.stack([disks.qx, disks.qy], axis=1))


def test_positions_outside_the_scan_are_refused(scan: xr.Dataset) -> None:
    """The message names the position and the scan."""
    with pytest.raises(InputError, match=r"position \(3, 0\) is none of the scan of \(3, 4\)"):
        preview_disks(scan, [(3, 0)], radius=4)
    with pytest.raises(InputError, match="no positions are given"):
        preview_disks(scan, [], radius=4)
    with pytest.raises(InputError, match="no position has a frame"):
        preview_disks(scan, radius=4, roi=np.zeros((3, 4), bool))


def test_a_missing_matplotlib_is_told_first(scan: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named before any pattern is read."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OptionalDependencyError, match=r"stemstore\[view\]"):
        preview_disks(scan, radius=4)
