"""The verb ``repair``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from stemstore.cli import options  # noqa: TC001  # typer evaluates the annotations
from stemstore.cli.output import notify, print_facts, print_json, print_line
from stemstore.cli.planned import report_facts
from stemstore.cli.progress import shown
from stemstore.errors import InputError

EXAMPLE = "stemstore repair scan_42.zarr --finish"


def run(
    destination: Annotated[
        str, typer.Argument(metavar="DST", help="Store that was to be, or its working folder.", show_default=False)
    ],
    *,
    finish: Annotated[bool, typer.Option("--finish", help="Write what is missing.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what was written.")] = False,
    progress: options.Progress = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Finish or remove a conversion that was interrupted.

    Without --finish or --remove it tells how far the conversion came, and changes nothing.
    """
    if finish and remove:
        msg = "--finish and --remove exclude each other; choose one"
        raise InputError(msg, key="--finish")
    from stemstore.conversion.repair import look_at, repair

    found = look_at(destination)
    facts = asdict(found)
    report = None
    if finish or remove:
        with shown(progress) as display:
            report = repair(found.working, remove=remove, progress=display)
    state = "removed" if remove else "finished" if finish else "unfinished"
    if as_json:
        print_json("repair", {"state": state, "found": facts, "report": None if report is None else asdict(report)})
        return
    if report is not None:
        for text in report.warnings:
            notify(f"warning: {text}")
        print_facts(report_facts(report))
        return
    if remove:
        print_line(f"removed {found.working}")
        return
    print_facts(
        [
            ("store", found.url),
            ("grows in", found.working),
            ("made from", ", ".join(found.source) or "not known"),
            ("begun", found.began),
            ("shards", f"{found.done} of {found.n_partitions} are there and whole"),
            ("go on", f"stemstore repair {destination} --finish, or --remove"),
        ]
    )
