"""A server that fails at random, for a moment or for good: the same bytes or a typed error, never half a store."""

import random

import numpy as np
import pytest
from sweeps import OPTIONS, Written, content, convert, failure_of, opens, write_scan

import stemstore
from stemstore.errors import ChecksumError, CorruptDataError, StorageError
from stemstore.store.address import StoreUrl
from stemstore.store.commit import COMMIT
from stemstore.store.journal import PLAN
from stemstore.store.urls import open_storage
from stemstore.testing.servers import Fault

LIMIT = 2**15
FAULTS = ["drop", "lose", "cut", "truncate", "delay", 500, 503, 409]
SEEDS = 20
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
LASTING = ["drop", "lose", "cut", "truncate", 500, 503]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr("stemstore.store.layout.MAX_RAW_BYTES", LIMIT)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A small scan."""
    return write_scan(tmp_path_factory.mktemp("raw") / "scan.npy")


@pytest.fixture(scope="module")
def expected(raw, tmp_path_factory):
    """Give the content and the frames of stores that nothing disturbed, by kind."""
    found, folder = {}, tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stemstore.store.layout.MAX_RAW_BYTES", LIMIT)
        for kind in OPTIONS:
            convert(raw, folder / kind, kind)
            found[kind] = content(open_storage(folder / kind)), stemstore.open(folder / kind).intensity.values
    return found


def conditional(request):
    """Tell whether a request is a write that wants to be the first."""
    return request.method == "PUT" and request.target.endswith((PLAN, COMMIT))


def failing(rng, kind, share):
    """Make a server that fails so with a share of all requests, never many times in a row."""
    row = [0]

    def fault(request):
        suits = {409: conditional(request), "cut": request.method == "PUT", "truncate": request.method == "GET"}
        if not suits.get(kind, True):
            return None
        if row[0] >= 2 or rng.random() > (0.7 if kind == 409 else share):
            row[0] = 0
            return None
        row[0] += 1
        if kind in ("cut", "truncate"):
            return Fault(kind, rng.random())
        return Fault(kind, 0.02 * rng.random()) if kind == "delay" else kind

    return fault


@pytest.mark.parametrize("fault", FAULTS)
def test_failures_that_pass(raw, s3, expected, fault):
    """Conversions, and patterns and images that are read, are as on a server that never fails."""
    for seed in range(SEEDS):
        rng, kind = random.Random(f"{fault} {seed}"), sorted(OPTIONS)[seed % 2]  # noqa: S311, RUF100  # no secrets
        objects, frames = expected[kind]
        place = StoreUrl(f"{s3.url}.{seed}", s3.options)
        s3.proxy.fault = failing(rng, fault, 0.2)
        convert(raw, place, kind)
        scan = stemstore.open(place)
        np.testing.assert_array_equal(scan.intensity[5, 3].values, frames[5, 3])
        np.testing.assert_allclose(stemstore.virtual_image(scan, np.ones((32, 32))), frames.sum(axis=(2, 3)))
        s3.proxy.fault = None
        assert opens(place)
        assert content(open_storage(place)) == objects


@pytest.mark.parametrize("fault", LASTING)
def test_failures_that_last(raw, s3, expected, fault, monkeypatch):
    """A server that fails for good ends the conversion in a typed error, from where it goes on once it is back."""
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "2")
    written, failed = Written(monkeypatch), 0
    for seed in range(SEEDS):
        rng, kind = random.Random(f"{fault} {seed}"), sorted(OPTIONS)[seed % 2]  # noqa: S311, RUF100  # no secrets
        objects, frames = expected[kind]
        place = StoreUrl(f"{s3.url}.{seed}", s3.options)
        count, first = [0], rng.randrange(90)

        def fail(request, count=count, first=first, rng=rng):
            suits = {"cut": request.method == "PUT", "truncate": request.method == "GET"}.get(fault, True)
            count[0] += 1
            lasting = suits and count[0] > first
            return None if not lasting else Fault(fault, rng.random()) if isinstance(fault, str) else fault

        s3.proxy.fault = fail
        error = failure_of(convert, raw, place, kind)
        s3.proxy.fault = None
        failed += error is not None
        assert opens(place) or error is not None  # whole where the commit had arrived
        s3.proxy.fault = fail
        count[0] = 0
        failed += failure_of(convert, raw, place, kind, resume=True) is not None if error else 0
        s3.proxy.fault = None
        if not opens(place) or open_storage(place).size(PLAN) is not None:
            convert(raw, place, kind, resume=True)
        written.check(2)
        assert content(open_storage(place)) == objects
        scan = stemstore.open(place)
        count[0] = 90
        s3.proxy.fault = fail
        if fault != "cut":
            with pytest.raises((StorageError, CorruptDataError, ChecksumError), match="s3://"):
                _ = scan.intensity[5, 3].values
        s3.proxy.fault = None
        np.testing.assert_array_equal(scan.intensity[5, 3].values, frames[5, 3])
    assert failed >= SEEDS // 2
