"""The way to a server: ranges, tails, and requests that are sent again."""

import pytest
from fsspec.asyn import AsyncFileSystem

from stemstore.places.address import Address
from stemstore.places.link import Link
from stemstore.places.retry import ShortBodyError

BODY = bytes(range(100))


class Server(AsyncFileSystem):
    """A file system that notes what it is asked for, and fails as often as it is told."""

    cachable = False

    def __init__(self, protocol, failures=()):
        super().__init__()
        self.protocol, self.failures, self.asked = protocol, list(failures), []

    async def _info(self, path, **_):
        self.asked.append(("info", path))
        return {"name": path, "size": len(BODY), "type": "file"}

    async def _cat_file(self, path, start=None, end=None, **_):
        self.asked.append((path, start, end))
        if self.failures:
            raise self.failures.pop(0)
        return BODY[start:end]


class Whole(Server):
    """A server that does not know ranges."""

    async def _cat_file(self, path, **_):
        self.asked.append(path)
        return BODY


@pytest.fixture
def link(monkeypatch):
    """Make the way to a server."""
    monkeypatch.setattr("stemstore.places.retry.FIRST_PAUSE", 0.0)

    def make(server, url="s3://box/scan.zarr"):
        path = url if url.startswith("http") else url.partition("://")[2]
        monkeypatch.setattr("stemstore.places.link.file_system", lambda *_: (server, path))
        return Link(Address(url))

    return make


def test_tails(link):
    """The end of an object is one request, but for Azure, which has to be asked for the size first."""
    s3, azure = Server("s3"), Server(("abfs", "az", "abfss"))
    assert link(s3).read("key", -7, None).result() == BODY[-7:]
    assert s3.asked == [("box/scan.zarr/key", -7, None)]
    assert link(azure).read("key", -7, None).result() == BODY[-7:]
    assert azure.asked == [("info", "box/scan.zarr/key"), ("box/scan.zarr/key", 93, 100)]
    assert link(azure).read("key", -700, None).result() == BODY
    web = Server("https")
    signed = link(web, "https://lab.blob.core.windows.net/box?sig=abc")
    assert signed.read("key", -7, None).result() == BODY[-7:]
    assert web.asked[0] == ("info", "https://lab.blob.core.windows.net/box/key?sig=abc")


def test_bodies_have_the_length_that_was_asked_for(link):
    """Too few bytes, and too many, are no answer."""
    assert link(Server("s3")).read("", 90, 100).result() == BODY[90:]
    with pytest.raises(ShortBodyError, match="has 10 bytes"):
        link(Server("s3")).read("", 90, 101).result()
    for start, stop in ((-7, None), (3, 5)):
        server = Whole("s3")
        with pytest.raises(NotImplementedError, match="does not serve byte ranges"):
            link(server).read("", start, stop).result()
        assert len(server.asked) == 1


def test_requests_are_sent_again(link, monkeypatch):
    """What may pass is tried until it does, or as often as the user wants; what cannot pass is tried once."""
    server = Server("s3", [ConnectionResetError("a"), TimeoutError("b")])
    assert link(server).read("", 0, 5).result() == BODY[:5]
    assert len(server.asked) == 3
    monkeypatch.setenv("STEMSTORE_ATTEMPTS", "2")
    for failures, error, n_asked in (
        ([OSError("a")] * 3, OSError, 2),
        ([PermissionError("a")] * 3, PermissionError, 1),
    ):
        server = Server("s3", failures)
        with pytest.raises(error, match="a"):
            link(server).read("", 0, 5).result()
        assert len(server.asked) == n_asked


def test_anything_is_done_again(link):
    """A call that is none of the file system's is repeated alike."""
    left = [ConnectionResetError("a"), None]

    def call():
        error = left.pop(0)
        if error:
            raise error
        return 7

    assert link(Server("s3")).patiently(call) == 7
    assert left == []
