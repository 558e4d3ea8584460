"""The verb ``demo``."""

from __future__ import annotations

from typing import Annotated

import typer

from stemstore.cli import options
from stemstore.cli.output import print_json, print_line
from stemstore.cli.progress import shown
from stemstore.errors import InputError

EXAMPLE = "stemstore demo demo/"
SCAN_AXES = 2


def run(
    *,
    folder: Annotated[str, typer.Argument(help="Folder to work in; made when it is not there.")] = "stemstore-demo",
    scan_shape: options.ScanShape = "40x40",
    dose: Annotated[float, typer.Option(help="Electrons per frame.", min=1.0, envvar="STEMSTORE_DOSE")] = 120.0,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.", min=0, envvar="STEMSTORE_SEED")] = 7,
    progress: options.Progress = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Simulate, convert and analyse a scan; compare with the truth.

    Prints the path of the report.
    """
    shape = options.parse_shape(scan_shape or "", "--scan-shape")
    if len(shape) != SCAN_AXES:
        msg = f"--scan-shape {scan_shape!r} has {len(shape)} numbers; give rows and columns such as 40x40"
        raise InputError(msg, key="--scan-shape", found=shape)
    with shown(progress) as display:
        from pathlib import Path

        from stemstore.demo.run import run_demo

        report = run_demo(Path(folder), scan_shape=(shape[0], shape[1]), dose=dose, seed=seed, progress=display)
    if as_json:
        print_json("demo", {"report": report})
    else:
        print_line(str(report))
