"""Loops over dense frames against NumPy on exact integers."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemstore.errors import InputError
from stemstore.kernels import frames, runs

DTYPES = [np.uint8, np.uint16, np.uint32, np.int16, np.int32, np.float32, np.float64]
SHAPE = (5, 13, 17)


def sum_dtype(dtype):
    """Dtype of exact sums of pixels."""
    return {"u": np.uint64, "i": np.int64, "f": np.float64}[np.dtype(dtype).kind]


def full_range(dtype, shape=SHAPE, seed=0):
    """Frames that use the whole range of an integer dtype, or whole numbers as reals."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.integers(-1000, 1000, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def exact(block):
    """Give the pixels as Python integers, flat per frame."""
    return block.reshape(len(block), -1).astype(np.int64).astype(object)


def masks_of(rng, n, shape=SHAPE[1:]):
    """Overlapping random masks with long and short runs."""
    return np.stack([rng.random(shape) < p for p in np.linspace(0.1, 1.0, n)])


LOCAL, PLACE = np.array([4, 0, 0, 3]), np.array([0, 2, 5, 2])


def summed(per_frame, n_rows=6):
    """Give what arrives in each output row when `LOCAL` goes to `PLACE`."""
    out = np.zeros((n_rows, *per_frame.shape[1:]), dtype=per_frame.dtype)
    for frame, row in zip(LOCAL, PLACE, strict=True):
        out[row] += per_frame[frame]
    return out


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_sums(dtype):
    """Sums over overlapping masks are exact for every dtype, for any order of frames and rows."""
    block, masks = full_range(dtype), masks_of(np.random.default_rng(1), 4)
    out = np.ones((6, 4), dtype=sum_dtype(dtype))
    frames.masked_sums(block, LOCAL, out, PLACE, frames.prepare_masks(masks))
    expected = 1 + summed(exact(block) @ masks.reshape(4, -1).T.astype(object))
    assert out.tolist() == expected.tolist()


@pytest.mark.parametrize("n", range(1, 10))
def test_any_number_of_frames(n):
    """Loops that take four frames at a time lose none of the last, and add none twice."""
    block = full_range(np.int16, (n, *SHAPE[1:]))
    index, flat = np.arange(n), exact(block)
    masks = masks_of(np.random.default_rng(1), 3)
    sums, real = np.zeros((n, 3), np.int64), np.zeros((n, 3))
    frames.masked_sums(block, index, sums, index, frames.prepare_masks(masks))
    frames.weighted_sums(block, index, real, index, frames.prepare_weights(masks.astype(float)))
    assert sums.tolist() == (flat @ masks.reshape(3, -1).T.astype(object)).tolist() == real.astype(np.int64).tolist()
    total = np.zeros(SHAPE[1:], np.int64)
    frames.add(block, index, total)
    assert total.ravel().tolist() == flat.sum(axis=0).tolist()


@settings(deadline=None, max_examples=80)
@given(masks=hnp.arrays(np.bool_, st.tuples(st.integers(0, 6), st.integers(1, 5), st.integers(1, 7))))
def test_any_set_of_masks(masks):
    """Empty, full, equal and overlapping masks, and none at all."""
    block = full_range(np.uint16, (2, *masks.shape[1:]))
    out = np.zeros((2, len(masks)), dtype=np.uint64)
    frames.masked_sums(block, np.arange(2), out, np.arange(2), frames.prepare_masks(masks))
    assert (
        out.tolist()
        == (exact(block) @ masks.reshape(len(masks), masks.shape[1] * masks.shape[2]).T.astype(object)).tolist()
    )


@settings(deadline=None, max_examples=40)
@given(masks=hnp.arrays(np.bool_, st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))))
def test_labels_are_memberships(masks):
    """Two pixels share a label exactly when they share all masks, and label 0 is in none."""
    labels, pairs = runs.label_masks(masks)
    members = {(int(label), int(mask)) for label, mask in pairs}
    for pixel, label in enumerate(labels):
        assert [(int(label), q) in members for q in range(len(masks))] == [bool(m.flat[pixel]) for m in masks]
    assert len(np.unique(labels)) == len(np.unique(masks.reshape(len(masks), -1), axis=1).T)


def test_sums_beyond_32_bits():
    """A run longer than 65536 saturated pixels is exact, signed and unsigned."""
    for dtype, value in ((np.uint16, 65535), (np.int16, -32768), (np.int16, 32767)):
        block = np.full((1, 331, 401), value, dtype=dtype)
        out = np.zeros((1, 1), dtype=sum_dtype(dtype))
        frames.masked_sums(block, [0], out, [0], frames.prepare_masks(np.ones((1, 331, 401), dtype=bool)))
        assert int(out[0, 0]) == value * 331 * 401


@pytest.mark.parametrize("dtype", DTYPES)
def test_weighted_sums(dtype):
    """Integer weights on whole numbers give the exact value; negative weights too."""
    block = (full_range(dtype) / 8).astype(dtype)  # below 2^53 in sum, so that float64 is exact
    weights = np.random.default_rng(2).integers(-3, 4, (3, *SHAPE[1:])).astype(float)
    out = np.zeros((6, 3))
    frames.weighted_sums(block, LOCAL, out, PLACE, frames.prepare_weights(weights))
    np.testing.assert_allclose(out, summed(block.reshape(5, -1).astype(float) @ weights.reshape(3, -1).T), rtol=1e-12)


def test_weighted_sums_do_not_look_outside():
    """NaN where the weight is zero does not reach the sum, for this mask or another."""
    block = np.full((1, 40, 130), np.nan, dtype=np.float32)
    block[0, :20], weights = 2, np.zeros((2, 40, 130))
    weights[0, :20], weights[1, 39, 129] = 0.5, 1
    out = np.zeros((1, 2))
    frames.weighted_sums(block, [0], out, [0], frames.prepare_weights(weights))
    assert out[0, 0] == 20 * 130
    assert np.isnan(out[0, 1])


def test_weighted_sums_do_not_depend_on_the_block():
    """A frame gives the same bits alone and within a block."""
    block = np.random.default_rng(5).random((7, 90, 90))
    prepared = frames.prepare_weights(np.random.default_rng(6).random((2, 90, 90)))
    together, alone = np.zeros((7, 2)), np.zeros((7, 2))
    frames.weighted_sums(block, np.arange(7), together, np.arange(7), prepared)
    for i in range(7):
        frames.weighted_sums(block[i : i + 1], [0], alone, [i], prepared)
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [False, True])
def test_moments(dtype, masked):
    """Sum, row sum and column sum are exact, on all pixels and under a mask."""
    block = full_range(dtype)
    mask = np.random.default_rng(4).random(SHAPE[1:]) < 0.6 if masked else None
    out = np.zeros((6, 3), dtype=sum_dtype(dtype))
    frames.moments(block, LOCAL, out, PLACE, frames.prepare_region(SHAPE[1:], mask))
    row, column = (index.ravel().astype(object) for index in np.indices(SHAPE[1:]))
    inside = (np.ones(SHAPE[1:]) if mask is None else mask).ravel().astype(int).astype(object)
    expected = summed(exact(block) @ np.stack([inside, inside * row, inside * column]).T)
    assert out.tolist() == expected.tolist()


@pytest.mark.parametrize("rows", [(0, 13), (2, 5), (2, 6), (1, 12)])
@pytest.mark.parametrize("columns", [(0, 17), (3, 4)])
def test_moments_of_rectangles(rows, columns):
    """Rows of equal extent, which are added four at a time, and those left over count each once."""
    block, mask = full_range(np.uint16), np.zeros(SHAPE[1:], bool)
    mask[slice(*rows), slice(*columns)] = True
    mask[7, 0] = True  # a run of its own, or a longer one
    runs_left, fours, _ = prepared = frames.prepare_region(SHAPE[1:], mask)
    assert len(runs_left) + 4 * len(fours) == (np.diff(mask.astype(int), axis=1, prepend=0) == 1).sum()
    out = np.zeros((5, 3), np.uint64)
    frames.moments(block, np.arange(5), out, np.arange(5), prepared)
    row, column = (index.astype(object)[mask] for index in np.indices(SHAPE[1:]))
    pixels = exact(block)[:, mask.ravel()]
    assert out.tolist() == np.stack([pixels.sum(axis=1), pixels @ row, pixels @ column], axis=1).tolist()


@pytest.mark.parametrize(
    ("pixel", "rows", "columns"),
    [
        (lambda i, j: (i, j), [[-1] * 3, [0] * 3, [1] * 3], [[-1, 0, 1]] * 3),
        (lambda i, j: (2 - i, 2 - j), [[1] * 3, [0] * 3, [-1] * 3], [[1, 0, -1]] * 3),
        (lambda i, j: (j, 2 - i), [[-1, 0, 1]] * 3, [[1] * 3, [0] * 3, [-1] * 3]),
    ],
)
def test_centre_of_mass_vectors(pixel, rows, columns):
    """One bright pixel per 3 x 3 frame gives the shifts from the centre that the scan position dictates."""
    block = np.zeros((9, 3, 3), dtype=np.uint16)
    for f in range(9):
        block[f][pixel(f // 3, f % 3)] = 60000
    out = np.zeros((9, 3), dtype=np.uint64)
    frames.moments(block, np.arange(9), out, np.arange(9), frames.prepare_region((3, 3)))
    assert (out[:, 0] == 60000).all()
    centre = out[:, 1:].astype(float) / 60000 - 1
    assert centre[:, 0].reshape(3, 3).tolist() == rows
    assert centre[:, 1].reshape(3, 3).tolist() == columns


def test_moments_beyond_32_bits():
    """A saturated 576 x 576 frame has moments far beyond 2^32, and none is rounded."""
    out = np.zeros((1, 3), dtype=np.uint64)
    prepared = frames.prepare_region((576, 576))
    for _ in range(3):
        frames.moments(np.full((1, 576, 576), 65535, np.uint16), [0], out, [0], prepared)
    side = 65535 * 576 * (575 * 576 // 2)
    assert out.tolist() == [[3 * 65535 * 576**2, 3 * side, 3 * side]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_and_maximum(dtype):
    """Patterns over frames are exact; a frame listed twice counts twice."""
    block = full_range(dtype)
    total = np.zeros(SHAPE[1:], dtype=sum_dtype(dtype))
    frames.add(block, LOCAL, total)
    assert total.ravel().tolist() == exact(block)[LOCAL].sum(axis=0).tolist()
    highest = np.full(SHAPE[1:], -np.inf if np.dtype(dtype).kind == "f" else np.iinfo(dtype).min, dtype=dtype)
    frames.maximum(block, LOCAL, highest)
    np.testing.assert_array_equal(highest, block[LOCAL].max(axis=0))


@pytest.mark.parametrize("dtype", [np.bool_, *DTYPES, np.int64, np.uint64])
def test_add_squares(dtype):
    """Squares of small integers are exact integers; those of wide ones and of reals are float64."""
    block = full_range(np.uint8).astype(bool) if dtype == np.bool_ else full_range(dtype)
    small = np.dtype(dtype).kind in "biu" and np.dtype(dtype).itemsize <= 2
    expected = 1 + (block.reshape(len(block), -1).astype(object)[LOCAL] ** 2).sum(axis=0)
    for kind in (np.uint64, np.int64, np.float64):
        total = np.ones(SHAPE[1:], dtype=kind)
        if kind is np.float64:
            frames.add_squares(block, LOCAL, total)
            np.testing.assert_allclose(total.ravel(), expected.astype(float), rtol=1e-15)
        elif small:
            frames.add_squares(block, LOCAL, total)
            assert total.ravel().tolist() == expected.tolist()
        else:
            with pytest.raises(InputError, match=r"squares of .* allocate float64"):
                frames.add_squares(block, LOCAL, total)
    with pytest.raises(InputError, match="cannot go into"):
        frames.add_squares(block, LOCAL, np.zeros(SHAPE[1:], np.float32))


def test_squares_beyond_63_bits():
    """The largest squares fill 64 bits before they overflow."""
    total = np.full((1, 1), 2**63, dtype=np.uint64)
    frames.add_squares(np.full((1, 1, 1), 65535, np.uint16), np.zeros(1000, np.int64), total)
    assert total.item() == 2**63 + 1000 * 65535**2


@pytest.mark.parametrize("dtype", [np.bool_, *DTYPES, np.int64, np.uint64])
def test_add_weighted(dtype):
    """Each frame counts as often as its weight says; negative weights take away."""
    block = full_range(np.uint8).astype(bool) if dtype == np.bool_ else full_range(dtype)
    weights = np.array([0.5, -1.25, 0.0, 3.0])
    total = np.ones(SHAPE[1:])
    frames.add_weighted(block, LOCAL, total, weights)
    expected = 1 + np.einsum("i,ijk->jk", weights, block[LOCAL].astype(float))
    np.testing.assert_allclose(total, expected, rtol=1e-14, atol=1e-13 * np.abs(block.astype(float)).max())
    with pytest.raises(InputError, match="one weight per frame"):
        frames.add_weighted(block, LOCAL, total, weights[:2])
    with pytest.raises(InputError, match="allocate float64"):
        frames.add_weighted(block, LOCAL, total.astype(np.float32), weights)


def test_add_many_frames():
    """More than 65536 saturated frames do not overflow the narrow sums; more pixels than one tile are all added."""
    total = np.zeros((3, 2000), dtype=np.uint64)
    frames.add(np.full((2, 3, 2000), 65535, np.uint16), np.tile([0, 1], 35000), total)
    assert (total == 65535 * 70000).all()


def test_maximum_keeps_nan():
    """NaN wins, as in NumPy, whenever it comes."""
    block = np.array([[[1.0, np.nan]], [[np.nan, 2.0]], [[3.0, 4.0]]])
    out = np.zeros((1, 2))
    frames.maximum(block, np.arange(3), out)
    assert np.isnan(out).all()


@pytest.mark.parametrize(
    ("dtype", "out_dtype"),
    [
        (np.uint8, np.uint16),
        (np.uint16, np.uint32),
        (np.uint32, np.uint64),
        (np.int16, np.int64),
        (np.float32, np.float32),
    ],
)
@pytest.mark.parametrize("factor", [(4, 5), (1, 1), (20, 3)])
def test_bin_detector(dtype, out_dtype, factor):
    """Boxes hold their pixels, the last ones the remainder: nothing is lost."""
    block = full_range(dtype)
    rows, columns = frames.binned_shape(SHAPE[1:], factor)
    out = np.zeros((6, rows, columns), dtype=out_dtype)
    frames.bin_detector(block, LOCAL, out, PLACE, factor)
    padded = np.zeros((5, rows * factor[0], columns * factor[1]), dtype=object)
    padded[:, : SHAPE[1], : SHAPE[2]] = block.astype(np.int64).astype(object)
    boxes = padded.reshape(5, rows, factor[0], columns, factor[1]).sum(axis=(2, 4))
    assert out.tolist() == summed(boxes).tolist()


def test_histogram():
    """Values of a band of rows are counted, constant frames too, and added to what was there."""
    block = full_range(np.uint16, (3, 11, 7))
    block[2] = 65535
    out = np.ones(65536, dtype=np.int64)
    frames.histogram(block, out, rows=(2, 9))
    np.testing.assert_array_equal(out - 1, np.bincount(block[:, 2:9].ravel(), minlength=65536))
    small = np.zeros(256, dtype=np.int64)
    frames.histogram(block.astype(np.uint8), small)
    assert small.sum() == block.size


def test_other_dtypes_and_layouts():
    """Booleans, 64-bit integers, big-endian, read-only and strided blocks are as good as any other."""
    base = full_range(np.uint16)
    prepared, rows = frames.prepare_masks(np.ones((1, *SHAPE[1:]), dtype=bool)), np.arange(5)
    frozen = base.copy()
    frozen.flags.writeable = False
    big = base.astype(np.uint64) << np.uint64(40)
    for block in (base > 9, big, base.astype(">u2"), frozen, np.repeat(base, 2, axis=2)[:, :, ::2]):
        out = np.zeros((5, 1), dtype=np.uint64)
        frames.masked_sums(block, rows, out, rows, prepared)
        assert out[:, 0].tolist() == exact(block).sum(axis=1).tolist()


def test_largest_64_bit_values():
    """Values above 2^63 are weighted and compared as what they are."""
    block = np.array([[[2**64 - 2**20, 1]], [[5, 7]]], dtype=np.uint64)
    out, highest = np.zeros((1, 1)), np.zeros((1, 2), dtype=np.uint64)
    frames.weighted_sums(block, [0], out, [0], frames.prepare_weights(np.array([[[0.5, 0.0]]])))
    assert out[0, 0] == 2.0**63 - 2**19
    frames.maximum(block, [0, 1], highest)
    assert highest.tolist() == [[2**64 - 2**20, 7]]


def test_prepared_forms_travel():
    """Prepared masks survive pickling and work when they come back read-only."""
    mask = masks_of(np.random.default_rng(1), 1)
    prepared = pickle.loads(pickle.dumps(frames.prepare_masks(mask)))
    for array in prepared:
        array.flags.writeable = False
    out = np.zeros((5, 1), dtype=np.uint64)
    block = full_range(np.uint16)
    frames.masked_sums(block, np.arange(5), out, np.arange(5), prepared)
    assert out[:, 0].tolist() == exact(block)[:, mask.ravel()].sum(axis=1).tolist()


def test_refusals():
    """Arguments that do not belong together are refused before compiled code sees them."""
    block, one = full_range(np.uint16), np.ones((1, *SHAPE[1:]), dtype=bool)
    prepared, out = frames.prepare_masks(one), np.zeros((5, 1), dtype=np.uint64)
    with pytest.raises(InputError, match="frame 5 was asked of a block of 5"):
        frames.masked_sums(block, [5], out, [0], prepared)
    with pytest.raises(InputError, match="frame -1 was asked"):
        frames.add(block, [-1], np.zeros(SHAPE[1:], np.uint64))
    with pytest.raises(InputError, match="output row 5"):
        frames.masked_sums(block, [0], out, [5], prepared)
    with pytest.raises(InputError, match="belong together"):
        frames.masked_sums(block, [0, 1], out, [0], prepared)
    with pytest.raises(InputError, match="expected \\(positions, 1\\)"):
        frames.masked_sums(block, [0], np.zeros((5, 2), np.uint64), [0], prepared)
    with pytest.raises(InputError, match="prepare them for this detector"):
        frames.masked_sums(block[:, :5], [0], out, [0], prepared)
    with pytest.raises(InputError, match="expected uint64, int64 or float64"):
        frames.masked_sums(block, [0], out.astype(np.uint32), [0], prepared)
    with pytest.raises(InputError, match="float32 pixels cannot go into uint64"):
        frames.masked_sums(block.astype(np.float32), [0], out, [0], prepared)
    with pytest.raises(InputError, match="int16 pixels cannot go into uint64; allocate int64"):
        frames.masked_sums(block.view(np.int16), [0], out, [0], prepared)
    with pytest.raises(InputError, match="uint64 pixels cannot go into float64"):
        frames.add(block.astype(np.uint64), [0], np.zeros(SHAPE[1:]))
    with pytest.raises(InputError, match="expected real"):
        frames.add(block.astype(complex), [0], np.zeros(SHAPE[1:]))
    with pytest.raises(InputError, match="float16"):
        frames.add(block.astype(np.float16), [0], np.zeros(SHAPE[1:]))
    with pytest.raises(InputError, match="float64 output"):
        frames.weighted_sums(block, [0], out, [0], frames.prepare_weights(one * 1.0))
    with pytest.raises(InputError, match="allocate the dtype of the frames"):
        frames.maximum(block, [0], np.zeros(SHAPE[1:]))
    with pytest.raises(InputError, match="in C order"):
        frames.add(block, [0], np.zeros(SHAPE[:0:-1], np.uint64).T)
    with pytest.raises(InputError, match="do not fit uint16"):
        frames.bin_detector(block, [0], np.zeros((1, 7, 9), np.uint16), [0], (2, 2))
    with pytest.raises(InputError, match="from 1 on"):
        frames.binned_shape((4, 4), (0, 1))


def test_refused_masks_and_histograms():
    """What cannot be prepared says what it should have been."""
    with pytest.raises(InputError, match="expected boolean"):
        frames.prepare_masks(np.ones((1, 2, 2)))
    with pytest.raises(InputError, match="imaginary part"):
        frames.prepare_weights(np.ones((1, 2, 2), complex))
    with pytest.raises(InputError, match="rebuild it"):
        frames.prepare_region((2, 3), np.ones((3, 2), bool))
    with pytest.raises(InputError, match="small integers"):
        frames.histogram(np.zeros((1, 2, 2), np.int32), np.zeros(65536, np.int64))
    with pytest.raises(InputError, match="at least \\(65536,\\)"):
        frames.histogram(np.zeros((1, 2, 2), np.uint16), np.zeros(256, np.int64))
    with pytest.raises(InputError, match="rows 1:3"):
        frames.histogram(np.zeros((1, 2, 2), np.uint16), np.zeros(65536, np.int64), (1, 3))
