"""RAW_CSR of LiberTEM: a row index, pixels and their electrons in three flat files, described by a TOML file.

Layout: LiberTEM/LiberTEM (``src/libertem/io/dataset/raw_csr.py``). The names of the flat files begin with the name of
the TOML file, so that several scans may lie in one folder.
"""

from __future__ import annotations

import json
import math
import tomllib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore._version import __version__
from stemstore.errors import InputError
from stemstore.exchange.target import Target
from stemstore.sources.electrons import by_pixel, in_batches

if TYPE_CHECKING:
    from pathlib import Path

    from stemstore.exchange.target import CountedScan
    from stemstore.progress import Progress

FILETYPE = "raw_csr"
ROLES = {"indptr": "rowind", "indices": "coords", "data": "values"}
"""Roles of the flat files, and how their names end."""

MAX_PIXELS = 2**31
"""Pixels that a signed 32-bit number can name, the only type of index that is written."""

MAX_TOML_BYTES = 2**20


def check(scan: CountedScan) -> None:
    """Refuse frames too large for 32-bit indices.

    Raises
    ------
    InputError
        There are more pixels than indices.
    """
    pixels = math.prod(scan.source.frame_shape)
    if pixels > MAX_PIXELS:
        msg = f"frames of {scan.url!r} have {pixels} pixels, indices of RAW_CSR end at {MAX_PIXELS}; bin the detector"
        raise InputError(msg, url=scan.url, found=pixels, expected=MAX_PIXELS)


def write(scan: CountedScan, files: list[Path], progress: Progress) -> tuple[int, list[str]]:
    """Write the flat files in batches of frames, then the description.

    Returns
    -------
    n_events, notes
    """
    *flat, toml = files
    kinds = ["<i8", "<i4", f"<u{np.min_scalar_type(int(scan.most.max(initial=0))).itemsize}"]
    progress.start("writing events", scan.n_frames)
    n_events = n_entries = 0
    with ExitStack() as stack:
        indptr, indices, data = (stack.enter_context(path.open("xb")) for path in flat)
        indptr.write(np.zeros(1, kinds[0]).tobytes())
        for start, stop, (events,) in in_batches(lambda a, b: [scan.source.read_events(a, b)], scan.n_frames):
            ends, pixels, electrons = by_pixel(events)
            indptr.write((ends[1:] + n_entries).astype(kinds[0]).tobytes())
            indices.write(pixels.astype(kinds[1]).tobytes())
            data.write(electrons.astype(kinds[2]).tobytes())
            n_entries += len(pixels)
            n_events += len(events.indices)
            progress.advance(stop - start)
    toml.write_text(description(scan, [path.name for path in flat], kinds), encoding="utf-8")
    return n_events, _notes(scan)


def description(scan: CountedScan, names: list[str], kinds: list[str]) -> str:
    """Compose the TOML text."""
    lines = [
        f"# written by stemstore {__version__} from {json.dumps(scan.url)}",
        "[params]",
        f'filetype = "{FILETYPE}"',
        f"nav_shape = {list(scan.scan_shape)}",
        f"sig_shape = {list(scan.source.frame_shape)}",
        "",
        f"[{FILETYPE}]",
    ]
    for role, name, kind in zip(ROLES, names, kinds, strict=True):
        lines += [f"{role}_file = {_text(name)}", f'{role}_dtype = "{kind}"']
    return "\n".join(lines) + "\n"


def owned(path: Path) -> set[str]:
    """Name the TOML file and the files that it names, where it describes RAW_CSR data."""
    try:
        if path.stat().st_size > MAX_TOML_BYTES:
            return set()
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        filetype = document["params"]["filetype"]
        table = document[filetype]
        names = {str(table[f"{role}_file"]) for role in ROLES}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
    return {path.name} | names if str(filetype).lower() == FILETYPE else set()


def _files(destination: Path) -> list[Path]:
    return [*(destination.with_name(f"{destination.stem}_{end}.dat") for end in ROLES.values()), destination]


def _text(name: str) -> str:
    """Write a TOML string; the escapes of JSON are also those of TOML."""
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")


def _notes(scan: CountedScan) -> list[str]:
    flyback: Any = scan.metadata.acquisition.flyback_columns
    if not flyback:
        return []
    return [f"the last {flyback} columns of the scan are flyback, which RAW_CSR cannot mark; flyback=False leaves them"]


RAW_CSR = Target(
    name="raw-csr",
    extensions=(".toml",),
    carries=frozenset(),
    headers=frozenset(),
    files=_files,
    owned=owned,
    check=check,
    write=write,
)
