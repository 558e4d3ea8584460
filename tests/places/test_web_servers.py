"""Web servers as they are: what can be read from them is right, and what cannot is told."""

import numpy as np
import pytest
from odd_server import OddServer

import stemstore
from stemstore.errors import InputError, NotFoundError, StorageError, TruncatedFileError
from stemstore.sources.remote import place

SIGNATURE = "0123456789abcdef-signature"
PASSWORD = "passw0rd-of-the-tests"

pytestmark = pytest.mark.filterwarnings("ignore:the server does not list:stemstore.errors.ScanWarning")


@pytest.fixture(scope="module")
def data():
    """Electrons of a small scan."""
    return np.random.default_rng(4).poisson(0.6, (6, 5, 32, 32)).astype(np.uint16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data):
    """A raw file, and a store of it."""
    path = tmp_path_factory.mktemp("served")
    np.save(path / "scan.npy", data)
    stemstore.convert(path / "scan.npy", path / "scan.zarr")
    return path


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """Give up soon."""
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "2")
    monkeypatch.setattr("stemstore.places.retry.FIRST_PAUSE", 0.0)


def raw(url):
    """Pixels of the raw file."""
    return stemstore.open(f"{url}/scan.npy").intensity.values


def store(url):
    """Pixels of the store."""
    return stemstore.open(f"{url}/scan.zarr").intensity.values


@pytest.mark.parametrize("oddity", ["none", "no head", "secretive"])
def test_what_can_be_read(folder, data, oddity):
    """Servers that do not know HEAD, or do not tell what is missing, serve the same numbers."""
    with OddServer(folder, oddity) as server:
        np.testing.assert_array_equal(store(server.url), data)
        np.testing.assert_array_equal(raw(server.url), data)
        assert not place(f"{server.url}/scan.npy.json").exists()


def test_stores_without_lengths(folder, data):
    """A store needs no lengths, for its metadata say where everything is; a raw file does."""
    with OddServer(folder, "chunked") as server:
        np.testing.assert_array_equal(store(server.url), data)
        with pytest.raises(InputError, match=r"does not tell how long the file is, .*; copy the file first"):
            raw(server.url)


@pytest.mark.parametrize(
    ("oddity", "of_store", "of_file"),
    [
        ("no ranges", "does not serve byte ranges", "does not send parts of files"),
        ("gzip", "does not serve byte ranges", "does not tell how long the file is, or packs it"),
        ("too long", "cannot read 'http", "cannot read 'http"),
        ("too short", "cannot read 'http", "cannot read 'http"),
    ],
)
def test_what_cannot_be_read(folder, oddity, of_store, of_file):
    """Servers without ranges, that pack what they send, or lie about lengths, give errors of ours and no numbers."""
    with OddServer(folder, oddity) as server:
        with pytest.raises(StorageError, match=of_store) as told:
            store(server.url)
        with pytest.raises((StorageError, InputError), match=of_file) as told_of_file:
            raw(server.url)
    assert all(server.url in str(one.value) for one in (told, told_of_file))
    assert max(len(str(told.value)), len(str(told_of_file.value))) < 700


@pytest.mark.parametrize("oddity", ["none", "no head", "no ranges", "gzip", "chunked"])
def test_what_is_missing(folder, oddity):
    """Nothing there is nothing there, whatever the server is like."""
    with OddServer(folder, oddity) as server, pytest.raises(NotFoundError, match="does not exist"):
        stemstore.open(f"{server.url}/none.zarr")


def test_files_that_were_shortened_are_told(tmp_path):
    """A file that ends inside of what is read, or before it, was cut after it was opened."""
    (tmp_path / "a.raw").write_bytes(bytes(200_000))
    with OddServer(tmp_path) as server:
        near, far = place(f"{server.url}/a.raw").open(), place(f"{server.url}/a.raw").open()
        (tmp_path / "a.raw").write_bytes(bytes(60_000))
        near.seek(50_000)
        with pytest.raises(TruncatedFileError, match=r"a\.raw' ends at byte 60000, expected at least 40000 more"):
            near.read(50_000)
        far.seek(100_000)
        with pytest.raises(TruncatedFileError, match=r"a\.raw' ends at byte 100000 or before"):
            far.read(50_000)


def test_whole_files_are_not_fetched_to_find_out(folder):
    """A server that sends the whole file for a part of it is not made to for a raw file."""
    with OddServer(folder, "no ranges") as server:
        with pytest.raises(InputError, match="does not send parts"):
            raw(server.url)
        bodies = [one for one in server.requests if one.method == "GET" and "scan.npy" in one.target]
        assert all(one.range for one in bodies if one.target == "/scan.npy")


@pytest.fixture
def elsewhere(folder):
    """A server that sends everybody to another host, with a signature that this one wants."""
    with OddServer(folder, signature=SIGNATURE) as there:
        url = there.url.replace("127.0.0.1", "localhost")
        with OddServer(folder, to=url, signature=SIGNATURE) as here:
            yield here, there


def test_redirects_lead_to_the_data(elsewhere, data):
    """A link that leads to another host, as archives do, is followed; the password stays with the first."""
    here, there = elsewhere
    url = here.url.replace("//", f"//me:{PASSWORD}@")
    np.testing.assert_array_equal(store(url), data)
    np.testing.assert_array_equal(raw(url), data)
    assert None not in here.authorizations
    assert set(there.authorizations) == {None}
    headers = {"headers": {"Authorization": f"Bearer {PASSWORD}"}}
    there.authorizations.clear()
    found = stemstore.open(f"{here.url}/scan.zarr", storage_options=headers).intensity.values
    np.testing.assert_array_equal(found, data)
    assert set(there.authorizations) == {None}


def test_refusals_behind_a_redirect_tell_no_secret(elsewhere):
    """Neither the signature that the first server gave nor the password is in a message."""
    here, there = elsewhere
    there.signature = "another one"
    url = here.url.replace("//", f"//me:{PASSWORD}@")
    for read in (store, raw):
        with pytest.raises(StorageError, match="Give credentials") as told:
            read(url)
        texts = [repr(told.value), repr(told.value.context), repr(told.value.__cause__)]
        assert not [text for text in texts if SIGNATURE in text or PASSWORD in text]


def test_redirects_in_a_circle_end(folder):
    """A link that leads back to itself is told, and not tried again."""
    with OddServer(folder, signature=SIGNATURE) as server:
        server.to = server.url
        with pytest.raises(StorageError, match=r"cannot read '.*scan\.zarr"):
            store(server.url)
        assert len(server.requests) < 100


def test_signed_links_to_files(folder, data):
    """A raw file behind a signed link opens, and the signature is in no text."""
    with OddServer(folder, signature=SIGNATURE) as server:
        link = f"{server.url}/scan.npy?X-Signature={SIGNATURE}"
        found = stemstore.open(link)
        np.testing.assert_array_equal(found.intensity.values, data)
        assert SIGNATURE not in repr(found.attrs)
        with pytest.raises(StorageError, match="Give credentials") as told:
            stemstore.open(f"{server.url}/scan.npy?X-Signature=wrong-signature-of-the-tests")
        assert "wrong-signature" not in repr(told.value)
