"""Which pictures the demonstration shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.demo import figures
from stemstore.demo.analysis import RINGS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import xarray as xr

    from stemstore.demo.analysis import Analysis


def draw(results: Analysis) -> dict[str, Path]:
    """Write all pictures; gives caption and file."""
    return {**dict(_maps(results)), **dict(_patterns(results))}


def _first_group(images: dict[str, Any]) -> xr.Dataset:
    """Give the summed pattern of the first group with its disks."""
    disks = images["disks"]
    first = slice(0, int(disks.n_disks[0, 0]))
    return disks[["qy", "qx"]].isel(peak=first).assign(pattern=images["groups"][0, 0].reset_coords(drop=True))


def _maps(results: Analysis) -> Iterator[tuple[str, Path]]:
    folder, truth, images = results.folder, results.truth, results.images
    step, pixel = figures.sampling(results.counted.x), figures.sampling(results.counted.kx)
    one = _first_group(images["counted"])
    overview: dict[str, Any] = {
        "Bragg disks found": one,
        "bright field": images["counted"]["virtual"]["bright_field"],
        "iDPC phase": images["counted"]["dpc"].phase,
        "true phase": truth.phase,
    }
    yield "Overview", figures.save_overview(folder / "overview.png", overview, step=step, pixel=pixel)
    sums = {
        f"{variable.replace('_', ' ')}, {name} ({unit})": images[name]["virtual"][variable]
        for name, unit in (("counted", "electrons"), ("dense", "ADU"))
        for variable in results.detectors
    }
    yield "Virtual images", figures.save_images(folder / "virtual.png", sums, step=step)
    phases = {f"iDPC, {name} (rad)": images[name]["dpc"].phase for name in ("counted", "dense", "noise-free")}
    phases = {"projected phase, truth (rad)": truth.phase - truth.phase.mean(), **phases}
    yield "Phase by iDPC", figures.save_images(folder / "phase.png", phases, step=step, cmap="inferno")
    com = images["counted"]["com"]
    path = folder / "deflection.png"
    yield "Centre of mass", figures.save_vectors(path, com, truth.deflection * pixel[0], step=step)


def _patterns(results: Analysis) -> Iterator[tuple[str, Path]]:
    folder, counted = results.folder, results.images["counted"]
    one = _first_group(counted)
    rings = {
        "bright field": (results.radius, "white"),
        "dark field, inner": (RINGS[0] * results.radius, "cyan"),
        "dark field, outer": (RINGS[1] * results.radius, "cyan"),
    }
    yield "Diffraction patterns", figures.save_pattern(folder / "patterns.png", counted["mean"], rings, one)
    valid = results.counted.coords.get("valid", np.full(results.truth.scan_shape, 2))
    step = figures.sampling(results.counted.x)
    caption = "State of the frames (2 valid, 1 partial)"
    yield caption, figures.save_images(folder / "valid.png", {"valid": valid}, step=step)
