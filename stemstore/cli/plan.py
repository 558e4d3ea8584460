"""The verb ``plan``: the first of three steps by which many jobs convert one scan."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

import typer

from stemstore.cli import convert, options, planned
from stemstore.cli.output import notify, print_facts, print_json
from stemstore.config import format_size
from stemstore.errors import ScanWarning

EXAMPLE = "stemstore plan scan_42/ scan_42.zarr --count --tasks 16"
NOT_HERE = ("resume", "dry_run", "progress")  # options of ``convert`` that mean nothing to a plan

Tasks = Annotated[
    int | None,
    typer.Option(
        "--tasks", "-n", help="Jobs that write; as many as shards by default.", rich_help_panel=options.RUNNING
    ),
]


def run(**given: Any) -> None:
    """Begin a conversion that many jobs write.

    Takes the options of convert. Then run 'stemstore partition DST I' for I from 0, on any machines that see source and
    destination and in any order, and 'stemstore finalise DST' at the end.
    """
    source, asked = convert.asked_for(given)
    planned.refuse_taken(given["destination"], overwrite=given["overwrite"])
    from stemstore.conversion.parts import plan_conversion

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScanWarning)  # the plan has them all
        made = plan_conversion(
            source, given["destination"], tasks=given["tasks"], overwrite=given["overwrite"], **asked
        )
    for text in made.warnings:
        notify(f"warning: {text}")
    if given["as_json"]:
        print_json("plan", asdict(made))
        return
    last = made.n_tasks - 1
    print_facts(
        [
            ("store", f"{made.url} ({made.profile})"),
            ("shape", " x ".join(map(str, made.shape))),
            ("shards", str(made.n_partitions)),
            ("memory", f"{format_size(made.memory)} with {made.workers} threads, for each job"),
            ("jobs", f"stemstore partition {given['destination']} I, with I from 0 to {last}"),
            ("then", f"stemstore finalise {given['destination']}"),
        ]
    )


_SHARED = [one for one in signature(convert.run, eval_str=True).parameters.values() if one.name not in NOT_HERE]
run.__signature__ = Signature(  # type: ignore[attr-defined]  # typer reads the options here
    [*_SHARED, Parameter("tasks", Parameter.KEYWORD_ONLY, default=None, annotation=Tasks)]
)
