"""Cells of rings and directions hold what segments hold, and add up to the radial profile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import InputError
from stemstore.scan import pieces
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition


def test_four_directions_of_a_small_frame(frames_of):
    """The first direction begins at +kx and ends before +ky, which is down; the centre counts to it."""
    frames = np.arange(9, dtype=np.uint8).reshape(1, 1, 3, 3)
    profile = stemstore.polar_profile(frames_of(frames), 4)
    assert profile.dims == ("y", "x", "k", "angle")
    assert profile.dtype == np.uint64
    assert profile.values[0, 0].tolist() == [[4, 0, 0, 0], [5 + 8, 7 + 6, 3 + 0, 1 + 2]]
    assert profile.angle.values.tolist() == [45, 135, 225, 315]
    assert profile.n_pixels.values.tolist() == [[1, 0, 0, 0], [2, 2, 2, 2]]
    mean = stemstore.polar_profile(frames_of(frames), 4, statistic="mean")[0, 0]
    assert mean[1].values.tolist() == [6.5, 6.5, 1.5, 1.5]
    assert np.isnan(mean[0, 1:]).all()


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_cells_are_segments_and_add_up_to_the_radial_profile(data):
    """Any selection, number of directions and centre, dense and counted, fused or block by block."""
    dtype = data.draw(st.sampled_from(["u1", "u2", "u4", "i2", "i4", "f4"]))
    frames = np.random.default_rng(3).poisson(1.5, (2, 3, 11, 8)).astype(dtype)
    counted = dtype == "u1" and data.draw(st.booleans())
    source = scan_source((ArrayEvents if counted else ArrayFrames)(frames))
    image = build(source, [], Acquisition(), Calibration(), "memory", flyback=False).intensity
    if data.draw(st.booleans()):
        image = (image * np.array(1, dtype)).chunk({"x": 2, "kx": 3})
    image = image.isel(ky=data.draw(st.lists(st.integers(0, 10), min_size=2, max_size=8)), x=[2, 0])
    n = data.draw(st.integers(1, 13))
    center = data.draw(st.sampled_from([None, (0.0, 0.0), (5.0, 3.0), (4.3, 6.1)]))
    options = {"edges": [0, 2, 5, 20], "center": center}
    profile = stemstore.polar_profile(image, n, **options).compute()
    np.testing.assert_array_equal(profile.sum("angle"), stemstore.radial_profile(image, **options))
    for ring in range(3):
        segments = stemstore.segments(options["edges"][ring], options["edges"][ring + 1], n, center=center)
        for number, segment in enumerate(segments.values()):
            if profile.n_pixels[ring, number]:
                expected = stemstore.virtual_image(image, segment)
                np.testing.assert_array_equal(profile[..., ring, number], expected)
            else:
                assert not profile[..., ring, number].any()


def test_missing_frames_have_no_mean(frames_of, counts, monkeypatch):
    """Missing frames sum to zero and are marked; small pieces change nothing."""
    frames, validity = counts.copy(), np.full(counts.shape[:2], 2)
    frames[2, 3] = validity[2, 3] = 0
    ds = frames_of(frames, validity)
    total, mean = (stemstore.polar_profile(ds, 3, bins=2, statistic=s).compute() for s in ("sum", "mean"))
    assert not total[2, 3].any()
    assert total.valid[2, 3] == 0
    assert np.isnan(mean[2, 3]).all()
    np.testing.assert_allclose(mean[0, 0], total[0, 0] / total.n_pixels)
    monkeypatch.setattr(pieces, "OUTPUT_BYTES", 8 * 6 * 9)
    np.testing.assert_array_equal(stemstore.polar_profile(ds, 3, bins=2), total)


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "4"], ids=str)
def test_directions_are_counted_in_whole_numbers(scan, n):
    """There is at least one direction."""
    with pytest.raises(InputError, match="positive number of directions"):
        stemstore.polar_profile(scan, n)


def test_only_sums_and_means_are_known(scan):
    """The message names what there is."""
    with pytest.raises(InputError, match="expected 'sum' or 'mean'"):
        stemstore.polar_profile(scan, 4, statistic="variance")
