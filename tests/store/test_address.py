"""Addresses of stores: said once, with options and a cache."""

import pickle

import pytest

from stemstore.errors import InputError
from stemstore.store.address import StoreUrl, reach, reach_urls, remote

SECRET = "hunter2-and-more"


def test_they_travel_with_their_secrets():
    """Another process gets in as well."""
    address = remote(f"https://me:{SECRET}@example.org/scan.zarr", token=SECRET)
    again = pickle.loads(pickle.dumps(address))  # our own object, made on this line
    assert (again.full, again.options, again) == (address.full, {"token": SECRET}, "https://example.org/scan.zarr")
    assert StoreUrl(again).options == {"token": SECRET}


def test_paths_take_no_options(tmp_path):
    """Options for a path of this machine are a mistake; a cache for it is not needed, so that a cell runs anywhere."""
    with pytest.raises(InputError, match="takes no storage options"):
        remote(tmp_path, anon=True)
    with pytest.raises(InputError, match="without a URL"):
        reach_urls("a.npy", tmp_path, storage_options={"anon": True})
    with pytest.raises(InputError, match="for one URL"):
        reach(["s3://a", "s3://b"], {"anon": True})
    assert reach(tmp_path / "scan.zarr", None, tmp_path / "cache") == tmp_path / "scan.zarr"


def test_options_go_to_what_has_none():
    """Source and destination take the same options, but an address that has its own keeps them."""
    own = remote("s3://a/scan.zarr", profile="lab")
    source, target, path = reach_urls(own, "s3://b/scan.zarr", "/data", storage_options={"anon": True})
    assert (source.options, target.options, path) == ({"profile": "lab"}, {"anon": True}, "/data")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, None, "1GiB"), "without a folder"),
        ((None, "s3://bucket/cache"), "no folder of this machine"),
        ((None, "cache", "0"), "holds nothing"),
        ((None, "cache", "much"), "is not understood"),
    ],
)
def test_caches_that_cannot_be(arguments, message, tmp_path, monkeypatch):
    """A cache is a folder of this machine and has a size."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        reach("s3://bucket/scan.zarr", *arguments)
