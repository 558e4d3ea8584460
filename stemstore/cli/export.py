"""The verb ``export``."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from stemstore.cli import options
from stemstore.cli.output import notify, print_facts, print_json
from stemstore.cli.progress import shown
from stemstore.config import format_size

if TYPE_CHECKING:
    from stemstore.exchange.reference_export import ReferenceReport
    from stemstore.exchange.run import ExportReport

EXAMPLE = "stemstore export scan_42.zarr scan_42.h5 --to stempy"
PLACE = "File to write: .h5, .toml or .json; folder: .parquet or .icechunk."


class Format(StrEnum):
    """Formats to export to."""

    stempy = "stempy"
    raw_csr = "raw-csr"
    kerchunk = "kerchunk"
    icechunk = "icechunk"


def run(  # noqa: PLR0913  # one parameter per option is how typer reads them
    source: options.Scan,
    destination: Annotated[str, typer.Argument(metavar="DST", help=PLACE, show_default=False)],
    *,
    to: Annotated[
        Format | None,
        options.setting("--to", "By the extension of DST when left out.", options.OUTPUT),
    ] = None,
    drop_flyback: Annotated[
        bool,
        typer.Option(
            "--drop-flyback",
            help="Leave out the columns recorded while the beam flew back.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace files of an earlier export once the new ones are done.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    prefix: Annotated[
        str | None,
        options.setting(
            "--prefix", "References: what URLs begin with instead of the folder of the files.", options.OUTPUT, "URL"
        ),
    ] = None,
    reader: options.Reader = None,
    scan_shape: options.ScanShape = None,
    flyback: options.Flyback = None,
    format_version: options.FormatVersion = None,
    option: options.Option = None,
    progress: options.Progress = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Write a counted scan for another program, or references to frames.

    stempy (counted HDF5, version 3) or LiberTEM (RAW_CSR). What is known of the scan and has no place in the format is
    listed; an export that fails leaves nothing behind.

    References (kerchunk, Icechunk) let any program that reads Zarr open raw files or a dense store where they lie; no
    pixel is copied.
    """
    given = options.source_options(scan_shape=scan_shape, flyback=flyback, format_version=format_version, option=option)
    from stemstore.exchange.run import export

    with shown(progress) as display:
        report = export(
            source,
            destination,
            to=None if to is None else to.value,
            reader=reader,
            flyback=not drop_flyback,
            overwrite=overwrite,
            prefix=prefix,
            progress=display,
            **given,
        )
    for text in report.warnings:
        notify(f"warning: {text}")
    if as_json:
        print_json("export", asdict(report))
    else:
        print_facts(_facts(report))


def _facts(report: ExportReport | ReferenceReport) -> list[tuple[str, str]]:
    from stemstore.exchange.reference_export import ReferenceReport

    what = _references(report) if isinstance(report, ReferenceReport) else _events(report)
    return [("file", f"{report.url} ({report.format})"), *what, *(("note", text) for text in report.notes)]


def _references(report: ReferenceReport) -> list[tuple[str, str]]:
    more = f" and {len(report.files) - 1} more" if len(report.files) > 1 else ""
    return [
        *(("refers to", f"{path}{more}") for path in report.files[:1]),
        ("shape", " x ".join(map(str, report.shape))),
        ("chunk", " x ".join(map(str, report.chunk))),
        ("references", str(report.n_references)),
        *([("missing", str(report.n_missing))] if report.n_missing else []),
        ("size", format_size(report.n_bytes)),
        ("time", f"{report.seconds:.1f} s"),
    ]


def _events(report: ExportReport) -> list[tuple[str, str]]:
    return [
        *(("beside it", path) for path in report.files[:-1]),
        ("shape", " x ".join(map(str, report.shape))),
        ("electrons", str(report.n_events)),
        ("size", format_size(report.n_bytes)),
        ("time", f"{report.seconds:.1f} s"),
        *(("not carried", text) for text in report.not_carried),
    ]
