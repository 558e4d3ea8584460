"""Addresses: what is secret about them is in no text."""

import json
import pickle
from pathlib import Path

import pytest
from dask.base import tokenize

from stemstore.errors import InputError
from stemstore.places.address import Address, divided, is_url, local_path, shown

SECRET = "hunter2-and-more"
URLS = {
    f"https://me:{SECRET}@example.org/a/scan.zarr": "https://example.org/a/scan.zarr",
    f"https://{SECRET}@example.org/scan.zarr/": "https://example.org/scan.zarr",
    f"https://example.org/scan.zarr?X-Amz-Signature={SECRET}&b=1": "https://example.org/scan.zarr",
    f"sftp://me:{SECRET}@host/scan.zarr": "sftp://host/scan.zarr",
    f"az://box/scan.zarr?sig={SECRET}": "az://box/scan.zarr",
    "abfs://container@account.dfs.core.windows.net/scan.zarr": "abfs://container@account.dfs.core.windows.net/scan.zarr",
    f"az://box/my scan.zarr?sv=1&sig={SECRET}": "az://box/my scan.zarr",
    f"zip://a.npy::https://me:{SECRET}@example.org/b.zip?sig={SECRET}": "zip://a.npy::https://example.org/b.zip",
    "simplecache::s3://bucket/a::b": "simplecache::s3://bucket/a::b",
    "s3://bucket/what?/scan.zarr": "s3://bucket/what?/scan.zarr",
    "memory://scan.zarr": "memory://scan.zarr",
}


@pytest.mark.parametrize(("url", "text"), URLS.items())
def test_the_text_has_no_secrets(url, text):
    """Users, passwords and signatures are needed to reach a store, and shown nowhere."""
    address = Address(url, {"password": SECRET})
    shapes = [str(address), repr(address), f"{address}", json.dumps({"url": address}), tokenize(address)]
    assert address == text
    assert address.full.rstrip("/") == url.rstrip("/")
    assert not any(SECRET in shape for shape in shapes)


def test_messages_of_libraries_are_censored():
    """Whatever a library puts into its message, values of options and parts of URLs are not passed on."""
    url = f"https://me:{SECRET}@example.org/scan.zarr?sig=abcdef"
    address = Address(url, {"client_kwargs": {"headers": ["Bearer " + SECRET]}, "key": "AKIA1234", "anon": "true"})
    text = address.censor(f"403 for {url} and http://x:y@h/?q=1 with Bearer {SECRET}, key AKIA1234, anon true")
    assert SECRET not in text
    assert text == "403 for https://example.org/scan.zarr and http://h/ with …, key …, anon true"


def test_parts_of_an_address_are_censored_alone():
    """A password or a signature is taken out of a message wherever it stands."""
    address = Address(f"https://me:{SECRET}@example.org/scan.zarr?sig=abcdef")
    assert address.censor(f"login me with {SECRET} failed, sig=abcdef") == "login me with … failed, …"


def test_texts_without_secrets_stay():
    """Nothing is taken out of other texts."""
    for text in ["s3://b/k", "/data/a?b=c", "what? nothing=1", "a@b.c", "file:///tmp/x"]:
        assert shown(text) == text


def test_options_of_every_kind_are_censored():
    """Values in nested options and in connection strings are secrets; names of accounts and plain URLs are none."""
    options = {
        "connection_string": f"AccountName=lab;AccountKey={SECRET}==;BlobEndpoint=http://127.0.0.1:1/lab",
        "account_name": "laboratory",
        "endpoint_url": "http://127.0.0.1:1234",
        "token": {"private": ["-----KEY-----"]},
    }
    address = Address("az://box/scan.zarr", options)
    said = (
        f"laboratory at http://127.0.0.1:1234 has no {SECRET}==, nor {options['connection_string']}, nor -----KEY-----"
    )
    assert address.censor(said) == "laboratory at http://127.0.0.1:1234 has no …, nor …, nor …"
    shared = Address("az://box/a", {"connection_string": f"SharedAccessSignature=sv=2024&sig={SECRET};"})
    assert shared.censor(f"no {SECRET}") == "no …"
    signed = Address(f"https://example.org/a?X-Sig={SECRET}%2B1&file=word")
    assert signed.censor(f"word {SECRET}+1 and {SECRET}%2B1") == "word … and …"


def test_they_travel_with_their_secrets():
    """Another process gets in as well."""
    address = Address(f"https://me:{SECRET}@example.org/scan.zarr", {"token": SECRET})
    again = pickle.loads(pickle.dumps(address))  # our own object, made on this line
    assert (type(again), again.full, again.options, again) == (Address, address.full, {"token": SECRET}, str(address))
    assert Address(again).options == {"token": SECRET}
    assert Address(again, {}).options == {}


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("s3://bucket/a", True),
        ("simplecache::https://host/a", True),
        ("simplecache::file:///a", True),
        ("HTTPS://host/a", True),
        ("/data/a", False),
        ("/data/s3://a", False),
        ("C://data/a", False),
        ("C:\\data\\a", False),
        ("file:///data/a", False),
        ("FILE:///data/a", False),
    ],
)
def test_what_is_a_place_of_its_own(text, there):
    """A path is no address, whatever it looks like."""
    assert is_url(text) is there


def test_paths_of_this_machine():
    """A local URL names a path."""
    assert local_path("file:///data/a b") == local_path("/data/a b") == Path("/data/a b")
    assert local_path("~/a") == Path.home() / "a"
    assert local_path("/data/s3://a") == Path("/data/s3://a")


def test_queries_follow_the_path():
    """On the web all that follows a mark; elsewhere only what has an equals sign before the next slash."""
    assert divided("https://host/a?b/c#d") == ("https://host/a", "?b/c#d")
    assert divided("az://box/a?sig=b/c") == ("az://box/a", "?sig=b/c")
    assert divided("s3://box/a?b/c=d") == ("s3://box/a?b/c=d", "")
    assert divided("/data/a?b=c") == ("/data/a?b=c", "")
    assert Address("https://host/a/?sig=b").joined("c/d") == "https://host/a/c/d?sig=b"


@pytest.mark.parametrize("url", ["s3:/lab/scan.zarr", "https:/example.org/scan.zarr", "file:/data/scan.zarr"])
def test_a_url_that_lost_a_slash_is_no_folder(url):
    """What pathlib makes of a URL is refused, and not looked for or written below the working folder."""
    with pytest.raises(InputError, match=f"write '{url.replace(':/', '://')}'"):
        local_path(url)


def test_colons_in_names_are_no_urls():
    """Drives and names with a colon stay paths."""
    assert [str(local_path(name)) for name in ("C:/data", "a:b", "./s3:/a")] == ["C:/data", "a:b", "s3:/a"]
