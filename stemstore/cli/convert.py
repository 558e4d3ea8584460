"""The verb ``convert``."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemstore.cli import counting, layouts, options, planned
from stemstore.cli.output import notify, print_facts, print_json
from stemstore.cli.progress import shown
from stemstore.config import memory_budget, n_workers, parse_size
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
    profile: Annotated[
        layouts.Profile, options.setting("--profile", "Compression.", options.OUTPUT)
    ] = layouts.Profile.fast,
    layout: layouts.LayoutOption = None,
    chunks: layouts.Chunks = None,
    shards: layouts.Shards = None,
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
    planned.refuse_taken(destination, overwrite=overwrite, resume=resume)
    if dry_run:
        from stemstore.conversion.job import decide

        planned.show("convert", planned.facts(decide(source, asked), destination), as_json=as_json)
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
        print_facts(planned.report_facts(report))


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
        **layouts.parse(given["layout"], given["chunks"], given["shards"]),
        "digests": None if digests is None else digests.value,
        "workers": n_workers() if given["workers"] is None else given["workers"],
        "max_memory": memory_budget() if given["max_memory"] is None else parse_size(given["max_memory"]),
    }
    sources = given["sources"]
    further = options.source_options(**{name: given[name] for name in OF_SOURCE})
    return sources[0] if len(sources) == 1 else sources, asked | further
