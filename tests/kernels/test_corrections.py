"""Frames corrected by compiled code: what the plain formula gives, for every type of pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.kernels.corrections import Corrections, Repair

SHAPE = (5, 6)
BAD = np.zeros(SHAPE, bool)
BAD[0, 0] = BAD[2, 2] = BAD[2, 3] = True


@given(
    st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]),
    st.sampled_from(["f4", "f8"]),
    st.sets(st.sampled_from(["dark", "gain", "repair", "mask"])),
    st.integers(0, 2**32),
)
def test_one_pass_gives_what_the_formula_gives(dtype, out, which, seed):
    """Any pixels, any corrections, any choice of frames: the same numbers, rounded once."""
    random = np.random.default_rng(seed)
    every = {
        "dark": random.normal(3, 1, SHAPE),
        "gain": random.uniform(0.5, 2, SHAPE),
        "repair": Repair.of(BAD),
        "mask": random.random(SHAPE) > 0.3,
    }
    corrections = Corrections(**{name: value if name in which else None for name, value in every.items()})
    block, local = random.integers(0, 100, (4, *SHAPE)).astype(dtype), random.integers(0, 4, 6)
    found = corrections.of_block(block, local, np.dtype(out))
    assert found.dtype == out
    expected = corrections.apply(block[local])
    np.testing.assert_allclose(
        found, expected, rtol=1e-5 if out == "f4" else 1e-12, atol=1e-4 if out == "f4" else 1e-10
    )


def test_integers_of_32_bits_stay_exact():
    """Nothing is rounded on the way to 64-bit floats."""
    block = np.full((1, *SHAPE), 2**32 - 1, np.uint32)
    done = Corrections(np.ones(SHAPE), None, None, None).of_block(block, np.array([0]), np.dtype(np.float64))
    assert (done == 2**32 - 2).all()


def test_frames_that_are_not_there():
    """A frame outside the block is refused and not read."""
    block = np.zeros((2, *SHAPE), np.uint8)
    with pytest.raises((IndexError, ValueError), match="frame"):
        Corrections(np.ones(SHAPE), None, None, None).of_block(block, np.array([2]), np.dtype(np.float32))
