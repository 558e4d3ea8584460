"""Which failures of a server may pass, and how long to wait before asking again."""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from stemstore.config import request_attempts, request_timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_PAUSE = 0.2
"""Seconds before the second attempt; doubled for each further one."""

LONGEST_PAUSE = 10.0
"""Seconds: what object stores that ask to slow down have recovered from."""

SLOWEST = 512 * 1024
"""Bytes per second that a server may take its time for, on top of the timeout."""

UNREACHABLE_ATTEMPTS = 3
"""Where nothing answers under an address, it is more likely wrong than busy."""

SHORT_ATTEMPTS = 2
"""A body without the bytes that were asked for, yet sent without an error: more likely the object is so."""

_BUSY = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    *(status for status in HTTPStatus if status >= HTTPStatus.INTERNAL_SERVER_ERROR),
} - {HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED}

_BUSY_CODES = {
    "RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch",
    "SlowDown", "Throttling", "ThrottlingException", "RequestThrottled", "InternalError", "ServiceUnavailable",
}  # fmt: skip
"""Error codes of S3 that mean: a body was lost on the way, or the server is busy; some come with status 400."""

_UNREACHABLE = {"ClientConnectorError", "EndpointConnectionError", "ConnectionRefusedError", "gaierror"}
"""Names of errors of aiohttp, botocore and the system, which need not be installed."""

_CUT = {"ClientPayloadError", "ContentLengthError", "ResponseStreamingError", "IncompleteReadError", "IncompleteRead"}
"""Names of errors of a body that ended early; what they say of a status is not the server's."""

_LOST = _UNREACHABLE | _CUT | {"ClientConnectionError", "ClientOSError", "HTTPClientError"}
"""Names of errors of a way to a server, and of a body that never came."""

_FORBIDDEN = "Forbidden: "
"""How gcsfs begins to tell status 403, which it gives in no other way."""

_FINAL_NUMBERS = {errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENAMETOOLONG, errno.EROFS}
"""Numbers of system errors that the file systems use for what a server refuses."""

_FINAL = (
    *(FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError),
    *(PermissionError, NotImplementedError, ImportError),
)

_FINAL_NAMES = {"TooManyRedirects", "InvalidURL"}
"""Names of errors of aiohttp about addresses: those that lead nowhere."""

_PASSING = (OSError, EOFError)
_PASSING_NAMES = _CUT | {"ClientError", "HTTPClientError", "ResponseParserError", "HttpError", "AzureError"}
"""Base classes of failures on the way, by name: aiohttp, botocore, gcsfs, azure, http."""


class ShortBodyError(Exception):
    """A server sent fewer bytes than were asked for."""

    def __init__(self, got: int) -> None:
        super().__init__(f"the answer has {got} bytes")
        self.got = got


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is sent and how long each answer may take.

    Attributes
    ----------
    attempts
        In all, for failures that may pass.
    timeout : unit s
        Without a byte.
    """

    attempts: int
    timeout: float

    @classmethod
    def configured(cls) -> Patience:
        """Take the user's settings."""
        return cls(request_attempts(), request_timeout())

    def limit(self, n_bytes: int) -> float:
        """Seconds that a request of so many bytes may take in all."""
        return self.timeout + n_bytes / SLOWEST

    def pause(self, attempt: int, error: Exception) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1), or None where another one has no point.

        The pause doubles each time and is drawn between half of it and all of it, so that many readers that failed
        together do not come back together.
        """
        if attempt >= min(self.attempts, useful_attempts(error, self.attempts)):
            return None
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1))
        return longest * random.uniform(0.5, 1.0)


def useful_attempts(error: Exception, attempts: int) -> int:
    """How often a request that fails so is worth being sent."""
    if isinstance(error, ShortBodyError):
        return SHORT_ATTEMPTS
    chain = list(causes(error))
    status = status_of(error)
    if isinstance(error, TimeoutError) or code_of(error) in _BUSY_CODES:
        return attempts
    if status is not None:
        return attempts if status in _BUSY else 1
    lost = lost_on_the_way(error)
    refused = any(isinstance(one, _FINAL) for one in chain) and not lost
    names = {base.__name__ for one in chain for base in type(one).__mro__}
    if refused or names & _FINAL_NAMES or getattr(error, "errno", None) in _FINAL_NUMBERS:
        return 1
    if names & _UNREACHABLE:
        return min(attempts, UNREACHABLE_ATTEMPTS)
    return attempts if lost or isinstance(error, _PASSING) or names & _PASSING_NAMES else 1


def lost_on_the_way(error: BaseException) -> bool:
    """Whether an error was raised from another one that says: no answer came."""
    return any(
        isinstance(one, (ConnectionError, TimeoutError)) or {base.__name__ for base in type(one).__mro__} & _LOST
        for one in causes(error)
    )


def status_of(error: BaseException) -> int | None:
    """HTTP status that an error of aiohttp, botocore, gcsfs or azure carries, itself or in its causes."""
    for one in causes(error):
        if type(one).__name__ in _CUT:
            return None
        if type(one) is OSError and str(one).startswith(_FORBIDDEN):
            return HTTPStatus.FORBIDDEN
        response = getattr(one, "response", None)
        metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        value = metadata.get("HTTPStatusCode")
        for name in ("status", "status_code", "code"):  # one after the other: aiohttp warns of the last
            value = getattr(one, name, None) if value is None else value
        if isinstance(value, int) and HTTPStatus.BAD_REQUEST <= value < 600:  # noqa: PLR2004 - end of the statuses
            return value
    return None


def code_of(error: BaseException) -> str | None:
    """Error code of S3 that an error of botocore carries, itself or in its causes."""
    for one in causes(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code"))
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what it was raised from."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__
