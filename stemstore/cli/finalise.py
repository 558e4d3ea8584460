"""The verb ``finalise``: the last of three steps by which many jobs convert one scan."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from stemstore.cli import options  # noqa: TC001  # typer evaluates the annotations
from stemstore.cli.output import notify, print_facts, print_json
from stemstore.cli.planned import report_facts

EXAMPLE = "stemstore finalise scan_42.zarr"


def run(
    destination: Annotated[str, typer.Argument(metavar="DST", help="As given to plan.", show_default=False)],
    *,
    as_json: options.AsJson = False,
) -> None:
    """Finish a planned conversion once all jobs are done.

    Shards that are missing are listed, and nothing is lost: repeat their jobs and finalise again.
    """
    from stemstore.conversion.parts import finalise_conversion

    report = finalise_conversion(destination)
    for text in report.warnings:
        notify(f"warning: {text}")
    if as_json:
        print_json("finalise", asdict(report))
    else:
        print_facts(report_facts(report))
