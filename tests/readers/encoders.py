"""Encoders of the formats under test, written from their descriptions with NumPy, struct and h5py only."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h5py
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

FRAME = 576
MODULE = 144


@dataclass
class SectorScan:
    """A 4D Camera scan to be written: which sectors of which frames, in which files and order.

    A frame is (frame number, row, column, scan number). `lost` names (frame number, module) pairs.
    """

    shape: tuple[int, int] = (2, 3)
    exposures: int = 1
    version: int = 5
    scan: int = 15
    files_per_module: int = 1
    shuffle: bool = False
    lost: set[tuple[int, int]] = field(default_factory=set)
    seed: int = 0

    def truth(self) -> np.ndarray:
        """Frames (exposure, y, x, ky, kx): distinct values everywhere, so that a misplaced sector shows."""
        ny, nx = self.shape
        count = self.exposures * ny * nx
        pixels = np.arange(FRAME * FRAME, dtype=np.uint32) % 4001
        frames = [(pixels + 97 * number) % 65521 for number in range(count)]
        return np.array(frames, dtype=np.uint16).reshape(self.exposures, ny, nx, FRAME, FRAME)

    def frame_number(self, exposure: int, y: int, x: int) -> int:
        """Frame number in acquisition order: all exposures of a position, then the next position."""
        return (y * self.shape[1] + x) * self.exposures + exposure

    def header(self, number: int, y: int, x: int, scan: int | None = None) -> bytes:
        """Pack the 16-byte header of a record."""
        return struct.pack("<IIHHHH", self.scan if scan is None else scan, number, self.shape[1], self.shape[0], x, y)

    def pixels(self, frame: np.ndarray, module: int) -> bytes:
        """Cut the pixels of one record as stored."""
        if self.version == 3:
            return frame.astype("<u2").tobytes()
        first = module * MODULE
        part = frame[:, first : first + MODULE] if self.version == 4 else frame[first : first + MODULE]
        return part.astype("<u2").tobytes()

    def records(self, module: int) -> list[bytes]:
        """All records of a module in acquisition order, lost ones left out."""
        truth, found = self.truth(), []
        for y in range(self.shape[0]):
            for x in range(self.shape[1]):
                for exposure in range(self.exposures):
                    number = self.frame_number(exposure, y, x)
                    if (number, module) not in self.lost:
                        found.append(self.header(number, y, x) + self.pixels(truth[exposure, y, x], module))
        return found

    def write(self, folder: Path) -> list[Path]:
        """Write the files of all modules; frames are dealt out over the files of a module."""
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(self.seed)
        paths = []
        for module in range(1 if self.version == 3 else 4):
            records = self.records(module)
            order = random.permutation(len(records)) if self.shuffle else np.arange(len(records))
            for part in range(self.files_per_module):
                name = f"data_scan{self.scan:010d}_module{module}_{part:03d}.data"
                if self.version == 3:
                    name = f"data_scan{self.scan:010d}_{part:03d}.data"
                path = folder / name
                path.write_bytes(b"".join(records[i] for i in order[part :: self.files_per_module]))
                paths.append(path)
        return paths


def write_counted(
    path: Path,
    rows: list[list[int]],
    *,
    scan: tuple[int, int],
    frame: tuple[int, int],
    version: int | None = 3,
    on_group: bool = False,
    positions: list[int] | None = None,
    dimensions: bool = False,
    metadata: dict[str, object] | None = None,
) -> Path:
    """Write counted events: `scan` is (height, width), `frame` is (rows, columns)."""
    with h5py.File(path, "w") as file:
        group = file.create_group("electron_events")
        if version is not None:
            (group if on_group else file).attrs["version"] = np.int64(version)
        frames = group.create_dataset("frames", (len(rows),), dtype=h5py.vlen_dtype(np.uint32))
        for number, row in enumerate(rows):
            frames[number] = np.array(row, dtype=np.uint32)
        if dimensions:
            frames.attrs["frame_dimensions"] = (frame[1], frame[0])
        else:
            frames.attrs["Nx"], frames.attrs["Ny"] = frame
        given = np.arange(scan[0] * scan[1]) if positions is None else np.array(positions)
        scanned = group.create_dataset("scan_positions", data=given.astype(np.int64))
        scanned.attrs["Nx"], scanned.attrs["Ny"] = scan[1], scan[0]
        if metadata is not None:
            target = file.create_group("metadata/electron_counting")
            for key, value in metadata.items():
                if isinstance(value, dict):
                    target.create_group(key).attrs.update(value)
                else:
                    target.attrs[key] = value
    return path


def write_raw_csr(
    path: Path,
    rows: list[list[tuple[int, float]]],
    *,
    nav: tuple[int, ...],
    sig: tuple[int, ...],
    dtypes: tuple[str, str, str] = ("<i8", "<i4", "<u1"),
    filetype: str = "raw_csr",
) -> Path:
    """Write entries (pixel, value) of every frame as LiberTEM's RAW_CSR: three flat files and the TOML at `path`."""
    pixels = [pixel for row in rows for pixel, _ in row]
    values = [value for row in rows for _, value in row]
    starts = np.cumsum([0] + [len(row) for row in rows])
    lines = ["[params]", f'filetype = "{filetype}"', f"nav_shape = {list(nav)}", f"sig_shape = {list(sig)}", ""]
    lines.append(f"[{filetype}]")
    content = (("indptr", "rowind.dat", starts), ("indices", "coords.dat", pixels), ("data", "values.dat", values))
    for (role, name, numbers), dtype in zip(content, dtypes, strict=True):
        np.array(numbers).astype(dtype).tofile(path.parent / name)
        lines += [f'{role}_file = "{name}"', f'{role}_dtype = "{dtype}"']
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
