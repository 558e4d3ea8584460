"""Failures: which may pass, and how long to wait."""

import pytest

from stemstore.config import concurrency, request_attempts, request_timeout
from stemstore.errors import InputError
from stemstore.places.retry import LONGEST_PAUSE, Patience, ShortBodyError, status_of, useful_attempts


class ResponseError(Exception):
    """An error as libraries of web servers have them."""

    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


class ClientError(Exception):
    """An error as botocore has them."""

    def __init__(self, status, code="Any"):
        super().__init__("An error occurred")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": code}}


class ClientPayloadError(Exception):
    """A body that ended early, as aiohttp tells it."""


def caused(error, cause):
    """Raise one error from another."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        *(ResponseError(status) for status in (408, 425, 429, 500, 502, 503, 504, 507)),
        ClientError(503),
        caused(OSError(16, "busy"), ClientError(500)),
        caused(OSError(22, "invalid"), ClientError(400, "IncompleteBody")),
        caused(TimeoutError("late"), ClientError(400, "RequestTimeout")),
        caused(ClientPayloadError("cut"), ResponseError(400)),
        ConnectionResetError(104, "reset"),
        TimeoutError("late"),
        BrokenPipeError(32, "gone"),
    ],
)
def test_what_may_pass(error):
    """Busy servers, lost connections and silence are tried again until the last attempt."""
    patience = Patience(4, 1.0)
    assert [patience.pause(n, error) is not None for n in range(1, 6)] == [True] * 3 + [False] * 2


@pytest.mark.parametrize(
    "error",
    [
        *(ResponseError(status) for status in (400, 401, 403, 404, 409, 412, 416, 501)),
        caused(OSError(22, "invalid"), ClientError(412)),
        OSError(22, "moved"),
        OSError("Forbidden: b/box/o\nno access"),
        FileNotFoundError("s3://bucket/key"),
        NotADirectoryError("folder/scan.npy/zarr.json"),
        PermissionError("no"),
        NotImplementedError("read-only"),
        ValueError("a mistake of ours"),
    ],
)
def test_what_does_not(error):
    """What the server decided is not asked again."""
    assert Patience(8, 1.0).pause(1, error) is None


def test_what_is_tried_less_often():
    """Short bodies and closed doors are tried a few times only."""
    assert useful_attempts(ShortBodyError(3), 8) == 2
    assert useful_attempts(ConnectionRefusedError(111, "refused"), 8) == 3


def test_pauses_grow_and_differ():
    """The pause doubles up to a limit, and readers that failed together come back at different times."""
    patience, error = Patience(20, 1.0), ConnectionResetError()
    pauses = [[patience.pause(n, error) for _ in range(50)] for n in range(1, 15)]
    for number, drawn in enumerate(pauses):
        longest = min(LONGEST_PAUSE, 0.2 * 2**number)
        assert longest / 2 <= min(drawn) < max(drawn) <= longest
        assert len(set(drawn)) > 40


def test_statuses():
    """The status of an answer is found wherever a library keeps it."""
    assert status_of(caused(OSError("x"), caused(ValueError("y"), ClientError(503)))) == 503
    assert status_of(OSError("Forbidden: b/box/o")) == 403
    assert status_of(OSError(5, "x")) is None


def test_time_grows_with_the_body():
    """A shard may take longer than a document."""
    assert Patience(1, 60.0).limit(0) == 60.0
    assert Patience(1, 60.0).limit(128 * 2**20) > 300.0


def test_settings(monkeypatch):
    """Settings of requests come from the environment and are checked."""
    assert (concurrency(), request_attempts(), request_timeout()) == (32, 8, 60.0)
    monkeypatch.setenv("STEMSTORE_CONCURRENCY", "64")
    monkeypatch.setenv("STEMSTORE_TIMEOUT", "2.5")
    assert (concurrency(), request_timeout()) == (64, 2.5)
    for name, text, read in [
        ("STEMSTORE_CONCURRENCY", "0", concurrency),
        ("STEMSTORE_ATTEMPTS", "many", request_attempts),
        ("STEMSTORE_TIMEOUT", "-1", request_timeout),
        ("STEMSTORE_TIMEOUT", "nan", request_timeout),
    ]:
        monkeypatch.setenv(name, text)
        with pytest.raises(InputError, match=f"{name} is '{text}'"):
            read()
