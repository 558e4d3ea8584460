"""Disks of simulated Poisson frames against their known positions, and the traps of real frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from stemstore.kernels.disks.plan import DiskPlan, plan_disks
from stemstore.kernels.disks.probe import Template, position_limit
from stemstore.kernels.disks.search import COLUMNS, FILTERS, filter_counts, frame_disks

if TYPE_CHECKING:
    from stemstore.kernels.disks.options import Subpixel

RADIUS, EDGE, SIZE = 8.0, 2.0, 256
DIFFUSE = 0.1  # of the electrons, evenly spread


def draw(shape: tuple[int, int], centre: tuple[float, float], radius: float, edge: float) -> np.ndarray:
    """Draw a disk averaged over the area of every pixel."""
    return Template(radius, edge).draw(shape, centre)


def find(frame: np.ndarray, plan: DiskPlan) -> np.ndarray:
    """Run the detection and cut the list behind its last disk."""
    out = np.empty((plan.parameters.max_peaks, len(COLUMNS)), np.float32)
    n_disks = frame_disks(frame, plan, out)
    assert np.isnan(out[n_disks:]).all()
    assert np.isfinite(out[:n_disks]).all()
    return out[:n_disks]


@dataclass
class Crystal:
    """Positions of 45 disks, their shares of the electrons, and the noise-free pattern (sum 1)."""

    positions: np.ndarray
    share: np.ndarray
    pattern: np.ndarray


def make_crystal(structure: float = 0.0) -> Crystal:
    """Draw a lattice of disks; with `structure` waves of random direction and length run over each of them."""
    rng = np.random.default_rng(7)
    along, across = 33.5 * np.array([[np.cos(0.2), np.sin(0.2)], [-np.sin(0.2), np.cos(0.2)]])
    grid = [127.8 + i * along + j * across for i in range(-6, 7) for j in range(-6, 7)]
    positions = np.array([p for p in grid if p.min() > RADIUS + 3 and p.max() < SIZE - RADIUS - 4])
    distance = np.hypot(*(positions - 127.8).T)
    weight = np.exp(-((distance / 75) ** 2)) * rng.uniform(0.3, 1, len(positions))
    weight[distance.argmin()] = 10
    share = (1 - DIFFUSE) * weight / weight.sum()
    pattern = np.full((SIZE, SIZE), DIFFUSE / SIZE**2)
    rows, columns = np.indices((25, 25)) - 12
    for position, part in zip(positions, share, strict=True):
        corner = np.floor(position).astype(int) - 12
        image = np.pad(draw((25, 25), tuple(position - corner), RADIUS, EDGE), 12)
        (ky, kx), phase = rng.normal(0, 0.35, 2), rng.uniform(0, 2 * np.pi)
        image[12:-12, 12:-12] *= 1 + structure * np.cos(ky * rows + kx * columns + phase)
        low, high = np.maximum(corner, 0), np.minimum(corner + 25, SIZE)
        cut = tuple(slice(x - c + 12, y - c + 12) for x, y, c in zip(low, high, corner, strict=True))
        pattern[low[0] : high[0], low[1] : high[1]] += part / image.sum() * image[cut]
    return Crystal(positions, share, pattern)


@pytest.fixture(scope="module")
def crystal() -> Crystal:
    """Give the lattice of flat disks."""
    return make_crystal()


def gaps(disks: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Distances of true and found disks, shape (true, found)."""
    return np.hypot(*(disks[:, None, :2] - positions[None]).T)


def errors_of(frames: list[np.ndarray], crystal: Crystal, which: np.ndarray, plan: DiskPlan) -> np.ndarray:
    """Errors of the found disks next to some true ones, without those that were missed."""
    errors = []
    for frame in frames:
        disks = find(frame, plan)
        gap = gaps(disks, crystal.positions[which])
        nearest = gap.argmin(axis=1)
        errors.append((disks[nearest, :2] - crystal.positions[which])[gap.min(axis=1) < RADIUS / 2])
    return np.concatenate(errors)


def rms(errors: np.ndarray) -> float:
    """Root of the mean square per axis."""
    return float(np.sqrt(np.mean(np.square(errors))))


@pytest.mark.parametrize(("dose", "all_within", "strong_within"), [(40_000, 0.24, 0.125), (4_000, 0.42, 0.07)])
def test_disks_of_counted_frames_are_found_where_they_are(
    crystal: Crystal, dose: int, all_within: float, strong_within: float
) -> None:
    """Recall of disks of 30 electrons and more, precision of all that is found, errors from 30 and from 300 electrons.

    At 40 000 electrons a frame this holds for all 45 disks, at 4 000 for 22 of them; the bounds for the errors of flat
    disks with known background are 0.211 and 0.108 px, and 0.343 and 0.051 px.
    """
    rng, plan = np.random.default_rng(11), plan_disks((SIZE, SIZE), radius=RADIUS)
    wanted, strong = (np.flatnonzero(crystal.share * dose >= n) for n in (30, 300))
    frames = [rng.poisson(dose * crystal.pattern).astype(np.uint16) for _ in range(60)]
    hits = found = true = 0
    for frame in frames:
        gap = gaps(find(frame, plan), crystal.positions)
        hits += int((gap[wanted].min(axis=1) < RADIUS / 2).sum())
        true += int((gap.min(axis=0) < RADIUS / 2).sum())
        found += gap.shape[1]
    assert hits >= 0.995 * len(frames) * len(wanted)
    assert true >= 0.995 * found
    assert rms(errors_of(frames, crystal, wanted, plan)) <= all_within
    strong_error = rms(errors_of(frames, crystal, strong, plan))
    assert strong_error <= strong_within
    background = DIFFUSE * dose / SIZE**2
    limit = np.mean([position_limit(RADIUS, EDGE, n, background) ** 2 for n in crystal.share[strong] * dose]) ** 0.5
    assert strong_error < 1.1 * limit


def test_inner_structure_pulls_less_than_with_plain_cross_correlation() -> None:
    """Disks with strong dynamical contrast are placed at least as well as by correlation with the probe."""
    crystal, rng = make_crystal(0.5), np.random.default_rng(12)
    frames = [rng.poisson(40_000 * crystal.pattern).astype(np.uint16) for _ in range(12)]
    error = {}
    for name, options in (("likelihood", {}), ("correlation", {"kernel": "flat", "subpixel": "newton"})):
        plan = plan_disks((SIZE, SIZE), radius=RADIUS, **options)
        error[name] = [
            rms(errors_of(frames, crystal, np.flatnonzero(crystal.share * 4e4 >= n), plan)) for n in (30, 300)
        ]
    assert error["likelihood"][0] < 0.95 * error["correlation"][0]
    assert error["likelihood"][1] < 0.95 * error["correlation"][1]


def test_every_way_to_refine_is_better_than_the_one_before(crystal: Crystal) -> None:
    """Pixels, parabola, Newton steps on the unsmoothed map, likelihood: the error falls in this order."""
    rng = np.random.default_rng(13)
    frames = [rng.poisson(40_000 * crystal.pattern).astype(np.uint16) for _ in range(10)]
    which = np.flatnonzero(crystal.share * 4e4 >= 30)
    names: tuple[Subpixel, ...] = ("none", "poly", "newton", "likelihood")
    plans = [plan_disks((SIZE, SIZE), radius=RADIUS, subpixel=name) for name in names]
    error = [rms(errors_of(frames, crystal, which, plan)) for plan in plans]
    assert error == sorted(error, reverse=True)
    assert error[1] == pytest.approx(0.34, abs=0.04)
    assert error[2] == pytest.approx(0.28, abs=0.03)


@pytest.mark.parametrize("dose", [4_000, 40_000])
def test_the_expected_precision_is_that_of_the_errors(crystal: Crystal, dose: int) -> None:
    """Errors over their sigma_q have a spread near 1 for disks of 100 electrons and more."""
    rng, plan = np.random.default_rng(14), plan_disks((SIZE, SIZE), radius=RADIUS)
    which = np.flatnonzero(crystal.share * dose >= 100)
    scores = []
    for _ in range(25):
        disks = find(rng.poisson(dose * crystal.pattern).astype(np.uint16), plan)
        gap = gaps(disks, crystal.positions[which])
        nearest = gap.argmin(axis=1)
        scores.append((disks[nearest, :2] - crystal.positions[which]) / disks[nearest, 4:])
    assert rms(np.concatenate(scores)) == pytest.approx(1.05, abs=0.12)


def test_positions_and_intensities_of_a_noise_free_pattern(crystal: Crystal) -> None:
    """Without noise positions are right to 0.03 px and counts to 10 % (the soft edge lies beyond the radius)."""
    disks = find(4e5 * crystal.pattern, plan_disks((SIZE, SIZE), radius=RADIUS))
    bright = crystal.share > 0.002
    nearest = gaps(disks, crystal.positions).argmin(axis=1)
    assert np.abs((disks[nearest, :2] - crystal.positions)[bright]).max() < 0.03
    ratio = disks[nearest, 2] / (4e5 * crystal.share)
    assert np.all((ratio[bright] > 0.9) & (ratio[bright] < 1.0))
    assert np.all(np.diff(disks[:, 3]) <= 0)


@pytest.mark.parametrize("mean", [1e-4, 1e-2, 0.06, 1.0, 300.0])
def test_uniform_background_has_no_disks(mean: float) -> None:
    """From six electrons a frame to bright ones, counted background gives no peak at all."""
    rng, plan = np.random.default_rng(5), plan_disks((SIZE, SIZE), radius=RADIUS)
    assert sum(len(find(rng.poisson(mean, (SIZE, SIZE)).astype(np.uint16), plan)) for _ in range(15)) == 0


def test_diffuse_scattering_has_no_disks() -> None:
    """A steep smooth background of 40 000 electrons gives at most one peak, at its apex."""
    rows, columns = np.indices((SIZE, SIZE)) - 127.5
    image = 1 / (1 + (rows**2 + columns**2) / 40**2)
    rng, plan = np.random.default_rng(8), plan_disks((SIZE, SIZE), radius=RADIUS)
    for _ in range(10):
        disks = find(rng.poisson(4e4 * image / image.sum()).astype(np.uint16), plan)
        assert len(disks) <= 1
        assert np.all(np.abs(disks[:, :2] - 127.5) < 2 * RADIUS)


@pytest.mark.parametrize("value", [0, 7, 0.1, -3.3, 2.5e9, np.nan])
@pytest.mark.parametrize("shape", [(64, 64), (61, 67)])
def test_constant_frames_have_no_disks(value: float, shape: tuple[int, int]) -> None:
    """Zeros, any constant and nothing but missing pixels give an empty list, also where the transform is enlarged."""
    assert len(find(np.full(shape, value), plan_disks(shape, radius=5))) == 0


def test_analog_noise_has_no_disks() -> None:
    """Dark-subtracted frames with negative pixels and read noise give no peak."""
    rng, plan = np.random.default_rng(6), plan_disks((SIZE, SIZE), radius=RADIUS)
    assert sum(len(find(rng.normal(0.0, 3.0, (SIZE, SIZE)).astype(np.float32), plan)) for _ in range(10)) == 0


@pytest.mark.parametrize("shape", [(96, 96), (95, 63), (97, 131), (64, 150)])
def test_one_disk_in_any_frame_shape(shape: tuple[int, int]) -> None:
    """Odd, prime and oblong frames find the same disk at the same place."""
    frame = 1 + 20 * draw(shape, (30.3, 40.6), 6.0, 2.0)
    disks = find(frame, plan_disks(shape, radius=6))
    assert len(disks) == 1
    np.testing.assert_allclose(disks[0, :2], [30.3, 40.6], atol=0.03)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.float32, np.float64, ">u2"])
def test_every_dtype_gives_the_same_disk(dtype: str) -> None:
    """The same counts in any type of pixel give the same list."""
    counted = np.random.default_rng(2).poisson(1 + 9 * draw((80, 80), (40.2, 37.9), 6.0, 2.0))
    plan = plan_disks((80, 80), radius=6)
    np.testing.assert_allclose(find(counted.astype(dtype), plan), find(counted.astype(np.int64), plan), rtol=1e-4)


def test_counts_above_two_to_the_24() -> None:
    """Large unsigned counts on a large offset keep position and counts."""
    image = draw((80, 80), (40.2, 37.9), 6.0, 2.0)
    frame = np.round(3e9 + 1e8 * image).astype(np.uint32)
    disks = find(frame, plan_disks((80, 80), radius=6))
    assert len(disks) == 1
    np.testing.assert_allclose(disks[0, :2], [40.2, 37.9], atol=0.03)
    inside = np.hypot(*(np.indices((80, 80)) - np.array([40.2, 37.9])[:, None, None])) < 6
    assert disks[0, 2] == pytest.approx(1e8 * image[inside].sum(), rel=0.01)


@pytest.mark.parametrize("row", [0.0, 3.0, 5.0])
def test_disks_cut_by_the_border_are_not_reported(row: float) -> None:
    """A disk whose centre lies within a radius of the edge gives no peak on either side of the frame."""
    frame = 1 + 20 * draw((96, 96), (row, 48.0), 6.0, 2.0)
    disks = find(frame, plan_disks((96, 96), radius=6))
    assert len(disks) <= 1  # its inner flank may be seen at the boundary itself
    assert np.all(disks[:, 0] < 8)


def test_a_disk_just_inside_the_boundary_is_reported() -> None:
    """The first centre beyond the edge boundary is found where it is."""
    frame = 1 + 20 * draw((96, 96), (7.6, 48.0), 6.0, 2.0)
    disks = find(frame, plan_disks((96, 96), radius=6))
    np.testing.assert_allclose(disks[:, :2], [[7.6, 48.0]], atol=0.1)


def test_of_two_close_disks_the_brighter_stays() -> None:
    """Two disks closer than the spacing give one peak, farther apart two."""
    plan, wide = plan_disks((96, 96), radius=6), plan_disks((96, 96), radius=6, min_spacing=20)
    frame = 1 + 20 * draw((96, 96), (48.0, 38.0), 6.0, 2.0) + 12 * draw((96, 96), (48.0, 54.0), 6.0, 2.0)
    np.testing.assert_allclose(find(frame, plan)[:, 1], [38.0, 54.0], atol=0.05)
    np.testing.assert_allclose(find(frame, wide)[:, 1], [38.0], atol=0.05)


def test_a_hot_pixel_is_not_a_disk() -> None:
    """A pixel far above everything gives no peak beside the true disk, which stays."""
    frame = np.random.default_rng(9).poisson(0.05 + 5 * draw((96, 96), (60.0, 60.0), 6.0, 2.0)).astype(np.uint16)
    frame[25, 30] = 4000
    np.testing.assert_allclose(find(frame, plan_disks((96, 96), radius=6))[:, :2], [[60, 60]], atol=0.4)


def test_a_saturated_disk_is_one_peak() -> None:
    """A flat top at the limit of the counter is one disk."""
    frame = np.minimum(300 * draw((96, 96), (50.4, 47.7), 8.0, 3.0), 255).astype(np.uint8)
    np.testing.assert_allclose(find(frame, plan_disks((96, 96), radius=8))[:, :2], [[50.4, 47.7]], atol=0.1)


def test_missing_pixels_do_not_move_a_disk() -> None:
    """NaN and masked pixels inside a disk are filled from around."""
    frame = 1 + 20 * draw((96, 96), (48.3, 40.6), 8.0, 2.0)
    frame[48, 40], frame[20, 20] = np.nan, np.inf
    frame[50, 44] = 1e7
    bad = np.zeros((96, 96), np.bool_)
    bad[50, 44] = True
    disks = find(frame, plan_disks((96, 96), radius=8, bad_pixels=bad))
    np.testing.assert_allclose(disks[:, :2], [[48.3, 40.6]], atol=0.05)


def test_thresholds_and_number_are_obeyed() -> None:
    """The absolute and relative thresholds and the largest number cut the list from its weak end."""
    shape, centres, heights = (96, 96), ((24.0, 24.0), (24.0, 70.0), (70.0, 24.0), (70.0, 70.0)), (40.0, 10.0, 3.0, 0.8)
    frame = 0.1 + sum(h * draw(shape, c, 6.0, 2.0) for h, c in zip(heights, centres, strict=True))
    number = {
        name: len(find(frame, plan_disks(shape, radius=6, **{name: value})))
        for name, value in (("min_abs", 3.0), ("min_rel", 0.2), ("max_peaks", 1), ("significance", 5.0))
    }
    assert number == {"min_abs": 2, "min_rel": 3, "max_peaks": 1, "significance": 4}


def test_a_measured_probe_finds_the_same_disks() -> None:
    """A noisy off-centre probe image serves as template as well as the synthetic disk."""
    rng, shape = np.random.default_rng(12), (96, 96)
    probe = rng.poisson(100 * draw(shape, (41.7, 55.2), 7.0, 2.0))
    frame = 1 + 20 * draw(shape, (30.4, 35.1), 7.0, 2.0) + 8 * draw(shape, (62.2, 60.8), 7.0, 2.0)
    disks = find(frame, plan_disks(shape, template=probe))
    np.testing.assert_allclose(disks[:, :2], [[30.4, 35.1], [62.2, 60.8]], atol=0.05)


def test_a_beam_stop_makes_no_disks_and_moves_none() -> None:
    """Behind a dead bar whole disks stay, one that is half hidden keeps its place, and the bar's edges are no disks."""
    shape, hidden = (128, 128), np.zeros((128, 128), np.bool_)
    hidden[:70, 58:70] = True
    centres = ((30.0, 30.4), (64.2, 73.3), (96.1, 64.7), (40.6, 96.2), (30.3, 64.0))
    image = 1.0 + sum(15 * draw(shape, c, 8.0, 2.0) for c in centres)
    frame = np.where(hidden, 0, np.random.default_rng(2).poisson(image)).astype(np.uint16)
    disks = find(frame, plan_disks(shape, radius=8, bad_pixels=hidden))
    order = np.lexsort((disks[:, 1], disks[:, 0]))
    expected = sorted(centres[:4])
    np.testing.assert_allclose(disks[order, :2], expected, atol=0.3)
    np.testing.assert_allclose(disks[order, 2], disks[0, 2], rtol=0.1)
    partial = np.flatnonzero(np.abs(disks[:, 1] - 73.3) < 1)
    assert disks[partial[0], 4] == disks[:, 4].max()


@pytest.mark.parametrize("min_visible", [0.5, 0.8, 0.97])
def test_disks_over_the_border_are_reported_as_far_as_they_are_visible(min_visible: float) -> None:
    """With the border let in, the visible share decides, and the position may lie next to the edge."""
    shape, rows = (96, 160), (-3.0, 1.8, 4.0, 20.0)
    centres = [(row, 20.0 + 40 * n) for n, row in enumerate(rows)]
    frame = 1 + sum(20 * draw(shape, c, 6.0, 2.0) for c in centres)
    disks = find(frame, plan_disks(shape, radius=6, edge_boundary=1, min_visible=min_visible))
    share = {0.5: (1, 2, 3), 0.8: (2, 3), 0.97: (3,)}[min_visible]
    order = disks[:, 1].argsort()
    kept = [centres[n] for n in share]
    found = [tuple(disk) for disk in disks[order, :2] if min(np.hypot(*(disk - np.array(c))) for c in kept) < 1]
    np.testing.assert_allclose(found, kept, atol=0.1)
    assert len(disks) == len(kept)


def test_filters_are_counted_in_their_order() -> None:
    """The counts fall from the maxima to the disks and name the filter that took the rest away."""
    shape = (96, 96)
    frame = 0.1 + sum(
        h * draw(shape, c, 6.0, 2.0) for h, c in ((40, (24.0, 24.0)), (10, (24.0, 70.0)), (3, (70.0, 24.0)))
    )
    counts = filter_counts(frame, plan_disks(shape, radius=6))
    assert tuple(counts) == FILTERS
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert counts["hot pixel"] == 3
    number = {
        name: filter_counts(frame, plan_disks(shape, radius=6, **{name: value}))[name]
        for name, value in (("min_abs", 99.0), ("max_peaks", 2), ("min_spacing", 200.0))
    }
    assert number == {"min_abs": 0, "max_peaks": 2, "min_spacing": 1}


def test_too_few_places_are_seen_in_the_counts() -> None:
    """A list that max_peaks cuts has more candidates before that filter than after."""
    frame = 0.1 + sum(9 * draw((96, 96), c, 6.0, 2.0) for c in ((24.0, 24.0), (24.0, 70.0), (70.0, 24.0)))
    counts = filter_counts(frame, plan_disks((96, 96), radius=6, max_peaks=2))
    assert (counts["min_spacing"], counts["max_peaks"]) == (3, 2)


@pytest.mark.parametrize("kernel", ["sigmoid", "gaussian", "gradient", "log", "flat"])
def test_every_detection_kernel_finds_the_disks(kernel: str) -> None:
    """With any kernel the same three disks are found at the same places, and nothing else."""
    centres, rng = ((24.3, 24.6), (24.0, 70.2), (70.4, 30.1)), np.random.default_rng(1)
    image = 0.3 + sum(6 * draw((96, 96), c, 6.0, 2.0) for c in centres)
    disks = find(rng.poisson(image).astype(np.uint16), plan_disks((96, 96), radius=6, kernel=kernel))  # type: ignore[arg-type] # one of the names
    order = np.lexsort((disks[:, 1], disks[:, 0].round()))
    np.testing.assert_allclose(disks[order, :2], [centres[0], centres[1], centres[2]], atol=0.3)


@pytest.mark.parametrize("power", [0.5, 0.8])
def test_hybrid_correlation_finds_the_disks(power: float) -> None:
    """A power below one changes the map, not where the disks are."""
    centres, rng = ((24.3, 24.6), (26.0, 70.2), (70.4, 30.1)), np.random.default_rng(1)
    image = 0.3 + sum(h * draw((96, 96), c, 6.0, 2.0) for h, c in zip((30, 8, 8), centres, strict=True))
    frame = rng.poisson(image).astype(np.uint16)
    for subpixel in ("likelihood", "newton"):
        disks = find(frame, plan_disks((96, 96), radius=6, power=power, min_rel=0.3, subpixel=subpixel))  # type: ignore[arg-type] # one of the names
        gap = gaps(disks, np.array(centres))
        assert gap.min(axis=1).max() < 0.4
        assert len(disks) == 3


def test_phase_correlation_finds_the_brightest_disk() -> None:
    """At power 0 every frequency counts alike; the maximum is still the disk."""
    frame = 1 + 20 * draw((96, 96), (40.3, 55.6), 6.0, 2.0)
    plan = plan_disks((96, 96), radius=6, power=0.0, max_peaks=1, sigma_detect=1.0)
    np.testing.assert_allclose(find(frame, plan)[:, :2], [[40.3, 55.6]], atol=0.1)


def test_a_kernel_larger_than_the_frame_works() -> None:
    """The window of a disk that fills the frame folds over; the disk is found."""
    frame = 1 + 20 * draw((24, 26), (11.8, 12.6), 9.0, 2.0)
    disks = find(frame, plan_disks((24, 26), radius=9, edge_boundary=4))
    np.testing.assert_allclose(disks[:, :2], [[11.8, 12.6]], atol=0.1)


def test_a_hot_pixel_in_the_list_of_bad_ones_changes_nothing() -> None:
    """A pixel of a million counts within a disk has no say in its place and its counts once it is marked."""
    shape, bad = (96, 96), np.zeros((96, 96), np.bool_)
    bad[30, 38] = True
    frame = 1 + 20 * draw(shape, (30.4, 35.1), 7.0, 2.0)
    plan = plan_disks(shape, radius=7, bad_pixels=bad)
    plain = find(frame, plan_disks(shape, radius=7))
    frame[30, 38] = 1e6
    np.testing.assert_allclose(find(frame, plan)[:, :2], plain[:, :2], atol=0.02)
    np.testing.assert_allclose(find(frame, plan)[:, 2], plain[:, 2], rtol=0.01)


@pytest.mark.parametrize("radius", [1.6, 3.0, 5.0, 12.0, 20.0, 45.0])
def test_disks_of_any_size_are_found(radius: float) -> None:
    """From spots to disks of 45 pixels, on bins of one to eight pixels, positions are right."""
    side = int(12 * radius) + 20
    centres = ((3 * radius + 5.3, 3 * radius + 5.6), (9 * radius + 4.7, 8.4 * radius + 5.2))
    image = 0.5 + sum(h * draw((side, side), c, radius, 1.5) for h, c in zip((40, 15), centres, strict=True))
    disks = find(image, plan_disks((side, side), radius=radius, edge_width=1.5))
    np.testing.assert_allclose(disks[:, :2], centres, atol=0.05)


def test_a_slope_of_diffuse_scattering_does_not_pull() -> None:
    """Disks on the flank of a strong diffuse background, which would pull them by 0.3 px, stay where they are."""
    rows, columns = np.indices((SIZE, SIZE)) - 127.5
    diffuse = 30 / (1 + (rows**2 + columns**2) / 50**2)
    centres = np.array([(80.3, 127.2), (127.6, 60.1), (200.4, 180.7)])
    image = diffuse + sum(20 * draw((SIZE, SIZE), tuple(c), RADIUS, EDGE) for c in centres)
    rng, plan = np.random.default_rng(3), plan_disks((SIZE, SIZE), radius=RADIUS)
    errors = []
    for _ in range(40):
        disks = find(rng.poisson(image).astype(np.uint16), plan)
        errors.append(disks[gaps(disks, centres).argmin(axis=1), :2] - centres)
    assert np.abs(np.mean(errors, axis=0)).max() < 0.06
