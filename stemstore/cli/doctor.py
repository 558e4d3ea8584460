"""The verb ``doctor``."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
import uuid
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from stemstore.cli import options  # noqa: TC001  # typer evaluates the annotations
from stemstore.cli.exit import FAILED
from stemstore.cli.output import notify, print_facts, print_json
from stemstore.config import format_size, memory_budget, n_workers

EXAMPLE = "stemstore doctor --folder /scratch"

PACKAGES = ("numpy", "zarr", "numcodecs", "xarray", "dask", "numba", "scipy", "h5py", "sparse", "fsspec", "pydantic")
EXTRAS = ("cloud", "cluster", "hdf5", "icechunk", "references", "view")
PROTOCOLS = {"file": "fsspec", "memory": "fsspec", "http": "aiohttp", "s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs"}
ALLOCATOR = "MALLOC_TRIM_THRESHOLD_"
LOW_TRIM = 32 * 2**20  # below this, the temporaries of a chunk go back to the system and are faulted in again

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+).*extra\s*==\s*['\"]([^'\"]+)['\"]")


def run(
    folder: Annotated[
        str, typer.Option(help="Where to try writing; the folder for temporary files by default.", metavar="FOLDER")
    ] = "",
    as_json: options.AsJson = False,
) -> None:
    """Check the installation and the machine.

    The exit code is 1 where something would fail.
    """
    found = examine(folder or tempfile.gettempdir())
    problems = found["problems"]
    if as_json:
        print_json("doctor", found)
    else:
        print_facts(_facts(found))
        for text in problems:
            notify(f"problem: {text}")
    if problems:
        raise typer.Exit(FAILED)


def examine(folder: str) -> dict[str, Any]:
    """Look at versions, machine, plug-ins, extras, caches and a folder; `problems` lists what would fail."""
    from stemstore import __version__
    from stemstore.sources.registry import readers

    versions = {name: _version(name) for name in PACKAGES}
    plug_ins = {name: info.error for name, info in readers().items()}
    extras = {name: missing_packages(name) for name in EXTRAS}
    written = _write_test(Path(folder))
    cache = _numba_cache()
    problems = [f"package {name} is not installed" for name, version in versions.items() if version is None]
    problems += [f"reader {name!r} does not load: {error}" for name, error in plug_ins.items() if error is not None]
    if written is not None:
        problems.append(f"cannot write to {folder!r}: {written}")
    if cache is None:
        problems.append(
            "no folder for numba's cache is writable, so kernels compile at every start; set NUMBA_CACHE_DIR"
        )
    return {
        "stemstore": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": versions,
        "processors": os.cpu_count(),
        "workers": n_workers(),
        "memory_bytes": _memory(),
        "memory_budget_bytes": memory_budget(),
        "readers": plug_ins,
        "missing_extras": {name: packages for name, packages in extras.items() if packages},
        "protocols": {name: importlib.util.find_spec(module) is not None for name, module in PROTOCOLS.items()},
        "numba_cache": cache,
        "allocator": {ALLOCATOR: os.environ.get(ALLOCATOR)},
        "write_test": {"folder": folder, "error": written, "free_bytes": _free(folder)},
        "problems": problems,
    }


def _allocator(value: str | None) -> str:
    """Judge glibc's setting; the 65536 that dask's nanny gives its workers makes every large buffer page-fault."""
    if value is None:
        return "not set, as it should be"
    if value.isdigit() and int(value) < LOW_TRIM:
        return f"{value}: large buffers are slow; set 268435456 and MALLOC_MMAP_THRESHOLD_=33554432 in the environment"
    return value


def missing_packages(extra: str) -> list[str]:
    """Names of the packages of an extra that are not installed."""
    matches = [_REQUIREMENT.match(text) for text in metadata.requires("stemstore") or []]
    return [match[1] for match in matches if match is not None and match[2] == extra and _version(match[1]) is None]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _memory() -> int | None:
    """Physical memory in bytes; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _free(folder: str) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _write_test(folder: Path) -> str | None:
    """Write, rename and remove a small file as a conversion would; give the reason where that fails."""
    first, second = (folder / f".stemstore-doctor-{uuid.uuid4().hex}" for _ in range(2))
    try:
        with first.open("wb") as file:
            file.write(b"stemstore")
            file.flush()
            os.fsync(file.fileno())
        first.replace(second)
        second.unlink()
    except OSError as error:
        first.unlink(missing_ok=True) if folder.is_dir() else None
        return error.strerror or str(error)
    return None


def _numba_cache() -> str | None:
    """Folder where compiled kernels are kept, as numba looks for it; None where none is writable."""
    import stemstore

    given = os.environ.get("NUMBA_CACHE_DIR")
    beside = Path(stemstore.__file__).parent / "kernels" / "__pycache__"
    home = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "numba"
    candidates = [Path(given)] if given else [beside, home]
    for candidate in candidates:
        standing = next((place for place in (candidate, *candidate.parents) if place.is_dir()), None)
        if standing is not None and os.access(standing, os.W_OK):
            return str(candidate)
    return None


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    memory = "unknown" if found["memory_bytes"] is None else format_size(found["memory_bytes"])
    budget = format_size(found["memory_budget_bytes"])
    free = found["write_test"]["free_bytes"]
    space = "" if free is None else f", {format_size(free)} free"
    rows = [
        ("stemstore", found["stemstore"]),
        ("python", f"{found['python']} ({found['executable']})"),
        ("platform", found["platform"]),
        *((name, version or "not installed") for name, version in found["packages"].items()),
        ("processors", f"{found['processors']}, of which stemstore uses {found['workers']}"),
        ("memory", f"{memory}; a conversion uses at most {budget}"),
        (
            "readers",
            ", ".join(name + (" (does not load)" if error else "") for name, error in found["readers"].items()),
        ),
        (
            "protocols",
            ", ".join(f"{name}{'' if there else ' (missing)'}" for name, there in found["protocols"].items()),
        ),
        ("numba cache", found["numba_cache"] or "none is writable"),
        (ALLOCATOR, _allocator(found["allocator"][ALLOCATOR])),
        ("writing", f"{found['write_test']['folder']}: {found['write_test']['error'] or 'works'}{space}"),
    ]
    for name, packages in found["missing_extras"].items():
        rows.append((f"extra {name}", f"lacks {', '.join(packages)}: pip install 'stemstore[{name}]'"))
    return rows
