"""Timepix3 streams (``.tpx3``, ASI Cheetah): single hits with their times, laid over the scan by trigger edges.

The file is a stream of little-endian 64-bit words. A word whose low half is ``TPX3`` begins a chunk: bits 32-39 are the
chip, bits 48-63 the bytes that follow. The words of a chunk are packets, see `stemstore.kernels.tpx3`. The stream
does not say what its trigger inputs mean nor where the chips lie: both are options and are kept with the result.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError
from stemstore.sources.files import describe, expand, identity
from stemstore.sources.geometry import check_missing, shape_option
from stemstore.sources.records import stack_metadata
from stemstore_readers.tpx3_edges import KINDS, Edge, Trigger, of_kind, period
from stemstore_readers.tpx3_options import MAX_CHIPS, clustering, places, seconds
from stemstore_readers.tpx3_source import UNLIMITED, Raster, Tpx3Source
from stemstore_readers.tpx3_stream import Index, build_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.remote import Place
    from stemstore_schemas import SourceMetadata

MAGIC = b"TPX3"
SIDE = 256
MAX_SIDECAR = 2**20
"""Longest JSON of the acquisition program that is kept."""


class Tpx3:
    """Reader of Timepix3 streams.

    Parameters
    ----------
    scan_shape
        ``(y, x)`` or ``(frame, y, x)``; ``(frame,)`` where every edge begins a pixel. Without a trigger all hits make
        one frame.
    trigger
        What begins with an edge: ``"pixel"``, ``"line"`` or ``"frame"`` of the scan.
    edge
        ``"tdc1_rising"``, ``"tdc1_falling"``, ``"tdc2_rising"`` or ``"tdc2_falling"``.
    dwell_time : unit s
        Time of a scan position; a number or a text such as ``"6 us"``. Needed for lines and frames; for pixels the
        usual time between edges otherwise.
    line_time : unit s
        From the beginning of a line to that of the next, flyback included; needed for frames.
    delay : unit s
        From an edge to the beginning that it announces.
    skip_edges
        Edges before the first one that counts.
    layout
        For each chip ``(row, column, degrees)``: its place on the detector, and how far it is turned, rows towards
        columns, a multiple of 90; None for a chip that is left out. By default chips lie one below the other.
    cluster
        Join the hits of one electron to one event, see `stemstore.kernels.tpx3_clusters`: True, or ``{"time": "100 ns",
        "distance": 1}``, the differences of time and of rows and columns (pixel) up to which two hits are linked.
    """

    name: ClassVar[str] = "tpx3"
    description: ClassVar[str] = "Timepix3 event streams (ASI Cheetah), with trigger edges"
    extensions: ClassVar[tuple[str, ...]] = (".tpx3",)

    def __init__(  # noqa: PLR0913  # every option by its name
        self,
        *,
        scan_shape: Sequence[int] | None = None,
        trigger: Trigger | None = None,
        edge: Edge | None = None,
        dwell_time: float | str | None = None,
        line_time: float | str | None = None,
        delay: float | str = 0.0,
        skip_edges: int = 0,
        layout: Sequence[Sequence[int] | None] | None = None,
        cluster: bool | dict[str, Any] = False,
    ) -> None:
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (1, 2, 3))
        self.trigger, self.edge, self.skip_edges = trigger, edge, skip_edges
        self.dwell_time = None if dwell_time is None else seconds("dwell_time", dwell_time)
        self.line_time = None if line_time is None else seconds("line_time", line_time)
        self.delay = seconds("delay", delay, positive=False)
        self.cluster = clustering(cluster)
        self.layout = None if layout is None else places(layout)
        self._check()

    def _check(self) -> None:
        """Refuse options that lack others."""
        if self.trigger not in (None, "pixel", "line", "frame"):
            msg = f"option trigger={self.trigger!r} is not known; expected 'pixel', 'line' or 'frame'"
            raise InputError(msg, key="trigger", found=self.trigger)
        if isinstance(self.skip_edges, bool) or not isinstance(self.skip_edges, int) or self.skip_edges < 0:
            msg = f"option skip_edges={self.skip_edges!r} is not a number of edges; expected 0 or more"
            raise InputError(msg, key="skip_edges", found=self.skip_edges)
        if self.trigger is None:
            if self.scan_shape not in (None, (1,)):
                msg = f"scan_shape={self.scan_shape} needs to know where positions begin; pass trigger=… and edge=…"
                raise InputError(msg, key="trigger")
            return
        needed = {"line": ("dwell_time", "scan_shape"), "frame": ("dwell_time", "line_time", "scan_shape")}
        lacking = [key for key in needed.get(self.trigger, ()) if getattr(self, key) is None]
        if self.edge not in KINDS:
            lacking.append(f"edge (one of {', '.join(KINDS)}; got {self.edge!r})")
        if lacking or (self.trigger != "pixel" and len(self.scan_shape or ()) == 1):
            msg = f"trigger={self.trigger!r} needs {', '.join(lacking) or 'a scan_shape of rows and columns'}; pass it"
            raise InputError(msg, key=lacking[0] if lacking else "scan_shape")

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the first chunk."""
        del url
        return 1.0 if first_bytes[:4] == MAGIC and len(first_bytes) >= 8 else 0.0  # noqa: PLR2004 (bytes of a word)

    def __call__(self, url: str | list[str]) -> Tpx3Source:
        """Pass over the stream once for its trigger edges and an index of times; no hit is kept.

        Raises
        ------
        InputError
            There are no such edges, a folder was given, or the layout lacks a chip.
        StorageError
            A file cannot be read.
        """
        files = expand(url)
        for path in files:
            if path.is_dir():
                msg = f"{str(path)!r} is a folder, expected files; pass a pattern such as {str(path / '*.tpx3')!r}"
                raise InputError(msg, url=str(path))
        index = build_index(files)
        raster, scan_shape, warnings = self._raster(index)
        chips, frame_shape, notes = self._places(index)
        validity = raster.validity(scan_shape)
        described = describe(files)
        metadata = stack_metadata(
            scan_shape,
            frame_shape,
            source="user",
            warnings=[*index.warnings, *_odd(index), *warnings, *notes],
            files=described,
            vendor=self._vendor(index, raster, files[0]),
        )
        options = (self.scan_shape, self.trigger, self.edge, self.dwell_time, self.line_time, self.delay)
        return Tpx3Source(
            identity=identity(self.name, described, (*options, self.skip_edges, self.layout, self.cluster)),
            scan_shape=scan_shape,
            frame_shape=frame_shape,
            metadata=_with_times(metadata, self.dwell_time),
            validity=validity,
            blocks=tuple(block for block in index.blocks if block.earliest <= block.latest),
            raster=raster,
            places=tuple(chips),
            cluster=self.cluster,
        )

    def _raster(self, index: Index) -> tuple[Raster, tuple[int, ...], list[str]]:
        """Lay the edges over the scan."""
        from stemstore.kernels.tpx3 import UNIT

        if self.trigger is None or self.edge is None:
            text = "no trigger is stated: all hits make one frame; pass trigger=…, edge=… and scan_shape=… for a scan"
            return Raster(np.array([-(2**62)]), 1, 1, UNLIMITED, UNLIMITED, np.empty(0, np.int64)), (1,), [text]
        edges = of_kind(index.edges, self.edge)
        usual, warnings = period(edges), []
        if len(edges.interpolated):
            text = f"{len(edges.interpolated)} of {len(edges.times)} edges {self.edge} are missing"
            warnings.append(f"{text} and were put in between their neighbours (vendor: interpolated_edges)")
        times = edges.times[self.skip_edges :] + round(self.delay / UNIT)
        if not len(times):
            msg = f"option skip_edges={self.skip_edges} leaves none of {len(edges.times)} edges; skip fewer"
            raise InputError(msg, key="skip_edges", found=self.skip_edges)
        scan = self.scan_shape or (len(times),)
        lines = scan[-2] if self.trigger == "frame" else 1
        columns = 1 if self.trigger == "pixel" else scan[-1]
        needed = math.prod(scan) // (lines * columns)
        check_missing((needed,), len(times))
        if len(times) != needed:
            text = f"{len(times)} edges {self.edge} were found for {needed} {self.trigger}s of the scan {scan}"
            fate = "positions without an edge are marked missing" if len(times) < needed else "the last are left out"
            warnings.append(f"{text}; {fate}")
        dwell = usual if self.dwell_time is None else self.dwell_time / UNIT
        line = UNLIMITED if self.line_time is None else self.line_time / UNIT
        put_in = edges.interpolated[edges.interpolated >= self.skip_edges] - self.skip_edges
        kept = times[: needed + 1]  # one more than needed, at which the last one ends
        return Raster(kept, lines, columns, line, dwell or UNLIMITED, put_in, len(times)), scan, warnings

    def _places(self, index: Index) -> tuple[list[tuple[int, int, int] | None], tuple[int, int], list[str]]:
        """Place the chips on the detector."""
        found = max((chip for chip in index.chips if chip < MAX_CHIPS), default=0) + 1
        chips, notes = self.layout, []
        if chips is None:
            chips = [(SIDE * chip, 0, 0) for chip in range(found)]
            if found > 1:
                notes.append(f"{found} chips lie one below the other, for their chips are not known; pass layout=…")
        elif len(chips) < found:
            msg = f"option layout has {len(chips)} chips, the stream has {found}; give a place, or None, for each"
            raise InputError(msg, key="layout", found=len(chips), expected=found)
        used = [place for place in chips if place is not None]
        rows, columns = (max(place[axis] for place in used) + SIDE for axis in (0, 1))
        return list(chips), (rows, columns), notes

    def _vendor(self, index: Index, raster: Raster, path: Place) -> dict[str, Any]:
        packets = {f"0x{nibble:X}": int(index.counts[nibble]) for nibble in range(16) if index.counts[nibble]}
        assigned = {
            "trigger": self.trigger, "edge": self.edge, "dwell_time_s": self.dwell_time, "delay_s": self.delay,
            "line_time_s": self.line_time, "skip_edges": self.skip_edges, "layout": self.layout,
            "cluster": None if self.cluster is None else self.cluster._asdict(),
        }  # fmt: skip
        put_in = raster.interpolated[:10000].tolist()  # beyond that a list tells nobody anything
        found = {"packets": packets, "chips": sorted(index.chips), "interpolated_edges": put_in}
        return {"assigned": assigned, **found, "acquisition": _sidecar(path)}


def _odd(index: Index) -> list[str]:
    from stemstore.kernels.tpx3 import FINE_ERRORS, HIT, SEQUENTIAL

    notes = []
    if index.counts[SEQUENTIAL]:
        notes.append(f"{index.counts[SEQUENTIAL]} pixels of a sequential read-out have no times and are left out")
    if index.counts[FINE_ERRORS]:
        notes.append(f"{index.counts[FINE_ERRORS]} trigger edges have an impossible fine time; 3 ns are uncertain")
    if not index.counts[HIT]:
        notes.append("the stream holds no hit")
    return notes


def _with_times(metadata: SourceMetadata, dwell: float | None) -> SourceMetadata:
    from stemstore_schemas import Quantity

    detector = metadata.detector.model_copy(update={"name": "Timepix3"})
    changes: dict[str, Any] = {"detector": detector}
    if dwell is not None:
        known = {"dwell_time": Quantity(value=dwell, unit="s", source="user")}
        changes["acquisition"] = metadata.acquisition.model_copy(update=known)
    return metadata.model_copy(update=changes)


def _sidecar(path: Place) -> Any:
    """Keep the JSON that the acquisition program wrote beside the stream; None where there is none to read."""
    try:
        with path.with_suffix(".json").open("rb") as file:
            content = file.read(MAX_SIDECAR + 1)
        return json.loads(content) if len(content) <= MAX_SIDECAR else None
    except (OSError, ValueError, RecursionError):
        return None
