"""Bragg disks of a whole scan: positions and intensities of all diffraction disks, lazily."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.densified import densified
from stemstore.kernels.disk_plan import DiskOptions, DiskPlan, plan_disks
from stemstore.kernels.disks import COLUMNS, frame_disks
from stemstore.ops.corrections import PixelCorrections, corrected, corrections_of, corrections_text
from stemstore.ops.labels import intensity_of, labelled, parameters_text, recorded, scan_dims, values_of
from stemstore.ops.roi import map_of
from stemstore.scan.blocks import map_kernel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import Array, BoolArray, FloatArray, Int64Array, UInt16Array
    from stemstore.kernels.contract import DetectorRegion

DISK_DIM = "disk"


@dataclass(frozen=True, slots=True, eq=False)
class DiskKernel:
    """Kernel: the list of Bragg disks of every frame, shape (max_peaks, 4), NaN behind the last disk.

    Columns as in `stemstore.kernels.disks.COLUMNS`; rows and columns count on the visible detector.
    """

    plan: DiskPlan
    reduces: Literal["detector"] = "detector"
    combine: np.ufunc = np.add

    def prepare(self, region: DetectorRegion) -> tuple[DiskPlan, DetectorRegion]:
        """Check that the plan was made for the visible detector."""
        if region.shape != self.plan.frame_shape:
            msg = (
                f"disk detection was planned for frames of {self.plan.frame_shape} pixels, but the scan shows "
                f"{region.shape}; plan it for the detector region that is used"
            )
            raise InputError(msg, expected=self.plan.frame_shape, found=region.shape)
        return self.plan, region

    def output(self, dtype: np.dtype[Any], region: DetectorRegion) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """One fixed-length list per frame, whatever the dtype."""
        del dtype, region
        return (self.plan.parameters.max_peaks, len(COLUMNS)), np.dtype(np.float32)

    def allocate(self, n_positions: int, dtype: np.dtype[Any], region: DetectorRegion) -> Array:
        """Make empty lists: a position that is never visited has no disks."""
        shape, wide = self.output(dtype, region)
        return np.full((n_positions, *shape), np.nan, wide)

    def frames(self, block: Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any) -> None:
        """Find the disks of dense frames, one by one."""
        plan, region = prepared
        for frame, row in zip(local, place, strict=True):
            frame_disks(region.crop(block[frame]), plan, out[row])

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, out: Array, place: Int64Array, prepared: Any
    ) -> None:
        """Make counted frames dense, some at a time, and find their disks."""
        for frames, rows, some in densified(gap, offsets, local, prepared[1].stored):
            self.frames(frames, rows, out, place[some], prepared)

    def finish(self, out: Array, region: DetectorRegion) -> Array:
        """Leave the lists as they are."""
        del region
        return out


def find_disks(
    scan: Any,
    template: Any | None = None,
    *,
    radius: float | None = None,
    roi: Any | None = None,
    bad_pixels: Any | None = None,
    dark: Any | None = None,
    gain: Any | None = None,
    **options: Unpack[DiskOptions],
) -> xr.Dataset:
    """Find the Bragg disks of every diffraction pattern.

    Positions are those of the patterns as stored: nothing is centred, rotated or corrected for distortion.

    Parameters
    ----------
    scan
        Dataset with the variable ``intensity``, or a DataArray whose dims include ky and kx.
    template : shape (ky, kx)
        Image of the probe: a vacuum pattern, or a mean pattern whose brightest disk is the unscattered one. Without it
        the disk is synthetic.
    radius : unit pixel
        Radius of the disks; required without a template.
    roi : shape of the scan, bool
        Positions to look at; all others get no disks and are marked by the coordinate ``processed``.
    bad_pixels : shape (ky, kx), bool
        Pixels to be replaced by the mean of their neighbours.
    dark, gain : shape (ky, kx)
        Detector corrections, as in `virtual_image`.
    **options
        See `stemstore.kernels.disk_plan.DiskOptions`: ``min_spacing``, ``edge_boundary``, ``sigma_detect``,
        ``min_abs``, ``significance``, ``min_rel``, ``max_peaks`` …, lengths in pixels; all follow from the radius.

    Returns
    -------
    disks : dims (y, x, disk), lazy
        ``disk_ky``, ``disk_kx`` (unit of the detector axes, float64), ``disk_ky_pixel``, ``disk_kx_pixel`` (pixels of
        the visible detector, float32), ``intensity`` (counts above the surrounding background), ``correlation``
        (counts per pixel; the disks of a pattern are sorted by it, largest first), all NaN behind the last disk, and
        ``n_disks`` (y, x). Where ``n_disks`` equals the length of ``disk`` the list may be cut: raise ``max_peaks``.
        The attributes hold all parameters after defaults.

    Raises
    ------
    InputError
        Neither radius nor template is given, an option is unknown or out of range, or a shape does not fit.

    Notes
    -----
    Method: see `stemstore.kernels.correlation` and `stemstore.kernels.disks`. Memory per thread: one decoded piece of
    the scan, about six frames in single precision, and the lists (16 bytes per entry).

    Examples
    --------
    >>> import stemstore
    >>> ds = stemstore.open("scan_42.zarr")  # doctest: +SKIP
    >>> disks = find_disks(ds, radius=8)  # doctest: +SKIP
    >>> disks.n_disks.compute()  # doctest: +SKIP
    """
    import xarray as xr

    image = intensity_of(scan)
    plan = plan_disks(
        (image.sizes["ky"], image.sizes["kx"]),
        radius=radius,
        template=None if template is None else values_of(template),
        bad_pixels=None if bad_pixels is None else values_of(bad_pixels),
        **options,
    )
    keep = _positions(image, roi)
    references: PixelCorrections = {"dark": dark, "gain": gain}
    table = map_kernel(image.data, corrected(DiskKernel(plan), corrections_of(image, references)), keep)
    parameters = {name: value for name, value in asdict(plan.parameters).items() if value is not None}
    source = "synthetic disk" if template is None else f"image of shape {np.shape(template)}"
    history = parameters_text("find_disks", template=source, **parameters, **corrections_text(references))
    dims = (*scan_dims(image), DISK_DIM)
    columns = {name: labelled(table[..., n], image, dims, history) for n, name in enumerate(COLUMNS)}
    count = columns["correlation"].notnull().sum(DISK_DIM)
    disks = xr.Dataset(
        {
            "disk_ky": _on_axis(columns["ky"], image, "ky"),
            "disk_kx": _on_axis(columns["kx"], image, "kx"),
            "disk_ky_pixel": _described(columns["ky"], "pixel", "detector row of the disk"),
            "disk_kx_pixel": _described(columns["kx"], "pixel", "detector column of the disk"),
            "intensity": _described(columns["intensity"], image.attrs.get("units", "count"), "intensity of the disk"),
            "correlation": _described(columns["correlation"], "count", "correlation with the probe, per pixel"),
            "n_disks": _described(count, "count", "number of disks"),
        },
        attrs=parameters | {"template": source, "transform_shape": plan.fft_shape, "history": history},
    )
    return disks if keep is None else disks.assign_coords(processed=(scan_dims(image), keep))


def _positions(image: xr.DataArray, roi: Any | None) -> BoolArray | None:
    """Positions to look at: those asked for that have a frame; None for all."""
    known = recorded(image)
    if roi is None:
        return known
    wanted: BoolArray = map_of(image, roi, "roi", bool)
    return wanted if known is None else wanted & known


def _described(column: xr.DataArray, units: str, name: str) -> xr.DataArray:
    return column.assign_attrs(units=units, long_name=name)


def _on_axis(pixels: xr.DataArray, image: xr.DataArray, dim: str) -> xr.DataArray:
    """Turn pixels of the visible detector into coordinates of its axis, between pixels linearly."""
    import xarray as xr

    axis = image.coords[dim].values.astype(np.float64) if dim in image.coords else np.arange(image.sizes[dim]) * 1.0
    units = image.coords[dim].attrs.get("units", "pixel") if dim in image.coords else "pixel"
    placed = xr.apply_ufunc(
        _interpolate, pixels, kwargs={"axis": axis}, dask="parallelized", output_dtypes=[np.float64], keep_attrs=True
    )
    return _described(placed, units, f"{dim} of the disk")


def _interpolate(pixels: Array, axis: FloatArray) -> FloatArray:
    return np.interp(pixels, np.arange(len(axis)), axis)
