"""What data are, before anything is done with them: read from headers, said in plain text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.conversion.counting.figure import draw_thresholds
from stemstore.conversion.counting.probe import Probe, probe
from stemstore.conversion.document import count_frames_by_state
from stemstore.conversion.inspection import Inspection
from stemstore.errors import StemStoreError
from stemstore.scan.addresses import addresses
from stemstore.scan.calibration import Calibration, complete_axes, stated_acquisition, stated_axis
from stemstore.scan.opening import store_at
from stemstore.sources.contract import EventSource
from stemstore.sources.geometry import raw_bytes
from stemstore.store.address import reach

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from stemstore.sources.contract import Source
    from stemstore.store.open import StoredScan
    from stemstore_schemas import (
        Acquisition,
        Axis,
        CalibrationValues,
        CountingDescription,
        FrameCounts,
        SourceMetadata,
    )

SPARSE = 0.1  # events per pixel below which a list of events is smaller than compressed frames
QUANTITIES = ("beam_energy", "semi_convergence_angle", "camera_length", "dwell_time", "scan_rotation")
STEPS = {"scan_step": ("y", "x"), "detector_step": ("ky", "kx")}


def inspect(
    url: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    reader: str | None = None,
    *,
    sample: bool = False,
    plot: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Inspection:
    """Tell what data are from their headers, without reading a pixel.

    Parameters
    ----------
    url
        A store (path or URL), a raw file, a folder, or a list of files of one scan.
    reader
        Name of the format of raw data; found by content when left out.
    sample
        Read at most 8 frames as well, to estimate how many electrons a frame holds and where thresholds would lie.
    plot
        File for a picture of the pixel values of these frames, with noise peak and thresholds; its ending decides the
        format. Implies `sample`; raw frames only.
    storage_options
        For fsspec's file system of a URL, such as ``{"anon": True}``; they are kept in no text.
    **options
        Calibration and options of the reader, as in `stemstore.open`.

    Returns
    -------
    inspection
        Prints as plain text.

    Raises
    ------
    InputError
        An option is not understood, or a store was given one; a plot of what holds no noise was asked for;
        `storage_options` for what is no URL.
    UnknownFormatError, AmbiguousFormatError, NotFoundError, CorruptDataError, FormatVersionError
        The data cannot be read.

    Examples
    --------
    >>> import stemstore
    >>> print(stemstore.inspect("scan_42/"))  # doctest: +SKIP
    """
    from stemstore.sources.registry import explain, open_source

    calibration, reader_options = Calibration.split(options)
    paths = addresses(reach(url, storage_options))
    stored = None if reader is not None else store_at(paths, reader_options, allow_incomplete=True)
    if stored is not None:
        seen = _probe_store(stored, paths[0], plot) if sample or plot is not None else Probe()
        return _of_store(paths[0], stored, calibration, seen)
    place = paths[0] if len(paths) == 1 else paths
    claims = {} if reader is not None else {claim.reader: claim.confidence for claim in explain(place)}
    source = open_source(place, reader=reader, **reader_options)
    chosen = reader or max(claims, key=lambda name: claims[name])
    return _of_source(paths[0], source, chosen, claims, calibration, sample=sample, plot=plot)


def _probe_store(stored: StoredScan, url: str, plot: str | os.PathLike[str] | None) -> Probe:
    """Count a few frames of a dense store; a counted one knows its electrons."""
    from stemstore.scan.stored import FramesOfStore, describe_store
    from stemstore.store.arrays import StoredFrames

    seen = Probe()
    if isinstance(stored, StoredFrames):
        frames: Any = FramesOfStore(stored, describe_store(stored))
        seen = probe(frames)
    if plot is not None:
        draw_thresholds(seen, plot, url)
    return seen


def _of_store(url: str, stored: StoredScan, calibration: Calibration, seen: Probe) -> Inspection:
    from stemstore.store.commit import read_commit

    document = stored.document
    saved, told = _saved_values(stored)
    values = saved.merged(calibration.values())
    acquisition = stated_acquisition(document.acquisition, values)
    shape = document.shape
    frames = document.frames
    commit = read_commit(stored.head.storage) if stored.head.complete else None
    known, missing = _calibrated(document.axes, shape, acquisition, values)
    counted = document.profile == "counted"
    rate = _stored_rate(stored, frames) if counted else seen.rate
    advice = [] if stored.head.complete else ["run the conversion again; the frames so far open with allow_incomplete"]
    return Inspection(
        url=url,
        kind="store",
        reader=None,
        claims={},
        scan_shape=shape[:-2],
        frame_shape=(shape[-2], shape[-1]),
        scan_shape_source=acquisition.scan_shape_source,
        scan_shape_alternatives=[tuple(other) for other in acquisition.scan_shape_alternatives],
        flyback_columns=acquisition.flyback_columns,
        dtype=None if counted else str(stored.dtype),
        raw_bytes=raw_bytes(shape, None if counted else stored.dtype),
        file_bytes=None if commit is None else commit.n_bytes,
        files=[],
        frames=frames.model_dump(),
        complete=stored.head.complete,
        known=known,
        missing=missing,
        events_per_frame=rate,
        occupancy=None if rate is None else rate / math.prod(shape[-2:]),
        thresholds=_stored_thresholds(document.counting) if counted else _summary(seen),
        warnings=[text for entry in document.history for text in entry.warnings] + told,
        advice=advice + _calibration_advice(missing),
    )


def _saved_values(stored: StoredScan) -> tuple[CalibrationValues, list[str]]:
    """Read what was saved about the scan; a calibration that cannot be read is told and does not count."""
    from stemstore.store.calibration import read_calibration
    from stemstore_schemas import CalibrationValues

    try:
        return read_calibration(stored).values, []
    except StemStoreError as error:
        return CalibrationValues(), [str(error)]


def _stored_rate(stored: StoredScan, frames: FrameCounts) -> float | None:
    counting = stored.document.counting
    recorded = frames.valid + frames.partial
    return None if counting is None or counting.n_events is None or not recorded else counting.n_events / recorded


def _stored_thresholds(counting: CountingDescription | None) -> dict[str, Any] | None:
    if counting is None or counting.background_threshold is None:
        return None
    levels = counting.background_threshold
    return {
        "background": levels[0] if len(levels) == 1 else levels,
        "xray": counting.xray_threshold,
        "pedestal_mean": counting.pedestal_mean,
        "pedestal_sigma": counting.pedestal_sigma,
        "false_events_per_frame": counting.false_events_per_frame,
    }


def _summary(seen: Probe) -> dict[str, Any] | None:
    return None if seen.thresholds is None else seen.thresholds.summary()


def _of_source(
    url: str,
    source: Source,
    reader: str,
    claims: dict[str, float],
    calibration: Calibration,
    *,
    sample: bool,
    plot: str | os.PathLike[str] | None,
) -> Inspection:
    metadata = source.metadata
    acquisition = calibration.acquisition(metadata.acquisition)
    shape = (*source.scan_shape, *source.frame_shape)
    known, missing = _calibrated(metadata.axes, shape, acquisition, calibration.values())
    counted = isinstance(source, EventSource)
    dtype = None if counted else np.dtype(getattr(source, "dtype", np.uint16))
    seen = probe(source) if sample or plot is not None else Probe()
    if plot is not None:
        draw_thresholds(seen, plot, url)
    rate = seen.rate
    return Inspection(
        url=url,
        kind="events" if counted else "frames",
        reader=reader,
        claims=claims,
        scan_shape=tuple(source.scan_shape),
        frame_shape=source.frame_shape,
        scan_shape_source=acquisition.scan_shape_source,
        scan_shape_alternatives=[tuple(other) for other in acquisition.scan_shape_alternatives],
        flyback_columns=acquisition.flyback_columns,
        dtype=None if dtype is None else str(dtype),
        raw_bytes=raw_bytes(shape, dtype),
        file_bytes=sum(file.size for file in metadata.files) if metadata.files else None,
        files=[file.path for file in metadata.files],
        frames=count_frames_by_state(source).model_dump(),
        complete=True,
        known=known,
        missing=missing,
        events_per_frame=rate,
        occupancy=None if rate is None else rate / math.prod(source.frame_shape),
        thresholds=_summary(seen),
        warnings=list(metadata.warnings),
        advice=_advice(source, metadata, rate) + _calibration_advice(missing),
    )


def _calibrated(
    axes: list[Axis], shape: tuple[int, ...], acquisition: Acquisition, values: CalibrationValues
) -> tuple[dict[str, str], list[str]]:
    """Split the physical values into those that are known, as text, and the names of the others."""
    known: dict[str, str] = {}
    for name in QUANTITIES:
        quantity = getattr(acquisition, name)
        if quantity is not None:
            known[name] = f"{quantity.value:g} {quantity.unit} (from {quantity.source})"
    steps_alone = values.model_copy(update={"detector_center": None})  # a centre may be stated before any step is
    bare = complete_axes(axes, shape, acquisition)
    complete = {axis.name: stated_axis(axis, steps_alone, acquisition) for axis in bare}
    for name, pair in STEPS.items():
        found = [complete[axis] for axis in pair if axis in complete and complete[axis].unit != "pixel"]
        if found:
            steps = dict.fromkeys(f"{axis.step:.4g} {axis.unit}" for axis in found)
            known[name] = f"{' and '.join(steps)} (from {found[0].source})"
    return known, [name for name in (*QUANTITIES, *STEPS) if name not in known]


def _calibration_advice(missing: list[str]) -> list[str]:
    needed = [name for name in ("beam_energy", "scan_step", "detector_step") if name in missing]
    if not needed:
        return []
    return [f"state {', '.join(needed)} when opening or converting; without them axes are in pixels or angles"]


def _advice(source: Source, metadata: SourceMetadata, rate: float | None) -> list[str]:
    advice = []
    if metadata.acquisition.scan_shape_source == "guessed":
        advice.append("the scan shape is a guess; state it with scan_shape")
    elif len(source.scan_shape) == 1:
        advice.append("the frames are a flat stack; state the scan shape with scan_shape")
    if rate and rate < SPARSE * math.prod(source.frame_shape):
        advice.append(f"about {rate:.3g} electrons per frame: converting with counting gives a small store")
    return advice
