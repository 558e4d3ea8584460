"""The verb ``inspect``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from stemstore.cli import options
from stemstore.cli.output import print_facts, print_json

EXAMPLE = "stemstore inspect scan_42/ --sample"


def run(  # noqa: PLR0913  # one parameter per option is how typer reads them
    *,
    sources: options.Sources,
    reader: options.Reader = None,
    scan_shape: options.ScanShape = None,
    flyback: options.Flyback = None,
    format_version: options.FormatVersion = None,
    option: options.Option = None,
    storage_option: options.StorageOption = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Count the electrons of 8 frames.", rich_help_panel=options.SOURCE)
    ] = False,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot",
            help="Picture of the pixel values of 8 frames, with noise peak and thresholds: .png, .pdf or .svg.",
            metavar="FILE",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell what data are, from their headers.

    Format, shape, size, calibration, oddities, and what to do next; from a sample also the share of lit pixels, the
    noise and the thresholds that counting would take.
    """
    given = options.source_options(scan_shape=scan_shape, flyback=flyback, format_version=format_version, option=option)
    from stemstore.conversion.inspect import inspect

    urls = options.reached(sources, storage_option)
    found = inspect(urls[0] if len(urls) == 1 else urls, reader, sample=sample, plot=plot, **given)
    if as_json:
        print_json("inspect", asdict(found))
    else:
        print_facts(found.facts())
