"""Disks written as Bragg vectors of py4DSTEM (EMD 1.0), and what it wrote as disks.

What py4DSTEM calls intensity is the value of its correlation map, so that ``correlation`` is written there: thresholds
keep their meaning. Its qx is the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore._version import __version__
from stemstore.errors import InputError, StemStoreError
from stemstore.exchange.bragg_vector_nodes import (
    NAME,
    PLANE,
    Vectors,
    chosen_node,
    read_vectors,
    vector_nodes,
    write_vectors,
)
from stemstore.exchange.emd_nodes import PROGRAM, add_metadata, add_node, read_metadata, write_header
from stemstore.exchange.place import appearing, check_free, local_destination
from stemstore.exchange.py4dstem_calibration import calibration_items, image_of_items
from stemstore.ops.disks.calibration import VECTORS
from stemstore.ops.disks.plane import labels_of, scan_of
from stemstore.ops.disks.table import COLUMNS, PEAK, DiskTable, dataset_of_table, table_of
from stemstore.ops.labels import INHERITED, parameters_text
from stemstore.sources.hdf5 import attribute, open_hdf5, text
from stemstore.store.refusal import refused

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import xarray as xr

    from stemstore._types import Array

SCALARS = (str, bool, int, float, np.generic)
"""Attributes that metadata of EMD hold."""


@dataclass(frozen=True, slots=True)
class DiskExport:
    """What an export of disks did.

    Attributes
    ----------
    url
        The file.
    n_disks
        Disks written.
    shape
        Rx, Ry, Qx, Qy.
    n_bytes
        Size of the file.
    not_carried
        What is known and has no place in the format.
    """

    url: str
    n_disks: int
    shape: tuple[int, ...]
    n_bytes: int
    not_carried: list[str]


@dataclass(frozen=True, slots=True)
class _Format:
    name: str
    owned: Callable[[Path], set[str]]


def export_disks(
    disks: Any,
    destination: str | os.PathLike[str],
    *,
    intensity: Literal["correlation", "intensity"] = "correlation",
    overwrite: bool = False,
) -> DiskExport:
    """Write disks as Bragg vectors that py4DSTEM reads.

    Parameters
    ----------
    disks
        What `find_disks` returned. The calibration that it carries (origin of every position, ellipse, sizes of pixels,
        rotation) is written beside the raw positions, so that py4DSTEM's calibrated vectors are those of
        `calibrate_disks` with ``axes="scan"``, or with ``axes="detector"`` where no rotation is known.
    destination
        HDF5 file, ``….h5``.
    intensity
        What stands in py4DSTEM's ``intensity``: ``"correlation"``, which it means by that word, or ``"intensity"``.
    overwrite
        Replace a file of Bragg vectors, once the new one is finished.

    Returns
    -------
    report

    Raises
    ------
    InputError
        No dataset of disks, or a scan of more than two axes; the destination is not local.
    DestinationExistsError
        The destination exists and `overwrite` is off, or something else lies there.
    StorageError
        The device refuses to write; nothing is left behind.

    Notes
    -----
    A line of positions is written as one row, a single pattern as one position. Memory: 24 bytes per disk, for 65536
    positions at a time.

    Examples
    --------
    >>> import stemstore
    >>> stemstore.export_disks(disks, "braggvectors.h5").not_carried  # doctest: +SKIP
    """
    import h5py

    if intensity not in ("correlation", "intensity"):
        msg = f"intensity={intensity!r} is not known; use 'correlation' or 'intensity'"
        raise InputError(msg, key="intensity", found=intensity)
    table = table_of(disks)
    if len(table.scan_shape) > PLANE:
        msg = f"the scan has the axes {table.scan_dims}; Bragg vectors of py4DSTEM have two: select one of the others"
        raise InputError(msg, found=table.scan_dims)
    path = local_destination(destination)
    check_free(_Format("py4DSTEM Bragg vectors", _owned), [path], overwrite=overwrite)
    items, lost = calibration_items(labels_of(disks, scan_of(disks, table)))
    with appearing([path], overwrite=overwrite) as (place,):
        try:
            with h5py.File(place, "x") as file:
                shape = _write(file, disks, table, items, intensity)
        except RuntimeError as error:  # what the library calls a refusal of the device
            raise refused(error, path, "write") from error
    lost += _not_carried(disks, table, intensity)
    return DiskExport(str(path), len(table.qy), (*shape, *table.detector_shape), path.stat().st_size, lost)


def open_disks(path: str | os.PathLike[str], *, vectors: str | None = None) -> xr.Dataset:
    """Open Bragg vectors that py4DSTEM wrote.

    Parameters
    ----------
    path
        EMD 1.0 file with a node of the class BraggVectors.
    vectors
        Path of the node inside a file with several.

    Returns
    -------
    disks : in memory
        As from `find_disks`: ``correlation`` is py4DSTEM's intensity, ``intensity`` is NaN (the file does not hold it:
        pass ``weights="correlation"`` where it would count). Coordinates and attributes carry the calibration of the
        file, so that `calibrate_disks` gives py4DSTEM's calibrated vectors. The attribute ``notes`` says what was left
        out; parameters of the detection are attributes under their own names.

    Raises
    ------
    UnknownFormatError
        The file is no HDF5 file, or holds no Bragg vectors.
    InputError
        It holds several, and none or an unknown one was named.
    CorruptDataError, TruncatedFileError, StorageError, NotFoundError
        It is damaged or cannot be read.

    Examples
    --------
    >>> import stemstore
    >>> disks = stemstore.open_disks("braggvectors.h5")  # doctest: +SKIP
    >>> stemstore.bragg_vector_map(disks, weights="correlation")  # doctest: +SKIP
    """
    notes: list[str] = []
    with open_hdf5(Path(path)) as file:
        name = chosen_node(file, str(path), vectors)
        found = read_vectors(file[name], str(path))
        items = read_metadata(file[name.strip("/").partition("/")[0]], "calibration")
        known = {key: value for key, value in read_metadata(file[name], "gen_params").items() if not np.ndim(value)}
    qy, qx, correlation = _ranked(found)
    table = DiskTable(
        scan_shape=found.scan_shape,
        scan_dims=("y", "x"),
        offset=found.offset,
        qy=qy,
        qx=qx,
        intensity=np.full(len(qy), np.nan, np.float32),
        correlation=correlation,
        sigma_q=None,
        processed=np.ones(found.scan_shape, bool),
        detector_shape=found.detector_shape,
    )
    image = image_of_items(items, found.scan_shape, found.detector_shape, notes)
    attrs = known | image.attrs | ({"notes": "; ".join(notes)} if notes else {})
    attrs["history"] = parameters_text("open_disks", path=Path(path).name, vectors=name)
    disks = dataset_of_table(table, image.coords, attrs)
    disks["intensity"].attrs["long_name"] = "not known: the file holds correlations"
    return disks


def _ranked(found: Vectors) -> tuple[Array, ...]:
    """Give rows, columns and correlations in single precision, the largest correlation of each position first."""
    columns = tuple(found.columns[field].astype(np.float32) for field in ("qx", "qy", "intensity"))
    position = np.repeat(np.arange(len(found.offset) - 1), np.diff(found.offset))
    if ((np.diff(columns[2]) > 0) & (np.diff(position) == 0)).any():  # seldom: py4DSTEM sorts them itself
        order = np.lexsort((-columns[2], position))
        columns = tuple(column[order] for column in columns)
    return columns


def _write(file: Any, disks: xr.Dataset, table: DiskTable, items: dict[str, Any], column: str) -> tuple[int, int]:
    """Write the whole tree into an empty file; gives the shape of the scan as written."""
    rows, columns = (1,) * (PLANE - len(table.scan_shape)) + table.scan_shape
    write_header(file)
    root = add_node(file, f"{NAME}_root", "root", "Root")
    # the paths tell py4DSTEM what the calibration is for
    links = {"_root_treepath": "", "_target_paths": [f"/{NAME}"]}
    maps = {key: one.reshape(rows, columns) for key, one in items.items() if isinstance(one, np.ndarray)}
    add_metadata(root, "calibration", items | maps | links, "Calibration")
    values = {"qx": table.qy, "qy": table.qx, "intensity": getattr(table, column)}
    node = write_vectors(root, Vectors((rows, columns), table.detector_shape, table.offset, values))
    known = {str(key): value for key, value in disks.attrs.items() if isinstance(value, SCALARS)}
    known = {key: value.item() if isinstance(value, np.generic) else value for key, value in known.items()}
    about = {key: known.pop(key) for key in ("history", *INHERITED) if key in known}
    add_metadata(node, "gen_params", known)
    add_metadata(node, "stemstore", {"version": __version__, **about})
    return rows, columns


def _owned(path: Path) -> set[str]:
    """Name the file itself where it holds Bragg vectors that stemstore wrote."""
    try:
        with open_hdf5(path) as file:
            program = text(attribute(file, PROGRAM) or "")
            return {path.name} if program.startswith("stemstore") and vector_nodes(file) else set()
    except (OSError, StemStoreError):
        return set()


def _not_carried(disks: xr.Dataset, table: DiskTable, column: str) -> list[str]:
    """Name the columns and marks that Bragg vectors have no place for."""
    along = [str(name) for name in disks.data_vars if disks[name].dims == (PEAK,)]
    order = [*(name for name in COLUMNS if name in along), *(name for name in along if name not in COLUMNS)]
    columns = [name for name in order if name not in ("qy", "qx", column, *VECTORS)]
    lost = [f"{', '.join(columns)} of every disk"]
    unseen = int(np.count_nonzero(~table.processed))
    return lost + ([f"the mark of {unseen} positions where no disks were looked for"] if unseen else [])
