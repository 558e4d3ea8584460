"""The verb ``convert``."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemstore.cli import counting, options
from stemstore.cli.output import notify, print_facts, print_json, times_text
from stemstore.cli.progress import shown
from stemstore.config import format_size, memory_budget, n_workers, parse_size
from stemstore.errors import ScanWarning

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLE = "stemstore convert scan_42/ scan_42.zarr --count --scan-step '0.5 nm'"
OF_SOURCE = (
    "scan_shape",
    "flyback",
    "format_version",
    "option",
    "beam_energy",
    "semi_convergence_angle",
    "scan_step",
    "detector_step",
    "detector_center",
    "scan_rotation",
)
"""Options of readers and of the calibration."""

COUNTED_ITEMSIZE = 2  # bytes of the pixels that events are compared with


class Profile(StrEnum):
    """Compression profiles."""

    fast = "fast"
    balanced = "balanced"
    small = "small"
    raw = "raw"


class Digests(StrEnum):
    """Digests of raw files."""

    crc32c = "crc32c"
    sha256 = "sha256"
    none = "none"


def run(  # noqa: PLR0913  # one parameter per option is how typer reads them
    *,
    sources: options.Sources,
    destination: Annotated[
        str, typer.Argument(metavar="DST", help="Path or URL of the new store.", show_default=False)
    ],
    reader: options.Reader = None,
    scan_shape: options.ScanShape = None,
    flyback: options.Flyback = None,
    format_version: options.FormatVersion = None,
    option: options.Option = None,
    storage_option: options.StorageOption = None,
    count: counting.Count = None,
    rule: counting.CountingRule = counting.Rule.stemstore,
    background_threshold: counting.Background = None,
    xray_threshold: counting.XRay = None,
    background_sigma: counting.BackgroundSigma = 5.0,
    xray_sigma: counting.XRaySigma = 175.0,
    threshold: counting.Threshold = None,
    false_events_per_frame: counting.FalseEvents = None,
    dark: counting.Dark = None,
    gain: counting.Gain = None,
    row_dark: counting.RowDarkBy = counting.RowDark.none,
    bad_pixels: counting.BadPixels = None,
    mask: counting.Mask = None,
    event_columns: counting.EventColumns = None,
    beam_energy: options.BeamEnergy = None,
    semi_convergence_angle: options.Convergence = None,
    scan_step: options.ScanStep = None,
    detector_step: options.DetectorStep = None,
    detector_center: options.DetectorCenter = None,
    scan_rotation: options.ScanRotation = None,
    profile: Annotated[Profile, options.setting("--profile", "Compression.", options.OUTPUT)] = Profile.fast,
    digests: Annotated[
        Digests | None,
        options.setting("--digests", "Of the raw files; by default crc32c of those on this machine.", options.OUTPUT),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a store once the new one is done.", rich_help_panel=options.OUTPUT),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a conversion to DST that was interrupted, if there is one.",
            rich_help_panel=options.RUNNING,
        ),
    ] = False,
    workers: options.Workers = None,
    max_memory: options.MaxMemory = None,
    progress: options.Progress = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Plan only; nothing is written.", rich_help_panel=options.OUTPUT)
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Convert raw detector data to a store.

    The store appears under its name when it is finished. A conversion that is interrupted keeps its finished parts for
    --resume; one that fails leaves nothing behind.
    """
    *sources, destination = options.reached([*sources, destination], storage_option)
    source, asked = asked_for(locals())
    refuse_taken(destination, overwrite=overwrite, resume=resume)
    if dry_run:
        _show_plan(plan(source, destination, asked), as_json=as_json)
        return
    from stemstore.conversion.run import convert

    with shown(progress) as display, warnings.catch_warnings():
        warnings.simplefilter("ignore", ScanWarning)  # the report has them all
        report = convert(source, destination, overwrite=overwrite, resume=resume, progress=display, **asked)
    for text in report.warnings:
        notify(f"warning: {text}")
    if as_json:
        print_json("convert", asdict(report))
    else:
        print_facts(report_facts(report))


def asked_for(given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Turn what the command line gives into source and keyword arguments of `stemstore.convert`.

    Parameters
    ----------
    given
        Values of the parameters of `run`, by name.
    """
    columns, threshold, digests = given["event_columns"], given["threshold"], given["digests"]
    kept = ("reader", "count", "background_sigma", "xray_sigma", "false_events_per_frame", "dark", "gain")
    asked = {name: given[name] for name in (*kept, "bad_pixels", "mask")}
    asked |= {
        "rule": given["rule"].value,
        "background_threshold": counting.parse_levels(given["background_threshold"], "--background-threshold"),
        "xray_threshold": counting.parse_levels(given["xray_threshold"], "--xray-threshold"),
        "threshold": None if threshold is None else threshold.value,
        "row_dark": given["row_dark"].value,
        "event_columns": () if columns is None else tuple(name.strip() for name in columns.split(",")),
        "profile": given["profile"].value,
        "digests": None if digests is None else digests.value,
        "workers": n_workers() if given["workers"] is None else given["workers"],
        "max_memory": memory_budget() if given["max_memory"] is None else parse_size(given["max_memory"]),
    }
    sources = given["sources"]
    further = options.source_options(**{name: given[name] for name in OF_SOURCE})
    return sources[0] if len(sources) == 1 else sources, asked | further


def plan(source: Any, destination: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a conversion would do, after its sampling of frames; nothing is written.

    Parameters
    ----------
    source, destination, asked
        As for `stemstore.convert`.

    Raises
    ------
    StemStoreError
        As for `stemstore.convert`.
    """
    from stemstore.conversion.job import decide
    from stemstore.conversion.plan import CountedPlan
    from stemstore.store.layout import dump_layout

    prepared = decide(source, asked)
    made, document = prepared.plan, prepared.document
    counted = isinstance(made, CountedPlan)
    raw = math.prod(document.shape) * getattr(getattr(made.source, "dtype", None), "itemsize", COUNTED_ITEMSIZE)
    # Chunks of a counted store are as wide as a block is expected to fill
    held = (
        made.layout.n_blocks * made.layout.slots_per_chunk * made.layout.slot_bytes
        if isinstance(made, CountedPlan)
        else raw
    )
    thresholds = made.counter.thresholds if isinstance(made, CountedPlan) and made.counter is not None else None
    return {
        "destination": destination,
        "profile": "counted" if counted else "dense",
        "axes": [
            {"name": axis.name, "size": axis.size, "unit": axis.unit, "step": axis.step} for axis in document.axes
        ],
        "shape": document.shape,
        "layout": dump_layout(made.layout),
        "n_shards": made.layout.n_partitions,
        "raw_bytes": raw,
        "bytes_before_compression": held,
        "thresholds": None if thresholds is None else asdict(thresholds),
        "workers": made.workers,
        "memory": made.memory,
        "frames": document.frames.model_dump(),
        "warnings": [*made.source.metadata.warnings, *prepared.odd.all],
    }


def refuse_taken(destination: str, *, overwrite: bool, resume: bool = False) -> None:
    """Find out at once, and not after the sampling of frames, that the destination is taken."""
    from stemstore.store.destination import check_free
    from stemstore.store.urls import open_storage

    if resume:
        from stemstore.conversion.steps import unfinished

        if unfinished(destination):
            return
    check_free(open_storage(destination), overwrite=overwrite)


def _show_plan(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json("convert", {"dry_run": True, **found})
        return
    layout = found["layout"]
    if found["profile"] == "dense":
        pieces = f"chunks {_by(layout['chunk'])}, shards {_by(layout['shard'])}"
    else:
        pieces = f"blocks of {layout['frames_per_block']} frames, {layout['blocks_per_shard']} blocks a shard"
    rows = [
        ("would write", f"{found['destination']} ({found['profile']})"),
        ("shape", _by(found["shape"])),
        ("layout", pieces),
        ("shards", f"{found['n_shards']} or more" if found["profile"] == "counted" else str(found["n_shards"])),
        ("pixels", format_size(found["raw_bytes"])),
        ("to compress", f"about {format_size(found['bytes_before_compression'])}"),
        ("memory", f"{format_size(found['memory'])} with {found['workers']} threads"),
    ]
    if found["thresholds"] is not None:
        rows.append(("thresholds", counting.thresholds_text(found["thresholds"])))
    print_facts(rows)
    for text in found["warnings"]:
        notify(f"warning: {text}")


def report_facts(report: Any) -> list[tuple[str, str]]:
    """Tell of a finished conversion in labels and texts."""
    ratio = report.raw_bytes / max(1, report.stored_bytes)
    rate = report.raw_bytes / 1e6 / max(1e-9, report.seconds)
    rows = [
        ("store", f"{report.url} ({report.profile})"),
        ("shape", _by(report.shape)),
        ("frames", ", ".join(f"{number} {name}" for name, number in report.frames.items() if number)),
        ("size", f"{format_size(report.stored_bytes)}, compressed {times_text(ratio)}"),
        ("time", f"{report.seconds:.1f} s, {rate:.0f} MB/s of pixels, {report.workers} threads"),
    ]
    if report.n_events is not None:
        recorded = max(1, report.frames["valid"] + report.frames["partial"])
        rows.append(("electrons", f"{report.n_events}, {report.n_events / recorded:.4g} per frame"))
    if report.thresholds is not None:
        rows.append(("thresholds", counting.thresholds_text(report.thresholds)))
    return rows


def _by(shape: Any) -> str:
    return " x ".join(map(str, shape))
