"""The verb ``series``."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemstore.cli import convert, options
from stemstore.cli.output import notify, print_facts, print_json, print_line, print_table
from stemstore.cli.progress import shown
from stemstore.config import format_size
from stemstore.errors import InputError, ScanWarning, SeriesIncompleteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.conversion.series.report import SeriesReport

EXAMPLE = "stemstore series day_3/ day_3.zarr --count --resume"
NOT_HERE = ("sources", "destination", "overwrite", "dry_run", "resume")  # options of ``convert`` that differ
SERIES = "Series"

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SRC", help="Folder or pattern whose entries are scans, or several scans.", show_default=False
    ),
]
Destination = Annotated[str, typer.Argument(metavar="DST", help="Path or URL of the series.", show_default=False)]
Order = Annotated[
    str | None,
    typer.Option(
        "--order",
        metavar="PLACES",
        help="Places of the scans: 0,10,20 in their order, or NAME=0,NAME=10; by default when they began.",
        rich_help_panel=SERIES,
    ),
]
OrderUnit = Annotated[
    str | None, typer.Option("--order-unit", metavar="UNIT", help="Of --order: s, deg …", rich_help_panel=SERIES)
]
Dim = Annotated[
    str | None,
    typer.Option("--dim", metavar="NAME", help="Axis of the scans: time (the default), tilt …", rich_help_panel=SERIES),
]
Title = Annotated[str | None, typer.Option("--title", help="What the experiment is called.", rich_help_panel=SERIES)]
Append = Annotated[
    bool, typer.Option("--append", help="Add scans to a series that exists.", rich_help_panel=options.RUNNING)
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with what was interrupted; scans that are in the series already are left alone.",
        rich_help_panel=options.RUNNING,
    ),
]


def run(**given: Any) -> None:
    """Convert many scans of one experiment to one series.

    Takes the options of convert, which hold for all scans. Every scan becomes a store in DST and is entered into its
    index when it is finished. A scan that fails holds up no other; exit code 1 then.
    """
    *sources, destination = options.reached([*given["sources"], given["destination"]], given["storage_option"])
    source, asked = convert.asked_for({**given, "sources": sources})
    about: dict[str, Any] = {name: given[name] for name in ("dim", "title", "append", "resume")}
    about |= {"order": parse_order(given["order"]), "unit": given["order_unit"]}
    from stemstore.conversion.series.run import convert_series

    as_json = given["as_json"]
    with shown(given["progress"]) as display, warnings.catch_warnings():
        warnings.simplefilter("ignore", ScanWarning)  # the report has them all
        try:
            report = convert_series(source, destination, progress=display, **about, **asked)
        except SeriesIncompleteError as error:
            _tell(error.context["report"])
            if not as_json:
                print_table(*_outcomes(error.context["report"]))
            raise
    _tell(report)
    if as_json:
        print_json("series", asdict(report))
        return
    print_table(*_outcomes(report))
    print_line()
    done = [scan.report for scan in report.scans if scan.report is not None]
    facts = [
        ("series", report.url),
        ("scans", f"{len(report.scans)}, {len(done)} converted in {report.seconds:.1f} s"),
        ("stored", format_size(sum(one.stored_bytes for one in done))),
    ]
    print_facts(facts)


def _tell(report: SeriesReport) -> None:
    """Tell what was odd, and what was taken for no scan."""
    for text in report.warnings:
        notify(f"warning: {text}")
    for entry in report.skipped:
        notify(f"note: '{entry}' is no scan that a reader recognises, and was left out")


def _outcomes(report: SeriesReport) -> tuple[Sequence[str], list[Sequence[str]]]:
    rows: list[Sequence[str]] = []
    for scan in report.scans:
        size = "-" if scan.report is None else format_size(scan.report.stored_bytes).split(" (", maxsplit=1)[0]
        rows.append((scan.name, scan.state, size))
    return ("SCAN", "STATE", "STORED"), rows


def parse_order(text: str | None) -> Any:
    """Read ``'0,10,20'`` or ``'a=0,b=10'``.

    Raises
    ------
    InputError
        The text is neither.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        if all("=" in part for part in parts) and parts:
            pairs = [part.rpartition("=") for part in parts]
            return {name.strip(): float(value) for name, _, value in pairs}
        return [float(part) for part in parts]
    except ValueError as error:
        msg = f"--order {text!r} is not understood; give numbers such as 0,10,20, or NAME=0,NAME=10"
        raise InputError(msg, key="--order", found=text) from error


_SHARED = [one for one in signature(convert.run, eval_str=True).parameters.values() if one.name not in NOT_HERE]
_OWN = {
    "order": (None, Order),
    "order_unit": (None, OrderUnit),
    "dim": (None, Dim),
    "title": (None, Title),
    "append": (False, Append),
    "resume": (False, Resume),
}
run.__signature__ = Signature(  # type: ignore[attr-defined]  # typer reads the options here
    [
        Parameter("sources", Parameter.KEYWORD_ONLY, annotation=Sources),
        Parameter("destination", Parameter.KEYWORD_ONLY, annotation=Destination),
        *_SHARED,
        *(Parameter(name, Parameter.KEYWORD_ONLY, default=d, annotation=a) for name, (d, a) in _OWN.items()),
    ]
)
