"""Settings that a user may change by environment variable: memory budget, threads, requests to servers."""

from __future__ import annotations

import os
import re

from stemstore.errors import InputError

DEFAULT_CONCURRENCY = 32
"""Requests at a time: more than hide the latency of usual object stores, fewer than they refuse."""

DEFAULT_TIMEOUT = 60.0
"""Seconds without a byte after which a request counts as lost; what the libraries of the object stores wait, too."""

DEFAULT_ATTEMPTS = 8
"""Attempts of a request that fails for a passing reason: half a minute with the pauses between them."""

DEFAULT_CACHE = 10 * 2**30
"""Size of a cache of blocks on disk, where none is stated."""

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*$", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

KIB = 1024
DEFAULT_MEMORY = 768 * 2**20
"""Working memory of a conversion or an operation; with interpreter and libraries a process stays below 1 GiB."""


def parse_size(text: str | int) -> int:
    """Turn ``"512MiB"``, ``"1.5 GB"`` or a number of bytes into bytes.

    Raises
    ------
    InputError
        The text is not a size.
    """
    if isinstance(text, int):
        return text
    match = _SIZE.match(text)
    if match is None:
        msg = f"size {text!r} is not understood; expected a number with a unit, such as '512MiB' or '2GB'"
        raise InputError(msg, found=text)
    number, prefix, binary = match.groups()
    base = KIB if binary else 1000
    return int(float(number) * base ** _POWERS[prefix.lower()])


def format_size(n_bytes: int) -> str:
    """Write a number of bytes as ``'12.4 GiB (13 314 398 617 bytes)'``."""
    value, unit = float(n_bytes), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if value < KIB or unit == "TiB":
            break
        value /= KIB
    if unit == "bytes":
        return f"{n_bytes} bytes"
    return f"{value:.1f} {unit} ({n_bytes:,} bytes)".replace(",", " ")


def memory_budget() -> int:
    """Give the working memory in bytes: ``STEMSTORE_MAX_MEMORY`` or 768 MiB."""
    return parse_size(os.environ.get("STEMSTORE_MAX_MEMORY", DEFAULT_MEMORY))


def agent() -> str | None:
    """Give the person, or their ORCID, whom histories name: ``STEMSTORE_AGENT``, or nobody."""
    return os.environ.get("STEMSTORE_AGENT", "").strip() or None


def n_workers() -> int:
    """Give the number of threads: ``STEMSTORE_WORKERS`` or the processors this process may use."""
    if "STEMSTORE_WORKERS" in os.environ:
        return _whole_number("STEMSTORE_WORKERS", 1)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else (os.cpu_count() or 1)


def concurrency() -> int:
    """Give the number of requests at a time to one server: ``STEMSTORE_CONCURRENCY`` or 32."""
    return _whole_number("STEMSTORE_CONCURRENCY", DEFAULT_CONCURRENCY)


def request_attempts() -> int:
    """Give how often a request is sent that fails for a passing reason: ``STEMSTORE_ATTEMPTS`` or 8."""
    return _whole_number("STEMSTORE_ATTEMPTS", DEFAULT_ATTEMPTS)


def request_timeout() -> float:
    """Give the seconds that a server may stay silent: ``STEMSTORE_TIMEOUT`` or 60."""
    text = os.environ.get("STEMSTORE_TIMEOUT")
    if text is None:
        return DEFAULT_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        msg = f"STEMSTORE_TIMEOUT is {text!r}; expected a number of seconds above 0"
        raise InputError(msg, found=text)
    return seconds


def cache_limit() -> int:
    """Give the bytes that a cache of blocks on disk may take: ``STEMSTORE_CACHE_SIZE`` or 10 GiB."""
    return parse_size(os.environ.get("STEMSTORE_CACHE_SIZE", DEFAULT_CACHE))


def _whole_number(variable: str, default: int) -> int:
    text = os.environ.get(variable)
    if text is None:
        return default
    if not text.isdigit() or int(text) < 1:
        msg = f"{variable} is {text!r}; expected a whole number of at least 1"
        raise InputError(msg, found=text)
    return int(text)
