"""Counted HDF5 of stempy, version 3.

Layout: OpenChemistry/stempy (``docs/source/StempyH5Format.rst``, ``python/stempy/io/sparse_array.py``). Rows are
position-major, as many for each position; a row lists each pixel at most once.
"""

from __future__ import annotations

import datetime as dt
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore._version import __version__
from stemstore.errors import InputError
from stemstore.exchange.target import Target
from stemstore.sources.electrons import by_pixel, in_batches
from stemstore.store.refusal import refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stemstore._types import UInt32Array
    from stemstore.exchange.target import CountedScan
    from stemstore.progress import Progress
    from stemstore.sources.contract import Events
    from stemstore_schemas import CountingDescription

VERSION = 3
EVENTS, COUNTING, ORIGIN = "electron_events", "metadata/electron_counting", "metadata/stemstore"
PLANE, REPEATED = 2, 3  # scan axes that the format knows: (y, x), and (frame, y, x)
FLYBACK = 1
"""Columns that stempy takes for flyback where it is asked to leave them out."""

MAX_ROWS = 256
"""Rows of a position: beyond, the empty rows of all other positions outweigh the events of any scan."""

NONFINITE = ("NaN", "Infinity", "-Infinity")

ATTRIBUTES = {
    "xray_threshold": "x_ray_threshold",
    "pedestal_mean": "optimized_mean",
    "pedestal_sigma": "optimized_std_dev",
    "background_sigma": "background_threshold_n_sigma",
    "xray_sigma": "x_ray_threshold_n_sigma",
}
"""Fields of the counting and the attributes that stempy keeps them in, all float64."""


def check(scan: CountedScan) -> None:
    """Refuse scans that are no grid of positions.

    Raises
    ------
    InputError
        A flat stack, whose scan shape nobody knows, or a series of scans.
    """
    axes = len(scan.scan_shape)
    if axes in (PLANE, REPEATED):
        return
    what = "a flat stack of frames" if axes == 1 else f"a series of scans {scan.scan_shape}"
    hint = "open raw data with scan_shape=(y, x)" if axes == 1 else "export its scans one by one"
    msg = f"{scan.url!r} is {what}; stempy holds frames on a grid (y, x) of positions: {hint}, or pass to='raw-csr'"
    raise InputError(msg, url=scan.url, found=scan.scan_shape)


def write(scan: CountedScan, files: list[Path], progress: Progress) -> tuple[int, list[str]]:
    """Write the file; rows are made and written in batches.

    Parameters
    ----------
    scan
        Frames of one position become its rows, in their order; several electrons in a pixel go to further rows behind
        them, which every position then has.

    Returns
    -------
    n_events, notes

    Raises
    ------
    InputError
        A position would need more than `MAX_ROWS` rows for several electrons in a pixel.
    """
    import h5py

    *_, ny, nx = scan.scan_shape
    n_positions = ny * nx
    exposures = scan.n_frames // n_positions
    slots = _rows_per_position(scan, exposures)
    progress.start("writing events", n_positions)
    n_events, empty = 0, np.empty(0, np.uint32)
    with _created(files[-1]) as file:
        file.attrs["version"] = np.int64(VERSION)
        frames = file.create_dataset(f"{EVENTS}/frames", (n_positions * slots,), dtype=h5py.vlen_dtype(np.uint32))
        frames.attrs["Nx"], frames.attrs["Ny"] = map(np.int64, scan.source.frame_shape)
        positions = file.create_dataset(f"{EVENTS}/scan_positions", data=np.arange(n_positions, dtype=np.int64))
        positions.attrs["Nx"], positions.attrs["Ny"] = np.int64(nx), np.int64(ny)

        def read(start: int, stop: int) -> list[Events]:
            return [scan.source.read_events(e * n_positions + start, e * n_positions + stop) for e in range(exposures)]

        for start, stop, pieces in in_batches(read, n_positions):
            rows = np.empty((stop - start) * slots, h5py.vlen_dtype(np.uint32))
            for place in range(len(rows)):
                rows[place] = empty
            for place, row in _rows(pieces, exposures, slots):
                rows[place] = row
            _write_rows(frames, start * slots, rows)
            n_events += sum(len(piece.indices) for piece in pieces)
            progress.advance(stop - start)
        lost = _write_metadata(file, scan)
    return n_events, _notes(scan, exposures, slots) + lost


def _rows_per_position(scan: CountedScan, exposures: int) -> int:
    """Rows for the frames of a position, and those that the fullest position needs behind them."""
    surplus = np.maximum(scan.most, 1).astype(np.int64).reshape(exposures, -1) - 1
    slots = exposures + int(surplus.sum(axis=0).max(initial=0))
    if slots > max(MAX_ROWS, exposures):
        msg = (
            f"a position of {scan.url!r} would need {slots} rows, for a row of stempy lists a pixel once and pixels "
            f"hold up to {scan.most.max()} electrons of a frame; at most {MAX_ROWS} are written, pass to='raw-csr'"
        )
        raise InputError(msg, url=scan.url, found=slots, expected=MAX_ROWS)
    return slots


def owned(path: Path) -> set[str]:
    """Name the file itself where it holds counted events."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return {path.name} if EVENTS in file else set()
    except OSError:
        return set()


@contextmanager
def _created(path: Path) -> Iterator[Any]:
    """Make an HDF5 file; what its library calls a runtime error is a refusal of the device."""
    import h5py

    try:
        with h5py.File(path, "x") as file:
            yield file
    except RuntimeError as error:
        raise refused(error, path, "write") from error


def _rows(pieces: list[Events], exposures: int, slots: int) -> Iterator[tuple[int, UInt32Array]]:
    """Give the rows of a batch of positions that are not empty, and their places in the batch."""
    used = np.full(pieces[0].n_frames, exposures)  # rows taken by every position, one for each of its frames
    for exposure, events in enumerate(pieces):
        indptr, pixels, electrons = by_pixel(events)
        for position in np.flatnonzero(np.diff(indptr)).tolist():
            mine = slice(indptr[position], indptr[position + 1])
            yield position * slots + exposure, pixels[mine]
        for position in np.unique(np.searchsorted(indptr, np.flatnonzero(electrons > 1), side="right") - 1).tolist():
            mine = slice(indptr[position], indptr[position + 1])
            for least in range(2, int(electrons[mine].max()) + 1):
                yield position * slots + int(used[position]), pixels[mine][electrons[mine] >= least]
                used[position] += 1


def _write_rows(frames: Any, start: int, rows: Any) -> None:
    """Write rows of any lengths; h5py's own assignment fails where all are equally long."""
    import h5py

    space = frames.id.get_space()
    space.select_hyperslab((start,), rows.shape)
    frames.id.write(h5py.h5s.create_simple(rows.shape), space, rows)


def _write_metadata(file: Any, scan: CountedScan) -> list[str]:
    """Write how the events were counted, where they come from, and what a script at the facility had noted."""
    known, lost = scan.metadata, []
    if known.counting is not None:
        values = counting_attributes(known.counting, known.vendor.get("electron_counting"))
        lost += _write_tree(file.create_group(COUNTING), values)
    user = known.vendor.get("user")
    if isinstance(user, dict):
        lost += _write_tree(file.create_group("user"), user)
    origin = {"version": __version__, "source": scan.url, "uuid": scan.uuid or ""}
    _write_tree(file.create_group(ORIGIN), origin | {"time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")})
    return [f"attribute {name} is left out: HDF5 attributes cannot hold it" for name in lost]


def counting_attributes(counting: CountingDescription, verbatim: Any) -> dict[str, Any]:
    """Describe the counting under stempy's names.

    Parameters
    ----------
    counting
        What is known of it.
    verbatim
        Attributes that stempy itself wrote, as far as the events are still those; they are kept as they were.
    """
    values: dict[str, Any] = {}
    if counting.background_threshold is not None:
        levels = np.asarray(counting.background_threshold, np.float64)
        values["background_threshold"] = levels[0] if len(levels) == 1 else levels
    for field, name in ATTRIBUTES.items():
        value = getattr(counting, field)
        if value is not None:
            values[name] = np.float64(value)
    if counting.n_sampled_frames is not None:
        values["number_of_samples"] = np.int64(counting.n_sampled_frames)
    same = isinstance(verbatim, dict) and counting.rule == "stempy"
    if same and all(np.array_equal(verbatim.get(key, value), value) for key, value in values.items()):
        return values | verbatim
    return values


def _write_tree(group: Any, values: dict[str, Any]) -> list[str]:
    """Write attributes, and dictionaries as groups of attributes; null is left out.

    Returns
    -------
    lost
        Names of values that are too long or too irregular for an attribute.
    """
    lost = []
    for key, value in values.items():
        if isinstance(value, dict):
            lost += _write_tree(group.create_group(key), value)
        elif value is not None:
            try:
                group.attrs[key] = _number(value)
            except (TypeError, ValueError, RuntimeError, OSError):
                lost.append(f"{group.name}/{key}")
    return lost


def _number(value: Any) -> Any:
    """Turn the texts that stand for NaN and infinity in JSON back into numbers."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    return float(value) if isinstance(value, str) and value in NONFINITE else value


def _notes(scan: CountedScan, exposures: int, slots: int) -> list[str]:
    notes = []
    several = int((scan.most > 1).sum())
    if several:
        notes.append(
            f"{several} frames have pixels with several electrons; a row lists a pixel once, so every position has "
            f"{slots} rows for {exposures} frames"
        )
    flyback, (*_, ny, nx) = scan.metadata.acquisition.flyback_columns, scan.scan_shape
    if flyback > FLYBACK:
        notes.append(f"{flyback} columns are flyback; stempy leaves out the last one only, where it is asked to")
    elif not flyback and nx == ny + FLYBACK:
        notes.append("the scan is one column wider than high; programs may take its last column for flyback")
    return notes


def _files(destination: Path) -> list[Path]:
    return [destination]


STEMPY = Target(
    name="stempy",
    extensions=(".h5", ".hdf5"),
    carries=frozenset({*ATTRIBUTES, "background_threshold", "n_sampled_frames"}),
    headers=frozenset({"version", "electron_counting", "user"}),
    files=_files,
    owned=owned,
    check=check,
    write=write,
)
