"""Corrections, regions and lost sectors: the counter finds what counting by the definition finds."""

import hashlib

import numpy as np
import pytest
import zarr

import stemstore
from stemstore.conversion.counting.batches import read_runs
from stemstore.conversion.counting.count import Counter
from stemstore.conversion.counting.settings import CountOptions
from stemstore.conversion.counting.thresholds import Thresholds
from stemstore.errors import InputError
from stemstore.kernels.counting import count_frames
from stemstore.sources.contract import Events
from stemstore.store.open import open_store
from stemstore.testing.arrays import ArrayFrames
from stemstore_schemas import Detector, Sector, SourceMetadata

SHAPE = (24, 20)
MODULES = [Sector(name=f"m{k}", rows=(6 * k, 6 * k + 6), columns=(0, 20)) for k in range(4)]
METADATA = SourceMetadata(detector=Detector(shape=SHAPE, sectors=MODULES))


def camera(n=90, seed=1):
    """Noise on a pedestal that differs between modules and pixels, and some electrons."""
    rng = np.random.default_rng(seed)
    pedestal = 20.5 + np.repeat([0, 3, -4, 8], 6)[:, None] + rng.normal(0, 0.3, SHAPE)
    frames = rng.normal(pedestal, 1.8, (n, *SHAPE)) + rng.choice([0, 40, 90], (n, *SHAPE), p=[0.99, 0.005, 0.005])
    return np.rint(frames).clip(0).astype(np.uint16)


def events(source, **options):
    """Count all frames of a source with options of counting; gives pointers and indices."""
    found = CountOptions(**options).counter(source).read_events(0, int(np.prod(source.scan_shape)))
    return found.indptr.tolist(), found.indices.tolist()


def by_definition(values, background, xray, rule="stemstore"):
    """Count corrected values in double precision."""
    indptr, indices = count_frames(values.astype(np.float64), background, xray, rule)
    return indptr.tolist(), indices.tolist()


DARK = np.random.default_rng(3).integers(0, 60, SHAPE).astype(float)
LIMITS = {"background_threshold": 9.5, "xray_threshold": 80.0}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("rule", ["stemstore", "stempy"])
def test_dark_above_pixel_values_is_plain_subtraction(dtype, rule):
    """Whatever the pixel type, nothing wraps around where the dark is above the frame; stempy 3.6 crashes or hangs."""
    frames = camera().astype(dtype)
    found = events(ArrayFrames(frames), dark=DARK, rule=rule, **LIMITS)
    assert found == by_definition(frames.astype(float) - DARK, 9.5, 80.0, rule)
    assert len(found[1]) > 100


def test_dark_that_is_no_whole_number_and_gain():
    """The values are (raw - dark) x gain, not truncated; a gain that is not positive takes the pixel away."""
    frames, gain = camera(), np.random.default_rng(4).uniform(0.5, 2, SHAPE)
    gain[3, 4], gain[5, 6], gain[7, 8] = 0, np.nan, -1
    found = events(ArrayFrames(frames), dark=DARK + 0.3, gain=gain, **LIMITS)
    values = (frames - (DARK + 0.3)) * np.where(gain > 0, gain, np.nan)
    assert found == by_definition(values.astype(np.float32), 9.5, 80.0)


@pytest.mark.parametrize("options", [{"dark": DARK}, {"gain": np.full(SHAPE, 1e-3)}, {"row_dark": "mean"}])
def test_saturated_pixels_are_xrays_after_every_correction(options):
    """A pixel at full scale is no event and leaves none beside it, whatever it is corrected to."""
    frames = camera(3)
    frames[:, 4:20:5, 3:18:4] = 65535
    counter = CountOptions(background_threshold=-1e3, xray_threshold=np.inf, **options).counter(ArrayFrames(frames))
    found = counter.read_events(0, 3)
    rows, columns = np.divmod(found.indices.astype(int), 20)
    for row, column in np.argwhere(frames[0] == 65535):
        assert not ((abs(rows - row) <= 1) & (abs(columns - column) <= 1)).any()
    assert len(rows) > 20


def test_an_empty_range_has_no_events():
    """No frames, no events."""
    found = CountOptions(gain=np.ones(SHAPE), **LIMITS).counter(ArrayFrames(camera(3))).read_events(2, 2)
    assert (found.indptr.tolist(), len(found.indices)) == ([0], 0)


def test_bad_pixels_are_absent():
    """A bad pixel is no event and hides no neighbour, with and without a gain."""
    frames = np.full((1, *SHAPE), 20, np.uint16)
    frames[0, 4, 4], frames[0, 4, 5] = 4000, 60
    bad = np.zeros(SHAPE, bool)
    bad[4, 4] = True
    for more in ({}, {"gain": np.ones(SHAPE)}):
        found = events(ArrayFrames(frames), bad_pixels=bad, background_threshold=30, xray_threshold=400, **more)
        assert found == ([0, 1], [4 * 20 + 5])


@pytest.mark.parametrize(("row_dark", "level"), [("mean", np.mean), ("median", np.median)])
def test_row_dark_is_a_factor_per_half_row(row_dark, level):
    """Half rows come to the pedestal of the scan by their own level; half rows without a level stay."""
    frames = camera()
    frames[2, 5, 10:] = 0
    counter = CountOptions(row_dark=row_dark, dark=DARK / 7, **LIMITS).counter(ArrayFrames(frames))
    halves = frames.reshape(len(frames), 24, 2, 10).astype(float)
    levels = level(halves, axis=3, keepdims=True)
    levels[levels <= 0] = counter.done.pedestal
    assert counter.done.pedestal == pytest.approx(20.5, abs=5)
    factor = np.broadcast_to(np.float32(counter.done.pedestal / levels), halves.shape).reshape(frames.shape)
    values = (frames.astype(np.float32) - np.float32(DARK / 7)) * factor
    found = counter.read_events(0, len(frames))
    expected = by_definition(values, 9.5, 80.0)
    assert (found.indptr.tolist(), found.indices.tolist()) == expected


def test_row_dark_takes_row_noise_away():
    """With an offset per half row and frame, false events go away and electrons stay."""
    rng = np.random.default_rng(6)
    frames = rng.normal(200, 2, (80, 32, 64)) + np.repeat(rng.normal(0, 6, (80, 32, 2)), 32, axis=2)
    frames[:, ::8, ::8] += 100
    source = ArrayFrames(np.rint(frames).astype(np.uint16))
    truth = 80 * 4 * 8
    plain = len(events(source, background_threshold=212.0, xray_threshold=1000.0)[1])
    corrected = len(events(source, background_threshold=212.0, xray_threshold=1000.0, row_dark="median")[1])
    assert plain > 1.5 * truth
    assert corrected == pytest.approx(truth, rel=0.002)


def test_thresholds_of_modules_follow_their_pedestals():
    """Each module gets the threshold of its own noise; the list in the report is that of the kernel."""
    source = ArrayFrames(camera(200), metadata=METADATA)
    chosen = CountOptions(threshold="module").counter(source).thresholds
    assert [entry.peak.mean for entry in chosen.regions] == pytest.approx([20.5, 23.5, 16.5, 28.5], abs=0.15)
    assert chosen.background == tuple(entry.background for entry in chosen.regions)
    rows = np.repeat(chosen.background, 6)
    assert len({entry.xray for entry in chosen.regions}) == 4
    given = events(source, background_threshold=chosen.background, xray_threshold=[300.0] * 4)
    plain = count_frames(source.array, rows, 300.0)
    assert given == (plain[0].tolist(), plain[1].tolist())


def test_half_rows_have_their_own_thresholds():
    """Left and right half of every module are fitted by themselves."""
    frames = camera(200)
    frames[..., 10:] += 5
    chosen = CountOptions(threshold="half-row").counter(ArrayFrames(frames, metadata=METADATA)).thresholds
    assert [entry.region.name for entry in chosen.regions[:2]] == ["m0/left", "m0/right"]
    means = np.array([entry.peak.mean for entry in chosen.regions])
    assert means[1::2] - means[::2] == pytest.approx([5] * 4, abs=0.2)


@pytest.mark.parametrize("wanted", [2.0, 0.1, 1e-3])
def test_false_events_are_as_few_as_wanted(wanted):
    """The cut is the smallest whole number that keeps the promise, per frame over all modules."""
    source = ArrayFrames(camera(300), metadata=METADATA)
    for threshold in ("global", "module"):
        chosen = CountOptions(false_events_per_frame=wanted, threshold=threshold).counter(source).thresholds
        assert chosen.false_events_per_frame <= wanted
        entry = chosen.regions[0]
        lower = entry.peak.false_events(entry.background - 1, entry.region.n_pixels)
        assert lower > wanted * entry.region.n_pixels / 480


@pytest.mark.parametrize("options", [{}, {"gain": np.ones(SHAPE)}, {"dark": np.full(SHAPE, 20.0)}])
def test_lost_modules_are_absent_neighbours(options):
    """A pixel beside a lost module is judged by the neighbours that exist, also where zero would be an electron."""
    frames = camera()
    state = np.full(len(frames), 2, np.uint8)
    state[::3], state[1::9] = 1, 0
    frames[::3, 6:12] = 0
    frames[1::9] = 0
    limits = {"background_threshold": -15.0, "xray_threshold": 80.0}
    values = frames - options.get("dark", np.zeros(SHAPE))
    values[::3, 6:12] = np.nan
    values[1::9] = np.nan
    source = ArrayFrames(frames, state, METADATA)
    assert events(source, **options, **limits) == by_definition(values, -15.0, 80.0)


def test_order_and_threads_make_no_difference():
    """Runs read by several threads are those of one call, position by position; stempy 3.6 crashes in threads."""
    from concurrent.futures import ThreadPoolExecutor

    source = ArrayFrames(camera(), metadata=METADATA)
    counter = CountOptions(threshold="module", row_dark="mean").counter(source)
    alone = counter.read_events(0, 90)
    with ThreadPoolExecutor(3) as executor:
        together = list(read_runs(counter.read_events, [(0, 40), (40, 41), (41, 90)], 11, executor))
    lengths = np.concatenate([np.diff(run.indptr) for run in together])
    np.testing.assert_array_equal(np.diff(alone.indptr), lengths)
    np.testing.assert_array_equal(alone.indices, np.concatenate([run.indices for run in together]))


def test_runs_that_fail_leave_nothing_running():
    """After an error in a run no further batch is begun."""
    from concurrent.futures import ThreadPoolExecutor

    asked = []

    def read(start, stop):
        asked.append(start)
        if start == 4:
            msg = "lost"
            raise OSError(msg)
        return Events(np.zeros(stop - start + 1, np.int64), np.zeros(0, np.uint32), SHAPE)

    with ThreadPoolExecutor(1) as executor:
        runs = read_runs(read, [(start, start + 2) for start in range(0, 1000, 2)], 1, executor)
        with pytest.raises(OSError, match="lost"):
            list(runs)
    assert len(asked) < 20


def test_repeated_frames_keep_their_order():
    """Three exposures of every position are three lists, in the order in which they were taken."""
    frames = np.zeros((3, 2, 2, 5, 5), np.uint16)
    for number in range(12):
        frames[number // 4, number % 4 // 2, number % 2, number // 5, number % 5] = 50
    found = Counter(ArrayFrames(frames), Thresholds(20.0, 400.0)).read_events(0, 12)
    assert found.indices.tolist() == list(range(12))


def test_store_keeps_what_was_applied(tmp_path, raw):
    """Images with their digests lie in calibration/, the fit of every region in the document."""
    dark, bad = np.full((20, 18), 0.5), np.zeros((20, 18), bool)
    bad[3, 4] = True
    stemstore.convert(raw, tmp_path / "a.zarr", count=True, dark=dark, bad_pixels=bad, row_dark="median")
    scan = open_store(tmp_path / "a.zarr")
    counting = scan.document.counting
    stored = zarr.open(tmp_path / "a.zarr")["calibration"]
    np.testing.assert_array_equal(stored[counting.dark.array][:], dark)
    np.testing.assert_array_equal(stored[counting.bad_pixels.array][:], bad)
    assert counting.dark.digest == "sha256:" + hashlib.sha256(dark.astype("<f8").tobytes()).hexdigest()
    assert (counting.dark.origin, counting.gain, counting.row_dark) == ("array", None, "median")
    (region,) = counting.regions
    assert region.pedestal_mean == pytest.approx(20, abs=0.6), "medians of 9 pixels see some electrons"
    assert region.cut == np.floor(region.background_threshold) + 1
    assert region.n_sampled_pixels == 42 * 359
    assert scan.document.history[0].parameters["dark"] == "array of shape (20, 18)"
    assert "dark" not in stemstore.open(tmp_path / "a.zarr"), "it is for frames and was applied to these events"


def test_references_come_from_files_and_stores(tmp_path, raw, camera_frames):
    """A NumPy file, a store of a dark scan (its mean) and a saved calibration are the same as arrays."""
    dark = camera_frames.mean(axis=(0, 1))
    np.save(tmp_path / "dark.npy", dark)
    stemstore.convert(raw, tmp_path / "dark.zarr")
    limits = {"count": True, "background_threshold": 20.0, "xray_threshold": 500.0}
    for number, given in enumerate((dark, tmp_path / "dark.npy", str(tmp_path / "dark.zarr"))):
        stemstore.convert(raw, tmp_path / f"{number}.zarr", dark=given, **limits)
    digests = {open_store(tmp_path / f"{number}.zarr").document.counting.dark.digest for number in range(3)}
    assert len(digests) == 1
    stemstore.save_calibration({"gain": np.full((20, 18), 2.0)}, tmp_path / "dark.zarr")
    doubled = stemstore.convert(
        raw, tmp_path / "g.zarr", gain=tmp_path / "dark.zarr", **limits | {"background_threshold": 80.0}
    )
    plain = stemstore.convert(raw, tmp_path / "p.zarr", **limits | {"background_threshold": 40.0})
    assert doubled.n_events == plain.n_events
    with pytest.raises(InputError, match=r"bad_pixels=.*its calibration has no such image"):
        stemstore.convert(raw, tmp_path / "x.zarr", bad_pixels=tmp_path / "dark.zarr", **limits)
