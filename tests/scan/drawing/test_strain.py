"""The figure of a strain map: what is drawn, in which colours, and the axes it refers to."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import stemstore.scan.accessor  # noqa: F401  (registers ``result.stem``)
from stemstore.errors import InputError, OptionalDependencyError

NAMES = ("e_yy", "e_xx", "e_xy", "theta")


@pytest.fixture
def strain():
    """Maps of 4 x 6 positions, 2 nm apart; one has no lattice."""
    values = np.linspace(-0.01, 0.02, 24).reshape(4, 6)
    values[1, 2] = np.nan
    maps = {name: (("y", "x"), values * (n + 1), {"units": "1"}) for n, name in enumerate(NAMES)}
    axes = {dim: (dim, 2.0 * np.arange(n), {"units": "nm", "step": 2.0}) for dim, n in (("y", 4), ("x", 6))}
    return xr.Dataset(maps, axes, {"axes": "scan", "axes_rotation_deg": 0.0})


def drawn(strain, **options):
    """Draw on a figure without pyplot."""
    return strain.stem.plot(Figure().subplots(1, 4), **options)


def test_four_maps_with_symmetric_colours(strain):
    """Strains are in per cent with one range, the rotation in degrees with its own; zero is in the middle of both."""
    axes = drawn(strain)
    limits = [ax.images[0].get_clim() for ax in axes]
    assert limits[0] == limits[1] == limits[2] != limits[3]
    assert all(low == -high for low, high in limits)
    np.testing.assert_allclose(axes[1].images[0].get_array(), 200 * strain.e_xx / 2)
    np.testing.assert_allclose(axes[3].images[0].get_array(), np.rad2deg(strain.theta))
    assert axes[0].images[0].get_extent() == [-1.0, 11.0, 7.0, -1.0]
    assert [len(ax.get_xticks()) for ax in axes] == [0, 0, 0, 0]
    assert axes[0].images[0].get_array().mask.sum() == 1
    bars = [[line.get_color() for line in ax.lines if line.get_gid() == "scale-bar"] for ax in axes]
    assert bars == [["black"], [], [], []]


def test_limits_are_given_in_the_units_of_the_maps(strain):
    """A limit of 0.01 is 1 %, and one of 0.1 rad is 5.7 degrees; a limit of zero is refused."""
    axes = drawn(strain, limit=0.01, rotation_limit=0.1)
    assert axes[2].images[0].get_clim() == (-1.0, 1.0)
    np.testing.assert_allclose(axes[3].images[0].get_clim(), np.rad2deg([-0.1, 0.1]))
    with pytest.raises(InputError, match="above zero"):
        drawn(strain, limit=0.0)


@pytest.mark.parametrize(
    ("about", "name", "direction"),
    [
        ({}, "y", (0, -1)),
        ({}, "x", (1, 0)),
        ({"axes_rotation_deg": 90.0}, "y", (1, 0)),
        ({"axes_rotation_deg": 90.0}, "x", (0, 1)),
        ({"axes": "detector"}, "ky", (0, -1)),
    ],
)
def test_arrows_show_the_axes(strain, about, name, direction):
    """Rows point downwards; turned axes go from y towards x, and those of the detector are named so."""
    (arrow,) = [one for one in drawn(strain.assign_attrs(about))[0].texts if one.get_gid() == f"axis-{name}"]
    np.testing.assert_allclose(np.array(arrow.get_position()) / 22, direction, atol=1e-9)


def test_a_figure_of_its_own(strain):
    """Without axes there is a new figure as high as the scan wants; maps of zeros have a range as well."""
    from matplotlib import pyplot as plt

    axes = (strain.fillna(0) * 0).assign_attrs(strain.attrs).stem.plot.strain(scale_bar=False)
    assert len(axes) == 4
    assert axes[0].figure.get_size_inches()[1] < axes[0].figure.get_size_inches()[0] / 4
    assert axes[0].get_ylabel() == "y (nm)"
    plt.close(axes[0].figure)


def test_what_is_refused(strain, monkeypatch):
    """Other datasets, other dims, too few axes, and a missing matplotlib."""
    with pytest.raises(InputError, match="figure of strain needs"):
        strain.drop_vars("theta").stem.plot.strain()
    with pytest.raises(InputError, match="figure of strain needs"):
        strain.isel(y=0).stem.plot.strain()
    with pytest.raises(InputError, match="needs 4 axes, got 2"):
        strain.stem.plot.strain(Figure().subplots(1, 2))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(OptionalDependencyError, match="stemstore\\[view\\]"):
        strain.stem.plot.strain()
