"""The verb ``verify``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from stemstore.cli import options
from stemstore.cli.exit import FAILED
from stemstore.cli.output import notify, print_json, print_line
from stemstore.cli.progress import shown

EXAMPLE = "stemstore verify scan_42.zarr scan_42/"


def run(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Path or URL.", show_default=False)],
    source: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SRC]", help="What it was made from; by its history when left out.", show_default=False
        ),
    ] = None,
    *,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="Option of the conversion in place of what the history says, such as dark=dark.npy; may be repeated.",
            rich_help_panel=options.SOURCE,
        ),
    ] = None,
    workers: options.Workers = None,
    max_memory: options.MaxMemory = None,
    progress: options.Progress = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Compare a store with its source, every pixel or every electron.

    Frames are read and counted again as the history of the store says. Exit code 0 where both are the same and 1 where
    they are not.
    """
    given = options.parse_assignments(option or [])
    from stemstore.conversion.verify import verify

    named = None if not source else source[0] if len(source) == 1 else source
    with shown(progress) as display:
        found = verify(store, named, workers=workers, max_memory=max_memory, progress=display, **given)
    for text in found.notes:
        notify(f"note: {text}")
    if as_json:
        print_json("verify", asdict(found) | {"equal": found.equal})
    else:
        if found.first is not None:
            print_line(str(found.first))
        differs = f"{found.n_different} of {found.n_frames} frames differ from the source"
        print_line(f"{found.url}: {f'all {found.n_frames} frames are those of the source' if found.equal else differs}")
    if not found.equal:
        raise typer.Exit(FAILED)
