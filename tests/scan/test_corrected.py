"""Corrections at opening: what every operation gets is what it would get of frames corrected by hand."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import stemstore
from stemstore.errors import InputError
from stemstore.ops.saved.history import history_entries
from stemstore.scan.calibration import Calibration
from stemstore.scan.corrected import Asked, CorrectedFrames
from stemstore.scan.lazy import ScanArray
from stemstore.scan.open import Known, build
from stemstore.sources.references import KnownImage
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition

SHAPE = (5, 4, 6, 7)
RANDOM = np.random.default_rng(3)
FRAMES = RANDOM.poisson(0.7, SHAPE).astype(np.uint8)
BAD = np.zeros(SHAPE[2:], bool)
BAD[0, 0] = BAD[3, 3] = BAD[3, 4] = True
IMAGES = {
    "dark": RANDOM.normal(2, 1, SHAPE[2:]),
    "gain": RANDOM.uniform(0.5, 2, SHAPE[2:]),
    "bad_pixels": BAD,
    "mask": RANDOM.random(SHAPE[2:]) > 0.3,
}
SOURCES = pytest.mark.parametrize("source", [ArrayFrames, ArrayEvents])


def opened(source, carried=None, **wanted):
    """Open a source with corrections, as `stemstore.open` would a file."""
    known = Known(arrays=carried or {}, asked=Asked.of(wanted, source.frame_shape, carried or {}))
    return build(scan_source(source), [], Acquisition(), Calibration(), "memory", flyback=False, known=known)


def by_hand(frames, dark=0.0, gain=1.0, bad_pixels=None, mask=True):
    """Correct frames one bad pixel after the other."""
    out = (frames - dark) * gain
    whole = out.copy()
    for row, column in np.argwhere(bad_pixels) if bad_pixels is not None else ():
        near = np.s_[..., max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        good = ~bad_pixels[near]
        out[..., row, column] = whole[near][..., good].mean(axis=-1)
    return out * mask


@SOURCES
@pytest.mark.parametrize("names", [["dark"], ["gain"], ["bad_pixels"], ["mask"], list(IMAGES)])
def test_frames_and_operations_see_corrected_pixels(source, names):
    """Pixels, a picked region, a streamed image and its centre of mass are those of the formula."""
    wanted = {name: IMAGES[name] for name in names}
    truth, ds = by_hand(FRAMES, **wanted), opened(source(FRAMES), **wanted)
    assert isinstance(ds.intensity.data, ScanArray)
    np.testing.assert_allclose(ds.intensity.values, truth, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        ds.intensity[1:4:2, 2, 2:5, ::-1].values, truth[1:4:2, 2, 2:5, ::-1], rtol=1e-6, atol=1e-6
    )
    disk = stemstore.disk(2.5, center=(3, 3))
    weights = np.hypot(*np.ogrid[-3:3, -3:4]) < 2.5
    image = stemstore.virtual_image(ds, disk).values
    np.testing.assert_allclose(image, (truth * weights).sum(axis=(2, 3)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(stemstore.mean_pattern(ds).values, truth.mean(axis=(0, 1)), rtol=1e-5, atol=1e-6)


@SOURCES
def test_a_mask_alone_keeps_type_and_kind(source):
    """Integers stay integers and events stay events."""
    ds = opened(source(FRAMES), mask=IMAGES["mask"])
    assert ds.intensity.dtype == np.uint8
    np.testing.assert_array_equal(ds.intensity.values, FRAMES * IMAGES["mask"])
    everything = opened(source(FRAMES), mask=np.ones(SHAPE[2:], bool))
    np.testing.assert_array_equal(everything.intensity.values, FRAMES)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("u1", "f4"), ("u2", "f4"), ("f4", "f4"), ("u4", "f8"), ("i4", "f8"), ("f8", "f8")]
)
def test_floats_hold_what_was_there(dtype, expected):
    """Pixels of up to 16 bits become 32-bit floats, wider ones 64-bit floats."""
    frames = FRAMES.astype(dtype) + np.array(200).astype(dtype)
    assert opened(ArrayFrames(frames), dark=IMAGES["dark"]).intensity.dtype == expected


def test_nothing_is_applied_unasked():
    """What the data carry is shown and left alone; what is applied by its name is shown no more, but the mask."""
    mask = ~BAD
    carried = {"dark": KnownImage(IMAGES["dark"]), "gain": KnownImage(IMAGES["gain"]), "mask": KnownImage(mask)}
    raw = opened(ArrayFrames(FRAMES), carried)
    np.testing.assert_array_equal(raw.intensity.values, FRAMES)
    assert "history" not in raw.intensity.attrs
    assert set(raw.data_vars) == {"intensity", "dark", "gain", "mask"}
    ds = opened(ArrayFrames(FRAMES), carried, dark="detector", mask="detector", bad_pixels="detector")
    assert set(ds.data_vars) == {"intensity", "gain", "mask"}
    truth = by_hand(FRAMES, dark=IMAGES["dark"], bad_pixels=BAD, mask=mask)
    np.testing.assert_allclose(ds.intensity.values, truth, rtol=1e-6, atol=1e-6)
    (entry,) = history_entries(ds.intensity.attrs["history"].splitlines(), "2026-01-01T00:00:00+00:00")
    assert (entry.operation, set(entry.parameters)) == ("open", {"dark", "bad_pixels", "mask"})
    assert entry.parameters["dark"]["origin"] == "detector"
    assert entry.parameters["dark"]["digest"].startswith("sha256:")
    assert "open(dark=" in stemstore.mean_pattern(ds).attrs["history"]
    np.testing.assert_array_equal(raw.mask.values, mask)
    later = stemstore.correct(raw, dark="detector", bad_pixels="detector", mask="detector")
    np.testing.assert_allclose(later.intensity.values, truth, rtol=1e-12)


def test_missing_frames_stay_missing():
    """A frame that is not there is NaN, and no dark of the wrong sign; images leave it out."""
    state = np.full(SHAPE[:2], 2, np.uint8)
    state[1, 2] = 0
    ds = opened(ArrayFrames(np.where(state[..., None, None] == 0, 0, FRAMES), state), dark=IMAGES["dark"])
    lost = np.isnan(ds.intensity.values).all(axis=(2, 3))
    np.testing.assert_array_equal(lost, state == 0)
    mean = by_hand(FRAMES, dark=IMAGES["dark"])[state == 2].mean(axis=0)
    np.testing.assert_allclose(stemstore.mean_pattern(ds).values, mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ({"dark": np.ones((7, 6))}, r"dark \(array\) has shape \(7, 6\)"),
        ({"gain": np.full(SHAPE[2:], np.nan)}, "gain .* has 42 pixels that are NaN or infinite"),
        ({"bad_pixels": np.ones(SHAPE[2:])}, "has no good neighbour"),
        ({"mask": "detector"}, "the data carry no mask"),
        ({"dark": np.full(SHAPE[2:], 1j)}, "real numbers"),
    ],
)
def test_what_does_not_fit_is_refused(wanted, match):
    """Other shapes, undefined values and detectors without a good pixel have errors of their own."""
    with pytest.raises(InputError, match=match):
        opened(ArrayFrames(FRAMES), **wanted)


def test_files_and_processes(tmp_path):
    """Corrections of a file come from files, the digest is part of the identity, and tasks run in other processes."""
    np.save(tmp_path / "scan.npy", FRAMES)
    np.save(tmp_path / "dark.npy", np.stack([IMAGES["dark"] - 1, IMAGES["dark"] + 1]))
    ds = stemstore.open(tmp_path / "scan.npy", dark=tmp_path / "dark.npy", mask=IMAGES["mask"])
    other = stemstore.open(tmp_path / "scan.npy", dark=IMAGES["dark"] + 1, mask=IMAGES["mask"])
    assert ds.intensity.data.name != other.intensity.data.name
    truth = by_hand(FRAMES, dark=IMAGES["dark"], mask=IMAGES["mask"])
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        values = ds.intensity.compute(scheduler="processes", pool=pool).values
    np.testing.assert_allclose(values, truth, rtol=1e-6, atol=1e-6)


def test_a_corrected_source_reads_any_range():
    """The frame source that conversions read is the same in pieces, and survives pickling."""
    asked = Asked.of(IMAGES, SHAPE[2:], {})
    source = pickle.loads(pickle.dumps(CorrectedFrames(ArrayFrames(FRAMES), asked)))
    truth = by_hand(FRAMES, **IMAGES).reshape(-1, *SHAPE[2:])
    for start, stop in ((0, 20), (3, 4), (7, 7), (5, 20)):
        frames = source.read_frames(start, stop)
        assert frames.dtype == source.dtype == np.float32
        np.testing.assert_allclose(frames, truth[start:stop], rtol=1e-6, atol=1e-6)
    with pytest.raises(IndexError, match="leave the scan"):
        source.read_frames(0, 21)
