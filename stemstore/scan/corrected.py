"""Scans whose frames are corrected for their detector while they stream, because the user asked for it at opening.

A corrected frame is what `stemstore.kernels.corrections` says: ``(raw - dark) x gain``, bad pixels replaced by the mean
of their good neighbours, zero outside the mask, always of the whole detector. A mask alone changes no pixel's type, and
electron events stay events; everything else makes floats.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore._version import __version__
from stemstore.errors import InputError
from stemstore.kernels.contract import DetectorRegion
from stemstore.kernels.corrections import Corrections, Repair
from stemstore.kernels.densified import densified
from stemstore.kernels.masking import mask_events, mask_frames
from stemstore.scan.altered import BATCH_BYTES, AlteredSource
from stemstore.scan.lazy import source_node
from stemstore.scan.points import Frames
from stemstore.scan.references import NAMES, load_reference
from stemstore.sources.contract import MISSING
from stemstore.sources.geometry import check_range
from stemstore.sources.records import frame_buffer
from stemstore.sources.references import references_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stemstore._types import Array, BoolArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import Kernel
    from stemstore.scan.lazy import ScanSource
    from stemstore.scan.references import Reference
    from stemstore.selection import Selection
    from stemstore.sources.contract import DetectorImage, FrameSource
    from stemstore_schemas import SourceMetadata

EXACT_BYTES = 2
"""Integers of up to 16 bits are corrected into 32-bit floats, which hold them; wider ones into 64-bit floats."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """The corrections that a user asked for, loaded and checked.

    Attributes
    ----------
    references
        By name, as of `stemstore.scan.references.NAMES`.
    corrections
        What is done to every frame.
    """

    references: dict[str, Reference]
    corrections: Corrections

    @classmethod
    def of(
        cls, given: Mapping[str, Any], frame_shape: tuple[int, int], carried: Mapping[str, DetectorImage]
    ) -> Asked | None:
        """Load what was given; None where nothing was.

        Raises
        ------
        InputError
            An image does not fit the detector or is not finite; a bad pixel has no good neighbour.
        StemStoreError
            A file cannot be read.
        """
        loaded = {name: load_reference(given.get(name), name, frame_shape, carried) for name in NAMES}
        found = {name: image for name, image in loaded.items() if image is not None}
        if not found:
            return None
        values = {name: image.values for name, image in found.items()}
        for name in ("dark", "gain"):
            if name in values and not (finite := np.isfinite(values[name])).all():
                msg = (
                    f"{name} ({found[name].origin}) has {int((~finite).sum())} pixels that are NaN or infinite; "
                    "give them numbers, and name them in bad_pixels=…"
                )
                raise InputError(msg, key=name, found=int((~finite).sum()))
        bad = values["bad_pixels"] != 0 if "bad_pixels" in values else None
        repair = None if bad is None or not bad.any() else Repair.of(bad)
        mask = values["mask"] != 0 if "mask" in values else None
        return cls(found, Corrections(values.get("dark"), values.get("gain"), repair, mask))

    @property
    def token(self) -> str:
        """Text that tells corrections apart."""
        digests = "".join(f"{name}={image.digest};" for name, image in self.references.items())
        return "corrected-" + hashlib.blake2b(digests.encode(), digest_size=16).hexdigest()

    @property
    def described(self) -> dict[str, dict[str, str]]:
        """Where each image comes from, and its digest."""
        return {name: {"origin": image.origin, "digest": image.digest} for name, image in self.references.items()}

    def history(self, operation: str) -> str:
        """One line for the history of the corrected array."""
        said = ", ".join(f"{name}={told!r}" for name, told in self.described.items())
        return f"{operation}({said}) [stemstore {__version__}]"

    def dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Type of corrected pixels."""
        if self.corrections.only_mask:
            return np.dtype(dtype)
        small = dtype.itemsize <= EXACT_BYTES or dtype == np.float32
        return np.dtype(np.float32 if small else np.float64)

    def of_block(self, block: Array, local: Int64Array) -> Array:
        """Correct frames ``block[local[i]]`` of the whole detector into `dtype`."""
        if not self.corrections.only_mask:
            return self.corrections.of_block(block, local, self.dtype(block.dtype))
        return block[local] if self.corrections.mask is None else mask_frames(block, local, self.corrections.mask)


def corrected_source(source: ScanSource, asked: Asked) -> ScanSource:
    """Put corrections in front of a scan source."""
    if asked.corrections.only_mask:
        return source if asked.corrections.mask is None else AlteredSource(source, Masking(asked))
    return CorrectedSource(source, asked)


@dataclass(frozen=True, slots=True, eq=False)
class Masking:
    """Change: pixels outside a mask count as zero, electrons there are left out."""

    asked: Asked

    @property
    def token(self) -> str:
        """Text that tells changes apart."""
        return self.asked.token

    def numbers(self, source: ScanSource, selection: Selection) -> Int64Array:
        """Positions do not matter."""
        del source
        return np.zeros(selection.n_positions, np.int64)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, numbers: Int64Array, detector: tuple[int, int]
    ) -> tuple[UInt16Array, Int64Array]:
        """Make a block of the electrons inside the mask."""
        del numbers
        return mask_events(gap, offsets, local, self._usable(detector))

    def frames(self, block: Array, local: Int64Array, numbers: Int64Array) -> Array:
        """Give frames that are zero outside the mask."""
        del numbers
        return self.asked.of_block(block, local)

    def _usable(self, detector: tuple[int, int]) -> BoolArray:
        mask = self.asked.corrections.mask
        return np.ones(detector, np.bool_) if mask is None else mask


class CorrectedSource:
    """The frames of a scan source, corrected into floats; a scan source. Frames that are missing are NaN.

    Parameters
    ----------
    source
        Where the frames or events are; a whole scan.
    asked
        What is done to each frame.
    """

    def __init__(self, source: ScanSource, asked: Asked) -> None:
        self.source, self.asked = source, asked
        self.shape, self.dtype = source.shape, asked.dtype(source.dtype)
        self.chunk, self.partition = source.chunk, source.partition
        self.uuid = f"{source.uuid}-{asked.token}"

    @property
    def validity(self) -> Array | None:
        """State of every frame, or None when all are valid."""
        found: Array | None = getattr(self.source, "validity", None)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return CorrectedSource, (self.source, self.asked)

    def opening(self) -> tuple[Any, ...]:
        """Give the call that opens the source where the tasks run, function first."""
        return CorrectedSource, source_node(self.source), self.asked

    def read(self, selection: Selection) -> Array:
        """Read the selected frames, corrected, as an array of ``selection.shape``."""
        kernel = Frames(self.dtype)
        out = self.run(selection, kernel, kernel.prepare(DetectorRegion.of(selection)))
        if (lost := self._lost(selection)) is not None:
            out[lost] = np.nan  # also those that the source below did not hand on
        return out.reshape(selection.shape)

    def run(self, selection: Selection, kernel: Kernel, prepared: Any, keep: BoolArray | None = None) -> Array:
        """Stream the selected positions, corrected, through a kernel."""
        stored = (self.shape[-2], self.shape[-1])
        correcting = Correcting(kernel, self.asked, self.dtype, stored, self._lost(selection))
        return self.source.run(selection, correcting, prepared, keep)

    def _lost(self, selection: Selection) -> BoolArray | None:
        """Which of the selected frames are missing."""
        state = self.validity
        return None if state is None else np.asarray(state).reshape(-1)[selection.flat_positions()] == MISSING


@dataclass(frozen=True, slots=True, eq=False)
class Correcting:
    """Kernel: another kernel, on corrected frames of the whole detector; `lost` is for the positions of the work."""

    kernel: Kernel
    asked: Asked
    dtype: np.dtype[Any]
    stored: tuple[int, int]
    lost: BoolArray | None

    @property
    def reduces(self) -> Any:
        """As the kernel."""
        return self.kernel.reduces

    @property
    def combine(self) -> np.ufunc:
        """As the kernel."""
        return self.kernel.combine

    def prepare(self, region: DetectorRegion) -> Any:
        """Prepare the kernel."""
        return self.kernel.prepare(region)

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Give what the kernel makes of corrected pixels."""
        del dtype
        return self.kernel.output(self.dtype, region)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make the output of the kernel for corrected pixels."""
        del dtype
        return self.kernel.allocate(n_positions, self.dtype, region)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Correct some frames at a time and hand them on."""
        step = max(1, BATCH_BYTES // max(1, block[:1].size * 8))
        for first in range(0, len(local), step):
            some = slice(first, first + step)
            frames = self.asked.of_block(block, local[some]).astype(self.dtype, copy=False)
            if self.lost is not None:
                frames[self.lost[place[some]]] = np.nan
            self.kernel.frames(frames, np.arange(len(frames), dtype=np.int64), out, place[some], prepared)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Make some frames dense at a time, correct them and hand them on."""
        for frames, rows, some in densified(gap, offsets, local, self.stored):
            self.frames(frames, rows, out, place[some], prepared)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Let the kernel finish."""
        return self.kernel.finish(out, region)


@dataclass(frozen=True, eq=False)
class CorrectedFrames:
    """The frames of a source, corrected while they are read; a `stemstore.sources.contract.FrameSource`.

    Frames that are missing stay blank: zero, NaN for floats.
    """

    source: FrameSource
    asked: Asked

    @property
    def identity(self) -> str:
        """Identity of the frames and of the corrections."""
        return f"{self.source.identity}-{self.asked.token}"

    @property
    def metadata(self) -> SourceMetadata:
        """What is known of the frames."""
        return self.source.metadata

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """Scan axes of the frames."""
        return self.source.scan_shape

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Detector rows and columns."""
        return self.source.frame_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of corrected pixels."""
        return self.asked.dtype(self.source.dtype)

    @property
    def validity(self) -> Array | None:
        """State of every frame, or None when all are valid."""
        return self.source.validity

    @property
    def references(self) -> Mapping[str, DetectorImage]:
        """Images of the detector that the source knows, those included that were applied."""
        return references_of(self.source)

    def read_frames(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Read and correct the frames of flat scan positions ``start <= i < stop``."""
        check_range(start, stop, math.prod(self.scan_shape))
        frames = frame_buffer(out, (stop - start, *self.frame_shape), self.dtype)
        step = max(1, BATCH_BYTES // max(1, 8 * frames[:1].size))
        for first in range(start, stop, step):
            numbers = np.arange(first, min(first + step, stop))
            read = self.source.read_frames(first, min(first + step, stop))
            frames[numbers - start] = self.corrected(read, numbers)
        return frames

    def corrected(self, frames: Array, numbers: Int64Array) -> Array:
        """Correct the frames, (…, ky, kx), of flat scan positions, which may be missing."""
        every = np.arange(math.prod(frames.shape[:-2]), dtype=np.int64)
        out = self.asked.of_block(frames.reshape(-1, *self.frame_shape), every).reshape(frames.shape)
        if self.validity is not None:
            lost = np.asarray(self.validity)[numbers] == MISSING
            out.reshape(-1, *self.frame_shape)[lost] = np.nan if self.dtype.kind == "f" else 0
        return out
