"""The verb ``crate``."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from stemstore.cli import options
from stemstore.cli.output import notify, print_json, print_line

EXAMPLE = "stemstore crate scans/scan_42.zarr -o scans"


class Format(StrEnum):
    """Formats of provenance."""

    ro_crate = "ro-crate"
    prov_json = "prov-json"


def run(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Path or URL.", show_default=False)],
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder or file to write; best the folder that holds the store. Printed otherwise.",
            metavar="PATH",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    form: Annotated[
        Format, options.setting("--format", "RO-Crate metadata, or W3C PROV.", options.OUTPUT)
    ] = Format.ro_crate,
    licence: Annotated[
        str | None, options.setting("--licence", "URI of the licence of the data, for ro-crate.", options.OUTPUT, "URI")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that exists.", rich_help_panel=options.OUTPUT)
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Tell other programs where a store and its results come from.

    Every operation of the histories, its software, parameters, inputs with their digests, and what it made.
    """
    from pathlib import Path

    from stemstore.maintenance.crate import crate, describe_crate

    if output is None:
        document = describe_crate(store, Path.cwd(), format=form.value, licence=licence)
        if as_json:
            print_json("crate", {"store": store, "format": form.value, "output": None, "document": document})
        else:
            print_line(json.dumps(document, indent=2, ensure_ascii=False))
        return
    written = crate(store, output, format=form.value, licence=licence, overwrite=overwrite)
    if as_json:
        print_json("crate", {"store": store, "format": form.value, "output": written})
    else:
        notify(f"wrote {written}")
