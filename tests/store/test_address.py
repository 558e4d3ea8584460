"""Addresses: what is secret about them is in no text."""

import json
import pickle

import pytest
from dask.base import tokenize

from stemstore.errors import InputError
from stemstore.store.address import StoreUrl, reach, reach_urls, remote, shown

SECRET = "hunter2-and-more"
URLS = {
    f"https://me:{SECRET}@example.org/a/scan.zarr": "https://example.org/a/scan.zarr",
    f"https://{SECRET}@example.org/scan.zarr/": "https://example.org/scan.zarr",
    f"https://example.org/scan.zarr?X-Amz-Signature={SECRET}&b=1": "https://example.org/scan.zarr",
    f"sftp://me:{SECRET}@host/scan.zarr": "sftp://host/scan.zarr",
    f"az://box/scan.zarr?sig={SECRET}": "az://box/scan.zarr",
    "abfs://container@account.dfs.core.windows.net/scan.zarr": "abfs://container@account.dfs.core.windows.net/scan.zarr",
    "s3://bucket/what?/scan.zarr": "s3://bucket/what?/scan.zarr",
    "memory://scan.zarr": "memory://scan.zarr",
}


@pytest.mark.parametrize(("url", "text"), URLS.items())
def test_the_text_has_no_secrets(url, text):
    """Users, passwords and signatures are needed to reach a store, and shown nowhere."""
    address = StoreUrl(url, {"password": SECRET})
    shapes = [str(address), repr(address), f"{address}", json.dumps({"url": address}), tokenize(address)]
    assert address == text
    assert address.full.rstrip("/") == url.rstrip("/")
    assert not any(SECRET in shape for shape in shapes)


def test_they_travel_with_their_secrets():
    """Another process gets in as well."""
    address = remote(f"https://me:{SECRET}@example.org/scan.zarr", token=SECRET)
    again = pickle.loads(pickle.dumps(address))  # our own object, made on this line
    assert (again.full, again.options, again) == (address.full, {"token": SECRET}, "https://example.org/scan.zarr")
    assert StoreUrl(again).options == {"token": SECRET}


def test_messages_of_libraries_are_censored():
    """Whatever a library puts into its message, values of options and parts of URLs are not passed on."""
    url = f"https://me:{SECRET}@example.org/scan.zarr?sig=abcdef"
    address = StoreUrl(url, {"client_kwargs": {"headers": ["Bearer " + SECRET]}, "key": "AKIA1234", "anon": "true"})
    text = address.censor(f"403 for {url} and http://x:y@h/?q=1 with Bearer {SECRET}, key AKIA1234, anon true")
    assert SECRET not in text
    assert text == "403 for https://example.org/scan.zarr and http://h/ with …, key …, anon true"


def test_parts_of_an_address_are_censored_alone():
    """A password or a signature is taken out of a message wherever it stands."""
    address = StoreUrl(f"https://me:{SECRET}@example.org/scan.zarr?sig=abcdef")
    assert address.censor(f"login me with {SECRET} failed, sig=abcdef") == "login me with … failed, …"


def test_texts_without_secrets_stay():
    """Nothing is taken out of other texts."""
    for text in ["s3://b/k", "/data/a?b=c", "what? nothing=1", "a@b.c", "file:///tmp/x"]:
        assert shown(text) == text


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
