"""What the failures of a server mean: errors of ours, with what to do next and without secrets."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from stemstore.errors import StorageError
from stemstore.places.retry import causes, lost_on_the_way, status_of

if TYPE_CHECKING:
    from stemstore.errors import StemStoreError
    from stemstore.places.address import Address
    from stemstore.places.retry import Patience

_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_UNAUTHORISED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_LOCKED_OUT = ("NoCredentials", "PartialCredentials", "Credential", "DefaultCredentials", "Authentication")
"""Beginnings of the names of errors that mean: no key, or the wrong one."""

_NO_SUCH_REQUEST = (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
_UNTRUSTED = {"SSLCertVerificationError", "ClientConnectorCertificateError", "SSLError"}
"""Names of errors of the system, aiohttp and botocore: a certificate that nobody here vouches for."""


_LONGEST_REASON = 300
"""Letters: some libraries repeat what was sent, which may be a file."""


def says_absent(error: Exception) -> bool:
    """Whether a failure means that there is nothing under an address.

    The web file system of fsspec says "not found" of whatever happened when it looked; what happened is the cause.
    """
    status = status_of(error)
    if status is not None:
        return status in _GONE
    return isinstance(error, (FileNotFoundError, NotADirectoryError)) and not lost_on_the_way(error)


def unanswered(
    error: Exception, where: str, verb: str, *, reason: str, status: int | None, patience: Patience
) -> StorageError:
    """Describe a request to a server that failed for good.

    Parameters
    ----------
    error
        Of the last attempt.
    where, verb
        What was to be done.
    reason
        Text of the error without secrets.
    status
        Of HTTP, where there was one.
    patience
        How often and how long it was tried.
    """
    names = [base.__name__ for base in type(error).__mro__]
    reason = " ".join(reason.split()) or names[0]
    if reason == where:  # all that the web file system says; the cause may hold secrets, its name does not
        reason = type(list(causes(error))[-1]).__name__ if status is None else f"status {status}"
    if len(reason) > _LONGEST_REASON:
        reason = f"{reason[:_LONGEST_REASON]}…"
    if isinstance(error, PermissionError) or status in _UNAUTHORISED or any(n.startswith(_LOCKED_OUT) for n in names):
        hint = (
            "give credentials by the environment or a profile, as for the server's own tools, or by storage_options=; "
            "public data want storage_options={'anon': True}"
        )
    elif isinstance(error, TimeoutError) or "Timeout" in names[0]:
        reason = f"no answer within {patience.timeout:g} s and more"
        hint = "check the address and the network; STEMSTORE_TIMEOUT sets the seconds"
    elif any(base.__name__ in _UNTRUSTED for one in causes(error) for base in type(one).__mro__):
        hint = "the file of certificates that are trusted is named by the environment variable SSL_CERT_FILE"
    elif isinstance(error, NotImplementedError) or (verb == "write" and status in _NO_SUCH_REQUEST):
        hint = "serve the store from an object store, or by a web server that knows byte ranges"
        hint = hint if verb == "read" else "write to a folder or to an object store"
    else:
        hint = f"it was tried up to {patience.attempts} times; check the address and the network, then run it again"
    msg = f"cannot {verb} '{where}': {reason}. {hint[0].upper()}{hint[1:]}"
    raised = StorageError(msg, url=where, status=status)
    raised.errno = getattr(error, "errno", None)
    return raised


def told_by(failure: StemStoreError, error: Exception, address: Address) -> StemStoreError:
    """Chain the error of a library to ours, unless it, or what it was raised from, holds a secret of the address."""
    known = [str(one) for one in causes(error)]
    if all(address.censor(one) == one for one in known):
        failure.__cause__ = error
    return failure
