"""The verb ``rechunk``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from stemstore.cli import layouts, options, planned
from stemstore.cli.output import notify, print_facts, print_json
from stemstore.cli.progress import shown
from stemstore.config import memory_budget, n_workers, parse_size

EXAMPLE = "stemstore rechunk scan_42.zarr tiles.zarr --layout tiled"


def run(  # noqa: PLR0913  # one parameter per option is how typer reads them
    store: Annotated[str, typer.Argument(metavar="STORE", help="Path or URL of a store.", show_default=False)],
    destination: Annotated[
        str, typer.Argument(metavar="DST", help="Path or URL of the new store.", show_default=False)
    ],
    *,
    profile: Annotated[
        layouts.Profile | None,
        options.setting("--profile", "Compression; that of the store by default.", options.OUTPUT),
    ] = None,
    layout: layouts.LayoutOption = None,
    chunks: layouts.Chunks = None,
    shards: layouts.Shards = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace a store once the new one is done.", rich_help_panel=options.OUTPUT),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with what was begun to DST and interrupted, if there is anything.",
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
    """Write a store anew with other chunks, shards or codecs, and everything else as it is.

    Pixels or events, axes, calibration, history and saved results go over; the new store names the old one, which
    stays. Chunks and shards that are not given stay as well.
    """
    asked: dict[str, Any] = {
        "profile": None if profile is None else profile.value,
        **layouts.parse(layout, chunks, shards),
        "workers": n_workers() if workers is None else workers,
        "max_memory": memory_budget() if max_memory is None else parse_size(max_memory),
    }
    from stemstore.conversion.rechunk import decide_rechunk, rechunk_store, refuse_in_place

    refuse_in_place(store, destination)
    planned.refuse_taken(destination, overwrite=overwrite, resume=resume)
    if dry_run:
        planned.show("rechunk", planned.facts(decide_rechunk(store, asked), destination), as_json=as_json)
        return
    with shown(progress) as display:
        report = rechunk_store(store, destination, overwrite=overwrite, resume=resume, progress=display, **asked)
    for text in report.warnings:
        notify(f"warning: {text}")
    if as_json:
        print_json("rechunk", asdict(report))
    else:
        print_facts(planned.report_facts(report))
