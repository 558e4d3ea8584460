"""Events in any order come out by frame and pixel, as a sort of pairs orders them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import InputError
from stemstore.kernels.event_order import GROUP, MAX_PIXELS, order


def check(frames: np.ndarray, pixels: np.ndarray, n_frames: int, n_pixels: int) -> None:
    indptr, found = order(frames.astype(np.uint32), pixels.astype(np.uint32), n_frames, n_pixels)
    rank = np.lexsort((pixels, frames))
    np.testing.assert_array_equal(found, pixels[rank])
    np.testing.assert_array_equal(indptr, np.searchsorted(frames[rank], np.arange(n_frames + 1)))
    assert found.dtype == np.uint32


@given(
    n_frames=st.integers(0, 50), n_pixels=st.sampled_from([1, 2, 255, 2049, 2**16, 2**18 + 1, 2**22, MAX_PIXELS]),
    n=st.integers(0, 400), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_events(n_frames: int, n_pixels: int, n: int, seed: int) -> None:
    """Few and many frames and pixels, several events in one pixel, empty frames, the last pixel."""
    random = np.random.default_rng(seed)
    n = n if n_frames else 0
    frames, pixels = random.integers(0, max(n_frames, 1), n), random.integers(0, n_pixels, n)
    pixels[: n // 4] = n_pixels - 1
    check(frames, pixels, n_frames, n_pixels)


@pytest.mark.parametrize(("n_frames", "n_pixels"), [(3, 2**16), (700, 2**16), (70_000, 2**12), (40, MAX_PIXELS)])
def test_many_events(n_frames: int, n_pixels: int) -> None:
    """More than are sorted at once, in frames that hold more, about as many, or hardly any."""
    random = np.random.default_rng(1)
    frames, pixels = random.integers(0, n_frames, 4 * GROUP), random.integers(0, n_pixels, 4 * GROUP)
    check(frames, pixels, n_frames, n_pixels)


def test_events_outside() -> None:
    """What lies outside is refused before anything is written."""
    inside, outside = np.array([0], np.uint32), np.array([4], np.uint32)
    for frames, pixels in ((outside, inside), (inside, outside)):
        with pytest.raises(InputError, match="lie outside of them"):
            order(frames, pixels, 4, 4)
    with pytest.raises(InputError, match="lie outside of them"):
        order(inside, inside, 1, MAX_PIXELS + 1)
