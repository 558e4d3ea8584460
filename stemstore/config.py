"""Settings that a user may change by environment variable: memory budget, threads, cache."""

from __future__ import annotations

import os
import re

from stemstore.errors import InputError

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


def n_workers() -> int:
    """Give the number of threads: ``STEMSTORE_WORKERS`` or the processors this process may use."""
    text = os.environ.get("STEMSTORE_WORKERS")
    if text is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else (os.cpu_count() or 1)
    if not text.isdigit() or int(text) < 1:
        msg = f"STEMSTORE_WORKERS is {text!r}; expected a whole number of at least 1"
        raise InputError(msg, found=text)
    return int(text)
