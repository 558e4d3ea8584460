"""The verb ``edit``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from stemstore.cli import options
from stemstore.cli.output import notify, print_json, print_line
from stemstore.errors import InputError

EXAMPLE = "stemstore edit scan_42.zarr --set beam_energy='300 keV' --set acquisition.sample=MoS2 --note 'wrong session'"


def run(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Path or URL.", show_default=False)],
    *,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="New value of a field, may be repeated.", show_default=False),
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option("--unset", metavar="KEY", help="Empty a field, may be repeated.", show_default=False),
    ] = None,
    note: Annotated[str | None, typer.Option("--note", metavar="TEXT", help="Why; kept in the history.")] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take metadata that another program changed on purpose as they are.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Change metadata of a finished store; the history keeps the old values, pixels are not touched.

    Keys are those of a calibration (beam_energy, scan_step, detector_step …) or dotted, such as acquisition.sample and
    axes.kx.step. Without --set and --unset a change that was interrupted is carried through.
    """
    wanted = parse_changes(changes or [], unset or [])
    from stemstore.maintenance.edit import edit_store

    report = edit_store(store, wanted, note=note, accept=accept)
    for text in report.warnings:
        notify(f"warning: {text}")
    if as_json:
        print_json("edit", asdict(report))
        return
    if report.finished:
        print_line("an interrupted change was carried through")
    for name, values in report.changes.items():
        print_line(f"{name}: {_text(values['old'])} -> {_text(values['new'])}")
    if not report.changes:
        print_line(f"{report.url}: nothing to change")


def parse_changes(changes: list[str], unset: list[str]) -> dict[str, Any]:
    """Read ``key=value`` texts and names to be emptied.

    Raises
    ------
    InputError
        A text has no key, or one thing is said twice.
    """
    from stemstore.scan.calibration import Calibration

    found: dict[str, Any] = {}
    for text in [*changes, *(f"{name}=" for name in unset)]:
        name, sign, value = text.partition("=")
        name = name.strip()
        if not sign or not name:
            msg = f"--set {text!r} is not understood; write it as key=value, such as acquisition.sample=MoS2"
            raise InputError(msg, key="--set", found=text)
        if name in found:
            msg = f"{name!r} is given twice; leave one out"
            raise InputError(msg, key=name)
        one: dict[str, Any] = {name: value}
        if name in Calibration.names() and name not in unset:
            one = options.source_options(**one)
        found |= one
    return found | dict.fromkeys(unset)


def _text(value: Any) -> str:
    """Write a value for people."""
    if isinstance(value, dict) and {"value", "unit"} <= value.keys():
        return f"{value['value']:g} {value['unit']}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
