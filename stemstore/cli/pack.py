"""The verb ``pack``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from stemstore.cli import options
from stemstore.cli.output import notify, print_facts, print_json
from stemstore.cli.progress import shown
from stemstore.config import format_size

EXAMPLE = "stemstore pack scan_42.zarr scan_42.zarr.zip"


def run(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Path or URL.", show_default=False)],
    destination: Annotated[
        str | None, typer.Argument(metavar="[ZIP]", help="File to write; STORE.zip when left out.", show_default=False)
    ] = None,
    *,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a file once the new one is done.", rich_help_panel=options.OUTPUT),
    ] = False,
    progress: options.Progress = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Pack a store into one file that opens in place.

    Nothing is compressed anew. 'stemstore copy' unpacks it.
    """
    from stemstore.maintenance.pack import pack_store

    with shown(progress) as display:
        report = pack_store(store, destination, overwrite=overwrite, progress=display)
    for text in report.warnings:
        notify(f"warning: {text}")
    if as_json:
        print_json("pack", asdict(report))
        return
    print_facts(
        [
            ("file", report.url),
            ("of", report.source),
            ("objects", str(report.n_objects)),
            ("size", format_size(report.n_bytes)),
            ("time", f"{report.seconds:.1f} s"),
        ]
    )
