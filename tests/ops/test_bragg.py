"""Bragg disks of labelled scans: axes, attributes, chunking, masks, events and a simulated gold specimen."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from stemstore.errors import InputError
from stemstore.kernels.contract import DetectorRegion
from stemstore.kernels.correlation import disk
from stemstore.kernels.disk_plan import plan_disks
from stemstore.ops.bragg import DiskKernel, find_disks
from stemstore.ops.explain import explain
from stemstore.scan.lazy import ScanArray
from stemstore.selection import Selection


class MemorySource:
    """A scan source over an array, which streams five frames at a time."""

    partition, chunk, uuid = (2, 3), (1, 2), "memory"

    def __init__(self, counts: np.ndarray) -> None:
        self.counts, self.shape, self.dtype = counts, counts.shape, counts.dtype

    def read(self, selection: Selection) -> np.ndarray:
        """Read the selected pixels."""
        return self.counts[np.ix_(*selection.axes)].reshape(selection.shape)

    def run(self, selection: Selection, kernel: DiskKernel, prepared: Any, keep: np.ndarray | None = None) -> Any:
        """Stream the selected positions through a kernel."""
        frames = self.counts.reshape(-1, *self.shape[-2:])
        positions = selection.flat_positions()
        out = kernel.allocate(len(positions), self.dtype, DetectorRegion.of(selection))
        wanted = np.arange(len(positions)) if keep is None else np.flatnonzero(keep)
        for place in np.array_split(wanted, range(5, len(wanted), 5)):
            block = frames[positions[place]]
            kernel.frames(block, np.arange(len(place)), out, place, prepared)
        return out


CENTRES = ((40.0, 40.0), (60.3, 20.2), (20.0, 61.7))
SHAPE = (96, 80)


@pytest.fixture(scope="module")
def scan() -> xr.Dataset:
    """Give a 3 x 4 scan of three disks on axes of -0.5 and 0.25 mrad per pixel, zero at pixel 40."""
    image = sum(a * disk(SHAPE, c, 6.0, 2.0) for a, c in zip((20, 4, 3), CENTRES, strict=True)) + 0.05
    counts = np.random.default_rng(0).poisson(image, (3, 4, *SHAPE)).astype(np.uint16)
    counts[1, 2] = 0
    coords = {
        "y": ("y", np.arange(3) * 2.0, {"units": "nm"}),
        "ky": ("ky", (np.arange(96) - 40) * -0.5, {"units": "mrad"}),
        "kx": ("kx", (np.arange(80) - 40) * 0.25, {"units": "mrad"}),
    }
    return xr.Dataset({"intensity": (("y", "x", "ky", "kx"), counts)}, coords, {"beam_energy_keV": 80.0})


@pytest.fixture(scope="module")
def disks(scan: xr.Dataset) -> xr.Dataset:
    """Give the computed disks of the scan."""
    return find_disks(scan, radius=6).compute()


def test_disks_carry_the_axes_of_the_detector(disks: xr.Dataset) -> None:
    """Positions are in the unit of the axes, sign and zero included; pixels are kept beside them."""
    first = disks.isel(y=0, x=0)
    assert first.n_disks == 3
    order = np.argsort(first.disk_kx_pixel.values[:3])
    np.testing.assert_allclose(first.disk_ky_pixel.values[:3][order], [60.3, 40.0, 20.0], atol=0.4)
    np.testing.assert_allclose(first.disk_ky, (first.disk_ky_pixel - 40) * -0.5, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(first.disk_kx, (first.disk_kx_pixel - 40) * 0.25, rtol=1e-6, atol=1e-6)
    assert first.disk_ky.attrs["units"] == "mrad"
    assert first.disk_kx_pixel.attrs["units"] == "pixel"


def test_disks_are_sorted_and_padded(disks: xr.Dataset) -> None:
    """Correlation falls along the list; behind the last disk everything is NaN; an empty frame has none."""
    known = disks.correlation.notnull()
    assert (known.sum("disk") == disks.n_disks).all()
    assert disks.n_disks.values.tolist() == [[3, 3, 3, 3], [3, 3, 0, 3], [3, 3, 3, 3]]
    assert (disks.correlation.diff("disk").fillna(0) <= 0).all()
    for name in ("disk_ky", "disk_kx", "disk_ky_pixel", "disk_kx_pixel", "intensity"):
        assert (disks[name].notnull() == known).all()


def test_result_is_lazy_and_keeps_scan_axes(scan: xr.Dataset) -> None:
    """Nothing is computed before it is asked for; scan coordinates stay; history and parameters are attributes."""
    disks = find_disks(scan.chunk(y=1), radius=6, min_spacing=14)
    assert isinstance(disks.disk_ky.data, da.Array)
    assert disks.disk_ky.dims == ("y", "x", "disk")
    assert disks.y.attrs["units"] == "nm"
    assert disks.attrs["radius"] == 6.0
    assert disks.attrs["min_spacing"] == 14
    assert disks.attrs["sigma_detect"] == 1.5
    assert "find_disks(template='synthetic disk', radius=6" in disks.attrs["history"]


@pytest.mark.parametrize("chunks", [(1, 1, 96, 80), (2, 3, 50, 33), (3, 4, 96, 80)])
def test_result_does_not_depend_on_chunks(scan: xr.Dataset, disks: xr.Dataset, chunks: tuple[int, ...]) -> None:
    """Any chunking, the detector axes included, gives the same numbers to the last bit."""
    lazy = scan.chunk(dict(zip(("y", "x", "ky", "kx"), chunks, strict=True)))
    xr.testing.assert_identical(find_disks(lazy, radius=6).compute(), disks)


def test_streaming_gives_the_same_disks(scan: xr.Dataset) -> None:
    """A selection of a source, streamed, and the same pixels in memory have the same disks."""
    counts = scan.intensity.values
    array = ScanArray(MemorySource(counts), Selection.full(counts.shape))
    lazy = xr.DataArray(array, dims=scan.intensity.dims, coords=scan.coords)
    part = {"y": slice(None, None, -1), "x": [3, 0, 2], "ky": slice(4, 92)}
    roi = np.ones((3, 3), bool)
    roi[1, 1] = False
    assert explain(lazy.isel(part)).startswith("fused")
    streamed, plain = (find_disks(a.isel(part), radius=6, roi=roi).compute() for a in (lazy, scan.intensity))
    xr.testing.assert_identical(streamed, plain)
    assert streamed.n_disks.values[0].tolist() == [3, 3, 3]


def test_axis_order_does_not_matter(scan: xr.Dataset, disks: xr.Dataset) -> None:
    """A transposed DataArray gives the same disks."""
    other = find_disks(scan.intensity.transpose("kx", "y", "ky", "x"), radius=6).compute()
    np.testing.assert_array_equal(other.disk_ky, disks.disk_ky)


def test_cropped_detector_keeps_physical_positions(scan: xr.Dataset, disks: xr.Dataset) -> None:
    """On a part of the detector pixels shift, while the positions in mrad stay."""
    part = find_disks(scan.isel(ky=slice(8, 90), kx=slice(5, 80)), radius=6).compute()
    gap = np.abs(part.disk_ky.values[0, 0, :3, None] - disks.disk_ky.values[0, 0, None, :3]).min(axis=1)
    assert gap.max() < 0.02
    assert part.disk_ky_pixel.values[0, 0, 0] == pytest.approx(disks.disk_ky_pixel.values[0, 0, 0] - 8, abs=0.05)


def test_positions_outside_the_region_are_marked(scan: xr.Dataset, disks: xr.Dataset) -> None:
    """Unwanted and missing positions have no disks and are told apart from empty frames."""
    roi = np.ones((3, 4), bool)
    roi[0] = False
    valid = np.ones((3, 4), np.uint8)
    valid[2, 3] = 0
    part = find_disks(scan.assign_coords(valid=(("y", "x"), valid)), radius=6, roi=roi).compute()
    assert part.processed.values.tolist() == [[False] * 4, [True] * 4, [True, True, True, False]]
    expected = np.where(part.processed, disks.n_disks, 0)
    np.testing.assert_array_equal(part.n_disks, expected)


def test_template_image_works_as_the_radius(scan: xr.Dataset) -> None:
    """The mean pattern serves as template: its brightest disk is measured and used."""
    found = find_disks(scan, scan.intensity.mean(("y", "x"))).compute()
    assert found.attrs["radius"] == pytest.approx(6.0, abs=0.3)
    assert found.n_disks.values[0, 0] == 3
    assert found.attrs["template"] == "image of shape (96, 80)"


def test_axes_without_coordinates_are_pixels(scan: xr.Dataset) -> None:
    """Without coordinates the positions are pixels and say so."""
    found = find_disks(scan.drop_vars(["ky", "kx"]), radius=6).compute()
    np.testing.assert_array_equal(found.disk_ky, found.disk_ky_pixel.astype(np.float64))
    assert found.disk_ky.attrs["units"] == "pixel"


def test_events_give_the_disks_of_their_dense_frames(scan: xr.Dataset) -> None:
    """Counted frames, also seen through a cropped detector, give the lists of their dense counterparts."""
    events = pytest.importorskip("stemstore.kernels.events")
    frames = scan.intensity.values.reshape(-1, *SHAPE)[:5]
    flat = [np.repeat(np.arange(f.size, dtype=np.uint32), f.ravel()) for f in frames]
    indptr = np.concatenate(([0], np.cumsum([len(f) for f in flat]))).astype(np.int64)
    gap, slots = events.encode(indptr, np.concatenate(flat))
    offsets = np.concatenate(([0], np.cumsum(slots))).astype(np.int64)
    region = DetectorRegion(SHAPE, range(4, 92), range(80))
    kernel = DiskKernel(plan_disks(region.shape, radius=6))
    prepared = kernel.prepare(region)
    local, place = np.array([4, 0, 2]), np.array([1, 0, 3])
    dense, counted = (kernel.allocate(4, np.dtype(np.uint16), region) for _ in range(2))
    kernel.frames(frames, local, dense, place, prepared)
    kernel.events(gap, offsets, local, counted, place, prepared)
    assert np.isfinite(dense[[0, 1, 3], 0]).all()
    assert np.isnan(dense[2]).all()
    np.testing.assert_array_equal(counted, dense)


@pytest.mark.parametrize("roi", [np.ones((4, 3), bool), np.ones((3, 4))])
def test_a_region_that_does_not_fit_is_refused(scan: xr.Dataset, roi: np.ndarray) -> None:
    """Wrong shape and wrong type of the region say what is expected."""
    with pytest.raises(InputError, match=r"roi is a map of the scan's shape \(3, 4\), boolean"):
        find_disks(scan, radius=6, roi=roi)


def test_a_plan_for_another_detector_is_refused() -> None:
    """A kernel refuses a detector region that it was not planned for."""
    kernel = DiskKernel(plan_disks((32, 32), radius=4))
    with pytest.raises(InputError, match=r"planned for frames of \(32, 32\) pixels"):
        kernel.prepare(DetectorRegion((64, 64), range(64), range(64)))


@pytest.fixture(scope="module")
def gold(sample) -> np.ndarray:
    """Load the simulated gold [001] scan (24 x 24 positions, 128 x 128 pixels), or skip."""
    with np.load(sample("sim/au_strain_nanobeam_counts_u16.npz")) as archive:
        return archive["counts"]


def test_gold_lattice_and_strain(gold) -> None:
    """Distances of (200) to (-200) and their ratio across a 2 % step follow from the lattice of the simulation.

    The step distorts the edges of the disks, so that the kernel leans on their area: contrast 1, radius 0.5 px smaller.
    """
    halves = np.stack([gold[:8].sum((0, 1), dtype=np.uint32), gold[16:].sum((0, 1), dtype=np.uint32)])
    patterns = xr.DataArray(halves[:, None], dims=("y", "x", "ky", "kx"))
    disks = find_disks(patterns, radius=9.25, contrast=1.0).compute()
    distances = []
    for half in range(2):
        rows, columns = (disks[k].values[half, 0] for k in ("disk_ky_pixel", "disk_kx_pixel"))
        ends = [rows[np.nanargmin(np.hypot(rows - 64 - s * 47, columns - 64))] for s in (-1, 1)]
        distances.append((ends[1] - ends[0]) / 2)
    assert distances[0] == pytest.approx(47.082, abs=0.04)  # 2 / 4.078 angstrom over 0.01041667 1/angstrom
    assert distances[1] == pytest.approx(46.159, abs=0.04)
    assert distances[0] / distances[1] == pytest.approx(1.02, abs=0.0007)


def test_gold_disks_of_single_patterns(gold) -> None:
    """Single patterns of 11 500 electrons show the lattice: 9 disks or more, none off the reciprocal lattice."""
    part = xr.DataArray(gold[:2, :4], dims=("y", "x", "ky", "kx"))
    disks = find_disks(part, radius=9.75).compute()
    order = np.stack([disks.disk_ky_pixel - 64, disks.disk_kx_pixel - 64]) / 47.07
    off = np.abs(order - np.round(order))
    assert disks.n_disks.min() >= 9
    assert np.nanmax(off) < 2.0 / 47
