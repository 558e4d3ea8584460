"""Detector shapes: edges, conventions of other packages, sectors that partition, and shares of covered pixels."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import InputError
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayFrames
from stemstore_schemas import Acquisition

SIDE = 31
ROW, COLUMN = np.indices((SIDE, SIDE))
places = st.tuples(*[st.integers(40, 80).map(lambda n: n / 4)] * 2)  # quarter pixels: ties are common
radii = st.tuples(st.integers(0, 24), st.integers(1, 24)).map(lambda n: (n[0] / 4, (n[0] + n[1]) / 4))


def image_of(shape=(SIDE, SIDE), **calibration):
    """Open one empty frame of the given shape."""
    frames = ArrayFrames(np.zeros((1, 1, *shape), np.uint8))
    return build(scan_source(frames), [], Acquisition(), Calibration(**calibration), "memory", flyback=False).intensity


IMAGE = image_of()


def test_adjoining_rings_partition_the_disk(scan):
    """Rings that touch share no pixel and leave none out."""
    weights = [stemstore.annulus(a, b).weights(scan.intensity) for a, b in [(0, 2), (2, 3.5), (3.5, 5)]]
    np.testing.assert_array_equal(sum(w.astype(int) for w in weights), stemstore.disk(5).weights(scan.intensity))


def test_disk_leaves_out_its_radius_and_ring_takes_its_inner_one(scan):
    """A pixel at exactly the radius is outside the disk and inside the ring that begins there."""
    image = scan.intensity
    center = (6.0, 4.0)
    assert not stemstore.disk(2, center=center).weights(image)[8, 4]
    assert stemstore.annulus(2, 3, center=center).weights(image)[8, 4]


@pytest.mark.parametrize(
    ("edge", "inside"),
    [
        ("half-open", (True, False)),
        ("inclusive", (True, True)),
        ("exclusive", (False, False)),
        (("exclusive", "inclusive"), (False, True)),
        (("half-open", "inclusive"), (True, True)),
        (("exclusive", "half-open"), (False, False)),
    ],
    ids=str,
)
def test_edges_are_chosen_per_side(edge, inside):
    """Pixels at exactly 5 (3, 4) and exactly 10 (6, 8) from the centre tell the edges."""
    ring = stemstore.annulus(5, 10, center=(15, 15), edge=edge).weights(IMAGE)
    assert (ring[18, 19], ring[21, 23]) == inside
    box = stemstore.rectangle((5, 10), (0, 31), edge=edge).weights(IMAGE)
    assert (box[5, 3], box[10, 3]) == inside
    piece = stemstore.sector(5, 10, 0, 90, center=(15, 15), edge=edge).weights(IMAGE)
    assert (piece[18, 19], piece[21, 23]) == inside


def test_an_exclusive_disk_keeps_its_centre():
    """A disk has one border only."""
    for edge in ("half-open", "exclusive", "inclusive"):
        assert stemstore.disk(1, center=(15, 15), edge=edge).weights(IMAGE)[15, 15]
    assert stemstore.disk(1, center=(15, 15), edge="inclusive").weights(IMAGE).sum() == 5


RULES = {  # disk and ring of each package, written from its documentation with distances squared
    "py4dstem": (lambda d, r: d < r, lambda d, a, b: (d > a) & (d < b)),
    "libertem": (lambda d, r: d <= r, lambda d, a, b: (d <= b) ^ (d <= a)),
    "stempy": (lambda d, r: d < r, lambda d, a, b: (d >= a) & (d < b)),
}


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(sorted(RULES)), center=places, radii=radii)
def test_conventions_of_other_packages_are_met_pixel_for_pixel(name, center, radii):
    """Disks and rings equal those that py4DSTEM, LiberTEM and stempy make, ties included."""
    inner, outer = radii
    squared = (ROW - center[0]) ** 2 + (COLUMN - center[1]) ** 2
    disk, ring = RULES[name]
    given = {"center": center, "convention": name, "unit": "pixel"}
    for shape, expected in [
        (stemstore.disk(outer, **given), disk(squared, outer**2)),
        (stemstore.annulus(inner, outer, **given), ring(squared, inner**2, outer**2)),
    ]:
        if expected.any():
            np.testing.assert_array_equal(shape.weights(IMAGE), expected)


@settings(deadline=None, max_examples=40)
@given(first=places, extent=st.tuples(st.integers(5, 30), st.integers(5, 30)))
def test_rectangles_and_points_of_py4dstem_round_and_cut(first, extent):
    """Borders are rounded half to even and sliced; a point loses its fraction."""
    last = first[0] + extent[0] / 4, first[1] + extent[1] / 4
    expected = np.zeros((SIDE, SIDE), bool)
    rows, columns = ([int(np.round(first[i])), int(np.round(last[i]))] for i in range(2))
    expected[rows[0] : rows[1], columns[0] : columns[1]] = True
    box = stemstore.rectangle((first[0], last[0]), (first[1], last[1]), convention="py4dstem")
    if expected.any():
        np.testing.assert_array_equal(box.weights(IMAGE), expected)
    spot = stemstore.point(*first, convention="py4dstem").weights(IMAGE)
    assert spot.sum() == 1
    assert spot[int(first[0]), int(first[1])]


def test_rounding_happens_in_pixels_whatever_the_unit():
    """A rectangle of py4DSTEM in mrad is that of its borders in pixels."""
    image = image_of(detector_step="2 mrad", detector_center=(10, 12))
    box = stemstore.rectangle((-3.2, 4.9), (1.2, 8), convention="py4dstem").weights(image)
    expected = np.zeros((SIDE, SIDE), bool)
    expected[8:12, 13:16] = True  # rows 8.4 to 12.45, columns 12.6 to 16
    np.testing.assert_array_equal(box, expected)


def test_a_point_between_two_pixels_is_the_even_one():
    """Half to even, along both axes."""
    spot = stemstore.point(4.5, 7.5).weights(IMAGE)
    assert spot.sum() == 1
    assert spot[4, 8]


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 16),
    rotation=st.one_of(st.floats(-1e3, 1e3), st.sampled_from([0.0, 45.0, -90.0, 0.1, -1e-14, 360.0])),
    center=places,
    inner=st.sampled_from([0.0, 1.0, 2.5]),
    antialias=st.sampled_from([False, "exact", True]),
)
def test_segments_partition_their_ring(n, rotation, center, inner, antialias):
    """Every pixel of the ring belongs to the segments once, whatever their number and rotation."""
    options = {"center": center, "antialias": antialias}
    parts = stemstore.segments(inner, 9, n, rotation=rotation, **options)
    assert list(parts) == [f"segment_{i}" for i in range(n)]
    total = sum(part.weights(IMAGE).astype(float) for part in parts.values())
    ring = stemstore.annulus(inner, 9, **options).weights(IMAGE)
    np.testing.assert_allclose(total, ring, rtol=0, atol=1e-12 if antialias is True else 0)


def test_quadrants_follow_from_columns_to_rows():
    """Segment 0 begins along +kx and turns towards +ky; each border belongs to the segment that it begins."""
    parts = [part.weights(IMAGE) for part in stemstore.segments(1, 9, center=(15, 15)).values()]
    for number, (row, column) in enumerate([(15, 20), (20, 15), (15, 10), (10, 15)]):
        assert [part[row, column] for part in parts] == [i == number for i in range(4)]
    assert parts[0][18, 18]
    assert parts[1][18, 12]
    assert parts[2][12, 12]
    assert parts[3][12, 18]


@settings(deadline=None, max_examples=60)
@given(start=st.integers(-720, 720), width=st.integers(1, 359), center=places)
def test_sectors_take_the_directions_from_start_to_stop(start, width, center):
    """A pixel belongs to a sector when it lies less than the width beyond the start, around the circle."""
    ky, kx = ROW - center[0], COLUMN - center[1]
    beyond = (np.degrees(np.arctan2(ky, kx)) - start) % 360
    assume((beyond < width - 1e-9).sum() > 1)
    clear = (np.abs(beyond - width) > 1e-9) & (beyond > 1e-9) & (beyond < 360 - 1e-9)
    mask = stemstore.sector(0, 60, start, start + width, center=center).weights(IMAGE)
    np.testing.assert_array_equal(mask[clear], (beyond < width)[clear])
    wrapped = stemstore.sector(0, 60, start % 360, (start + width) % 360, center=center)
    np.testing.assert_array_equal(wrapped.weights(IMAGE), mask)


def covered(center, radius, n=64):
    """Share of each pixel in a disk, from 64 x 64 places per pixel."""
    part = (np.arange(n) + 0.5) / n - 0.5
    y = (np.arange(SIDE)[:, None] + part).reshape(-1) - center[0]
    x = (np.arange(SIDE)[:, None] + part).reshape(-1) - center[1]
    return ((y**2)[:, None] + x**2 < radius**2).reshape(SIDE, n, SIDE, n).mean((1, 3))


@pytest.mark.parametrize(("radius", "soft_error", "exact_error"), [(3, 0.021, 6e-3), (5, 8e-3, 2e-3), (10, 2e-3, 6e-4)])
@pytest.mark.parametrize("center", [(15, 15), (15.5, 15), (14.7, 15.2), (15.25, 15.5)], ids=str)
def test_area_weights_are_as_good_as_stated(radius, soft_error, exact_error, center):
    """Totals and single pixels of both kinds of soft disk, against pi r^2 and against fine sampling."""
    truth = covered(center, radius)
    soft = stemstore.disk(radius, center=center, antialias=True).weights(IMAGE)
    exact = stemstore.disk(radius, center=center, antialias="exact").weights(IMAGE)
    assert soft.dtype == exact.dtype == np.float64
    assert soft.sum() == pytest.approx(np.pi * radius**2, rel=soft_error)
    assert exact.sum() == pytest.approx(np.pi * radius**2, rel=exact_error)
    assert np.abs(soft - truth).max() < 0.06
    assert np.abs(exact - truth).max() < 1 / 16  # half the distance of two samples


def test_the_formula_of_soft_edges_is_the_stated_one():
    """Weight = clip(R - r + 1/2, 0, 1); a ring is the difference of two disks."""
    r = np.hypot(ROW - 15.2, COLUMN - 14.9)
    expected = np.clip(8 - r + 0.5, 0, 1) - np.clip(3 - r + 0.5, 0, 1)
    ring = stemstore.annulus(3, 8, center=(15.2, 14.9), antialias=True).weights(IMAGE)
    np.testing.assert_allclose(ring, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("antialias", [True, "exact"])
def test_soft_edges_do_not_depend_on_the_unit_or_on_square_pixels(antialias):
    """The same disk in mrad has the same weights; pixels that are not square keep the area."""
    image = image_of(detector_step="2 mrad", detector_center=(15.3, 14.8))
    pixel = stemstore.disk(6, unit="pixel", antialias=antialias).weights(image)
    np.testing.assert_allclose(stemstore.disk(12, antialias=antialias).weights(image), pixel, atol=1e-12)
    part = stemstore.disk(12, antialias=antialias).weights(image.isel(ky=slice(None, None, -1), kx=[3, 12, 9]))
    np.testing.assert_allclose(part, pixel[::-1][:, [3, 12, 9]], atol=1e-12)
    oblong = image.assign_coords(ky=("ky", image.ky.values / 2, {**image.ky.attrs, "step": 1.0}))
    total = stemstore.disk(12, antialias=antialias).weights(oblong).sum()
    assert total * 2 == pytest.approx(np.pi * 144, rel=5e-3)


@pytest.mark.parametrize("antialias", [True, "exact"])
def test_soft_rectangles_are_exact(antialias):
    """The covered area is that of the rectangle."""
    box = stemstore.rectangle((2.3, 5.1), (7.75, 8), antialias=antialias).weights(IMAGE)
    np.testing.assert_allclose(
        box[:, 8], np.interp(np.arange(SIDE), [0, 1, 2, 3, 4, 5, 6], [0, 0, 0.2, 1, 1, 0.6, 0]) / 4
    )
    assert box.sum() == pytest.approx(2.8 * 0.25)


def test_default_centre_is_the_middle_of_the_stored_frame(scan):
    """Cropping the detector does not move the optic axis."""
    full = stemstore.disk(3).weights(scan.intensity)
    part = stemstore.disk(3).weights(scan.intensity.isel(ky=slice(3, None)))
    np.testing.assert_array_equal(part, full[3:])
    np.testing.assert_array_equal(full, full[::-1, ::-1])


def test_rectangle_and_point_are_exact(scan):
    """A rectangle is half-open; a point is one pixel."""
    box = stemstore.rectangle((2, 5), (1, 3)).weights(scan.intensity)
    assert box.sum() == 6
    assert box[2:5, 1:3].all()
    spot = stemstore.point(4.4, 7.6).weights(scan.intensity)
    assert spot.sum() == 1
    assert spot[4, 8]


@pytest.mark.parametrize("radii", [(3, 3), (4, 2), (-1, 2), (0, np.nan), (0, np.inf)], ids=str)
def test_impossible_radii_are_refused(radii):
    """Inner must be below outer, and both finite."""
    with pytest.raises(InputError, match="inner < outer"):
        stemstore.annulus(*radii)
    with pytest.raises(InputError, match="inner < outer"):
        stemstore.segments(*radii)


def test_empty_rectangles_are_refused():
    """A range that ends before it begins names its axis."""
    with pytest.raises(InputError, match="along kx"):
        stemstore.rectangle((0, 1), (3, 3))


@pytest.mark.parametrize("angles", [(10, 10), (0, 361), (0, np.nan), (np.inf, 0)], ids=str)
def test_impossible_sectors_are_refused(angles):
    """Directions are finite, different and at most a turn apart."""
    with pytest.raises(InputError, match="at most 360 degrees"):
        stemstore.sector(0, 5, *angles)


@pytest.mark.parametrize("n", [0, -4, 2.0, True, "4"], ids=repr)
def test_impossible_numbers_of_segments_are_refused(n):
    """A ring is cut into a positive whole number of segments."""
    with pytest.raises(InputError, match="positive number of segments"):
        stemstore.segments(0, 5, n)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"edge": "closed"}, "'half-open', 'inclusive', 'exclusive'"),
        ({"edge": ("inclusive",)}, "pair"),
        ({"convention": "hyperspy"}, "py4dstem, libertem, stempy"),
        ({"convention": "py4dstem", "edge": "inclusive"}, "leave out edge"),
        ({"convention": "py4dstem", "antialias": True}, "leave out edge"),
        ({"antialias": True, "edge": "inclusive"}, "no edge convention"),
        ({"antialias": "fine"}, "'exact'"),
    ],
    ids=str,
)
def test_options_that_are_unknown_or_contradict_each_other_are_refused(options, match):
    """The message lists what there is."""
    with pytest.raises(InputError, match=match):
        stemstore.annulus(1, 2, **options)


def test_conventions_without_a_shape_are_refused():
    """Packages that have no rectangle or point of their own cannot decide about it."""
    with pytest.raises(InputError, match="no rectangle of its own"):
        stemstore.rectangle((0, 1), (0, 1), convention="libertem")
    with pytest.raises(InputError, match="no point of its own"):
        stemstore.point(1, 1, convention="stempy")
    with pytest.raises(InputError, match="finite ky and kx"):
        stemstore.point(np.nan, 1)


def test_descriptions_tell_what_is_not_the_default():
    """The history of results names edges, areas and directions."""
    assert stemstore.disk(3).describe() == "disk(radius=3)"
    assert stemstore.annulus(0, 3, convention="libertem").describe().endswith("edge=('exclusive', 'inclusive'))")
    assert "antialias='exact'" in stemstore.sector(1, 2, 0, 45, antialias="exact").describe()
    assert "start=0, stop=45" in stemstore.sector(1, 2, 0, 45).describe()
