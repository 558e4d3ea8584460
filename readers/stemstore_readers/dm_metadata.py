"""What the tags of a DM image say about axes, microscope and camera."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stemstore_readers.dm_tags import look_up
from stemstore_readers.header_values import number, positive, quantity, scan_acquisition, whole, words
from stemstore_readers.stated_axes import StatedAxis, bring_axes
from stemstore_schemas import Detector, SourceMetadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore_readers.dm_tags import Tree

ELECTRON_UNITS = ("e", "e-", "electron", "electrons")
"""Spellings of electrons as the unit of intensities."""

_ISO_DATE = 10  # characters of 2019-11-19


def calibrations(tree: Tree, n_axes: int) -> list[StatedAxis | None]:
    """List the calibrations of the axes, slow axis first; None where there is none (some writers leave them out)."""
    found: list[StatedAxis | None] = []
    for k in reversed(range(n_axes)):
        one = look_up(tree, f"ImageData/Calibrations/Dimension/{k}")
        scale, origin = number(look_up(one, "Scale")), number(look_up(one, "Origin"))
        if scale is None or origin is None:
            found.append(None)
        else:
            found.append(StatedAxis("", scale, 0.0 - origin * scale, words(look_up(one, "Units")) or ""))
    return found


def unit_kinds(tree: Tree, n_axes: int) -> list[str]:
    """Tell for every axis, slow axis first, what its unit makes it: diffraction, length, energy, or empty."""
    return [one.kind() if one else "" for one in calibrations(tree, n_axes)]


def image_metadata(
    tree: Tree, shape: tuple[int, ...], stated: Sequence[StatedAxis | None], notes: list[str], *, by_user: bool
) -> SourceMetadata:
    """Gather what is known of an image.

    Parameters
    ----------
    tree
        Tags of the image.
    shape
        Scan axes, ky, kx.
    stated
        One per axis of `shape`.
    notes
        Warnings so far; what is odd about the tags is added.
    by_user
        Whether the user stated the scan shape.
    """
    tags, microscope = look_up(tree, "ImageTags"), look_up(tree, "ImageTags/Microscope Info")
    detector = Detector(
        name=words(look_up(tags, "Acquisition/Device/Name")) or words(look_up(tags, "DataBar/Device Name")),
        shape=(shape[-2], shape[-1]),
        pixel_size=_pair(look_up(tags, "Acquisition/Device/CCD/Pixel Size (um)"), _pitch),
        binning=_pair(look_up(tags, "Acquisition/Parameters/High Level/Binning"), whole),
        counts_per_electron=_gain(look_up(tree, "ImageData/Calibrations/Brightness"), notes),
    )
    exposure = look_up(tags, "DataBar/Exposure Time (s)")
    if exposure is None:
        exposure = look_up(tags, "Acquisition/Parameters/High Level/Exposure (s)")
    known = scan_acquisition(
        shape[:-2],
        by_user=by_user,
        beam_energy=quantity(look_up(microscope, "Voltage"), "keV", 1e3),
        camera_length=quantity(look_up(microscope, "STEM Camera Length"), "mm"),
        magnification=positive(look_up(microscope, "Indicated Magnification")),
        exposure_time=quantity(exposure, "s"),
        dwell_time=quantity(look_up(tags, "SI/Acquisition/Pixel time (s)"), "s"),
        semi_convergence_angle=quantity(
            look_up(tags, "EELS/Experimental Conditions/Convergence semi-angle (mrad)"), "mrad"
        ),
        start_time=_start(tags),
        instrument=words(look_up(tags, "Session Info/Microscope")) or words(look_up(microscope, "Name")),
        operator=words(look_up(microscope, "Operator")) or words(look_up(tags, "Session Info/Operator")),
        sample=words(look_up(microscope, "Specimen")) or words(look_up(tags, "Session Info/Specimen")),
    )
    axes = bring_axes(shape, stated, notes)
    return SourceMetadata(acquisition=known, detector=detector, axes=axes, warnings=notes)


def _pair(value: Any, read: Any) -> Any:
    """Read a struct (x, y) as (rows, columns); None unless both can be read."""
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 (a pair)
        return None
    pair = read(value[1]), read(value[0])
    return None if None in pair else pair


def _pitch(value: Any) -> Any:
    return quantity(value, "mm", 1e3)


def _gain(brightness: Any, notes: list[str]) -> float | None:
    """Give counts per electron, where the intensity is calibrated: electrons = (value - Origin) * Scale."""
    scale = number(look_up(brightness, "Scale"))
    if scale is None or scale <= 0 or words(look_up(brightness, "Units")) not in ELECTRON_UNITS:
        return None
    origin = number(look_up(brightness, "Origin"))
    if origin:
        notes.append(f"intensities are calibrated with an offset: the value {origin:g} means no electron")
    return 1 / scale if math.isfinite(1 / scale) else None


def _start(tags: Any) -> str | None:
    """Start of the acquisition: milliseconds since 1970 (UTC), or an ISO text; dates as typed differ by country."""
    epoch = positive(look_up(tags, "Acquisition/Frame/Sequence/Acquisition Start Time (epoch)"))
    try:
        if epoch is not None:
            return datetime.fromtimestamp(epoch / 1000, tz=UTC).isoformat()
        stamp = words(look_up(tags, "Timestamp"))
        return datetime.fromisoformat(stamp).isoformat() if stamp and len(stamp) > _ISO_DATE else None
    except (ValueError, OverflowError, OSError):
        return None
