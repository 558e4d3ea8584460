"""Options that say how a store is cut and compressed, and the reading of their texts."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

from stemstore.cli import options
from stemstore.errors import InputError

_EXTENTS = re.compile(r"\s*\d+\s*(?:[,xX]\s*\d+\s*){0,4}")
_DIMENSIONS = re.compile(r"[,xX]")


class Profile(StrEnum):
    """Compression profiles."""

    fast = "fast"
    balanced = "balanced"
    small = "small"
    raw = "raw"


class Layout(StrEnum):
    """Named layouts of frames."""

    frames = "frames"
    tiled = "tiled"


LayoutOption = Annotated[
    Layout | None,
    options.setting(
        "--layout", "Of frames: whole ones in a chunk, or tiles of 64 x 64 pixels for small detectors.", options.OUTPUT
    ),
]
Chunks = Annotated[
    str | None,
    options.setting(
        "--chunks",
        "Extents of a chunk such as 8x8x64x64; of events the frames of a block.",
        options.OUTPUT,
        "Y,X,KY,KX",
    ),
]
Shards = Annotated[
    str | None,
    options.setting(
        "--shards", "Extents of a shard along the scan such as 32x32; of events its frames.", options.OUTPUT, "Y,X"
    ),
]


def parse(layout: Layout | None, chunks: str | None, shards: str | None) -> dict[str, Any]:
    """Give what was stated as `stemstore.convert` takes it, checked as far as it can be without the scan.

    Raises
    ------
    InputError
        A text is not understood, or what was stated cannot be.
    """
    from stemstore.store.cut import Cut

    named = None if layout is None else layout.value
    cut = Cut.of(named, _extents(chunks, "--chunks"), _extents(shards, "--shards"))
    return {"layout": cut.layout, "chunks": cut.chunks, "shards": cut.shards}


def _extents(text: str | None, flag: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not _EXTENTS.fullmatch(text):
        msg = f"{flag} {text!r} is not understood; give extents such as 8x8x64x64, of events one number"
        raise InputError(msg, key=flag, found=text)
    return tuple(int(part) for part in _DIMENSIONS.split(text))
