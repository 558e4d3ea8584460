"""Writing an image of a scan: numbers as ``.npy``, a picture with scale bar as ``.png``."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemstore.errors import DestinationExistsError, InputError, NotFoundError, OptionalDependencyError, StorageError

if TYPE_CHECKING:
    import xarray as xr

SUFFIXES = (".npy", ".png")
BAR_SHARE = 0.3  # of the width of the picture that a scale bar takes at most
ROUND = (5.0, 2.0, 1.0)  # leading digits of a scale bar's length
PLANE = 2


def check_target(path: str, *, overwrite: bool) -> None:
    """Refuse an image file that cannot be written, before anything is computed.

    Raises
    ------
    InputError
        The suffix is neither ``.npy`` nor ``.png``.
    DestinationExistsError
        The file exists and overwriting was not asked for, or it is a folder.
    NotFoundError
        Its folder does not exist.
    OptionalDependencyError
        Pictures need matplotlib, which is not installed.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        msg = f"image {path!r} must end in {' or '.join(SUFFIXES)}; .npy keeps the numbers, .png is a picture"
        raise InputError(msg, found=target.suffix, expected=SUFFIXES)
    if target.is_dir() or (target.exists() and not overwrite):
        msg = f"{path!r} exists; choose another name{'' if target.is_dir() else ' or pass overwrite=True'}"
        raise DestinationExistsError(msg, url=path)
    if not target.parent.is_dir():
        msg = f"folder {str(target.parent)!r} of the image does not exist; make it first"
        raise NotFoundError(msg, url=str(target.parent))
    if target.suffix.lower() == ".png":
        _require_matplotlib()


def write_image(path: str, image: xr.DataArray, *, overwrite: bool) -> None:
    """Write an image under its name once it is whole.

    Parameters
    ----------
    path
        Ends in ``.npy`` (values as they are) or ``.png`` (picture, scale bar where the axes are calibrated).
    image : dims (y, x)
        Computed image; ``.npy`` takes any dims.
    overwrite
        Replace a file that exists.

    Raises
    ------
    InputError, DestinationExistsError, NotFoundError, OptionalDependencyError
        As for `check_target`; also a picture of something that has no two axes.
    StorageError
        The file cannot be written.
    """
    check_target(path, overwrite=overwrite)
    target = Path(path)
    picture = target.suffix.lower() == ".png"
    if picture and image.ndim != PLANE:
        msg = f"an image with dims {image.dims} is no picture; write it as .npy, or state the scan shape"
        raise InputError(msg, found=image.dims)
    part = target.with_name(f".{target.name}.part-{uuid.uuid4().hex}")
    try:
        (_save_picture if picture else _save_numbers)(part, image)
        part.replace(target)
    except OSError as error:
        msg = f"cannot write {path!r}: {error.strerror or error}; check space and permissions"
        raised = StorageError(msg, url=path)
        raised.errno = error.errno
        raise raised from error
    finally:
        part.unlink(missing_ok=True)


def scale_bar(length: float) -> float:
    """Give the largest round length (1, 2 or 5 times a power of ten) of at most 0.3 of `length`."""
    limit = BAR_SHARE * length
    power = 10.0 ** len(str(int(limit))) if limit >= 1 else 1.0
    while power > limit:
        power /= 10.0
    return next(digit * power for digit in ROUND if digit * power <= limit)


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401, ICN001  # only whether it is there
    except ImportError as error:
        msg = "pictures need matplotlib; install it with pip install 'stemstore[view]', or write .npy"
        raise OptionalDependencyError(msg, extra="view") from error


def _save_numbers(part: Path, image: xr.DataArray) -> None:
    import numpy as np

    with part.open("wb") as file:
        np.save(file, image.values, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _save_picture(part: Path, image: xr.DataArray) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [_step(image, dim) for dim in image.dims]
    figure = Figure(figsize=(6, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    # The picture keeps the shape of the scanned area where both steps have one unit.
    same = steps[0][1] == steps[1][1]
    shown = axes.imshow(
        image.values, cmap="gray", interpolation="nearest", aspect=steps[0][0] / steps[1][0] if same else 1
    )
    axes.set_axis_off()
    axes.set_title(image.attrs.get("long_name", ""), fontsize=9)
    figure.colorbar(shown, ax=axes, label=image.attrs.get("units", "count"))
    _draw_bar(axes, image.shape[1], *steps[1])
    figure.savefig(part, format="png", dpi=150)


def _draw_bar(axes: Any, n_columns: int, step: float, unit: str) -> None:
    """Draw a scale bar in the lower left corner; none where the axis is not calibrated."""
    from matplotlib.patches import Rectangle

    if unit == "pixel":
        return
    length = scale_bar(n_columns * step)
    share = length / (n_columns * step)
    place = {"transform": axes.transAxes, "zorder": 3}
    axes.add_patch(Rectangle((0.04, 0.05), share, 0.012, facecolor="white", edgecolor="black", linewidth=0.5, **place))
    text = axes.text(0.04 + share / 2, 0.07, f"{length:g} {unit}", ha="center", va="bottom", color="white", **place)
    text.set_bbox({"facecolor": "black", "alpha": 0.4, "pad": 1.5, "linewidth": 0})


def _step(image: xr.DataArray, dim: Any) -> tuple[float, str]:
    """Distance of two positions along an axis, and its unit."""
    coordinate = image.coords.get(dim)
    if coordinate is None or coordinate.size < PLANE:
        return 1.0, "pixel"
    return abs(float(coordinate[1]) - float(coordinate[0])), coordinate.attrs.get("units", "pixel")
