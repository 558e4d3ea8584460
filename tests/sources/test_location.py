"""Addresses of remote files: what anyone may see, and what nobody may."""

import gc
import pickle

import pytest

from stemstore.places.address import Address
from stemstore.sources.location import Location, location_of, shown

SECRET = "https://me:passw0rd@example.org:8080/data/scan.mib?X-Signature=0123abc"


@pytest.mark.parametrize("text", ["scan.mib", "/data/scan.mib", "file:///data/a.mib", "C:\\scan.mib", "local:///a"])
def test_paths_of_this_machine(text):
    """Paths are no addresses, whatever they look like."""
    assert location_of(text) is None
    assert shown(text) == text


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://bucket/a?b.mib", "s3://bucket/a?b.mib"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
        ("sftp://me@host/a", "sftp://me@host/a"),
        ("ftp://me:passw0rd@host/a", "ftp://host/a"),
        ("https://token@host/a/", "https://host/a"),
    ],
)
def test_what_is_shown(url, text):
    """Passwords go, and names of users of the web; names that are part of an address stay."""
    assert shown(url) == text
    assert location_of(url).full == url.rstrip("/")


def test_secrets_travel_unseen():
    """No text that is made of an address has its secrets; a pickle has them, and they are known again there."""
    location = Location(SECRET, {"key": "very secret", "anon": False})
    for text in (str(location), repr(location), f"{location}", f"{location!r}", "".join([location])):
        assert "passw0rd" not in text
        assert "0123abc" not in text
    copy = pickle.loads(pickle.dumps(location))
    assert (copy.full, copy.options) == (SECRET, location.options)
    assert location_of(str.__str__(location)).full == SECRET
    said = location.censor(f"403 for {SECRET}, key very secret, me:passw0rd, X-Signature=0123abc")
    assert not any(secret in said for secret in ("passw0rd", "very secret", "0123abc"))


def test_queries_tell_files_apart():
    """Two files that differ in their query only do not pass for one another."""
    one, other = (Location(f"https://host/get?file={number}") for number in (1, 2))
    assert one != other
    assert one.path == other.path == "https://host/get"


def test_neighbours_have_the_same_user():
    """A file beside is reached by the same user and options, without the query of the first one."""
    beside = Location(SECRET, {"a": 1}).at("https://example.org:8080/data/scan.hdr")
    assert beside.full == "https://me:passw0rd@example.org:8080/data/scan.hdr"
    assert beside.options == {"a": 1}
    assert Location("abfs://c@h/a/b").at("abfs://c@h/a/c").full == "abfs://c@h/a/c"


def test_addresses_are_known_while_they_are_used():
    """The address that was opened first counts, others that came and went change nothing; in the end none is left."""
    location = Location("https://me:first@host/a")
    text = str.__str__(location)
    other = Location("https://me:wrong@host/a")
    assert location_of(text) is location
    del location
    gc.collect()
    assert location_of(text) is other
    del other
    gc.collect()
    assert location_of(text).full == text


def test_other_addresses_are_taken_over():
    """The address of anything else keeps its secrets."""
    found = location_of(Address(SECRET, {"key": "abcd"}))
    assert (found.full, found.options) == (SECRET, {"key": "abcd"})
