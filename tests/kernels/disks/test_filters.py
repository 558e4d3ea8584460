"""Detection kernels: sums, responses, shapes, binning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import fft

from stemstore.kernels.disks.filters import footprint, make_kernel
from stemstore.kernels.disks.options import DiskParameters
from stemstore.kernels.disks.probe import Template, disk

TEMPLATE = Template(6.0, 2.0)
SHAPE = (96, 90)


def parameters(**options: Any) -> DiskParameters:
    """Give settings for the template."""
    return DiskParameters.of((96, 90), TEMPLATE, {"binning": 1, **options})  # type: ignore[typeddict-item] # any option


def real(transform: np.ndarray, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Give a kernel in real space, its centre at pixel (0, 0)."""
    return fft.irfft2(np.conj(transform), s=shape)


@pytest.mark.parametrize("name", ["sigmoid", "gaussian", "gradient", "log"])
def test_kernels_do_not_see_a_constant(name: str) -> None:
    """All kernels with a window are exactly zero-sum, smoothed or not, and both parts have unit response."""
    kernel = make_kernel(TEMPLATE, parameters(kernel=name), SHAPE)
    assert kernel.detect[0, 0] == 0
    assert kernel.signal[0, 0] == pytest.approx(1.0)
    assert kernel.window[0, 0] == pytest.approx(1.0)


def test_the_flat_kernel_is_the_disk() -> None:
    """Without smoothing it is the probe of unit sum, and nothing else."""
    kernel = make_kernel(TEMPLATE, parameters(kernel="flat", sigma_detect=0.0), SHAPE)
    placed = np.roll(TEMPLATE.draw(SHAPE, (40.0, 40.0)), (-40, -40), (0, 1))
    np.testing.assert_allclose(real(kernel.detect), placed / placed.sum(), atol=1e-12)


def test_the_log_kernel_is_the_logarithm_of_the_probe() -> None:
    """Its signal is log(1 + c S), scaled to unit sum."""
    kernel = make_kernel(TEMPLATE, parameters(kernel="log", contrast=4.0, sigma_detect=0.0), SHAPE)
    expected = np.log(1 + 4 * np.roll(TEMPLATE.draw(SHAPE, (40.0, 40.0)), (-40, -40), (0, 1)))
    np.testing.assert_allclose(real(kernel.signal), expected / expected.sum(), atol=1e-12)


def test_windows_have_their_documented_widths() -> None:
    """The cosine window ends at `window`; the Gaussian has half of it as standard deviation."""
    for name, at, share in (("sigmoid", 7.5, 0.5), ("gaussian", 7.5, np.exp(-0.5))):
        window = real(make_kernel(TEMPLATE, parameters(kernel=name, window=15.0, sigma_detect=0.0), SHAPE).window)
        line = window[0] / window[0, 0]
        assert np.interp(at, np.arange(20), line[:20]) == pytest.approx(share, abs=0.01)


def test_the_gradient_kernel_grows_towards_the_edge() -> None:
    """Half way out it has half the weight of the edge, and none in the middle."""
    line = real(make_kernel(TEMPLATE, parameters(kernel="gradient", sigma_detect=0.0), SHAPE).signal)[0]
    assert line[0] == pytest.approx(0.0, abs=1e-12)
    assert line[2] / line[4] == pytest.approx(0.5)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_maps_of_bins_are_in_counts_per_pixel(size: int) -> None:
    """A large disk of 7 counts per pixel gives 7 at its centre with a flat kernel, on pixels and on bins."""
    template, shape = Template(10.0, 2.0), (96 // size, 96 // size)
    options = DiskParameters.of((96, 96), template, {"kernel": "flat", "sigma_detect": 0.0, "binning": size})
    middle = 48 + (size - 1) / 2
    image = 7 * disk((96, 96), (middle, middle), 30.0, 2.0)
    binned = image.reshape(shape[0], size, shape[1], size).sum(axis=(1, 3))
    score = fft.irfft2(fft.rfft2(binned) * make_kernel(template, options, shape).detect, s=shape)
    assert score[48 // size, 48 // size] == pytest.approx(7.0)


def test_kernels_larger_than_the_frame_fold_over() -> None:
    """A window wider than the frame keeps its sum."""
    kernel = make_kernel(TEMPLATE, parameters(window=80.0), (20, 18))
    assert kernel.window[0, 0] == pytest.approx(1.0)
    assert np.isfinite(kernel.detect).all()


def test_the_footprint_gives_the_visible_share() -> None:
    """Correlated with a mask that hides one half, it is 1/2 at the border and 1 far from it."""
    mask = np.zeros(SHAPE)
    mask[:, :45] = 1
    share = fft.irfft2(fft.rfft2(mask) * footprint(TEMPLATE, parameters(), SHAPE), s=SHAPE)
    assert share[48, 20] == pytest.approx(1.0)
    assert (share[48, 44] + share[48, 45]) / 2 == pytest.approx(0.5)
    assert share[48, 60] == pytest.approx(0.0, abs=1e-9)
