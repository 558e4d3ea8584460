"""Bragg disks of labelled scans: axes, attributes, chunking, masks, events and a simulated gold specimen."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import InputError, MemoryBudgetError
from stemstore.kernels.contract import DetectorRegion
from stemstore.kernels.disks.plan import plan_disks
from stemstore.kernels.disks.probe import disk, template_of
from stemstore.ops.disks.find import disk_lists, find_disks
from stemstore.ops.disks.kernel import DiskKernel
from stemstore.ops.disks.run import DisksInterrupted
from stemstore.ops.disks.table import table_of
from stemstore.ops.disks.verdict import DiskWarning
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


class Told:
    """Progress that remembers; it interrupts where it is told to."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.total, self.done, self.interrupt_after = 0, 0, interrupt_after

    def start(self, what: str, total: int | None) -> None:
        """Note the total."""
        self.total = total

    def advance(self, steps: int = 1) -> None:
        """Note the advance, or interrupt."""
        self.done += steps
        if self.interrupt_after is not None and self.done >= self.interrupt_after:
            raise KeyboardInterrupt


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
    """Give the disks of the scan."""
    return find_disks(scan, radius=6)


def test_disks_are_where_they_were_put(disks: xr.Dataset) -> None:
    """Every pattern but the empty one has its three disks, in pixels; its list is sorted by correlation."""
    table = table_of(disks)
    assert table.n_disks.tolist() == [[3, 3, 3, 3], [3, 3, 0, 3], [3, 3, 3, 3]]
    for position in np.ndindex(3, 4):
        here = table.disks_of(position)
        assert (np.diff(table.correlation[here]) <= 0).all()
        if table.n_disks[position]:
            order = np.argsort(table.qx[here])
            np.testing.assert_allclose(table.qy[here][order], [60.3, 40.0, 20.0], atol=0.4)
            np.testing.assert_allclose(table.qx[here][order], [20.2, 40.0, 61.7], atol=0.4)


def test_labels(scan: xr.Dataset, disks: xr.Dataset) -> None:
    """Scan axes and detector axes stay, with their units; parameters and history are attributes."""
    assert disks.n_disks.dims == ("y", "x")
    xr.testing.assert_identical(disks.y, scan.y.drop_vars("y").assign_coords(y=scan.y).y)
    for dim in ("ky", "kx"):
        np.testing.assert_array_equal(disks[dim], scan[dim])
        assert disks[dim].attrs["units"] == "mrad"
    assert disks.qy.attrs["units"] == "pixel"
    assert disks.processed.all()
    assert disks.attrs["radius"] == 6.0
    assert disks.attrs["min_spacing"] == 12.0
    assert disks.attrs["n_full"] == 0
    assert "find_disks(template='synthetic disk', radius=6" in disks.attrs["history"]


@pytest.mark.parametrize("chunks", [(1, 1, 96, 80), (2, 3, 50, 33), (3, 4, 96, 80)])
def test_result_does_not_depend_on_chunks(scan: xr.Dataset, disks: xr.Dataset, chunks: tuple[int, ...]) -> None:
    """Any chunking, the detector axes included, gives the same numbers to the last bit."""
    lazy = scan.chunk(dict(zip(("y", "x", "ky", "kx"), chunks, strict=True)))
    xr.testing.assert_identical(find_disks(lazy, radius=6), disks)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_result_does_not_depend_on_the_scheduler(scan: xr.Dataset, disks: xr.Dataset, scheduler: str) -> None:
    """One process or several, one thread or several: the same disks in the same order."""
    told = Told()
    with dask.config.set(scheduler=scheduler, num_workers=2):
        xr.testing.assert_identical(find_disks(scan.chunk(y=1, x=2), radius=6, progress=told), disks)
    assert (told.done, told.total) == (12, 12)


def test_a_cluster_finds_the_same(scan: xr.Dataset, disks: xr.Dataset) -> None:
    """Tasks of a cluster hand over their disks one by one; its errors arrive."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local,
        distributed.Client(local),
    ):
        told = Told()
        xr.testing.assert_identical(find_disks(scan.chunk(y=1, x=2), radius=6, progress=told), disks)
        assert told.done == 12
        with pytest.raises(ZeroDivisionError, match="in a task"):
            find_disks(scan.intensity.copy(data=_failing(scan.intensity.shape)), radius=6)


def _failing(shape: tuple[int, ...]) -> da.Array:
    return da.zeros(shape, chunks=(1, 1, *shape[2:]), dtype=np.uint8).map_blocks(_fail, dtype=np.uint8)


def _fail(block: np.ndarray) -> np.ndarray:
    msg = "in a task"
    raise ZeroDivisionError(msg)


def test_streaming_gives_the_same_disks(scan: xr.Dataset) -> None:
    """A selection of a source, streamed, and the same pixels in memory have the same disks."""
    counts = scan.intensity.values
    array = ScanArray(MemorySource(counts), Selection.full(counts.shape))
    lazy = xr.DataArray(array, dims=scan.intensity.dims, coords=scan.coords)
    part = {"y": slice(None, None, -1), "x": [3, 0, 2], "ky": slice(4, 92)}
    roi = np.ones((3, 3), bool)
    roi[1, 1] = False
    assert explain(lazy.isel(part)).startswith("fused")
    streamed, plain = (find_disks(a.isel(part), radius=6, roi=roi) for a in (lazy, scan.intensity))
    xr.testing.assert_identical(streamed, plain)
    assert streamed.n_disks.values.tolist() == [[3, 3, 3], [3, 0, 0], [3, 3, 3]]


def test_shuffled_positions_keep_their_disks(scan: xr.Dataset, disks: xr.Dataset) -> None:
    """Positions that jump about are read in stored order and come back in the order asked for."""
    array = ScanArray(MemorySource(scan.intensity.values), Selection.full(scan.intensity.shape))
    order = [3, 0, 2, 1, 3]
    table = table_of(find_disks(xr.DataArray(array, dims=scan.intensity.dims).isel(x=order), radius=6))
    whole = table_of(disks)
    for y, (new, old) in ((y, pair) for y in range(3) for pair in enumerate(order)):
        np.testing.assert_array_equal(table.qx[table.disks_of((y, new))], whole.qx[whole.disks_of((y, old))])


def test_axis_order_does_not_matter(scan: xr.Dataset, disks: xr.Dataset) -> None:
    """A transposed DataArray gives the same disks."""
    other = find_disks(scan.intensity.transpose("kx", "y", "ky", "x"), radius=6)
    np.testing.assert_array_equal(other.qy, disks.qy)


def test_a_single_pattern(scan: xr.Dataset, disks: xr.Dataset) -> None:
    """A scan of which one position was picked has no scan axes left."""
    one = find_disks(scan.isel(y=2, x=1), radius=6)
    assert one.n_disks.shape == ()
    here = table_of(disks).disks_of((2, 1))
    np.testing.assert_array_equal(one.qx, disks.qx[here])
    assert one.coords["y"] == 4.0


def test_lists_are_the_disks_padded(scan: xr.Dataset, disks: xr.Dataset) -> None:
    """The lazy lists hold the same disks, NaN behind the last one, and can be computed with other results."""
    lazy = disk_lists(scan.chunk(y=1), radius=6)
    assert isinstance(lazy.qy.data, da.Array)
    lists, image = stemstore.compute(lazy, stemstore.virtual_image(scan, np.ones(SHAPE, bool)))
    assert image.shape == (3, 4)
    np.testing.assert_array_equal(lists.n_disks, disks.n_disks)
    for name in ("qy", "qx", "intensity", "correlation", "sigma_q"):
        values = lists[name].values
        np.testing.assert_array_equal(values[~np.isnan(values)], disks[name])
        assert lists[name].attrs["units"] == disks[name].attrs["units"]


def test_cropped_detector_counts_its_own_pixels(scan: xr.Dataset, disks: xr.Dataset) -> None:
    """On a part of the detector the pixels shift with it, and the axes that say where they are."""
    part = find_disks(scan.isel(ky=slice(8, 90), kx=slice(5, 80)), radius=6)
    table, whole = table_of(part), table_of(disks)
    assert table.detector_shape == (82, 75)
    assert table.qy[0] == pytest.approx(whole.qy[0] - 8, abs=0.05)
    mrad = [float(np.interp(d.qy[0], np.arange(d.sizes["ky"]), d.ky)) for d in (part, disks)]
    assert mrad[0] == pytest.approx(mrad[1], abs=0.025)


def test_positions_outside_the_region_are_marked(scan: xr.Dataset, disks: xr.Dataset) -> None:
    """Unwanted and missing positions have no disks and are told apart from empty frames; partial ones are searched."""
    roi = np.ones((3, 4), bool)
    roi[0] = False
    valid = np.full((3, 4), 2, np.uint8)
    valid[2, 3], valid[2, 2] = 0, 1
    told = Told()
    part = find_disks(scan.assign_coords(valid=(("y", "x"), valid)), radius=6, roi=roi, progress=told)
    assert part.processed.values.tolist() == [[False] * 4, [True] * 4, [True, True, True, False]]
    np.testing.assert_array_equal(part.n_disks, np.where(part.processed, disks.n_disks, 0))
    np.testing.assert_array_equal(part.valid, valid)
    assert told.total == told.done == 7
    assert "roi='7 of 12 positions'" in part.attrs["history"]


def test_template_image_works_as_the_radius(scan: xr.Dataset) -> None:
    """The mean pattern serves as template: its brightest disk is measured and used."""
    found = find_disks(scan, scan.intensity.mean(("y", "x")))
    assert found.attrs["radius"] == pytest.approx(6.0, abs=0.3)
    assert found.n_disks.values[0, 0] == 3
    assert found.attrs["template"] == "image of shape (96, 80)"


def test_axes_without_coordinates_are_pixels(scan: xr.Dataset) -> None:
    """Without coordinates the axes are pixels and say so."""
    found = find_disks(scan.drop_vars(["ky", "kx"]), radius=6)
    np.testing.assert_array_equal(found.ky, np.arange(96))
    assert found.ky.attrs["units"] == "pixel"


def test_masked_pixels_take_no_part(scan: xr.Dataset) -> None:
    """A bright bar on the detector is no disk where the mask leaves it out."""
    barred = scan.intensity.copy()
    barred[..., 70:83, 60:73] = 500
    mask = np.ones(SHAPE, bool)
    mask[69:84, 59:74] = False
    whole = table_of(find_disks(barred, radius=6))
    assert whole.qy[0] == pytest.approx(76, abs=1)
    masked = table_of(find_disks(barred, radius=6, mask=mask))
    assert masked.qy[0] == pytest.approx(40, abs=0.3)
    assert "mask=" in find_disks(barred, radius=6, mask=mask).attrs["history"]


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


def test_cut_lists_are_told(scan: xr.Dataset) -> None:
    """Patterns with as many disks as there may be are counted, and a warning says so."""
    with pytest.warns(DiskWarning, match="11 patterns have as many disks as max_peaks=2 allows"):
        found = find_disks(scan, radius=6, max_peaks=2)
    assert found.attrs["n_full"] == 11
    assert found.n_disks.max() == 2


def test_no_disks_are_told(scan: xr.Dataset) -> None:
    """Empty patterns give an empty result that can be worked with, and a warning."""
    with pytest.warns(DiskWarning, match="no disks in 12 patterns: in 8 of them no maximum .* exceeds significance=5"):
        found = find_disks(scan * 0, radius=6)
    assert len(table_of(found).qy) == 0
    assert not found.n_disks.any()
    with pytest.warns(DiskWarning, match="no maximum of the detection map exceeds min_abs=1e[+]06"):
        find_disks(scan, radius=6, min_abs=1e6)


def test_filters_that_exclude_everything_are_named(scan: xr.Dataset) -> None:
    """Where there are maxima but no disks, the message counts what every filter leaves."""
    with pytest.raises(InputError, match=r"of \d+ maxima in 8 of them .* 0 after min_rel, .* relax 'min_rel'"):
        find_disks(scan, radius=6, min_rel=2.0, relative_to=0)


@pytest.mark.parametrize("template", [np.zeros(SHAPE), np.ones((2, *SHAPE)), np.full(SHAPE, np.nan)])
def test_a_template_that_is_no_image_of_a_probe_is_refused(scan: xr.Dataset, template: np.ndarray) -> None:
    """Empty images, stacks and images of NaN say what a template is."""
    with pytest.raises(InputError, match="template must be a finite two-dimensional image with counts"):
        find_disks(scan, template)


def test_a_measured_template_can_be_used_again(scan: xr.Dataset) -> None:
    """A template that was cut out of an image gives the disks of the image."""
    image = scan.intensity.mean(("y", "x"))
    xr.testing.assert_identical(find_disks(scan, template_of(image.values)), find_disks(scan, image))


def test_an_interruption_keeps_what_was_found(scan: xr.Dataset, disks: xr.Dataset) -> None:
    """Without a store the error carries the disks of the finished pieces, and says where nothing was looked for."""
    with (
        dask.config.set(scheduler="synchronous"),
        pytest.raises(DisksInterrupted, match="after 6 of 12 patterns") as caught,
    ):
        find_disks(scan.chunk(y=1, x=2), radius=6, progress=Told(interrupt_after=5))
    partial = caught.value.disks
    assert isinstance(caught.value, KeyboardInterrupt)
    assert int(partial.processed.sum()) == 6
    np.testing.assert_array_equal(partial.n_disks, np.where(partial.processed, disks.n_disks, 0))


def test_memory_that_does_not_fit_is_refused(scan: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget below what one worker needs is an error before anything runs."""
    monkeypatch.setenv("STEMSTORE_MAX_MEMORY", "100kB")
    with pytest.raises(MemoryBudgetError, match="one worker needs"):
        find_disks(scan, radius=6)


@pytest.mark.parametrize("roi", [np.ones((4, 3), bool), np.ones((3, 4))])
def test_a_region_that_does_not_fit_is_refused(scan: xr.Dataset, roi: np.ndarray) -> None:
    """Wrong shape and wrong type of the region say what is expected."""
    with pytest.raises(InputError, match=r"roi is a map of the scan's shape \(3, 4\), boolean"):
        find_disks(scan, radius=6, roi=roi)


def test_resuming_needs_a_store(scan: xr.Dataset) -> None:
    """There is nothing to resume without one."""
    with pytest.raises(InputError, match="resume= and overwrite= are about a result in a store"):
        find_disks(scan, radius=6, resume=True)


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
    table = table_of(find_disks(patterns, radius=9.25, contrast=1.0))
    distances = []
    for half in range(2):
        here = table.disks_of((half, 0))
        rows, columns = table.qy[here], table.qx[here]
        ends = [rows[np.argmin(np.hypot(rows - 64 - s * 47, columns - 64))] for s in (-1, 1)]
        distances.append((ends[1] - ends[0]) / 2)
    assert distances[0] == pytest.approx(47.082, abs=0.04)  # 2 / 4.078 angstrom over 0.01041667 1/angstrom
    assert distances[1] == pytest.approx(46.159, abs=0.04)
    assert distances[0] / distances[1] == pytest.approx(1.02, abs=0.0007)


def test_gold_disks_of_single_patterns(gold) -> None:
    """Single patterns of 11 500 electrons show the lattice: 9 disks or more, none off the reciprocal lattice."""
    part = xr.DataArray(gold[:2, :4], dims=("y", "x", "ky", "kx"))
    disks = find_disks(part, radius=9.75)
    order = np.stack([disks.qy - 64, disks.qx - 64]) / 47.07
    off = np.abs(order - np.round(order))
    assert disks.n_disks.min() >= 9
    assert off.max() < 2.0 / 47
