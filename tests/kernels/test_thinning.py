"""Random numbers that belong to electrons, and what they keep of events and of dense frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import CorruptDataError, InputError
from stemstore.kernels import events
from stemstore.kernels.thinning import MOST, Chance, thin_events, thin_frames

DETECTOR = (300, 500)  # 150 000 pixels: gaps beyond 65535 and 131070 occur
PIXELS = DETECTOR[0] * DETECTOR[1]


def coded(lists):
    """Code one list of pixels per frame; give gap and offsets."""
    indptr = np.cumsum([0, *map(len, lists)])
    gap, n_slots = events.encode(indptr, np.concatenate([*lists, []]).astype(np.uint32), PIXELS)
    return gap, events.slot_offsets(n_slots)


def dense(gap, offsets):
    """Frames of a block."""
    out = np.zeros((len(offsets) - 1, PIXELS), np.uint16)
    events.densify(gap, offsets, np.arange(len(out)), out, np.arange(len(out)))
    return out.reshape(-1, *DETECTOR)


pixel = st.one_of(st.integers(0, PIXELS - 1), st.sampled_from([0, 65534, 65535, 65536, PIXELS - 1]))
blocks = st.lists(st.lists(pixel, max_size=15), min_size=1, max_size=4)
fractions = st.floats(0, 1)


def test_numbers_are_those_of_splitmix64():
    """The state of frame f is mix(key + f x golden); its i-th electron has the i-th output of SplitMix64 from there."""
    golden, word = 0x9E3779B97F4A7C15, 2**64

    def mix(z):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % word
        z = (z ^ z >> 27) * 0x94D049BB133111EB % word
        return z ^ z >> 31

    assert mix(golden) == 0xE220A8397B1DCDAF  # first output for seed 0, as published with the reference code
    chance = Chance.of(5, 0, 0.0, 0.3)
    gap, offsets = coded([range(200)])
    kept = events.decode(*thin_events(gap, offsets, np.array([0]), np.array([77]), PIXELS, chance))[1]
    start = mix((chance.key + 77 * golden) % word)
    numbers = [mix((start + (i + 1) * golden) % word) / word for i in range(200)]
    assert kept.tolist() == [i for i, u in enumerate(numbers) if u < 0.3]


@given(lists=blocks, begin=fractions, end=fractions, seed=st.integers(0, 2**64 - 1))
def test_events_and_frames_keep_the_same_electrons(lists, begin, end, seed):
    """Thinned events are the thinned dense frames; both ends of an interval and what is outside make the whole."""
    begin, end = sorted((begin, end))
    gap, offsets = coded(lists)
    local, numbers = np.arange(len(lists)), np.arange(len(lists)) + 10**10
    parts = []
    for a, b in ((0.0, begin), (begin, end), (end, 1.0)):
        chance = Chance.of(seed, 0, a, b)
        parts.append(dense(*thin_events(gap, offsets, local, numbers, PIXELS, chance)))
        np.testing.assert_array_equal(thin_frames(dense(gap, offsets), local, numbers, chance), parts[-1])
    np.testing.assert_array_equal(sum(parts), dense(gap, offsets))


@given(lists=blocks, data=st.data())
def test_frames_in_any_company(lists, data):
    """What is kept of a frame depends on its number alone: not on the order or choice of frames."""
    local = np.array(data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=6)), np.int64)
    chance, numbers = Chance.of(1, 0, 0.2, 0.8), np.arange(len(lists)) * 3
    gap, offsets = coded(lists)
    whole = dense(*thin_events(gap, offsets, np.arange(len(lists)), numbers, PIXELS, chance))
    some = dense(*thin_events(gap, offsets, local, numbers[local], PIXELS, chance))
    np.testing.assert_array_equal(some, whole[local])


def test_numbers_are_independent():
    """Shares, and the overlap of frames, seeds and levels, are those of chance."""
    n, p = 200_000, 0.3
    gap, offsets = coded([np.sort(np.arange(n) % PIXELS)])
    masks = []
    for seed, level, frame in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)):
        counted = np.zeros((1, n), np.uint8) + 1
        block = counted.reshape(1, 400, 500)
        masks.append(thin_frames(block, np.array([0]), np.array([frame]), Chance.of(seed, level, 0.0, p)).ravel() > 0)
    assert offsets[-1] == gap.size
    for i, one in enumerate(masks):
        assert abs(one.mean() - p) < 5 * np.sqrt(p * (1 - p) / n)
        for other in masks[:i]:
            assert abs((one & other).mean() - p * p) < 5 * np.sqrt(p * p / n)
        pairs = one[1:] & one[:-1]
        assert abs(pairs.mean() - p * p) < 5 * np.sqrt(p * p / n)


def test_nothing_and_everything():
    """Probability 0 keeps no electron, 1 keeps all."""
    gap, offsets = coded([[5, 5, 140000], [], [0]])
    index = np.arange(3)
    assert thin_events(gap, offsets, index, index, PIXELS, Chance.of(0, 0, 0, 0))[0].size == 0
    same, ends = thin_events(gap, offsets, index, index, PIXELS, Chance.of(0, 0, 0, 1))
    assert same.tolist() == gap.tolist()
    assert ends.tolist() == offsets.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.uint64])
def test_types_of_dense_frames(dtype):
    """Frames keep their type, and their electrons whatever the type."""
    frames = np.random.default_rng(0).poisson(3, (2, 5, 7)).astype(dtype)
    index, chance = np.arange(2), Chance.of(3, 0, 0, 0.5)
    found = thin_frames(frames, index, index, chance)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, thin_frames(frames.astype(np.uint16), index, index, chance))


def test_refusals():
    """What holds no electrons is refused, naming frame and pixel."""
    index, chance = np.array([0]), Chance.of(0, 0, 0, 0.5)
    with pytest.raises(InputError, match="pixel 3 of frame 9 holds -1"):
        thin_frames(np.array([[[0, 1], [2, -1]]]), index, np.array([9]), chance)
    with pytest.raises(InputError, match="pixel 0 of frame 9 holds"):
        thin_frames(np.full((1, 1, 2), MOST + 1), index, np.array([9]), chance)
    with pytest.raises(InputError, match="float32 hold no numbers of electrons"):
        thin_frames(np.zeros((1, 1, 2), np.float32), index, index, chance)
    with pytest.raises(CorruptDataError, match="damaged"):
        thin_events(np.array([9], np.uint16), np.array([0, 1]), index, index, 9, chance)
