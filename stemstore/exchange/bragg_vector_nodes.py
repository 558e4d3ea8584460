"""Nodes of the class BraggVectors in EMD 1.0 files: lists of points, and the shapes they belong to.

==============================================  =====================================================================
place                                           content
==============================================  =====================================================================
``<root>/…/<name>``                             ``custom``, BraggVectors
``…/_v_uncal/data`` (Rx, Ry)                    lists of (qx, qy, intensity), float64, pixels; x is the row
``…/metadatabundle/_braggvectors_shape``        ``Rshape`` and ``Qshape``
``…/metadatabundle/gen_params``                 how they were found
``<root>/metadatabundle/calibration``           see `stemstore.exchange.py4dstem_calibration`
==============================================  =====================================================================

Sources: py4dstem/emdfile, py4dstem/py4DSTEM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, InputError, UnknownFormatError
from stemstore.exchange.emd_nodes import add_metadata, add_node, is_class, read_metadata
from stemstore.sources.hdf5 import DAMAGE, walk

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array

NAME, CLASS = "braggvectors", "BraggVectors"
POINTS, SHAPE = "_v_uncal", "_braggvectors_shape"
FIELDS = ("qx", "qy", "intensity")
POINT = np.dtype([(field, "<f8") for field in FIELDS])
PLANE = 2  # scan axes of Bragg vectors
ROWS = 65536
"""Positions that are read or written at a time."""

MAX_POSITIONS = 2**28


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Points of all positions, one position after another.

    Attributes
    ----------
    scan_shape, detector_shape
        (Rx, Ry) and (Qx, Qy).
    offset : shape (Rx Ry + 1,)
        Points of a position are ``offset[i] : offset[i + 1]``.
    columns : shape (points,) each
        ``qx``, ``qy`` and ``intensity``.
    """

    scan_shape: tuple[int, int]
    detector_shape: tuple[int, int]
    offset: Int64Array
    columns: dict[str, Array]


def write_vectors(root: Any, vectors: Vectors) -> Any:
    """Write a node below a root, whole rows of the scan at a time; gives its group."""
    import h5py

    node = add_node(root, NAME, "custom", CLASS)
    add_metadata(node, SHAPE, {"Rshape": vectors.scan_shape, "Qshape": vectors.detector_shape})
    kind = h5py.vlen_dtype(POINT)
    group = add_node(node, POINTS, "custom_pointlistarray", "PointListArray")
    data = group.create_dataset("data", vectors.scan_shape, dtype=kind)
    rows, width = vectors.scan_shape
    step = max(1, ROWS // max(1, width))
    for row in range(0, rows if width else 0, step):
        n = min(step, rows - row)
        bounds = vectors.offset[row * width : (row + n) * width + 1]
        points = np.empty(int(bounds[-1] - bounds[0]), POINT)
        for field in FIELDS:
            points[field] = vectors.columns[field][bounds[0] : bounds[-1]]
        lists = np.empty(n * width, kind)
        ends = (bounds - bounds[0]).tolist()
        for place in range(len(lists)):
            lists[place] = points[ends[place] : ends[place + 1]]
        # h5py's own assignment writes one list at a time
        space = data.id.get_space()
        space.select_hyperslab((row, 0), (n, width))
        data.id.write(h5py.h5s.create_simple((n, width)), space, lists)
    return node


def read_vectors(node: Any, url: str) -> Vectors:
    """Read a node.

    Raises
    ------
    CorruptDataError
        Lists, fields or shapes are missing, or do not fit; a position is not finite.
    """
    import h5py

    try:
        data = node[POINTS]["data"]
        kind = h5py.check_vlen_dtype(data.dtype)
        found, shape = set((kind and kind.names) or ()), tuple(int(n) for n in data.shape)
    except (*DAMAGE, AttributeError) as error:
        msg = f"{node.name} in {url!r} has no lists of points ({error}); the file is incomplete, write it again"
        raise CorruptDataError(msg, url=url, key=node.name) from error
    if len(shape) != PLANE or math.prod(shape) > MAX_POSITIONS or not found.issuperset(FIELDS):
        msg = f"{data.name} in {url!r} has shape {shape} and fields {sorted(found)}, expected (Rx, Ry) and {FIELDS}"
        raise CorruptDataError(msg, url=url, key=data.name, found=shape)
    detector = read_metadata(node, SHAPE).get("Qshape")
    if detector is None or np.shape(detector) != (PLANE,) or min(detector) < 1:
        msg = f"{node.name} in {url!r} does not say the shape of the detector (Qshape); write it again with py4DSTEM"
        raise CorruptDataError(msg, url=url, key=SHAPE)
    pieces: dict[str, list[Array]] = {field: [np.empty(0)] for field in FIELDS}
    lengths = [np.zeros(1, np.int64)]
    step = max(1, ROWS // max(1, shape[1]))
    for row in range(0, shape[0], step):
        lists = list(data[row : row + step].reshape(-1))
        lengths.append(np.array([len(one) for one in lists], np.int64))
        points = np.concatenate([np.empty(0, kind), *lists], dtype=kind)  # without it the type of each list is compared
        for field in FIELDS:
            pieces[field].append(points[field].astype(np.float64))
    columns = {field: np.concatenate(pieces.pop(field)) for field in FIELDS}
    if not all(np.isfinite(columns[field]).all() for field in ("qx", "qy")):
        msg = f"{node.name} in {url!r} holds positions that are not finite; find the vectors again"
        raise CorruptDataError(msg, url=url, key=node.name)
    offset = np.cumsum(np.concatenate(lengths))
    return Vectors((shape[0], shape[1]), (int(detector[0]), int(detector[1])), offset, columns)


def vector_nodes(file: Any) -> list[str]:
    """List the places of all Bragg vectors in a file."""
    return [place for place, item in walk(file) if hasattr(item, "keys") and is_class(item, CLASS)]


def chosen_node(file: Any, url: str, wanted: str | None) -> str:
    """Find the node that is meant.

    Raises
    ------
    UnknownFormatError
        There is none.
    InputError
        There are several, and none or an unknown one was named.
    """
    nodes = vector_nodes(file)
    if not nodes:
        msg = f"file {url!r} holds no BraggVectors of py4DSTEM (0.14 or newer); open scans with stemstore.open"
        raise UnknownFormatError(msg, url=url)
    if wanted is None and len(nodes) == 1:
        return nodes[0]
    found = [node for node in nodes if wanted is not None and node.strip("/") == wanted.strip("/")]
    if not found:
        what = "several BraggVectors" if wanted is None else f"no BraggVectors {wanted!r}"
        msg = f"file {url!r} holds {what}; pass vectors= one of {nodes}"
        raise InputError(msg, url=url, key="vectors", found=nodes)
    return found[0]
