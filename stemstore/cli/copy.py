"""The verb ``copy``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from stemstore.cli import options
from stemstore.cli.output import notify, print_facts, print_json
from stemstore.cli.progress import shown
from stemstore.config import format_size

EXAMPLE = "stemstore copy scan_42.zarr s3://bucket/scan_42.zarr --resume"


def run(
    source: Annotated[str, typer.Argument(metavar="STORE", help="Path or URL, packed or not.", show_default=False)],
    destination: Annotated[str, typer.Argument(metavar="DST", help="Path or URL of the copy.", show_default=False)],
    *,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a copy to DST that was interrupted, if there is one.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a store.", rich_help_panel=options.OUTPUT)
    ] = False,
    progress: options.Progress = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Copy a store with its calibration and its saved results, and compare every checksum on the way.

    A store packed by 'stemstore pack' is unpacked. Where the copy stops there is no store under the name, and --resume
    goes on.
    """
    from stemstore.maintenance.copy import copy_store

    with shown(progress) as display:
        report = copy_store(source, destination, resume=resume, overwrite=overwrite, progress=display)
    for text in report.warnings:
        notify(f"warning: {text}")
    if as_json:
        print_json("copy", asdict(report))
        return
    kept = f", {report.n_kept} of them were there" if report.n_kept else ""
    print_facts(
        [
            ("copy", report.url),
            ("of", report.source),
            ("objects", f"{report.n_objects}{kept}"),
            ("size", format_size(report.n_bytes)),
            ("time", f"{report.seconds:.1f} s"),
        ]
    )
