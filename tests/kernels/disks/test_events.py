"""Counted frames made dense one by one."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.errors import CorruptDataError, InputError
from stemstore.kernels import events
from stemstore.kernels.disks.events import electron_frames
from stemstore.kernels.disks.plan import plan_disks
from stemstore.kernels.disks.probe import Template
from stemstore.kernels.disks.search import frame_disks


def coded(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give gaps and offsets of counted frames."""
    flat = [np.repeat(np.arange(f.size, dtype=np.uint32), f.ravel()) for f in frames]
    indptr = np.concatenate(([0], np.cumsum([len(f) for f in flat]))).astype(np.int64)
    gap, slots = events.encode(indptr, np.concatenate(flat))
    return gap, np.concatenate(([0], np.cumsum(slots))).astype(np.int64)


@pytest.mark.parametrize("shape", [(40, 50), (300, 310)])
def test_frames_hold_their_electrons(shape: tuple[int, int]) -> None:
    """Frames in any order, empty ones and several electrons in a pixel; also where gaps are longer than 16 bits."""
    frames = np.random.default_rng(0).poisson(0.01, (4, *shape)).astype(np.uint16)
    frames[1] = 0
    frames[2] = 0
    frames[2, -1, -1] = 3
    for number, frame in zip((2, 0, 1, 3), electron_frames(*coded(frames), np.array([2, 0, 1, 3]), shape), strict=True):
        assert frame.dtype == np.uint16
        np.testing.assert_array_equal(frame, frames[number])


def test_a_pixel_that_overflows_is_refused() -> None:
    """More than 65535 electrons in a pixel are not counted from zero again."""
    frame = np.zeros((1, 8, 8), np.uint32)
    frame[0, 3, 4] = 65536
    with pytest.raises(InputError, match="pixel 28 has more electrons in one frame than uint16 can hold"):
        next(electron_frames(*coded(frame), np.array([0]), (8, 8)))


def test_events_outside_the_detector_are_refused() -> None:
    """Events of a larger detector do not write beyond the frame."""
    frames = np.zeros((1, 20, 20), np.uint16)
    frames[0, 19, 19] = 1
    with pytest.raises(CorruptDataError, match="events reach pixel 399 of 100 pixels"):
        next(electron_frames(*coded(frames), np.array([0]), (10, 10)))


@pytest.mark.parametrize("radius", [4.0, 8.0])
@pytest.mark.parametrize("subpixel", ["likelihood", "newton"])
def test_disks_are_those_of_the_same_integers(radius: float, subpixel: str) -> None:
    """Counted frames and dense ones of the same electrons give the same disks to the last bit."""
    rng, shape = np.random.default_rng(4), (90, 75)
    template = Template(radius, 2.0)
    image = 0.1 + sum(h * template.draw(shape, c) for h, c in ((5, (30.2, 28.7)), (2, (60.9, 50.1))))
    frames = rng.poisson(image, (3, *shape)).astype(np.uint16)
    plan = plan_disks(shape, radius=radius, subpixel=subpixel)  # type: ignore[arg-type] # one of the names
    dense, counted = (np.empty((plan.parameters.max_peaks, 5), np.float32) for _ in range(2))
    for frame, same in zip(frames, electron_frames(*coded(frames), np.arange(3), shape), strict=True):
        assert frame_disks(frame, plan, dense) == frame_disks(same, plan, counted) >= 2
        np.testing.assert_array_equal(counted, dense)
