"""The verb ``partition``: one of many jobs that convert one scan."""

from __future__ import annotations

from typing import Annotated

import typer

from stemstore.cli import options  # noqa: TC001  # typer evaluates the annotations
from stemstore.cli.output import print_json, print_line
from stemstore.cli.progress import shown

EXAMPLE = "stemstore partition scan_42.zarr 3"


def run(
    destination: Annotated[str, typer.Argument(metavar="DST", help="As given to plan.", show_default=False)],
    task: Annotated[
        int,
        typer.Argument(
            metavar="I", help="Number of the job, from 0.", envvar="SLURM_ARRAY_TASK_ID", show_default=False
        ),
    ],
    *,
    workers: options.Workers = None,
    progress: options.Progress = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Write one job's part of a planned conversion.

    What is there and whole is not written again, so that a job may be repeated. In an array job of Slurm the number is
    that of the array task.
    """
    from stemstore.conversion.parts import convert_partition

    with shown(progress) as display:
        written = convert_partition(destination, task, workers=workers, progress=display)
    if as_json:
        print_json("partition", {"destination": destination, "task": task, "written": written})
    else:
        print_line(f"job {task}: wrote {len(written)} shards")
