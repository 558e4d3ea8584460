"""Disks of simulated Poisson frames against their known positions, and the traps of real frames."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.kernels.disk_plan import DiskPlan, plan_disks
from stemstore.kernels.disk_probe import disk, position_limit
from stemstore.kernels.disks import frame_disks

RADIUS, EDGE, SIZE = 8.0, 2.0, 256


def draw(shape: tuple[int, int], centre: tuple[float, float], radius: float, edge: float) -> np.ndarray:
    """Draw a disk averaged over 4 x 4 sub-pixels of every pixel."""
    middle = tuple(4 * c + 1.5 for c in centre)
    fine = disk((4 * shape[0], 4 * shape[1]), middle, 4 * radius, 4 * edge)
    return fine.reshape(shape[0], 4, shape[1], 4).mean(axis=(1, 3))


def find(frame: np.ndarray, plan: DiskPlan) -> np.ndarray:
    """Run the detection and cut the list behind its last disk."""
    out = np.empty((plan.parameters.max_peaks, 5), np.float32)
    n_disks = frame_disks(frame, plan, out)
    assert np.isnan(out[n_disks:]).all()
    assert np.isfinite(out[:n_disks]).all()
    return out[:n_disks]


@pytest.fixture(scope="module")
def crystal() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give positions, shares of the counts and the noise-free pattern (sum 1, 15 % flat background)."""
    rng = np.random.default_rng(7)
    along, across = 28 * np.array([[np.cos(0.2), np.sin(0.2)], [-np.sin(0.2), np.cos(0.2)]])
    grid = [127.8 + i * along + j * across for i in range(-5, 6) for j in range(-5, 6)]
    inside = [p for p in grid if p.min() > RADIUS + 3 and p.max() < SIZE - RADIUS - 4]
    positions = np.array(inside)
    distance = np.hypot(*(positions - 127.8).T)
    weight = np.exp(-((distance / 75) ** 2)) * rng.uniform(0.3, 1, len(positions))
    weight[distance.argmin()] = 6
    share = 0.85 * weight / weight.sum()
    pattern = np.full((SIZE, SIZE), 0.15 / SIZE**2)
    for position, part in zip(positions, share, strict=True):
        corner = np.floor(position).astype(int) - 12
        image = draw((25, 25), tuple(position - corner), RADIUS, EDGE)
        rows, columns = slice(corner[0], corner[0] + 25), slice(corner[1], corner[1] + 25)
        image = image[max(0, -corner[0]) :, max(0, -corner[1]) :]
        target = pattern[max(0, rows.start) : rows.stop, max(0, columns.start) : columns.stop]
        target += (part * image / image.sum())[: target.shape[0], : target.shape[1]]
    return positions, share, pattern


@pytest.mark.parametrize(
    ("dose", "smallest", "recall", "precision"), [(40_000, 60, 0.995, 0.995), (4_000, 40, 0.98, 0.98)]
)
def test_disks_of_counted_frames_are_found_where_they_are(
    crystal: tuple[np.ndarray, np.ndarray, np.ndarray], dose: int, smallest: int, recall: float, precision: float
) -> None:
    """Recall, precision and error of counted frames; strong disks stay within 1.2 of the Cramér-Rao bound."""
    positions, share, pattern = crystal
    rng, plan = np.random.default_rng(11), plan_disks((SIZE, SIZE), radius=RADIUS)
    counts, background = share * dose, 0.15 * dose / SIZE**2
    wanted, strong = np.flatnonzero(counts >= smallest), np.flatnonzero(counts >= 5 * smallest)
    hits = found = true = 0
    errors = []
    for _ in range(20):
        disks = find(rng.poisson(dose * pattern).astype(np.uint16), plan)
        gap = np.hypot(*(disks[:, None, :2] - positions[None]).T)  # (truth, found)
        hits += int((gap[wanted].min(axis=1) < 3).sum())
        true += int((gap.min(axis=0) < RADIUS / 2).sum())
        found += len(disks)
        nearest = gap[strong].argmin(axis=1)
        errors.append((disks[nearest, :2] - positions[strong])[gap[strong, nearest] < 3])
    assert hits >= recall * 20 * len(wanted)
    assert true >= precision * found
    limit = np.mean([position_limit(RADIUS, EDGE, n, background) ** 2 for n in counts[strong]]) ** 0.5
    rms = float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))
    assert rms < 1.2 * limit
    assert rms < 0.3


def test_positions_and_intensities_of_a_noise_free_pattern(
    crystal: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Without noise positions are right to 0.03 px and counts to 10 % (the soft edge lies beyond the radius)."""
    positions, share, pattern = crystal
    disks = find(4e5 * pattern, plan_disks((SIZE, SIZE), radius=RADIUS))
    gap = np.hypot(*(disks[:, None, :2] - positions[None]).T)
    bright = share > 0.002
    assert np.abs((disks[gap.argmin(axis=1), :2] - positions)[bright]).max() < 0.03
    ratio = disks[gap.argmin(axis=1), 2] / (4e5 * share)
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
