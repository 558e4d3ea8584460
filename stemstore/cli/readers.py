"""The verb ``readers``."""

from __future__ import annotations

from typing import Any

from stemstore.cli import options  # noqa: TC001  # typer evaluates the annotations
from stemstore.cli.output import notify, print_json, print_table

EXAMPLE = "stemstore readers"


def run(as_json: options.AsJson = False) -> None:
    """List the formats that can be read."""
    from stemstore.sources.registry import readers

    found = readers()
    if as_json:
        print_json("readers", {"readers": [_entry(info) for info in found.values()]})
        return
    print_table(
        ("NAME", "DESCRIPTION", "EXTENSIONS", "PACKAGE"),
        [
            (info.name, info.description or "does not load", " ".join(info.extensions), info.package or "unknown")
            for info in found.values()
        ],
    )
    for info in found.values():
        if info.error is not None:
            notify(f"warning: reader {info.name!r} of {info.package} does not load: {info.error}")


def _entry(info: Any) -> dict[str, Any]:
    defaults = {
        name: {"required": True} if isinstance(default, type) else {"required": False, "default": default}
        for name, default in info.options.items()
    }
    return {
        "name": info.name,
        "description": info.description,
        "extensions": info.extensions,
        "package": info.package,
        "options": defaults,
        "error": info.error,
    }
