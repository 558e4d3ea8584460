"""The verb ``validate``."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from stemstore.cli import options  # noqa: TC001  # typer evaluates the annotations
from stemstore.cli.exit import FAILED
from stemstore.cli.output import print_json, print_line
from stemstore.cli.progress import shown

EXAMPLE = "stemstore validate scan_42.zarr --deep"


class Profile(StrEnum):
    """What a store may be checked for."""

    core = "core"
    web = "web"


def run(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Path or URL.", show_default=False)],
    *,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte and compare the checksums.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings as well.")] = False,
    profile: Annotated[
        Profile, typer.Option("--profile", help="web: also whether browsers get on with it.")
    ] = Profile.core,
    progress: options.Progress = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Check that a store is whole and that what it says fits together.

    Exit code 0 where it is valid and 1 where it is not.
    """
    from stemstore.maintenance.validate import validate

    with shown(progress) as display:
        found = validate(store, deep=deep, profile=profile.value, progress=display)
    failed = bool(found.findings if strict else found.errors)
    if as_json:
        facts = asdict(found) | {"valid": not failed}
        print_json("validate", facts)
    else:
        for finding in found.findings:
            print_line(f"{finding.severity}: {finding.key}: {finding.message}")
        looked = "every byte was read" if deep else "no pixel was read"
        print_line(f"{found.url}: {'not valid' if failed else 'valid'} ({looked})")
    if failed:
        raise typer.Exit(FAILED)
