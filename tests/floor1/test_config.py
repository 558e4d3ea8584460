"""Sizes are read and written as people do; settings come from the environment."""

import pytest

from stemstore.config import format_size, memory_budget, n_workers, parse_size
from stemstore.errors import InputError, MemoryBudgetError
from stemstore.memory import fitting_workers


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("512MiB", 512 * 2**20), ("2GB", 2 * 10**9), ("1.5 kib", 1536), ("7", 7), (8, 8), ("1T", 10**12)],
)
def test_sizes_are_read(text, n_bytes):
    """Binary and decimal prefixes mean what they say."""
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "MiB", "-1MB", "1 XB", "1e3"])
def test_texts_that_are_no_sizes_are_refused(text):
    """The message quotes the text and shows a right one."""
    with pytest.raises(InputError, match="512MiB"):
        parse_size(text)


def test_sizes_are_written_for_people_and_programs():
    """A size shows a rounded and an exact number."""
    assert format_size(13_314_398_617) == "12.4 GiB (13 314 398 617 bytes)"
    assert format_size(17) == "17 bytes"


def test_environment_sets_memory_and_workers(monkeypatch):
    """STEMSTORE_MAX_MEMORY and STEMSTORE_WORKERS override the defaults."""
    monkeypatch.setenv("STEMSTORE_MAX_MEMORY", "64MiB")
    monkeypatch.setenv("STEMSTORE_WORKERS", "3")
    assert (memory_budget(), n_workers()) == (64 * 2**20, 3)
    monkeypatch.setenv("STEMSTORE_WORKERS", "none")
    with pytest.raises(InputError, match="whole number"):
        n_workers()


def test_workers_are_reduced_to_the_budget_and_refused_below_one():
    """Workers times memory stays within the budget; not one fitting is an error with both figures."""
    assert fitting_workers(8, 100, 350) == 3
    assert fitting_workers(8, 100, 350, shared=200) == 1
    with pytest.raises(MemoryBudgetError, match=r"401 bytes.*400 bytes"):
        fitting_workers(1, 401, 400)
