"""Colours of deflections agree with the standard library, and the wheel is the right way round."""

import colorsys

import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import InputError
from stemstore.ops.phase.colours import com_colours, from_hsv


def maps(com_y, com_x):
    """Deflections as a Dataset in memory."""
    values = {"com_y": com_y, "com_x": com_x}
    return xr.Dataset({k: (("y", "x"), np.array(v, float), {"units": "mrad"}) for k, v in values.items()})


def test_conversion_agrees_with_the_standard_library():
    """Hue, saturation and value become the same colours as in colorsys."""
    hue, value = np.random.default_rng(0).random((2, 50))
    hue[:7] = np.arange(7) / 6
    expected = [colorsys.hsv_to_rgb(h, 0.9, v) for h, v in zip(hue, value, strict=True)]
    np.testing.assert_allclose(from_hsv(hue, 0.9, value), expected, atol=1e-12)


def test_the_wheel_turns_from_columns_to_rows():
    """Right is red, down (+y) yellow-green, left cyan, up violet; no deflection is black, an unknown one grey."""
    picture = com_colours(maps([[0, 1, 0, -1, 0, np.nan]], [[1, 0, -1, 0, 0, 1]]), longest=1)
    expected = [[1, 0.1, 0.1], [0.55, 1, 0.1], [0.1, 1, 1], [0.55, 0.1, 1], [0, 0, 0], [0.5, 0.5, 0.5]]
    np.testing.assert_allclose(picture.values[0], expected, atol=1e-12)
    assert picture.dims == ("y", "x", "rgb")


def test_brightness_is_the_length():
    """Half the longest deflection is half as bright, and longer ones saturate."""
    picture = com_colours(maps([[0, 0, 0]], [[1, 2, 8]]), longest=2)
    np.testing.assert_allclose(picture.max("rgb"), [[0.5, 1, 1]])
    assert picture.attrs["longest"] == 2
    assert picture.attrs["longest_units"] == "mrad"


def test_the_brightest_is_chosen_from_the_map():
    """Without a length the 99.5 % quantile counts, whatever is missing; nothing at all is black."""
    lengths = np.arange(1.0, 202.0).reshape(3, 67)
    lengths[0, 0] = np.nan
    assert com_colours(maps(0 * lengths, lengths)).attrs["longest"] == pytest.approx(np.nanquantile(lengths, 0.995))
    np.testing.assert_array_equal(com_colours(maps([[0, 0]], [[0, 0]])), np.zeros((1, 2, 3)))
    np.testing.assert_array_equal(com_colours(maps([[np.nan]], [[np.nan]])), np.full((1, 1, 3), 0.5))


def test_scans_can_be_coloured_directly(scan):
    """The centre of mass of a scan keeps its coordinates in the picture."""
    picture = com_colours(stemstore.center_of_mass(scan))
    assert picture.shape == (11, 9, 3)
    assert {"y_pixel", "x_pixel"} <= set(picture.coords)


def test_a_length_of_nothing_is_refused():
    """Full brightness needs a length."""
    for longest in (0, -1, np.nan):
        with pytest.raises(InputError, match="must be positive"):
            com_colours(maps([[0]], [[1]]), longest=longest)
