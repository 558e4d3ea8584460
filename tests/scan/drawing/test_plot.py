"""Pictures stand where the coordinates say, and show what is there."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import stemstore
import stemstore.scan.accessor
from stemstore.errors import InputError, OptionalDependencyError
from stemstore.scan.drawing.canvas import Grid, _border_lines, round_length
from stemstore.scan.drawing.colours import vector_colours


@pytest.fixture
def ax():
    """Axes without pyplot."""
    return Figure().subplots()


def plane(values, dims=("y", "x"), units="nm", **axes):
    """Label a plane; axes are given as (first, step)."""
    values = np.asarray(values)
    coords = {
        dim: (dim, first + step * np.arange(values.shape[dims.index(dim)]), {"units": units, "step": step})
        for dim, (first, step) in axes.items()
    }
    return xr.DataArray(values, dims=dims, coords=coords, name="image", attrs={"units": "count", "long_name": "sum"})


def named(ax, gid):
    """Find what was drawn under a name."""
    return [artist for artist in ax.get_children() if artist.get_gid() == gid]


def test_pixels_lie_between_their_borders(ax):
    """The picture reaches half a pixel beyond the outer coordinates, and y grows downwards."""
    image = plane(np.arange(12.0).reshape(3, 4), y=(10.0, 2.0), x=(5.0, 0.5))
    assert image.stem.plot.image(ax) is ax
    assert ax.images[0].get_extent() == [4.75, 6.75, 15.0, 9.0]
    assert ax.get_xlim() == (4.75, 6.75)
    assert ax.get_ylim() == (15.0, 9.0)
    np.testing.assert_array_equal(ax.images[0].get_array(), image)


def test_the_pixel_under_a_coordinate_is_its_own(ax):
    """At the coordinates of a position matplotlib reads the value of that position, reversed axes included."""
    image = plane(np.arange(12.0).reshape(3, 4), y=(10.0, 2.0), x=(5.0, 0.5)).isel(y=slice(None, None, -1))
    image.stem.plot.image(ax)
    ax.figure.canvas.draw()
    for y, x in ((10, 5.0), (12, 6.5), (14, 5.5)):
        event = SimpleNamespace(x=(at := ax.transData.transform((x, y)))[0], y=at[1])
        assert ax.images[0].get_cursor_data(event) == image.sel(y=y, x=x)
    assert ax.get_ylim() == (15.0, 9.0)


def test_rectangular_pixels_are_drawn_as_rectangles(ax):
    """Like units have one scale; unlike ones square pixels."""
    plane(np.eye(3), y=(0, 2.0), x=(0, 0.5)).stem.plot.image(ax)
    assert ax.get_aspect() == 1.0
    mixed = plane(np.eye(3), y=(0, 2.0), x=(0, 0.5))
    mixed.x.attrs["units"] = "pixel"
    mixed.stem.plot.image(ax)
    assert ax.get_aspect() == 0.25


def test_uneven_axes_keep_their_places(ax):
    """Positions at unlike distances are drawn where they are."""
    image = plane(np.arange(12.0).reshape(3, 4), y=(0, 1.0), x=(0, 1.0)).isel(x=[0, 1, 3])
    image.stem.plot.image(ax)
    (mesh,) = ax.collections
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [-0.5, 0.5, 2, 4])
    assert ax.get_ylim() == (2.5, -0.5)


def test_positions_out_of_order_are_refused(ax):
    """A picture cannot show a position twice."""
    image = plane(np.eye(3), y=(0, 1.0), x=(0, 1.0)).isel(x=[0, 0, 2])
    with pytest.raises(InputError, match="'x' is empty or not in order"):
        image.stem.plot.image(ax)


@pytest.mark.parametrize(("width", "length"), [(10.0, 2.0), (7.0, 2.0), (3.4, 1.0), (1.0, 0.2), (3000.0, 500.0)])
def test_scale_bars_are_round_and_true(ax, width, length):
    """A bar has the length that it claims: 1, 2 or 5 times a power of ten, at most 0.3 of the width."""
    plane(np.eye(20), y=(0, 1.0), x=(0, width / 20)).stem.plot.image(ax)
    (bar,) = named(ax, "scale-bar")
    assert np.ptp(bar.get_xdata()) == pytest.approx(length)
    assert [text.get_text() for text in ax.texts] == [f"{length:g} nm"]
    assert len(ax.get_xticks()) == 0


def test_round_lengths():
    """The largest round length that fits is taken, exact ones included."""
    assert [round_length(most) for most in (1, 1.9, 2, 4.99, 5, 9.9, 0.051)] == pytest.approx([1, 1, 2, 2, 5, 5, 0.05])


def test_bars_of_the_units_that_there_are(ax):
    """Bars are in pixels where nothing is calibrated (one at least), and reciprocal ångström are written so."""
    plane(np.eye(3)).stem.plot.image(ax)
    assert ax.texts[-1].get_text() == "1 pixel"
    plane(np.eye(8), ("ky", "kx"), "1/angstrom", ky=(-1, 0.25), kx=(-1, 0.25)).stem.plot.pattern(ax)
    assert ax.texts[-1].get_text() == "0.5 1/Å"


def test_ticks_in_place_of_the_bar(ax):
    """Without a bar the axes carry names and units."""
    plane(np.eye(3), y=(0, 1.0), x=(0, 1.0)).stem.plot.image(ax, scale_bar=False, title="sum")
    assert (ax.get_ylabel(), ax.get_xlabel(), ax.get_title()) == ("y (nm)", "x (nm)", "sum")
    assert not named(ax, "scale-bar")


def test_missing_is_not_zero(ax):
    """Positions without a frame or a number are left out and hatched."""
    image = plane([[0.0, 1.0], [np.nan, 5.0]]).assign_coords(valid=(("y", "x"), [[0, 2], [2, 1]]))
    image.stem.plot.image(ax, percentile=None)
    np.testing.assert_array_equal(np.ma.getmaskarray(ax.images[0].get_array()), [[True, False], [True, False]])
    assert ax.images[0].get_clim() == (1.0, 5.0)
    (ground,) = named(ax, "missing")
    assert ground.get_hatch()
    assert ground.get_zorder() < ax.images[0].get_zorder()


def test_nothing_is_hatched_where_all_is_there(ax):
    """A complete image has no ground."""
    plane(np.eye(3)).stem.plot.image(ax)
    assert not named(ax, "missing")


def test_shades_and_colour_bar(ax):
    """The shades span the percentiles; the bar names the quantity and tells of values beyond."""
    plane(np.arange(101.0).reshape(1, 101)).stem.plot.image(ax, percentile=(10, 100))
    assert ax.images[0].get_clim() == (10, 100)
    bar = ax.images[0].colorbar
    assert bar.ax.get_ylabel() == "sum (count)"
    assert bar.extend == "min"


def test_rare_values_are_not_lost(ax):
    """Where percentiles leave no range, and for masks, the whole range is shown."""
    mask = np.zeros((50, 50), bool)
    mask[3, 4] = True
    for values in (mask, mask.astype(float)):
        plane(values).stem.plot.image(ax)
        assert ax.images[-1].get_clim() == (0, 1)


def test_limits_of_the_user(ax):
    """Limits and norms that are given are used."""
    plane(np.eye(3)).stem.plot.image(ax, vmin=-1, vmax=7, interpolation="nearest")
    assert ax.images[0].get_clim() == (-1, 7)


def test_coloured_pictures(ax):
    """Colours are drawn as they are, without a colour bar."""
    colours = np.random.default_rng(0).random((3, 4, 3))
    plane(colours, ("y", "x", "rgb")).stem.plot(ax)
    np.testing.assert_array_equal(ax.images[0].get_array()[..., :3], colours)
    assert ax.images[0].colorbar is None


def test_logarithmic_patterns(ax):
    """Zeros and negative values have the darkest shade; the smallest positive one is brighter."""
    pattern = plane([[-3.0, 0.0, 1.0], [2.0, 100.0, np.nan]], ("ky", "kx"))
    pattern.stem.plot.pattern(ax, percentile=None)
    shown = ax.images[0]
    shades = shown.norm(shown.get_array())
    assert shown.get_clim() == (0.5, 100)
    assert shades[0].tolist()[:2] == [0, 0]
    assert 0 < shades[0, 2] < shades[1, 0] < shades[1, 1] == 1
    assert np.ma.getmaskarray(shades)[1, 2]
    assert shown.colorbar.extend == "min"


def test_spectra_are_drawn_like_patterns(ax):
    """Planes of frequencies have logarithmic shades and no optic axis; squares are written as such."""
    spectrum = plane(np.ones((4, 4)), ("fy", "fx"), "angstrom", fy=(-2, 1.0), fx=(-2, 1.0))
    spectrum.attrs["units"] = "count^2"
    spectrum.stem.plot(ax)
    assert ax.images[0].colorbar.ax.get_ylabel() == "sum (count²)"
    assert not named(ax, "center")
    assert ax.texts[-1].get_text() == "1 Å"


def test_empty_and_linear_patterns(ax):
    """A pattern of zeros can be drawn in both ways."""
    for log in (True, False):
        plane(np.zeros((3, 3)), ("ky", "kx")).stem.plot.pattern(ax, log=log)
        ax.figure.canvas.draw()


def inside(lines, grid_shape):
    """Fill the outline: pixels from which a ray to the left crosses an odd number of upright lines."""
    upright = [s for s in lines.get_segments() if s[0][0] == s[1][0]]
    rows, columns = np.mgrid[: grid_shape[0], : grid_shape[1]]
    crossed = np.zeros(grid_shape, int)
    for (x, y), (_, v) in upright:
        crossed += (x < columns) & (min(y, v) < rows) & (rows < max(y, v))
    return crossed % 2 == 1


@pytest.mark.parametrize("region", ["disk", "annulus", "random"])
def test_outlines_enclose_exactly_what_is_summed(ax, scan, region):
    """Filling the outline gives the detector's weights, and it runs at pixel borders only."""
    pattern = stemstore.mean_pattern(scan)
    detector = {
        "disk": stemstore.disk(3.3),
        "annulus": stemstore.annulus(2, 5.5),
        "random": np.random.default_rng(5).random((14, 10)) > 0.5,
    }[region]
    pattern.stem.plot.pattern(ax, detectors={"mine": detector})
    (lines,) = [c for c in ax.collections if c.get_label() == "mine"]
    weights = detector if region == "random" else detector.weights(scan.intensity)
    np.testing.assert_array_equal(inside(lines, (14, 10)), weights)
    places = np.concatenate(lines.get_segments())
    np.testing.assert_array_equal(places % 1, 0.5)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["mine"]


def test_outlines_follow_calibrated_axes(ax, frames_of):
    """On calibrated rectangular pixels the outline of one pixel is that pixel's rectangle."""
    scan = frames_of(np.ones((1, 1, 6, 8), np.uint8), detector_step=("1 mrad", "2 mrad"))
    pattern = stemstore.mean_pattern(scan).isel(ky=slice(1, None))
    pattern.stem.plot(ax, detectors=stemstore.point(0.5, -1, unit="mrad"), scale_bar=False)
    lines = ax.collections[-1]
    corners = {tuple(corner) for segment in lines.get_segments() for corner in segment}
    assert corners == {(x, y) for x in (-2, 0) for y in (0, 1)}
    assert lines.get_label() == "point(ky=0.5, kx=-1, unit='mrad')"
    assert ax.get_ylabel() == "ky (mrad)"


def test_detectors_move_with_the_origin_of_a_position(scan, counts):
    """What is drawn on one pattern of a scan that carries its origins is what its virtual image sums there."""
    rng = np.random.default_rng(9)
    places = [
        xr.DataArray(middle + rng.uniform(-3, 3, (11, 9)), dims=("y", "x"), attrs={"units": "pixel"})
        for middle in (6.5, 4.5)
    ]
    walking = stemstore.calibrate(scan, origin=tuple(places))
    for detector in (stemstore.annulus(1.5, 4), rng.random((14, 10)) > 0.5):
        image = stemstore.virtual_image(walking, detector).values
        for y, x in ((0, 0), (3, 7), (10, 8)):
            ax = Figure().subplots()
            walking.isel(y=y, x=x).stem.plot.pattern(ax, detectors={"mine": detector})
            lines = next(c for c in ax.collections if c.get_label() == "mine")
            assert (counts[y, x] * inside(lines, (14, 10))).sum() == image[y, x]
            (mark,) = named(ax, "center")
            np.testing.assert_allclose(mark.get_xydata(), [[float(place[y, x]) for place in places[::-1]]])


def test_outlines_follow_the_ellipse_of_a_scan(ax, scan):
    """Where the scan carries an ellipse, disks are drawn as they are summed."""
    bent = stemstore.calibrate(scan, ellipse=[[1.3, 0.2], [0.2, 0.8]])
    disk = stemstore.disk(3.3)
    stemstore.mean_pattern(bent).stem.plot.pattern(ax, detectors=disk)
    weights = disk.weights(bent.intensity)
    np.testing.assert_array_equal(inside(ax.collections[-1], (14, 10)), weights)
    assert (weights != disk.weights(scan.intensity)).any()


def test_border_lines_are_as_long_as_they_can_be():
    """A rectangle has four lines, whatever its number of pixels."""
    mask = np.zeros((7, 9), bool)
    mask[2:5, 3:8] = True
    grid = Grid.of(plane(mask), ("y", "x"))
    assert _border_lines(mask, grid.rows, grid.columns) == [(1.5, 2.5, 7.5), (4.5, 2.5, 7.5)]


def test_the_optic_axis_is_marked_where_it_is(ax, scan):
    """The cross stands on the optic axis, and is left out where that is out of the picture."""
    pattern = stemstore.mean_pattern(scan)
    pattern.stem.plot.pattern(ax)
    (mark,) = named(ax, "center")
    np.testing.assert_array_equal(mark.get_xydata(), [[4.5, 6.5]])
    pattern.isel(ky=slice(9, None)).stem.plot.pattern(other := Figure().subplots())
    assert not named(other, "center")


def test_detectors_that_do_not_fit_are_refused(ax, scan):
    """Weights of another shape, and what is no detector, are told apart from the pattern."""
    pattern = stemstore.mean_pattern(scan)
    for wrong in (np.ones((3, 3)), "annulus"):
        with pytest.raises(InputError, match=r"the pattern is \(14, 10\)"):
            pattern.stem.plot.pattern(ax, detectors=wrong)


def test_vectors_have_the_colours_of_the_wheel(ax):
    """Vectors are coloured like com_colours; unknown ones are hatched; the wheel tells the length at its rim."""
    com = xr.Dataset({"com_y": plane([[0.0, 1.0], [np.nan, -2.0]]), "com_x": plane([[2.0, 0.0], [1.0, 0.0]])})
    for name in com:
        com[name].attrs["units"] = "mrad"
    com.stem.plot(ax, longest=2.0)
    picture = ax.images[0].get_array()
    field = np.stack([com.com_y, com.com_x], axis=-1)
    np.testing.assert_allclose(picture[..., :3], vector_colours(field, 2.0))
    np.testing.assert_array_equal(picture[..., 3], [[1, 1], [0, 1]])
    (wheel,) = [child for child in ax.child_axes if child.get_gid() == "wheel"]
    assert wheel.get_title() == "2 mrad"


def test_results_of_a_scan_choose_their_picture(ax, scan):
    """Images, patterns and deflections are drawn by `plot()`, lazy as they are."""
    stemstore.virtual_image(scan, stemstore.disk(3)).stem.plot(ax)
    assert ax.get_ylim() == (10.5, -0.5)
    scan.isel(y=2, x=3).stem.plot(ax)
    assert ax.get_ylim() == (13.5, -0.5)
    stemstore.center_of_mass(scan).stem.plot(ax)
    assert ax.get_xlim() == (-0.5, 8.5)


def test_whole_scans_must_be_reduced_first(scan, ax):
    """A 4D array is no picture, and says what would make one of it."""
    for draw in (scan.stem.plot, scan.stem.plot.pattern, scan.intensity.stem.plot.image):
        with pytest.raises(InputError, match=r"select a position with .isel\(y=…, x=…\), or reduce first"):
            draw(ax)


def test_other_results_are_told_what_to_do(ax, scan):
    """Lines, complex planes, several variables and lone components are refused with advice."""
    image = plane(np.eye(3))
    with pytest.raises(InputError, match="xarray's own"):
        image.isel(y=0).stem.plot(ax)
    with pytest.raises(InputError, match="draw abs"):
        (image * 1j).stem.plot(ax)
    with pytest.raises(InputError, match="choose one"):
        xr.Dataset({"a": image, "b": image}).stem.plot(ax)
    with pytest.raises(InputError, match="needs com_y and com_x"):
        xr.Dataset({"com_y": image}).stem.plot.vectors(ax)
    with pytest.raises(InputError, match="select along the others"):
        plane(np.ones((2, 3, 3)), ("frame", "y", "x")).stem.plot(ax)


def test_a_lone_variable_is_drawn(ax):
    """A dataset with one image needs no choice."""
    xr.Dataset({"bright": plane(np.eye(3)), "profile": ("k", [1.0, 2.0])}).stem.plot(ax)
    assert len(ax.images) == 1


def test_a_figure_of_its_own(monkeypatch):
    """Without axes a figure of pyplot has the shape of the picture, and nothing is cut off."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from matplotlib import pyplot as plt

    image = plane(np.arange(200.0).reshape(10, 20), y=(0, 1.0), x=(0, 1.0))
    com = xr.Dataset({"com_y": image, "com_x": image})
    for result, options in ((image, {}), (image, {"scale_bar": False, "title": "sum"}), (com, {"title": "com"})):
        ax = result.stem.plot(**options)
        figure = ax.figure
        figure.canvas.draw()
        (left, low), (right, high) = figure.get_tightbbox().get_points()
        width, height = figure.get_size_inches()
        assert left >= 0
        assert low >= 0
        assert right <= width
        assert high <= height
        box = ax.get_window_extent()
        assert box.width / box.height == pytest.approx(2, rel=0.01)
    plt.close("all")


def test_missing_matplotlib_names_the_extra(monkeypatch):
    """Without matplotlib the error says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(OptionalDependencyError, match=r"pip install 'stemstore\[view\]'"):
        plane(np.eye(3)).stem.plot()
