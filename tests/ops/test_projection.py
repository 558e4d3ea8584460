"""What results will take is said, and held against the budget, before anything is read."""

import dask
import numpy as np
import pytest

import stemstore
from stemstore.errors import MemoryBudgetError
from stemstore.ops.projection import Projection
from stemstore.testing.arrays import ArrayFrames

FRAMES = np.ones((8, 8, 16, 16), np.uint16)


@pytest.fixture
def results(dataset_of):
    """Three results of one scan, and one of a part of it."""
    ds = dataset_of(ArrayFrames(FRAMES))
    rest = stemstore.virtual_image(ds.isel(y=slice(2)), stemstore.disk(3))
    return (
        stemstore.virtual_image(ds, stemstore.disk(3)),
        stemstore.center_of_mass(ds),
        stemstore.mean_pattern(ds),
        rest,
    )


def test_results_of_the_same_positions_are_one_pass(results):
    """Passes, tasks and bytes are counted as they will be needed."""
    found = Projection.of(results)
    assert (found.passes, found.streamed, found.n_positions) == (2, True, 64 + 16)
    pixels = FRAMES.nbytes  # everything fits one block
    assert found.per_worker == pixels + 64 * 8 + 64 * 3 * 8 + 256 * 8
    assert found.results == 64 * 8 + 3 * 64 * 8 + 256 * 8 + 16 * 8


def test_explain_states_memory_and_passes(results):
    """The figures are shown for lazy results, one by one or together."""
    text = stemstore.explain(results[0])
    assert text.startswith("fused: one pass over 64 positions in 1 tasks; 32.5 KiB per thread")
    assert "within the budget" in text
    assert "2 passes over 80 positions" in stemstore.explain(*results)
    assert stemstore.explain(results[0] * 1.0 + 2).startswith("fused: one pass")


def test_explain_tells_blocks_from_streams(dataset_of):
    """A result of changed values goes by dask blocks."""
    ds = dataset_of(ArrayFrames(FRAMES))
    assert stemstore.explain(stemstore.virtual_image(ds * 2, stemstore.disk(3))).startswith("generic, block by block")


def test_results_beyond_the_budget_are_refused_before_reading(results, monkeypatch):
    """The refusal names the figures and the ways out."""
    monkeypatch.setenv("STEMSTORE_MAX_MEMORY", "20kB")
    assert "which exceeds the budget of 19.5 KiB" in stemstore.explain(results[0])
    with pytest.raises(MemoryBudgetError, match=r"need 33\.5 KiB .* 512 bytes for themselves .*stemstore\.save"):
        stemstore.compute(results[0])


def test_threads_are_reduced_to_the_budget(results, monkeypatch):
    """Where all threads together would take too much, fewer run."""
    seen = []

    def watch(dsk, keys, **kwargs):
        seen.append(dask.config.get("num_workers", None))
        return dask.get(dsk, keys)

    monkeypatch.setenv("STEMSTORE_WORKERS", "8")
    monkeypatch.setenv("STEMSTORE_MAX_MEMORY", "100kB")
    stemstore.compute(results[0], scheduler=watch)
    monkeypatch.setenv("STEMSTORE_MAX_MEMORY", "10MB")
    stemstore.compute(results[0], scheduler=watch)
    assert seen == [2, None]
    assert Projection.of([results[0].compute()]).per_worker == 0
