"""File systems of fsspec with our limits: how long a server may be silent, how many connections are open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stemstore.errors import InputError, OptionalDependencyError

if TYPE_CHECKING:
    from stemstore.places.address import Address
    from stemstore.places.retry import Patience


def file_system(address: Address, patience: Patience, n_requests: int) -> tuple[Any, str]:
    """Give the file system of an address and its path there.

    Parameters
    ----------
    address
        Whose options complete or replace ours.
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

    name = str.__str__(address)
    protocol = name.partition("://")[0].lower()  # with "::" in it for a chain, whose options are the user's affair
    try:
        options = _limits(protocol, dict(address.options), patience, n_requests)
        fs, path = fsspec.core.url_to_fs(address.full, **options)
    except ImportError as error:
        msg = f"'{name}' needs a package that is not installed: {error}"
        raise OptionalDependencyError(msg, url=name) from error
    except (ValueError, TypeError) as error:
        reason = address.censor(str(error))
        msg = f"'{name}' cannot be reached: {reason}; give a path or a URL that fsspec knows, such as s3://…"
        raise InputError(msg, url=name) from None
    if protocol in ("s3", "s3a"):
        fs.retries = 1  # ours are enough; both multiply
    return fs, path


def _limits(protocol: str, options: dict[str, Any], patience: Patience, n_requests: int) -> dict[str, Any]:
    """Complete storage options by timeouts and connections, where the user said nothing of them."""
    if protocol in ("s3", "s3a"):
        config = {
            "connect_timeout": patience.timeout,
            "read_timeout": patience.timeout,
            "max_pool_connections": n_requests,
            "retries": {"total_max_attempts": 1},
        }
        options["config_kwargs"] = {**config, **options.get("config_kwargs", {})}
        options.setdefault("use_listings_cache", False)
    elif protocol in ("http", "https"):
        from aiohttp import ClientTimeout

        wait = ClientTimeout(total=None, sock_connect=patience.timeout, sock_read=patience.timeout)
        options["client_kwargs"] = {"timeout": wait, **options.get("client_kwargs", {})}
        # byte ranges of a compressed answer would not be those of the object
        options["headers"] = {"Accept-Encoding": "identity", **options.get("headers", {})}
    return options
