"""Images of the detector that a new store keeps: those that the source hands on, and those that were applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stemstore.conversion.counting.settings import IMAGES, PREFIX
from stemstore.conversion.plan import CountedPlan
from stemstore.scan.corrected import CorrectedFrames
from stemstore.scan.references import FLAGS
from stemstore.scan.stored import store_of
from stemstore.sources.references import references_of

if TYPE_CHECKING:
    from stemstore._types import Array
    from stemstore.conversion.plan import DensePlan
    from stemstore.scan.references import Reference

DIMS = ("ky", "kx")
APPLIED = "applied_"
"""Begins the names of images that were applied to frames before these were stored."""

Images = dict[str, tuple[tuple[str, ...], "Array"]]
"""By path in the store: names of the axes, and values."""


def names_handed_on(plan: DensePlan | CountedPlan) -> list[str]:
    """Name the images of the source that the new store keeps for later.

    A dark or gain is for pixels as the detector wrote them: it is left out where electrons were counted, and where it
    was applied. The calibration of a store goes over by `stemstore.conversion.stored`.
    """
    source = plan.source
    if store_of(source) is not None:
        return []
    done = set(source.asked.references) if isinstance(source, CorrectedFrames) else set()
    known = references_of(source)
    return [name for name in known if name == "mask" or not (isinstance(plan, CountedPlan) or name in done)]


def handed_on(plan: DensePlan | CountedPlan) -> Images:
    """Read the images of the source that the new store keeps for later."""
    known = references_of(plan.source)
    return {f"calibration/{name}": (DIMS, known[name].read()) for name in names_handed_on(plan)}


def applied(plan: DensePlan | CountedPlan) -> Images:
    """Give the images that were applied, under names of their own: nothing is to apply them again."""
    if isinstance(plan, CountedPlan):
        done = None if plan.counter is None else plan.counter.done
        found = {name: getattr(done, name, None) for name in IMAGES}
        return {
            f"calibration/{PREFIX}{name}": _image(name, image) for name, image in found.items() if image is not None
        }
    references = plan.source.asked.references if isinstance(plan.source, CorrectedFrames) else {}
    return {f"calibration/{APPLIED}{name}": _image(name, image) for name, image in references.items()}


def _image(name: str, image: Reference) -> tuple[tuple[str, ...], Array]:
    return DIMS, image.values != 0 if name in FLAGS else np.asarray(image.values)
