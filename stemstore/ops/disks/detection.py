"""A disk detection made ready: scan, kernel, positions and everything that decides about its result."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from stemstore._version import __version__
from stemstore.kernels.disks.plan import DiskOptions, DiskPlan, plan_disks
from stemstore.kernels.disks.probe import Template
from stemstore.kernels.disks.search import COLUMNS
from stemstore.ops.corrections import PixelCorrections, corrected, corrections_of, corrections_text
from stemstore.ops.disks.kernel import DiskKernel
from stemstore.ops.disks.pieces import DiskPieces
from stemstore.ops.labels import INHERITED, intensity_of, parameters_text, recorded, scan_dims, values_of
from stemstore.ops.roi import map_of
from stemstore.ops.saved.result_arrays import stored_value

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import BoolArray

NAMES = tuple({"ky": "qy", "kx": "qx"}.get(column, column) for column in COLUMNS)
"""Variables that hold the columns of the kernel."""

FRAMES, TRANSFORMS = 3, 6
"""Images of four bytes per pixel that the search of one frame needs: of its own size, and of that of the transforms."""


class DetectionOptions(DiskOptions, total=False):
    """As `DiskOptions`, and what decides which pixels and positions are looked at; see `find_disks`."""

    roi: Any
    bad_pixels: Any
    mask: Any
    dark: Any
    gain: Any


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A detection that is ready to run.

    Attributes
    ----------
    image
        The scan, detector axes last.
    plan
        Kernels and settings.
    kernel
        What runs over the frames.
    keep : shape (…scan), bool, or None
        Positions to look at; None for all.
    about
        Settings after defaults, and what the template is.
    history
        One line for the history.
    fingerprint
        By name, what decides about the result, large arrays by their digest.
    """

    image: xr.DataArray
    plan: DiskPlan
    kernel: Any
    keep: BoolArray | None
    about: dict[str, Any]
    history: str
    fingerprint: dict[str, Any]

    @classmethod
    def of(
        cls, scan: Any, template: Any | None, radius: float | None, **options: Unpack[DetectionOptions]
    ) -> Detection:
        """Check all arguments and make the plan; parameters and errors as for `find_disks`."""
        image = intensity_of(scan)
        settings: Any = dict(options)
        roi, mask, bad = (settings.pop(name, None) for name in ("roi", "mask", "bad_pixels"))
        references: PixelCorrections = {name: settings.pop(name, None) for name in ("dark", "gain")}  # type: ignore[assignment]
        unusable = _unusable(image, bad, mask)
        probe = template if template is None or isinstance(template, Template) else values_of(template)
        plan = plan_disks(
            (image.sizes["ky"], image.sizes["kx"]),
            radius=radius,
            template=probe,
            bad_pixels=unusable,
            **settings,
        )
        keep = _positions(image, roi)
        kernel = corrected(DiskKernel(plan), corrections_of(image, references))
        parameters = {name: value for name, value in asdict(plan.parameters).items() if value is not None}
        pixels: dict[str, Any] = {"bad_pixels": bad, "mask": mask, **references}
        texts = corrections_text({name: value for name, value in pixels.items() if value is not None})  # type: ignore[arg-type]
        if roi is not None and keep is not None:
            texts["roi"] = f"{int(keep.sum())} of {keep.size} positions"
        history = parameters_text("find_disks", template=plan.template, **parameters, **texts)
        arrays: dict[str, Any] = {"roi": keep, "unusable pixels": unusable}
        arrays |= {name: None if value is None else values_of(value) for name, value in references.items()}
        digests = {name: None if value is None else _digest(value) for name, value in arrays.items()}
        about = parameters | {"template": plan.template, "transform_shape": plan.fft_shape}
        digests["template"] = _digest_of_template(probe)
        fingerprint = stored_value(asdict(plan.parameters) | digests | {"version": __version__})
        return cls(image, plan, kernel, keep, about, history, fingerprint)

    def pieces(self) -> DiskPieces:
        """Cut the work into tasks."""
        return DiskPieces(self.image.data, self.kernel, self.keep)

    @property
    def scan_shape(self) -> tuple[int, ...]:
        """Extents of the scan axes."""
        return tuple(int(n) for n in self.image.shape[:-2])

    @property
    def worker_bytes(self) -> int:
        """Scratch memory of a worker beyond its piece."""
        return 4 * (FRAMES * math.prod(self.plan.frame_shape) + TRANSFORMS * math.prod(self.plan.fft_shape))

    @property
    def shared_bytes(self) -> int:
        """Memory of the plan, which all threads share."""
        return _nbytes(self.plan)

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the result."""
        inherited = {key: self.image.attrs[key] for key in INHERITED if key in self.image.attrs}
        lines = (self.image.attrs.get("history"), self.history)
        return inherited | self.about | {"history": "\n".join(line for line in lines if line)}


def digest_of(fingerprint: dict[str, Any]) -> str:
    """Short digest of everything that decides about a result."""
    return hashlib.blake2b(json.dumps(fingerprint, sort_keys=True).encode(), digest_size=16).hexdigest()


def _unusable(image: xr.DataArray, bad: Any | None, mask: Any | None) -> BoolArray | None:
    """Give the pixels that do not count: bad ones, and those outside the mask."""
    unusable = None if bad is None else np.asarray(values_of(bad))
    inside = corrections_of(image, {"mask": mask})
    if inside is None or inside.mask is None:
        return unusable
    if unusable is not None and unusable.shape == inside.mask.shape:
        return ~inside.mask | unusable.astype(np.bool_)
    return ~inside.mask if unusable is None else unusable  # the plan refuses the wrong shape


def _positions(image: xr.DataArray, roi: Any | None) -> BoolArray | None:
    """Positions to look at: those asked for that have a frame; None for all."""
    known = recorded(image)
    if roi is None:
        return known
    wanted: BoolArray = map_of(image, roi, "roi", bool)
    return wanted if known is None else wanted & known


def _digest(values: Any) -> str:
    values = np.ascontiguousarray(values)
    about = f"{values.dtype.str}{values.shape}".encode()
    return hashlib.blake2b(about + values.tobytes(), digest_size=16).hexdigest()


def _digest_of_template(template: Any) -> Any:
    if isinstance(template, Template):
        parts = {field.name: getattr(template, field.name) for field in fields(template)}
        return {name: _digest(part) if isinstance(part, np.ndarray) else part for name, part in parts.items()}
    return None if template is None else _digest(template)


def _nbytes(tables: Any) -> int:
    """Bytes of arrays, however they are packed."""
    if is_dataclass(tables):
        return sum(_nbytes(getattr(tables, field.name)) for field in fields(tables))
    if isinstance(tables, (tuple, list)):
        return sum(_nbytes(one) for one in tables)
    return int(getattr(tables, "nbytes", 0))


def dims_of(detection: Detection) -> tuple[str, ...]:
    """Names of the scan axes."""
    return scan_dims(detection.image)
