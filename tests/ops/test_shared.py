"""Results that are computed together read the scan once and are what they would be alone."""

import dask
import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition

COUNTS = np.random.default_rng(1).poisson(0.3, (11, 9, 14, 10)).astype(np.uint8)


@pytest.fixture(params=["dense", "counted"])
def watched(request):
    """A scan with one missing frame, and a list of the positions that were streamed from it."""
    validity = np.full(COUNTS.shape[:2], 2)
    validity[2, 3] = 0
    scan = scan_source((ArrayFrames if request.param == "dense" else ArrayEvents)(COUNTS, validity))
    scan.partition, streamed, run = (4, 9), [], scan.run

    def watch(selection, *args):
        streamed.append(selection.flat_positions())
        return run(selection, *args)

    scan.run = watch
    return build(scan, [], Acquisition(), Calibration(), "memory", flyback=False), streamed


def _wandering(ds):
    """An optic axis that moves with the scan."""
    y, x = np.indices((ds.sizes["y"], ds.sizes["x"]))
    return 6.5 + 0.3 * y, 4.5 - 0.2 * x


def wanted(ds):
    """Results of several kinds."""
    weights = np.arange(ds.sizes["ky"] * ds.sizes["kx"], dtype=float).reshape(ds.sizes["ky"], ds.sizes["kx"])
    return (
        stemstore.virtual_image(ds, {"a": stemstore.disk(3), "b": weights}),
        stemstore.center_of_mass(ds, mask=stemstore.disk(5)),
        stemstore.mean_pattern(ds),
        stemstore.max_pattern(ds),
        stemstore.map_frames(ds, lambda pattern: float(pattern.max())),
        stemstore.mean_pattern(ds, weights=np.arange(ds.sizes["y"] * ds.sizes["x"]).reshape(ds.sizes["y"], -1)),
        stemstore.virtual_image(ds, stemstore.disk(3), origin=_wandering(ds)),
    )


def test_one_pass_serves_all_results(watched):
    """Every position is streamed once, and each result equals the one computed alone."""
    ds, streamed = watched
    alone = [result.compute(scheduler="sync") for result in wanted(ds)]
    streamed.clear()
    together = stemstore.compute(*wanted(ds), scheduler="sync")
    np.testing.assert_array_equal(np.sort(np.concatenate(streamed)), np.arange(99))
    for one, other in zip(alone, together, strict=True):
        xr.testing.assert_identical(one, other)


def test_threads_and_selections_share_too(watched):
    """A selection is shared like the whole scan, on threads."""
    ds, streamed = watched
    part = ds.isel(y=slice(9, 1, -2), x=[5, 0, 5], ky=slice(2, 11))
    alone = [result.compute() for result in wanted(part)]
    streamed.clear()
    with dask.config.set(scheduler="threads", num_workers=3):
        together = stemstore.compute(*wanted(part))
    assert len(np.concatenate(streamed)) == part.sizes["y"] * part.sizes["x"]
    for one, other in zip(alone, together, strict=True):
        xr.testing.assert_identical(one, other)


def test_results_of_different_selections_stay_apart(watched):
    """Only equal selections share; all come out right, mixed with plain values and other arrays."""
    ds, _ = watched
    whole, part = stemstore.mean_pattern(ds), stemstore.mean_pattern(ds.isel(y=slice(0, 5)))
    doubled = (ds.intensity * 2).sum(("ky", "kx"))
    results = stemstore.compute(whole, part, doubled, 7, whole.data)
    xr.testing.assert_identical(results[0], whole.compute())
    xr.testing.assert_identical(results[1], part.compute())
    np.testing.assert_array_equal(results[2], 2 * COUNTS.sum((2, 3), dtype=int))
    assert results[3] == 7
    np.testing.assert_array_equal(results[4], results[0])


def test_results_made_from_results_share_as_well(watched):
    """Arithmetic on lazy results keeps the shared pass underneath."""
    ds, streamed = watched
    bright, dark = (stemstore.virtual_image(ds, d) for d in (stemstore.disk(3), stemstore.annulus(3, 6)))
    streamed.clear()
    (ratio, total) = stemstore.compute((bright - dark) / (bright + dark + 1), bright + dark, scheduler="sync")
    assert len(np.concatenate(streamed)) == 99
    assert total.values.max() > 0
    np.testing.assert_allclose(ratio, ((bright - dark) / (bright + dark + 1)).compute())
