"""The verb ``inspect``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from stemstore.cli import options
from stemstore.cli.output import print_facts, print_json

EXAMPLE = "stemstore inspect scan_42/ --sample"


def run(
    *,
    sources: options.Sources,
    reader: options.Reader = None,
    scan_shape: options.ScanShape = None,
    flyback: options.Flyback = None,
    format_version: options.FormatVersion = None,
    option: options.Option = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Count the electrons of 8 frames.", rich_help_panel=options.SOURCE)
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Tell what data are, from their headers.

    Format, shape, size, calibration, oddities, and what to do next.
    """
    given = options.source_options(scan_shape=scan_shape, flyback=flyback, format_version=format_version, option=option)
    from stemstore.conversion.inspect import inspect

    found = inspect(sources[0] if len(sources) == 1 else sources, reader, sample=sample, **given)
    if as_json:
        print_json("inspect", asdict(found))
    else:
        print_facts(found.facts())
