"""The door to synthetic scans: raw files with their truth beside them, or frames on demand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stemstore.errors import InputError
from stemstore.testing.prediction import CentreOfMass, predict_centre_of_mass
from stemstore.testing.scan import SyntheticScan
from stemstore.testing.sectors import write_sectors
from stemstore.testing.truth import Truth
from stemstore.testing.workers import map_ordered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stemstore._types import Array, UInt16Array, UInt32Array
    from stemstore_schemas import SourceMetadata

FRAMES_PER_BLOCK = 16  # 10.6 MB of 576 x 576 pixels: long writes, little memory


def make_scan(
    folder: str | Path,
    *,
    scan_shape: tuple[int, int] = (40, 40),
    dose: float = 120.0,
    seed: int = 0,
    flyback_columns: int = 1,
    frames_per_position: int = 1,
    **options: Any,
) -> Truth:
    """Make a 4D Camera scan with the default specimen: raw sector files and their truth.

    Parameters
    ----------
    folder
        Receives ``data_scan…_module….data``, ``truth.npz`` and ``truth.json``.
    scan_shape
        Rows and columns without flyback; 40 x 40 with one flyback column is 1.09 GB.
    dose
        Mean number of electrons per frame.
    seed
        Of everything random.
    flyback_columns, frames_per_position
        Scan geometry.
    **options
        Other fields of `stemstore.testing.sectors.SectorOptions`: version, files, faults.

    Returns
    -------
    truth
        As `load_truth` reads it back.

    Examples
    --------
    >>> from stemstore.testing import make_scan
    >>> truth = make_scan("scan_15", scan_shape=(8, 8), seed=3)  # doctest: +SKIP
    """
    scan = SyntheticScan(
        scan_shape, dose=dose, seed=seed, flyback_columns=flyback_columns, frames_per_position=frames_per_position
    )
    return write_scan(folder, scan, **options)


def write_scan(folder: str | Path, scan: SyntheticScan, **options: Any) -> Truth:
    """Write any synthetic scan as 4D Camera sector files with its truth.

    Parameters
    ----------
    folder
        As in `make_scan`.
    scan
        The scan; its detector must have 576 x 576 pixels.
    **options
        Fields of `stemstore.testing.sectors.SectorOptions` but for scan geometry, which comes from `scan`.

    Notes
    -----
    Memory: a few blocks of 16 frames, and 4 bytes per electron of the truth.
    """
    events: list[UInt32Array] = []
    settings = {"seed": scan.seed, **options}
    report = write_sectors(
        folder,
        _stream(scan, events),
        scan.scan_shape,
        flyback_columns=scan.flyback_columns,
        frames_per_position=scan.frames_per_position,
        **settings,
    )
    truth = truth_of(scan, events, lost_sectors=report.lost)
    truth.save(folder)
    return truth


def truth_of(
    scan: SyntheticScan, events: list[UInt32Array] | None = None, *, lost_sectors: Array | None = None
) -> Truth:
    """Collect the truth of a scan.

    Parameters
    ----------
    scan
        The scan.
    events
        Electrons of every frame when they have been drawn already; drawn again otherwise.
    lost_sectors : shape (n_frames, n_modules), optional
        Records that were not written; none when not given.
    """
    if events is None:
        events = list(map_ordered(scan.electrons, range(scan.n_frames)))
    whole, bright = predict_centre_of_mass(scan)
    return Truth(
        indptr=np.concatenate([[0], np.cumsum([len(rows) for rows in events])]).astype(np.int64),
        indices=np.concatenate(events),
        lost_sectors=np.zeros((scan.n_frames, 4), np.bool_) if lost_sectors is None else lost_sectors,
        phase=scan.phase,
        diffuse=scan.diffuse,
        deflection=scan.deflection,
        com=whole.expected,
        com_noise=whole.noise,
        bright_field_com=bright.expected,
        bright_field_com_noise=bright.noise,
        lattice=scan.lattice,
        strain=scan.sample.strain,
        rotation=scan.sample.rotation,
        parameters=_parameters(scan, whole, bright),
    )


def _stream(scan: SyntheticScan, events: list[UInt32Array]) -> Iterator[UInt16Array]:
    """Make blocks of frames in threads; notes the electrons of each in order."""

    def make(start: int) -> tuple[UInt16Array, list[UInt32Array]]:
        numbers = range(start, min(start + FRAMES_PER_BLOCK, scan.n_frames))
        block = np.empty((len(numbers), *scan.frame_shape), np.uint16)
        drawn = []
        for place, number in enumerate(numbers):
            electrons, block[place] = scan.exposure(number)
            drawn.append(electrons)
        return block, drawn

    for block, drawn in map_ordered(make, range(0, scan.n_frames, FRAMES_PER_BLOCK)):
        events.extend(drawn)
        yield block


def _parameters(scan: SyntheticScan, whole: CentreOfMass, bright: CentreOfMass) -> dict[str, Any]:
    optics, sample = scan.optics, scan.sample
    return {
        "scan_shape": list(scan.scan_shape),
        "flyback_columns": scan.flyback_columns,
        "frames_per_position": scan.frames_per_position,
        "dose": scan.dose,
        "seed": scan.seed,
        "beam_energy_kev": optics.beam_energy,
        "wavelength_angstrom": optics.wavelength,
        "semi_convergence_angle_mrad": optics.semi_convergence_angle,
        "detector_shape": list(scan.frame_shape),
        "detector_step_mrad": optics.detector_step,
        "detector_step_per_angstrom": optics.pixel_step,
        "scan_step_nm": optics.scan_step,
        "origin": list(optics.centre),
        "disk_radius": optics.disk_radius,
        "disk_edge": optics.disk_edge,
        "mask_radius": scan.mask_radius,
        "reference_lattice": sample.crystal.reference(optics.pixel_step).tolist(),
        "orders": sample.crystal.orders.astype(int).tolist(),
        "coherent_shares": sample.coherent_shares.tolist(),
        "diffuse_width": sample.diffuse_width,
        "camera": {**asdict(scan.camera), "deposit_range": list(scan.camera.deposit_range)},
        "predicted_com_correlation": whole.correlation.tolist(),
        "predicted_bright_field_com_correlation": bright.correlation.tolist(),
        "bright_field_electrons": float(bright.electrons.mean()),
    }


class SyntheticFrames:
    """A synthetic scan as a frame source: lazy, picklable, without files.

    Parameters
    ----------
    scan
        The scan.
    kind
        ``"expected"``: mean electrons per pixel without noise, float32; ``"counted"``: electrons per pixel, uint16;
        ``"camera"``: detector values, uint16.

    Attributes
    ----------
    identity, scan_shape, frame_shape, dtype, metadata, validity
        As in `stemstore.sources.contract.FrameSource`.
    """

    def __init__(self, scan: SyntheticScan, kind: Literal["expected", "counted", "camera"] = "expected") -> None:
        if kind not in ("expected", "counted", "camera"):
            msg = f"frames of kind {kind!r} are not made; expected 'expected', 'counted' or 'camera'"
            raise InputError(msg, key="kind", found=kind)
        self.scan, self.kind = scan, kind
        shape, exposures = (scan.scan_shape[0], scan.width), scan.frames_per_position
        self.scan_shape: tuple[int, ...] = shape if exposures == 1 else (exposures, *shape)
        self.frame_shape = scan.frame_shape
        self.dtype: np.dtype[Any] = np.dtype(np.float32 if kind == "expected" else np.uint16)
        self.metadata = _metadata(scan, self.scan_shape)
        self.identity = _identity(scan, kind)
        self.validity: np.ndarray[Any, np.dtype[np.uint8]] | None = None

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Compute the frames of flat scan positions ``start <= i < stop``.

        Raises
        ------
        IndexError
            The range leaves the scan.
        """
        if not 0 <= start <= stop <= self.scan.n_frames:
            msg = f"frames {start} to {stop} leave the synthetic scan of {self.scan.n_frames} frames"
            raise IndexError(msg)
        block = np.empty((stop - start, *self.frame_shape), self.dtype) if out is None else out
        make = {"expected": self.scan.expected, "counted": self.scan.counted, "camera": self.scan.frame}[self.kind]
        n_positions = self.scan.scan_shape[0] * self.scan.width
        for place, flat in enumerate(range(start, stop)):
            exposure, position = divmod(flat, n_positions)
            block[place] = make(position * self.scan.frames_per_position + exposure)
        return block


def _identity(scan: SyntheticScan, kind: str) -> str:
    sample = scan.sample
    arrays = (scan.deflection, scan.lattice, scan.diffuse, sample.coherent_shares)
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(values).tobytes() for values in arrays))
    numbers = [scan.scan_shape, scan.flyback_columns, scan.frames_per_position, scan.dose, scan.seed]
    described = [*numbers, sample.diffuse_width, asdict(scan.optics), asdict(scan.camera)]
    digest.update(json.dumps(described).encode())
    return f"synthetic-{kind}-{digest.hexdigest()[:32]}"


def _metadata(scan: SyntheticScan, stored_shape: tuple[int, ...]) -> SourceMetadata:
    from stemstore_schemas import Acquisition, Axis, Detector, Quantity, SourceMetadata

    optics = scan.optics
    acquisition = Acquisition(
        beam_energy=Quantity(value=optics.beam_energy, unit="keV", source="user"),
        semi_convergence_angle=Quantity(value=optics.semi_convergence_angle, unit="mrad", source="user"),
        scan_shape=stored_shape,
        scan_shape_source="user",
        flyback_columns=scan.flyback_columns,
        frames_per_position=scan.frames_per_position,
    )
    axes = [
        Axis(name=name, size=size, unit="nm", step=optics.scan_step, source="user")
        for name, size in zip(("y", "x"), stored_shape[-2:], strict=True)
    ]
    for name, size, centre in zip(("ky", "kx"), scan.frame_shape, optics.centre, strict=True):
        step = optics.pixel_step
        axes.append(Axis(name=name, size=size, unit="1/angstrom", step=step, origin=-centre * step, source="user"))
    return SourceMetadata(acquisition=acquisition, detector=Detector(shape=scan.frame_shape), axes=axes)
