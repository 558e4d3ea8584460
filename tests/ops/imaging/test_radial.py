"""Radial profiles partition the detector, and equal NumPy ring by ring, dense and counted."""

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import CalibrationMissingError, InputError
from stemstore.scan import pieces
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition

STATISTICS = {"sum": np.sum, "mean": np.mean, "variance": np.var}


def test_small_frame_ring_by_ring(frames_of):
    """Rings one pixel wide around the middle of a 3 x 3 frame: centre, then edges and corners."""
    frames = np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3)
    profile = stemstore.radial_profile(frames_of(frames))
    assert profile.dims == ("y", "x", "k")
    assert profile.dtype == np.uint64
    assert profile.values.tolist() == [[[4, 32]]]
    assert profile.k.values.tolist() == [0.5, 1.5]
    assert profile.n_pixels.values.tolist() == [1, 8]
    assert profile.k_inner.values.tolist() == [0, 1]
    assert profile.k_outer.values.tolist() == [1, 2]
    assert stemstore.radial_profile(frames_of(frames), statistic="mean").values.tolist() == [[[4, 4]]]
    assert stemstore.radial_profile(frames_of(frames), statistic="variance").values.tolist() == [[[0, 7.5]]]
    assert stemstore.radial_variance(frames_of(frames)).values.tolist() == [[[0, 7.5 / 16]]]


def test_a_pixel_on_an_edge_belongs_to_the_outer_ring(frames_of):
    """Rings own their inner edge and not their outer one."""
    frames = np.eye(5, dtype=np.uint8)[None, None] + 1
    profile = stemstore.radial_profile(frames_of(frames), edges=[0, 1, 2], center=(2, 2))
    assert profile.n_pixels.values.tolist() == [1, 8]
    assert profile.values.tolist() == [[[2, 10]]]


@pytest.mark.parametrize("bins", [None, 1, 2, 7, 100], ids=str)
def test_rings_hold_every_electron_once(scan, counts, bins):
    """The sum over all rings is the sum of the frame, however many rings there are."""
    profile = stemstore.radial_profile(scan, bins=bins)
    assert profile.dtype == np.uint64
    np.testing.assert_array_equal(profile.sum("k"), counts.sum((2, 3)))
    assert int(profile.n_pixels.sum()) == 140
    assert bins in {None, profile.sizes["k"]}


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_rings_are_annuli_and_add_up_to_disks(data):
    """Every ring equals the virtual image of its annulus, exactly, for any step, centre and edges."""
    steps = data.draw(st.sampled_from([{}, *({"detector_step": f"{n / 10} mrad"} for n in range(1, 10))]))
    counts = np.random.default_rng(3).poisson(0.5, (2, 3, 11, 8)).astype(np.uint8)
    source = scan_source(data.draw(st.sampled_from([ArrayFrames, ArrayEvents]))(counts))
    ds = build(source, [], Acquisition(), Calibration(**steps), "memory", flyback=False)
    center = data.draw(st.sampled_from([None, (0.0, 0.0), (0.6, 1.2)]))
    step = ds.ky.attrs["step"]
    whole = data.draw(st.lists(st.integers(1, 16), min_size=1, max_size=5, unique=True))
    edges = [0.0, *(n * step for n in sorted(whole)), 40 * step]  # the last ring holds a pixel in any case
    profile = stemstore.radial_profile(ds, edges=edges, center=center).compute()
    for ring, (inner, outer) in enumerate(itertools.pairwise(edges)):
        if profile.n_pixels[ring] == 0:
            assert not profile[..., ring].any()
            continue
        image = stemstore.virtual_image(ds, stemstore.annulus(inner, outer, center=center))
        np.testing.assert_array_equal(profile[..., ring], image)
    disk = stemstore.virtual_image(ds, stemstore.disk(edges[-1], center=center))
    np.testing.assert_array_equal(profile.sum("k"), disk)
    for bins in (None, data.draw(st.integers(1, 300))):
        assert stemstore.radial_profile(ds, bins=bins, center=center).n_pixels.sum() == 88


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_selection_type_and_block_equals_numpy(data):
    """Sum, mean and variance of each ring; crops, strides, repeated pixels; dense or counted; fused or generic."""
    dtype = data.draw(st.sampled_from(["u1", "u2", "u4", "i2", "i4", "f4", "u8"]))
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)))
    frames = np.random.default_rng(shape[2]).poisson(1.5, shape).astype(dtype)
    frames = frames - np.array(dtype[0] != "u", dtype)
    counted = dtype == "u1" and data.draw(st.booleans())
    source = scan_source((ArrayEvents if counted else ArrayFrames)(frames))
    image = build(source, [], Acquisition(), Calibration(), "memory", flyback=False).intensity
    if data.draw(st.booleans()):
        image = (image * np.array(1, dtype)).chunk({"x": 2, "kx": 3})
    key = {}
    for axis, dim in enumerate(("y", "x", "ky", "kx")):
        part = data.draw(
            st.one_of(
                st.just(slice(None)),
                st.builds(slice, st.integers(0, shape[axis] - 1), st.none(), st.integers(1, 3)),
                st.lists(st.integers(0, shape[axis] - 1), min_size=1, max_size=5),
            )
        )
        key[dim] = part
        frames = frames[(slice(None),) * axis + (part,)]
    image = image.isel(key)
    if data.draw(st.booleans()):  # places of their own, so that a repeated pixel lies in several rings
        image = image.drop_vars(["ky", "kx", "ky_pixel", "kx_pixel"])
        places = [np.arange(n) - (n - 1) / 2 for n in frames.shape[2:]]
    else:
        places = [image[dim].values - (n - 1) / 2 for dim, n in zip(("ky", "kx"), shape[2:], strict=True)]
    distance = places[0][:, None] ** 2 + places[1][None, :] ** 2
    mask = np.random.default_rng(7).random(frames.shape[2:]) < data.draw(st.sampled_from([0.6, 1.1]))
    mask[0, 0] = True
    name = data.draw(st.sampled_from(sorted(STATISTICS)))
    profile = stemstore.radial_profile(image, bins=data.draw(st.integers(1, 9)), mask=mask, statistic=name).compute()
    assert profile.shape == (*frames.shape[:2], profile.sizes["k"])
    for ring in range(profile.sizes["k"]):
        inner, outer = float(profile.k_inner[ring]), float(profile.k_outer[ring])
        inside = mask & (distance >= inner**2) & (distance < outer**2)
        assert profile.n_pixels[ring] == inside.sum()
        found = profile.values[..., ring]
        pixels = frames[:, :, inside].astype(np.float64)
        if inside.any():
            np.testing.assert_allclose(found, STATISTICS[name](pixels, axis=2), rtol=1e-12, atol=1e-14)
        else:
            assert (found == 0).all() if name == "sum" else np.isnan(found).all()


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i2", "i4"])
def test_sums_of_the_largest_values_are_exact(frames_of, dtype):
    """No 32-bit sum overflows, and a frame of one value has no variance at all."""
    top = np.iinfo(dtype).max
    ds = frames_of(np.full((1, 2, 40, 41), top, dtype))
    profile = stemstore.radial_profile(ds, bins=3)
    assert profile.dtype == {"u": np.uint64, "i": np.int64}[dtype[0]]
    assert profile.values[0, 1].tolist() == [int(n) * top for n in profile.n_pixels]
    assert not stemstore.radial_profile(ds, bins=3, statistic="variance").any()


def test_variance_does_not_drown_in_the_mean(frames_of):
    """A little noise on a large offset keeps its variance."""
    rng = np.random.default_rng(0)
    frames = (1e9 + rng.normal(size=(2, 2, 30, 30))).astype(np.float64)
    found = stemstore.radial_profile(frames_of(frames), bins=1, statistic="variance").values[..., 0]
    np.testing.assert_allclose(found, frames.var((2, 3)), rtol=1e-9)


def test_normalised_variance_tells_speckle_from_chance(frames_of, dataset_of):
    """For Poisson counts it is 1 / mean; it is the same for frames and for electrons."""
    counts = np.random.default_rng(1).poisson(2.0, (6, 6, 40, 40)).astype(np.uint8)
    dense = stemstore.radial_variance(frames_of(counts), bins=4)
    counted = stemstore.radial_variance(dataset_of(ArrayEvents(counts)), bins=4)
    np.testing.assert_allclose(dense, counted, rtol=1e-12)
    np.testing.assert_allclose(dense.mean(("y", "x")), 0.5, rtol=0.1)
    mean, variance = (stemstore.radial_profile(frames_of(counts), bins=4, statistic=s) for s in ("mean", "variance"))
    np.testing.assert_allclose(dense, variance / mean**2, rtol=1e-12)


def test_missing_frames_and_empty_frames_have_no_mean(frames_of, counts):
    """A missing frame sums to zero and has no mean; an empty one has the mean zero and no normalised variance."""
    frames, validity = counts.copy(), np.full(counts.shape[:2], 2)
    frames[2, 3] = validity[2, 3] = 0
    frames[4, 4] = 0
    for ds in (frames_of(frames, validity), frames_of(frames, validity).compute()):
        profile = stemstore.radial_profile(ds, bins=3).compute()
        assert not profile[2, 3].any()
        assert profile.valid[2, 3] == 0
        for name in ("mean", "variance"):
            result = stemstore.radial_profile(ds, bins=3, statistic=name)
            assert np.isnan(result[2, 3]).all()
            assert (result[4, 4] == 0).all()
        normalised = stemstore.radial_variance(ds, bins=3)
        assert np.isnan(normalised[2, 3]).all()
        assert np.isnan(normalised[4, 4]).all()
        assert np.isfinite(normalised[0, 0]).all()


def test_units_of_the_rings(dataset_of, counts):
    """Rings are in the unit of the axes, or in one that the scan can be expressed in."""
    ds = dataset_of(ArrayFrames(counts), detector_step="0.5 mrad", beam_energy=300)
    own = stemstore.radial_profile(ds)
    assert own.k.attrs["units"] == ds.ky.attrs["units"]
    np.testing.assert_allclose(np.diff(own.k), ds.ky.attrs["step"])
    angle = stemstore.radial_profile(ds, edges=[0, 1.1, 2.2], unit="mrad", center=(0.5, 0))
    assert angle.k.attrs["units"] == "mrad"
    image = stemstore.virtual_image(ds, stemstore.annulus(1.1, 2.2, unit="mrad", center=(0.5, 0)))
    np.testing.assert_array_equal(angle[..., 1], image)
    with pytest.raises(CalibrationMissingError, match="cannot be expressed"):
        stemstore.radial_profile(dataset_of(ArrayFrames(counts)), unit="mrad")


def test_a_mask_may_be_a_detector(scan):
    """A sector as mask gives the profile of that direction."""
    wedge = stemstore.sector(0, 20, 0, 90)
    profile = stemstore.radial_profile(scan, bins=3, mask=wedge)
    np.testing.assert_array_equal(profile.sum("k"), stemstore.virtual_image(scan, wedge))
    assert "sector(" in profile.attrs["history"]


def test_dead_pixels_outside_the_mask_do_not_count(frames_of, counts):
    """NaN in pixels that are left out stays out."""
    frames = counts.astype(np.float32)
    frames[..., 3, 3] = np.nan
    mask = np.ones((14, 10), bool)
    mask[3, 3] = False
    for name in STATISTICS:
        assert np.isfinite(stemstore.radial_profile(frames_of(frames), bins=4, mask=mask, statistic=name)).all()


@pytest.mark.parametrize("kind", [ArrayFrames, ArrayEvents])
def test_profiles_share_a_pass(counts, kind):
    """Profiles, boxes and images that are computed together stream every position once."""
    source, streamed = scan_source(kind(counts)), []
    run = source.run

    def watch(selection, *rest):
        streamed.extend(selection.flat_positions())
        return run(selection, *rest)

    source.run = watch
    ds = build(source, [], Acquisition(), Calibration(), "memory", flyback=False)
    results = [
        stemstore.radial_profile(ds),
        stemstore.radial_variance(ds, bins=5),
        stemstore.virtual_image(ds, stemstore.disk(3)),
        stemstore.bin_detector(ds, 2),
    ]
    together = stemstore.compute(*results, scheduler="sync")
    assert sorted(streamed) == list(range(99))
    for one, other in zip(together, results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_many_profiles_come_in_small_pieces(scan, monkeypatch):
    """One task holds no more profiles than it may, and the numbers are the same."""
    whole = [stemstore.radial_profile(scan, bins=4, statistic=name) for name in STATISTICS]
    monkeypatch.setattr(pieces, "OUTPUT_BYTES", 8 * 4 * 9)
    for name, expected in zip(STATISTICS, whole, strict=True):
        found = stemstore.radial_profile(scan, bins=4, statistic=name)
        assert max(found.chunks[0]) * max(found.chunks[1]) <= 9 < max(expected.chunks[0]) * max(expected.chunks[1])
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("edges", [[1], 5, [0, 2, 1], [1, 1], [-1, 2], [0, np.nan], ["a", "b"], [[0, 1]]], ids=str)
def test_edges_that_do_not_rise_from_zero_are_refused(scan, edges):
    """Rings have a width, and no negative distance."""
    with pytest.raises(InputError, match="two rising numbers from 0 on"):
        stemstore.radial_profile(scan, edges=edges)


@pytest.mark.parametrize("bins", [0, -3, 2.5, True, "2"], ids=str)
def test_bins_are_whole_numbers(scan, bins):
    """There is at least one ring."""
    with pytest.raises(InputError, match="bins were asked for"):
        stemstore.radial_variance(scan, bins=bins)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 3, "edges": [0, 1]}, "both bins and edges"),
        ({"edges": [50, 60]}, "hold no pixel; pixels lie at"),
        ({"mask": np.zeros((14, 10), bool)}, "hold no pixel"),
        ({"mask": np.ones((14, 10))}, "mask of a radial profile is boolean"),
        ({"mask": np.ones((3, 3), bool)}, r"weights have shape \(3, 3\)"),
        ({"statistic": "median"}, "expected one of sum, mean, variance"),
    ],
)
def test_rings_that_mean_nothing_are_refused(scan, options, message):
    """The message says what is wrong and what would do."""
    with pytest.raises(InputError, match=message):
        stemstore.radial_profile(scan, **options)


def test_a_single_frame_and_an_array_in_memory_have_profiles(scan, counts):
    """Scan axes may be absent, and so may coordinates and laziness."""
    frame = stemstore.radial_profile(scan.isel(y=2, x=3), bins=4)
    assert frame.dims == ("k",)
    np.testing.assert_array_equal(frame, stemstore.radial_profile(scan, bins=4)[2, 3])
    plain = xr.DataArray(counts[2], dims=("x", "ky", "kx"))
    for name in STATISTICS:
        found = stemstore.radial_profile(plain, bins=4, statistic=name)
        expected = stemstore.radial_profile(scan.isel(y=2), bins=4, statistic=name)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    turned = stemstore.radial_profile(plain.transpose("kx", "x", "ky"), bins=4)
    np.testing.assert_array_equal(turned, stemstore.radial_profile(plain, bins=4))


def test_missing_single_frames_have_no_mean(frames_of, counts):
    """The mark of one selected frame counts like that of a map."""
    frames, validity = counts.copy(), np.full(counts.shape[:2], 2)
    frames[2, 3] = validity[2, 3] = 0
    ds = frames_of(frames, validity)
    assert np.isnan(stemstore.radial_variance(ds.isel(y=2, x=3), bins=3)).all()
    assert np.isfinite(stemstore.radial_variance(ds.isel(y=2, x=4), bins=3)).all()
