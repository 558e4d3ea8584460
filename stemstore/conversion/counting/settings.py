"""How electrons are to be counted, as a user states it, and the counter that comes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.conversion.counting.corrections import Corrections
from stemstore.conversion.counting.count import Counter
from stemstore.conversion.counting.estimate import BACKGROUND_SIGMA, XRAY_SIGMA, Wanted, estimate
from stemstore.conversion.counting.measures import Measures, check_columns, with_pedestals
from stemstore.conversion.counting.noise import find_peak
from stemstore.conversion.counting.regions import Region, regions_of
from stemstore.conversion.counting.sampling import histograms
from stemstore.errors import InputError
from stemstore.scan.references import NAMES, load_reference, without_mask
from stemstore.sources.location import shown
from stemstore.sources.references import references_of

if TYPE_CHECKING:
    from stemstore.conversion.counting.regions import Division
    from stemstore.kernels.counting import Rule
    from stemstore.kernels.counting_corrections import RowDark
    from stemstore.sources.contract import FrameSource
    from stemstore_schemas import CountingDescription

IMAGES = ("dark", "gain", "bad_pixels")
"""Images that are applied before electrons are looked for; pixels outside a mask are bad ones then."""

PREFIX = "counting_"  # of their arrays in the store: they are for the frames and not for the events that are stored


@dataclass(frozen=True, slots=True, eq=False)
class CountOptions:
    """How electrons are to be counted; thresholds left out are estimated. Meanings as in `stemstore.convert`."""

    rule: Rule = "stemstore"
    background_threshold: Any = None
    xray_threshold: Any = None
    background_sigma: float = BACKGROUND_SIGMA
    xray_sigma: float = XRAY_SIGMA
    threshold: Division | None = None
    false_events_per_frame: float | None = None
    dark: Any = None
    gain: Any = None
    row_dark: RowDark = "none"
    bad_pixels: Any = None
    event_columns: tuple[str, ...] = ()
    mask: Any = None

    def __post_init__(self) -> None:
        for name in ("background_threshold", "xray_threshold"):
            object.__setattr__(self, name, _level(name, getattr(self, name)))
        for name in ("background_sigma", "xray_sigma"):
            _number(name, getattr(self, name))
        object.__setattr__(self, "event_columns", check_columns(self.event_columns))
        wanted = self.false_events_per_frame
        if wanted is None:
            return
        if _number("false_events_per_frame", wanted) <= 0:
            msg = f"false_events_per_frame={wanted!r} cannot be reached; give a number above zero, such as 0.1"
            raise InputError(msg, key="false_events_per_frame", found=wanted)
        if self.background_threshold is not None:
            msg = "background_threshold and false_events_per_frame exclude each other; leave one out"
            raise InputError(msg, key="false_events_per_frame", found=wanted)

    @property
    def given(self) -> list[str]:
        """Names of what was given and has a meaning only where something is counted."""
        names = ("background_threshold", "xray_threshold", "threshold", "false_events_per_frame")
        given = [name for name in names if getattr(self, name) is not None]
        return [*given, "event_columns"] if self.event_columns else given

    @property
    def pixels(self) -> dict[str, Any]:
        """What was given that corrects pixels, whether they are counted or stored."""
        return {name: getattr(self, name) for name in NAMES if getattr(self, name) is not None}

    def parameters(self) -> dict[str, Any]:
        """Write the options as JSON values; arrays are told by their shape, their digests are in the store."""
        return {
            name: f"array of shape {np.shape(value)}" if name in NAMES and not _is_text(value) else _plain(value)
            for name, value in ((name, getattr(self, name)) for name in self.__slots__)
        }

    def counter(self, source: FrameSource) -> Counter:
        """Load references, find thresholds, and give what counts the frames.

        Raises
        ------
        InputError
            An image, a threshold or an option does not fit the frames.
        CorruptDataError
            Thresholds cannot be estimated, or a file is damaged.
        """
        shape, dtype = source.frame_shape, np.dtype(source.dtype)
        carried = references_of(source)
        dark, gain, bad, mask = (
            load_reference(getattr(self, name), name, shape, carried) for name in ("dark", "gain", "bad_pixels", "mask")
        )
        bad = bad if mask is None else without_mask(bad, mask)
        done = Corrections(shape, dtype, dark, gain, bad, self.row_dark)
        if self.row_dark != "none":
            whole = Region("detector", (0, shape[0]), (0, shape[1]))
            found, _, integers = histograms(source, [whole], None)
            done = replace(done, pedestal=find_peak(found[0], integers=integers).mean)
        several = isinstance(self.background_threshold, tuple) or isinstance(self.xray_threshold, tuple)
        division: Division = self.threshold or ("module" if several else "global")
        wanted = Wanted(
            self.background_threshold,
            self.xray_threshold,
            self.background_sigma,
            self.xray_sigma,
            self.false_events_per_frame,
        )
        regions = [] if division == "global" else regions_of(division, source.metadata.detector, shape)
        thresholds = estimate(source, wanted, regions=regions, corrections=done)
        if not self.event_columns:
            return Counter(source, thresholds, self.rule, done)
        thresholds = with_pedestals(source, thresholds, done)
        measures = Measures.of(self.event_columns, source, thresholds, done)
        return Counter(source, thresholds, self.rule, done, measures=measures)


def describe_counting(counter: Counter) -> CountingDescription:
    """Write what a counter does as metadata of a counted store."""
    from stemstore_schemas import CountingReference

    done = counter.done
    update: dict[str, Any] = {"row_dark": done.row_dark}
    if done.row_dark != "none":
        update["row_dark_pedestal"] = done.pedestal
    for name in IMAGES:
        image = getattr(done, name)
        if image is not None:
            update[name] = CountingReference(array=PREFIX + name, digest=image.digest, origin=image.origin)
    return counter.thresholds.describe(counter.rule).model_copy(update=update)


def _level(name: str, value: Any) -> Any:
    """Take None, a number, or several as a tuple."""
    if value is None or np.ndim(value) == 0:
        return value if value is None else _number(name, value)
    if np.ndim(value) != 1 or isinstance(value, (str, bytes)):
        msg = f"{name} has {np.ndim(value)} dimensions; give a number, or a list with one for every region"
        raise InputError(msg, key=name)
    return tuple(_number(name, one) for one in value)


def _number(name: str, value: Any) -> float:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or math.isnan(value):
        msg = f"{name}={value!r} is not a number; give one or leave it out"
        raise InputError(msg, key=name, found=value)
    return float(value)


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str) or hasattr(value, "__fspath__")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return shown(str(value)) if isinstance(value, str) or hasattr(value, "__fspath__") else value
