"""What the failures of a server mean."""

import ssl

import pytest

from stemstore.errors import StorageError
from stemstore.places.address import Address
from stemstore.places.failure import says_absent, told_by, unanswered
from stemstore.places.retry import Patience


class ClientResponseError(Exception):
    """An answer as aiohttp tells it."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


class ServerDisconnectedError(ConnectionError):
    """A lost connection, as aiohttp tells it."""


def looked(cause):
    """What the web file system of fsspec says when looking at a file failed, for whatever reason."""
    error = FileNotFoundError("https://host/a")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("a"),
        NotADirectoryError("a/b"),
        ClientResponseError(404),
        looked(ClientResponseError(410)),
        looked(KeyError("a")),
    ],
)
def test_what_is_not_there(error):
    """Nothing under an address is what a server said, and is not asked again."""
    assert says_absent(error)
    assert Patience(8, 1.0).pause(1, error) is None


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (looked(ClientResponseError(403)), False),
        (looked(ClientResponseError(503)), True),
        (looked(ServerDisconnectedError("gone")), True),
        (looked(TimeoutError("late")), True),
        (PermissionError("no"), False),
    ],
)
def test_what_may_be_there(error, again):
    """Who may not look, or got no answer, does not know; what may pass is asked again."""
    assert not says_absent(error)
    assert (Patience(8, 1.0).pause(1, error) is not None) is again


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ClientResponseError(403), "Give credentials by the environment"),
        (TimeoutError(), r"no answer within 1 s and more\. Check the address"),
        (NotImplementedError("no ranges"), "Serve the store from an object store"),
        (OSError(5, "broken"), "tried up to 8 times"),
    ],
)
def test_messages_say_what_to_do(error, hint):
    """A failure that stays names what was read and what to do next."""
    status = getattr(error, "status", None)
    failure = unanswered(error, "s3://b/a", "read", reason=str(error), status=status, patience=Patience(8, 1.0))
    with pytest.raises(StorageError, match=f"cannot read 's3://b/a': .*{hint}"):
        raise failure


def test_a_server_that_takes_nothing_is_named_so():
    """Whoever writes to a plain web server learns that it is none to write to, not that the network failed."""
    failure = unanswered(
        ClientResponseError(501), "https://a/b", "write", reason="no PUT", status=501, patience=Patience(8, 1.0)
    )
    with pytest.raises(StorageError, match=r"cannot write 'https://a/b': no PUT\. Write to a folder or to an object"):
        raise failure


def test_a_certificate_that_is_not_trusted():
    """The web file system says but the address; what happened is told without the text of the cause, and what helps."""
    cause = ssl.SSLCertVerificationError("secret")
    failure = unanswered(
        looked(cause), "https://host/a", "read", reason="https://host/a", status=None, patience=Patience(8, 1.0)
    )
    with pytest.raises(StorageError, match=r"'https://host/a': SSLCertVerificationError\. .*SSL_CERT_FILE") as caught:
        raise failure
    assert "secret" not in str(caught.value)


def test_causes_without_secrets_are_kept():
    """The error of a library is chained, unless it, or what it was raised from, holds a secret."""
    address = Address("s3://b/a", {"secret": "sesame seed"})
    plain = looked(OSError("no way"))
    assert told_by(StorageError("a"), plain, address).__cause__ is plain
    assert told_by(StorageError("a"), looked(OSError("no sesame seed")), address).__cause__ is None
