"""Options that several verbs share, and the reading of their texts.

Every setting has an environment variable ``STEMSTORE_…``; switches that decide what is printed, written or
replaced have none. Texts are checked before anything is read: a wrong one is a usage error.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import typer

from stemstore.errors import InputError

CALIBRATION, SOURCE, RUNNING, OUTPUT = "Calibration", "Source", "Running", "Output"

_SHAPE = re.compile(r"\s*\d+\s*(?:[,xX]\s*\d+\s*){0,2}")
_DIMENSIONS = re.compile(r"[,xX]")


def setting(flag: str, text: str, topic: str, metavar: str | None = None, minimum: int | None = None) -> Any:
    """Make an option with its environment variable."""
    variable = "STEMSTORE_" + flag.partition("/")[0].lstrip("-").upper().replace("-", "_")
    return typer.Option(
        flag, help=text, rich_help_panel=topic, metavar=metavar, min=minimum, envvar=variable, show_envvar=False
    )


Sources = Annotated[
    list[str], typer.Argument(metavar="SRC", help="File, folder, pattern or files of one scan.", show_default=False)
]
Scan = Annotated[
    str, typer.Argument(metavar="STORE_OR_RAW", help="A store (path or URL) or raw data.", show_default=False)
]

Reader = Annotated[str | None, setting("--reader", "Format of the source; found by content otherwise.", SOURCE, "NAME")]
ScanShape = Annotated[
    str | None, setting("--scan-shape", "Rows and columns of the scan: 40,41 or 40x41.", SOURCE, "Y,X")
]
Flyback = Annotated[
    int | None, setting("--flyback", "Columns at the end of each row taken while the beam flew back.", SOURCE, "N", 0)
]
FormatVersion = Annotated[int | None, setting("--format-version", "Version of the source's format.", SOURCE, "N")]
Option = Annotated[
    list[str] | None,
    setting(
        "--option", "Further option of the reader, may be repeated; the value is JSON or text.", SOURCE, "KEY=VALUE"
    ),
]

StorageOption = Annotated[
    list[str] | None,
    setting(
        "--storage-option",
        "How servers are reached, may be repeated: anon=true, endpoint_url=URL; keys are better in the environment.",
        SOURCE,
        "KEY=VALUE",
    ),
]

BeamEnergy = Annotated[
    str | None, setting("--beam-energy", "Beam energy in keV, or with its unit.", CALIBRATION, "ENERGY")
]
Convergence = Annotated[
    str | None, setting("--semi-convergence-angle", "Half opening angle of the probe in mrad.", CALIBRATION, "ANGLE")
]
ScanStep = Annotated[str | None, setting("--scan-step", "Scan step in nm, or a pair Y,X.", CALIBRATION, "STEP")]
DetectorStep = Annotated[
    str | None, setting("--detector-step", "Detector pixel in mrad, or a pair KY,KX.", CALIBRATION, "STEP")
]
DetectorCenter = Annotated[str | None, setting("--detector-center", "Pixel of the optic axis.", CALIBRATION, "KY,KX")]
ScanRotation = Annotated[
    str | None, setting("--scan-rotation", "Rotation of detector against scan in deg.", CALIBRATION, "ANGLE")
]

Workers = Annotated[int | None, setting("--workers", "Threads; all processors by default.", RUNNING, "N", 1)]
MaxMemory = Annotated[
    str | None, setting("--max-memory", "Working memory, such as 512MiB; 768MiB by default.", RUNNING, "SIZE")
]
Progress = Annotated[
    str,
    setting(
        "--progress", "auto, bar, jsonl or none; auto is a bar on a terminal, else a line every 30 s.", RUNNING, "KIND"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=OUTPUT)]


def source_options(
    *,
    scan_shape: str | None = None,
    flyback: int | None = None,
    format_version: int | None = None,
    option: list[str] | None = None,
    **calibration: str | None,
) -> dict[str, Any]:
    """Collect what was said about a source, as `stemstore.open` and `stemstore.convert` take it.

    Raises
    ------
    InputError
        A text is not understood, or one thing is said twice.
    """
    given: dict[str, Any] = {
        "scan_shape": None if scan_shape is None else parse_shape(scan_shape, "--scan-shape"),
        "flyback_columns": flyback,
        "version": format_version,
    }
    for name, text in calibration.items():
        if text is not None:
            given[name] = _calibration(name, text)
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in parse_assignments(option or []).items():
        if name in given:
            msg = f"{name!r} is given twice, as an option of its own and by --option; leave one out"
            raise InputError(msg, key=name)
        given[name] = value
    return given


def reached(urls: list[str], storage_option: list[str] | None) -> list[str]:
    """Put storage options into the URLs among some paths.

    Raises
    ------
    InputError
        A text is not understood, or none of the paths is a URL.
    """
    if not storage_option:
        return urls
    from stemstore.store.address import reach_urls

    return reach_urls(*urls, storage_options=parse_assignments(storage_option, "--storage-option"))


def parse_shape(text: str, flag: str) -> tuple[int, ...]:
    """Read ``'40,41'`` or ``'40x41'``: one to three whole numbers above zero.

    Raises
    ------
    InputError
        The text is not a shape.
    """
    extents = tuple(int(part) for part in _DIMENSIONS.split(text)) if _SHAPE.fullmatch(text) else ()
    if not extents or min(extents) < 1:
        msg = f"{flag} {text!r} is not a shape; give rows and columns such as 40,41 or 40x41"
        raise InputError(msg, key=flag, found=text)
    return extents


def parse_numbers(text: str, flag: str, count: int) -> tuple[float, ...]:
    """Read numbers between commas.

    Raises
    ------
    InputError
        Not `count` numbers.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        msg = f"{flag} {text!r} is not understood; give {count} numbers with a comma between them, without spaces"
        raise InputError(msg, key=flag, found=text)
    return numbers


def parse_assignments(texts: list[str], flag: str = "--option") -> dict[str, Any]:
    """Read ``key=value`` texts; a value that is JSON is read as such, any other stays text.

    Raises
    ------
    InputError
        A text has no key, or a key occurs twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        key = key.strip().replace("-", "_")
        if not sign or not key.isidentifier():
            told = text if flag == "--option" else "…"  # of servers it may be a secret
            msg = f"{flag} {told!r} is not understood; write it as key=value, such as dtype='<u2'"
            raise InputError(msg, key=flag, found=told)
        if key in found:
            msg = f"{flag} {key!r} is given twice; leave one out"
            raise InputError(msg, key=key)
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _calibration(name: str, text: str) -> Any:
    """Take a number, a text with its unit, or a pair of these; the library checks what they mean."""
    if name == "detector_center":
        return parse_numbers(text, "--detector-center", 2)
    parts = [part.strip() for part in text.split(",")]
    return tuple(parts) if name.endswith("_step") and len(parts) > 1 else text
