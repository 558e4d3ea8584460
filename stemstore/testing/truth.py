"""The truth of a synthetic scan, saved beside its files: electrons, phase, deflection, lattice, predictions."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import FormatVersionError, NotFoundError

if TYPE_CHECKING:
    from stemstore._types import BoolArray, FloatArray, Int64Array, UInt32Array

ARRAYS_FILE, PARAMETERS_FILE = "truth.npz", "truth.json"
KIND, VERSION = "stemstore.synthetic-truth", 2


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Everything known about a synthetic scan.

    Maps cover the visible scan (y, x); events and lost sectors cover all frames by frame number, flyback included:
    ``(row * width + column) * frames_per_position + exposure``. Vectors are (row, column).

    Attributes
    ----------
    indptr : shape (n_frames + 1,)
        Frame i owns ``indices[indptr[i]:indptr[i + 1]]``.
    indices : shape (n_electrons,)
        Flat detector index of the pixel that each electron entered, ascending within a frame; may repeat.
    lost_sectors : shape (n_frames, n_modules)
        Records that are not in the files; their electrons are still in `indices`.
    phase : shape (y, x), unit rad
        Projected phase.
    diffuse : shape (y, x)
        Share of the electrons in the diffuse background; disk i of a position holds
        ``(1 - diffuse) * parameters["coherent_shares"][i]``.
    deflection : shape (y, x, 2), unit pixel
        Gradient of the phase averaged over the probe, over 2 pi, in detector pixels; up the gradient.
    com, com_noise : shape (y, x, 2), unit pixel
        Centre of mass of the expected pattern over the whole detector relative to the optic axis, and the standard
        deviation of that of one frame.
    bright_field_com, bright_field_com_noise : shape (y, x, 2), unit pixel
        The same within `parameters["mask_radius"]` of the optic axis.
    lattice : shape (y, x, 2, 2), unit pixel
        Reciprocal vectors: ``lattice[..., i, :]`` is g of index i.
    strain : shape (y, x, 2, 2)
        Symmetric strain; positive = tension.
    rotation : shape (y, x), unit rad
        Rotation of the lattice, from the row axis towards the column axis.
    parameters
        Plain numbers: geometry, calibration, camera, predictions.
    """

    indptr: Int64Array
    indices: UInt32Array
    lost_sectors: BoolArray
    phase: FloatArray
    diffuse: FloatArray
    deflection: FloatArray
    com: FloatArray
    com_noise: FloatArray
    bright_field_com: FloatArray
    bright_field_com_noise: FloatArray
    lattice: FloatArray
    strain: FloatArray
    rotation: FloatArray
    parameters: dict[str, Any]

    @property
    def scan_shape(self) -> tuple[int, int]:
        """Rows and columns without flyback."""
        rows, columns = self.phase.shape
        return rows, columns

    @property
    def n_frames(self) -> int:
        """Number of frames, exposures and flyback included."""
        return len(self.indptr) - 1

    def electrons(self, number: int) -> UInt32Array:
        """Give the flat detector indices of the electrons of one frame."""
        return self.indices[self.indptr[number] : self.indptr[number + 1]]

    def save(self, folder: str | Path) -> None:
        """Write ``truth.npz`` and ``truth.json`` into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _array_names()}
        np.savez(folder / ARRAYS_FILE, **arrays)
        document = {"kind": KIND, "version": VERSION, **self.parameters}
        (folder / PARAMETERS_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def load_truth(folder: str | Path) -> Truth:
    """Read the truth saved beside a synthetic scan.

    Raises
    ------
    NotFoundError
        The folder holds no truth.
    FormatVersionError
        It was written by another version.
    """
    folder = Path(folder)
    for name in (ARRAYS_FILE, PARAMETERS_FILE):
        if not (folder / name).is_file():
            msg = f"folder {str(folder)!r} holds no {name}; expected the folder of a scan made by make_scan"
            raise NotFoundError(msg, url=str(folder), key=name)
    parameters = json.loads((folder / PARAMETERS_FILE).read_text(encoding="utf-8"))
    found = (parameters.pop("kind", None), parameters.pop("version", None))
    if found != (KIND, VERSION):
        where = str(folder / PARAMETERS_FILE)
        msg = f"{where!r} is {found[0]!r} of version {found[1]!r}; expected {KIND!r} of version {VERSION}"
        raise FormatVersionError(msg, url=str(folder), found=found, expected=(KIND, VERSION))
    with np.load(folder / ARRAYS_FILE, allow_pickle=False) as arrays:
        return Truth(**{name: arrays[name] for name in _array_names()}, parameters=parameters)


def _array_names() -> list[str]:
    return [item.name for item in fields(Truth) if item.name != "parameters"]
