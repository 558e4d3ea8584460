"""The verb ``demo``."""

from __future__ import annotations

from typing import Annotated

import typer

from stemstore.cli import options
from stemstore.cli.exit import FAILED
from stemstore.cli.output import notify, print_json, print_line, print_table
from stemstore.cli.progress import shown
from stemstore.errors import InputError

EXAMPLE = "stemstore demo demo/"
SCAN_AXES = 2


def run(
    *,
    folder: Annotated[str, typer.Argument(help="Folder to work in; made when it is not there.")] = "stemstore-demo",
    scan_shape: options.ScanShape = "40x40",
    dose: Annotated[float, typer.Option(help="Electrons per frame.", min=1.0, envvar="STEMSTORE_DOSE")] = 120.0,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.", min=0, envvar="STEMSTORE_SEED")] = 0,
    progress: options.Progress = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Simulate, convert and analyse a scan; compare with the truth.

    Prints every check and the path of the report; the exit code is 1 where a result disagrees.
    """
    shape = options.parse_shape(scan_shape or "", "--scan-shape")
    if len(shape) != SCAN_AXES:
        msg = f"--scan-shape {scan_shape!r} has {len(shape)} numbers; give rows and columns such as 40x40"
        raise InputError(msg, key="--scan-shape", found=shape)
    with shown(progress) as display:
        from pathlib import Path

        from stemstore.demo.run import run_demo

        result = run_demo(Path(folder), scan_shape=(shape[0], shape[1]), dose=dose, seed=seed, progress=display)
    if as_json:
        print_json("demo", {"report": result.report, "holds": result.holds, "checks": result.checks})
    else:
        rows = [(check.name, check.measured, check.expected, "yes" if check.holds else "NO") for check in result.checks]
        print_table(("RESULT", "MEASURED", "EXPECTED", "HOLDS"), rows)
        print_line(str(result.report))
    if not result.holds:
        notify("some results do not agree with the truth; see the report")
        raise typer.Exit(FAILED)
