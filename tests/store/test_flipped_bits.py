"""A bit that flips in any object of a store is found by validating, named, and not taken for data."""

import random

import numpy as np
import pytest
from sweeps import LIMIT, convert, write_scan

import stemstore
from stemstore.errors import ChecksumError, CorruptDataError, StemStoreError
from stemstore.store.commit import COMMIT

STORES = {
    **{profile: ("dense", {"profile": profile}) for profile in ("raw", "fast", "balanced", "small")},
    "events": ("counted", {}),
    "columns": ("counted", {"event_columns": ("energy", "position"), "profile": "small"}),
}
QUICK = ("fast", "columns")
DATA = ("intensity/c/", "events/gap/c/")
ALONE = ("derived/mean/zarr.json", "calibration/saved/zarr.json")
"""What was saved after the commit: of its numbers and texts nothing else tells."""


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A small scan."""
    return write_scan(tmp_path_factory.mktemp("raw") / "scan.npy")


@pytest.fixture(params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in STORES])
def store(request, raw, tmp_path, monkeypatch):
    """Give a store of every profile, with a saved calibration and a saved result."""
    monkeypatch.setattr("stemstore.store.layout.MAX_RAW_BYTES", LIMIT)
    kind, options = STORES[request.param]
    place = tmp_path / "a.zarr"
    convert(raw, place, kind, **options)
    scan = stemstore.open(place)
    stemstore.save(stemstore.mean_pattern(scan), place, "mean")
    stemstore.save_calibration({"beam_energy": 200, "dark": np.ones((32, 32))}, place)
    return place


def flip(path, body, at):
    """Write a file with one bit changed."""
    changed = bytearray(body)
    changed[at // 8] ^= 1 << at % 8
    path.write_bytes(bytes(changed))


@pytest.mark.parametrize("step", [pytest.param(13, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_any_object(store, step):
    """Whichever object has a bit that flipped: ``validate --deep`` says which."""
    rng = random.Random(str(step))  # noqa: S311, RUF100  # no secrets
    assert stemstore.validate(store, deep=True).errors == []
    for path in sorted(path for path in store.rglob("*") if path.is_file())[::step]:
        key, body = path.relative_to(store).as_posix(), path.read_bytes()
        if key in ALONE:
            continue
        end = body.index(b'"time"') if key == COMMIT else len(body)  # of which nothing else tells
        for at in [rng.randrange(8 * end) for _ in range(4 if path.suffix == ".json" else 1)]:
            flip(path, body, at)
            found = stemstore.validate(store, deep=True).errors
            assert key in " ".join(f"{one.key} {one.message}" for one in found), (key, at, found)
        path.write_bytes(body)


@pytest.mark.parametrize("step", [pytest.param(7, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_any_shard_that_is_read(store, step):
    """Reading frames whose shard has a bit that flipped is an error that names the shard."""
    rng, number = random.Random(str(step)), 0  # noqa: S311, RUF100  # no secrets
    expected = stemstore.open(store).intensity.values
    for path in sorted(path for path in store.rglob("c/**/*") if path.is_file()):
        key, body = path.relative_to(store).as_posix(), path.read_bytes()
        number += key.startswith(DATA)
        if not key.startswith(DATA) or number % step:
            continue
        flip(path, body, rng.randrange(8 * len(body)))
        moved = store.rename(store.with_name(f"flipped-{number}.zarr"))
        with pytest.raises((ChecksumError, CorruptDataError), match=key):
            _ = stemstore.open(moved).intensity.values
        moved.rename(store)
        path.write_bytes(body)
    np.testing.assert_array_equal(stemstore.open(store).intensity.values, expected)


def test_root_metadata(store):
    """Metadata of the scan that are not those that were written do not open, whatever bit it is."""
    path = store / "zarr.json"
    body, rng = path.read_bytes(), random.Random(7)  # noqa: S311, RUF100  # no secrets
    for at in [rng.randrange(8 * len(body)) for _ in range(20)]:
        flip(path, body, at)
        with pytest.raises(StemStoreError, match=r"zarr\.json|flipped|a\.zarr"):
            stemstore.open(store)
    path.write_bytes(body)
    stemstore.open(store)


def test_a_changed_unit_is_no_unit(store):
    """A digit of an axis that changed is found at opening by the digest in the commit object."""
    path = store / "zarr.json"
    path.write_text(path.read_text().replace('"step": 1.0', '"step": 1.5', 1))
    with pytest.raises(ChecksumError, match=r"zarr\.json' has the digest .* stemstore edit"):
        stemstore.open(store)
