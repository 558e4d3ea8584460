"""Divergence and curl have the right value, sign and unit, and keep away from what is missing."""

import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import CalibrationMissingError, InputError
from stemstore.ops.phase.derivatives import curl, divergence
from stemstore.testing.arrays import ArrayEvents, ArrayFrames

Y, X = np.indices((3, 3))
# One bright pixel per frame at (row, column), and the divergence and curl everywhere; LiberTEM's curl is the opposite.
EXACT = [(Y, X, 2, 0), (2 - Y, 2 - X, -2, 0), (X, 2 - Y, 0, -2)]


@pytest.mark.parametrize("source", [ArrayFrames, ArrayEvents])
@pytest.mark.parametrize(("row", "column", "div", "rot"), EXACT, ids=["along", "against", "turned"])
def test_exact_vectors(dataset_of, source, row, column, div, rot):
    """Linear deflections have exact derivatives, at the borders as well."""
    frames = np.zeros((3, 3, 3, 3), np.uint16)
    frames[Y, X, row, column] = 7
    com = stemstore.center_of_mass(dataset_of(source(frames)))
    np.testing.assert_array_equal(divergence(com), np.full((3, 3), div))
    np.testing.assert_array_equal(curl(com), np.full((3, 3), rot))


def maps(com_y, com_x, steps=(1, 1), units=("pixel", "pixel")):
    """Deflections on axes of given steps and units."""
    axes = zip(("y", "x"), np.shape(com_y), steps, units, strict=True)
    coords = {name: (name, np.arange(n) * step, {"units": unit}) for name, n, step, unit in axes}
    attrs = {"units": "1/angstrom"}
    return xr.Dataset({"com_y": (("y", "x"), com_y, attrs), "com_x": (("y", "x"), com_x, attrs)}, coords=coords)


def test_steps_and_units_follow_the_axes():
    """Each axis has its own step, and another unit of length is converted."""
    y, x = np.indices((4, 5)).astype(float)
    com = maps(3 * y + 5 * x, 7 * y + 11 * x, (0.5, 20), ("nm", "angstrom"))
    result = divergence(com)
    np.testing.assert_allclose(result, 3 / 0.5 + 11 / 2)
    np.testing.assert_allclose(curl(com), 7 / 0.5 - 5 / 2)
    assert result.attrs["units"] == "1/angstrom/nm"


def test_backward_selections_keep_the_sign():
    """Reading the same scan backwards changes no derivative but its place."""
    y, x = np.indices((5, 6)).astype(float)
    com = maps(y**2 + x, x**2 - y, (0.5, 0.25), ("nm", "nm"))
    for function in (divergence, curl):
        there, back = function(com), function(com.isel(y=slice(None, None, -1), x=slice(None, None, -1)))
        np.testing.assert_allclose(back.values[::-1, ::-1], there.values, rtol=1e-12)


def test_positions_beside_a_hole_are_unknown():
    """A hole takes itself and its four neighbours with it, and nothing else."""
    y, x = np.indices((5, 5)).astype(float)
    com = maps(y, x)
    com["com_y"][2, 2] = com["com_x"][2, 2] = np.nan
    for function in (divergence, curl):
        unknown = np.argwhere(np.isnan(function(com).values)).tolist()
        assert unknown == [[1, 2], [2, 1], [2, 2], [2, 3], [3, 2]]


def test_frames_without_electrons_are_unknown(dataset_of, counts):
    """An empty frame is no deflection of zero."""
    frames = counts.copy()
    frames[0, 0] = 0
    found = divergence(stemstore.center_of_mass(dataset_of(ArrayFrames(frames)))).values
    assert np.argwhere(np.isnan(found)).tolist() == [[0, 0], [0, 1], [1, 0]]


def test_lazy_maps_stay_lazy(scan):
    """Nothing is read until the result is computed."""
    assert curl(stemstore.center_of_mass(scan)).chunks is not None


def test_transposed_maps_give_the_same():
    """Names count, not the order of the axes."""
    y, x = np.indices((4, 5)).astype(float)
    com = maps(y * x, x - y)
    np.testing.assert_array_equal(curl(com.transpose("x", "y")).transpose("y", "x"), curl(com))


@pytest.mark.parametrize("shape", [(1, 4), (4, 1)])
def test_single_rows_and_columns_are_refused(shape):
    """There is no difference along an axis of one position."""
    with pytest.raises(InputError, match="at least two positions along"):
        curl(maps(np.zeros(shape), np.zeros(shape)))


def test_scans_without_a_derivative_are_refused(scan):
    """Irregular steps, unrelated units, frames in a row and other results have no derivative."""
    com = maps(np.zeros((4, 4)), np.zeros((4, 4)))
    with pytest.raises(InputError, match="'x' is not evenly spaced"):
        divergence(com.isel(x=[0, 1, 3]))
    with pytest.raises(CalibrationMissingError, match="axis 'x' is in 'pixel'"):
        divergence(maps(np.zeros((2, 2)), np.zeros((2, 2)), units=("nm", "pixel")))
    with pytest.raises(InputError, match="select one frame first"):
        divergence(com.expand_dims("frame"))
    with pytest.raises(InputError, match="result of center_of_mass"):
        divergence(stemstore.virtual_image(scan, stemstore.disk(3)))
