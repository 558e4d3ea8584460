"""Options of counting, as the verb ``convert`` takes them, and their texts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from stemstore.cli.options import parse_numbers, setting
from stemstore.errors import InputError

COUNTING, CORRECTIONS = "Counting", "Corrections of the detector"
IMAGE = "file of an image or frames, store, or 'detector' for the source's own"


class Rule(StrEnum):
    """Counting rules."""

    stemstore = "stemstore"
    stempy = "stempy"


class RowDark(StrEnum):
    """Levels of half a row."""

    none = "none"
    mean = "mean"
    median = "median"


class Division(StrEnum):
    """Parts of the detector that have thresholds of their own."""

    whole = "global"
    module = "module"
    half_row = "half-row"


Count = Annotated[
    bool | None,
    setting("--count/--no-count", "Store electron events, or frames; by default as the source is.", COUNTING),
]
CountingRule = Annotated[Rule, setting("--rule", "Counting rule.", COUNTING)]
Background = Annotated[
    str | None,
    setting("--background-threshold", "In ADU, one or one per region; estimated otherwise.", COUNTING, "ADU[,ADU…]"),
]
XRay = Annotated[
    str | None,
    setting("--xray-threshold", "In ADU, one or one per region, or inf; estimated otherwise.", COUNTING, "ADU[,ADU…]"),
]
BackgroundSigma = Annotated[
    float, setting("--background-sigma", "Background threshold above the noise peak, in widths.", COUNTING)
]
XRaySigma = Annotated[
    float, setting("--xray-sigma", "X-ray threshold above the mean, in standard deviations.", COUNTING)
]
Threshold = Annotated[Division | None, setting("--threshold", "What has thresholds of its own.", COUNTING)]
FalseEvents = Annotated[
    float | None,
    setting("--false-events-per-frame", "Most events of noise alone, in place of --background-sigma.", COUNTING),
]
Dark = Annotated[str | None, setting("--dark", f"Dark reference, subtracted: {IMAGE}.", CORRECTIONS, "PATH")]
Gain = Annotated[str | None, setting("--gain", f"Gain reference, multiplied: {IMAGE}.", CORRECTIONS, "PATH")]
RowDarkBy = Annotated[RowDark, setting("--row-dark", "Bring half rows of a frame to the pedestal.", COUNTING)]
BadPixels = Annotated[
    str | None,
    setting("--bad-pixels", f"True at pixels to replace, or not to count: {IMAGE}.", CORRECTIONS, "PATH"),
]
Mask = Annotated[str | None, setting("--mask", f"False at pixels to leave out: {IMAGE}.", CORRECTIONS, "PATH")]

EventColumns = Annotated[
    str | None,
    setting("--event-columns", "Store more of every electron: energy, position.", COUNTING, "NAME[,NAME]"),
]


def parse_levels(text: str | None, flag: str) -> float | tuple[float, ...] | None:
    """Read one threshold, or several between commas.

    Raises
    ------
    InputError
        A part is no number.
    """
    if text is None:
        return None
    levels = parse_numbers(text, flag, text.count(",") + 1)
    if any(level != level for level in levels):  # noqa: PLR0124  # NaN
        msg = f"{flag} {text!r} is not understood; give numbers in ADU"
        raise InputError(msg, key=flag, found=text)
    return levels[0] if len(levels) == 1 else levels


def thresholds_text(found: dict[str, Any]) -> str:
    """Write thresholds, and what noise alone makes of them."""
    text = f"background {_level_text(found['background'])} ADU, X-ray {_level_text(found['xray'], 'none')}"
    false = found.get("false_events_per_frame")
    return text if false is None else f"{text}; noise alone makes {false:.2g} events per frame"


def _level_text(level: Any, nothing: str = "unknown") -> str:
    if level is None or level == float("inf"):
        return nothing
    unit = " ADU" if nothing == "none" else ""
    return (", ".join(f"{one:.4g}" for one in level) if isinstance(level, (list, tuple)) else f"{level:.4g}") + unit
