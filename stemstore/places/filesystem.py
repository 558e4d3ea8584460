"""File systems of fsspec with our limits: how long a server may be silent, how many connections are open."""

from __future__ import annotations

import os
import threading
from types import MethodType
from typing import TYPE_CHECKING, Any

from stemstore.errors import InputError, OptionalDependencyError
from stemstore.places.address import divided, is_web

if TYPE_CHECKING:
    from stemstore.places.address import Address
    from stemstore.places.retry import Patience

_S3 = ("s3", "s3a")
_GOOGLE = ("gs", "gcs")
_AZURE = ("az", "abfs", "abfss")
_AZURE_HOSTS = ".core.windows.net"
_WEB = ("http", "https")

_ENVIRONMENT = ("AWS_", "AZURE_", "GCSFS_", "GOOGLE_", "STORAGE_EMULATOR_")
"""Beginnings of the environment variables that say where an object store is and who asks."""

_lock = threading.Lock()
_made_in: int | None = None
"""The environment that the file systems fsspec keeps were made in."""


def environment() -> int:
    """Give a number that changes with what the environment says of object stores."""
    return hash(frozenset(one for one in os.environ.items() if one[0].startswith(_ENVIRONMENT)))


def file_system(address: Address, patience: Patience, n_requests: int) -> tuple[Any, str]:
    """Give the file system of an address and its path there.

    Parameters
    ----------
    address
        Whose options complete or replace ours. A shared access signature of Azure may be its query.
    patience, n_requests
        How long to wait, and how many requests are under way at a time.

    Raises
    ------
    InputError
        fsspec does not know such URLs, or refuses the options.
    OptionalDependencyError
        The package for them is not installed.
    """
    import fsspec.core

    _forget_other_environments()
    name = str.__str__(address)
    protocol = name.partition("://")[0].lower()  # with "::" in it for a chain, whose options are the user's affair
    url, options = address.full, dict(address.options)
    if protocol in _AZURE and "sig=" in address.query:
        url, signature = divided(url)
        options.setdefault("sas_token", signature[1:])
    try:
        fs, path = fsspec.core.url_to_fs(url, **_limits(protocol, options, patience, n_requests))
    except ImportError as error:
        msg = f"'{name}' needs a package that is not installed: {error}"
        raise OptionalDependencyError(msg, url=name) from error
    except (ValueError, TypeError) as error:
        reason = address.censor(str(error))
        msg = f"'{name}' cannot be reached: {reason}; give a path or a URL that fsspec knows, such as s3://…"
        raise InputError(msg, url=name) from None
    _let_us_try_again(fs, protocol)
    return fs, path


def _forget_other_environments() -> None:
    """Let fsspec make file systems of object stores anew after a change: it keeps them by their options alone."""
    from fsspec.registry import registry

    global _made_in  # noqa: PLW0603  # like the file systems it is about, there is one for the process
    with _lock:
        now = environment()
        if _made_in not in (None, now):
            for protocol in {*_S3, *_GOOGLE, *_AZURE} & registry.keys():
                registry[protocol].clear_instance_cache()
        _made_in = now


def knows_tails(address: Address, fs: Any) -> bool:
    """Whether the last bytes of an object can be asked for without knowing its size; Azure wants to be told a begin."""
    names = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    host = address.partition("://")[2].partition("/")[0].partition(":")[0]
    return not (set(names) & set(_AZURE) or (is_web(address) and host.endswith(_AZURE_HOSTS)))


def _limits(protocol: str, options: dict[str, Any], patience: Patience, n_requests: int) -> dict[str, Any]:
    """Complete storage options by timeouts and connections, where the user said nothing of them."""
    if protocol in _S3:
        config = {
            "connect_timeout": patience.timeout,
            "read_timeout": patience.timeout,
            "max_pool_connections": n_requests,
            "retries": {"total_max_attempts": 1},
        }
        options["config_kwargs"] = {**config, **options.get("config_kwargs", {})}
    elif protocol in _AZURE:
        options = {"connection_timeout": patience.timeout, "read_timeout": patience.timeout, **options}
    elif protocol in _GOOGLE:
        options = {"requests_timeout": _silence(patience), **options}
    elif protocol in _WEB:
        options["client_kwargs"] = {"timeout": _silence(patience), **options.get("client_kwargs", {})}
        # byte ranges of a compressed answer would not be those of the object
        options["headers"] = {"Accept-Encoding": "identity", **options.get("headers", {})}
    if protocol in (*_S3, *_AZURE, *_GOOGLE):
        options.setdefault("use_listings_cache", False)
    return options


def _silence(patience: Patience) -> Any:
    from aiohttp import ClientTimeout

    return ClientTimeout(total=None, sock_connect=patience.timeout, sock_read=patience.timeout)


def _let_us_try_again(fs: Any, protocol: str) -> None:
    """Take their own attempts from file systems: ours are enough, and both multiply."""
    if protocol in _S3:
        fs.retries = 1
    elif protocol in _AZURE:
        policy = getattr(getattr(getattr(fs, "service_client", None), "_config", None), "retry_policy", None)
        if policy is not None:
            policy.total_retries = 0
    elif protocol in _GOOGLE:
        once = getattr(type(fs)._request, "__wrapped__", None)
        if once is not None:
            fs._request = MethodType(once, fs)
