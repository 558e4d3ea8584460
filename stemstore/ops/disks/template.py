"""Templates of the probe for finding Bragg disks: from a vacuum scan, from a pattern, or a synthetic disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from stemstore.errors import InputError
from stemstore.kernels.disks.probe import EDGE_WIDTH, Template, measure_probe, template_of
from stemstore.ops.corrections import PixelCorrections, corrected, corrections_of
from stemstore.ops.labels import DETECTOR_DIMS, intensity_of, recorded, scan_dims, values_of
from stemstore.ops.roi import map_of
from stemstore.scan.blocks import map_kernel

if TYPE_CHECKING:
    import xarray as xr

    from stemstore._types import BoolArray

__all__ = ["Template", "disk_template"]

LOOKED_AT = 9  # patterns whose disks are measured first, for a radius to look for
MOST = 1024  # patterns of a mean probe by default; more hardly change it


def disk_template(
    source: Any = None,
    *,
    radius: float | None = None,
    edge_width: float | None = None,
    roi: Any = None,
    max_patterns: int = MOST,
    **corrections: Unpack[PixelCorrections],
) -> Template:
    """Make a template of the probe for `find_disks`, now.

    Parameters
    ----------
    source
        A vacuum scan (Dataset with the variable ``intensity``, or a DataArray with scan axes): its patterns are moved
        so that their disks lie on one another, to a fraction of a pixel, and averaged. Or one pattern (ky, kx): a mean
        pattern, for example, whose brightest disk is the unscattered one; it is cut out, with neighbours and background
        removed. None: a synthetic disk with a linear edge.
    radius, edge_width : px
        Of a synthetic disk, whose edge is 2 px wide by default. With a source `radius` replaces the measured one in all
        that follows from it (spacings, borders …), and `edge_width` must not be given: the image has its own edge.
    roi : shape of the scan, bool
        Positions of a vacuum scan that take part, where not all of it is vacuum.
    max_patterns
        So many patterns, spread evenly, make the mean probe.
    **corrections
        ``dark``, ``gain`` and ``bad_pixels``, as in `virtual_image`.

    Returns
    -------
    template
        With ``radius``, ``edge_width`` and ``centre`` (row, column) in pixels, ``stamp`` (the disk alone, of height 1,
        its centre in the middle; None for a synthetic one) and ``source`` in words. ``template.draw(shape, centre)``
        shows it.

    Raises
    ------
    InputError
        Nothing says how large the disk is, an argument does not go with the source, no pattern shows a whole disk, or a
        shape does not fit.

    Notes
    -----
    Radius, edge width and centre come from a fit of the round edge, see `stemstore.kernels.disks.probe.measure_probe`.
    Memory per thread: one decoded piece of the scan and about six frames in single precision.

    Examples
    --------
    >>> import stemstore
    >>> vacuum = stemstore.open("vacuum.zarr")  # doctest: +SKIP
    >>> disks = find_disks(ds, disk_template(vacuum))  # doctest: +SKIP
    """
    if source is None:
        return _synthetic(radius, edge_width)
    if edge_width is not None:
        msg = "edge_width goes with a synthetic disk; an image has its own edge, so leave edge_width or the image out"
        raise InputError(msg, key="edge_width")
    labelled = hasattr(source, "dims")
    if not labelled or tuple(sorted(source.dims)) == DETECTOR_DIMS[::-1]:
        if roi is not None:
            msg = "roi names positions of a scan, but the source is one pattern; leave it out or pass the vacuum scan"
            raise InputError(msg, key="roi")
        return template_of(_pattern(source, corrections)).with_radius(radius)
    image = intensity_of(source)
    if not scan_dims(image):
        return template_of(_pattern(image, corrections)).with_radius(radius)
    keep = _spread(image, roi, max_patterns)
    size = _first_radius(image, keep, corrections) if radius is None else float(radius)
    return _aligned_mean(image, keep, size, corrections).with_radius(radius)


def _synthetic(radius: float | None, edge_width: float | None) -> Template:
    if radius is None:
        msg = "a template needs the size of the disk; pass radius= in pixels, a pattern, or a vacuum scan"
        raise InputError(msg, key="radius")
    width = EDGE_WIDTH if edge_width is None else float(edge_width)
    if not (radius > 0 and width > 0):
        msg = f"radius and edge_width of a template are above 0, got {radius!r} and {width!r}"
        raise InputError(msg, key="radius")
    return Template(float(radius), width)


def _pattern(source: Any, corrections: PixelCorrections) -> Any:
    """Give one pattern as plain pixels, corrected."""
    if not corrections:
        values = values_of(source)
        return values if not hasattr(source, "dims") or source.dims == DETECTOR_DIMS else values.T
    import xarray as xr

    image = source if hasattr(source, "dims") else xr.DataArray(np.asarray(source), dims=DETECTOR_DIMS)
    image = intensity_of(image)
    pixels = corrections_of(image, corrections)
    return values_of(image) if pixels is None else pixels.apply(values_of(image))


def _spread(image: xr.DataArray, roi: Any, max_patterns: int) -> BoolArray:
    """Choose positions that take part, spread evenly over those that may."""
    known = recorded(image)
    keep = np.ones(image.shape[:-2], np.bool_) if known is None else known.copy()
    if roi is not None:
        keep &= map_of(image, roi, "roi", bool)
    places = np.flatnonzero(keep)
    if not len(places) or max_patterns < 1:
        msg = f"no pattern takes part in the template: {len(places)} recorded ones, max_patterns={max_patterns}"
        raise InputError(msg, key="roi")
    some = places[np.unique(np.linspace(0, len(places) - 1, min(len(places), max_patterns)).round().astype(int))]
    keep[...] = False
    keep.reshape(-1)[some] = True
    return keep


def _first_radius(image: xr.DataArray, keep: BoolArray, corrections: PixelCorrections) -> float:
    """Measure the disks of a few patterns: descan blurs their mean."""
    places = np.argwhere(keep)
    some = places[np.unique(np.linspace(0, len(places) - 1, min(len(places), LOOKED_AT)).round().astype(int))]
    pixels = corrections_of(image, corrections)
    radii, errors = [], []
    for place in some:
        frame = np.asarray(image[tuple(place.tolist())].values)
        try:
            radii.append(measure_probe(frame if pixels is None else pixels.apply(frame)).radius)
        except InputError as error:  # a pattern without counts
            errors.append(error)
    if not radii:
        raise errors[0]
    return float(np.median(radii))


def _aligned_mean(image: xr.DataArray, keep: BoolArray, radius: float, corrections: PixelCorrections) -> Template:
    from stemstore.kernels.disks.alignment import AlignedSum
    from stemstore.kernels.disks.plan import plan_disks

    shape = (image.sizes["ky"], image.sizes["kx"])
    plan = plan_disks(shape, radius=radius, max_peaks=1, relative_to=0)
    kernel = corrected(AlignedSum(plan), corrections_of(image, corrections))
    total, number = np.asarray(map_kernel(image.data, kernel, keep)).reshape(2, -1)
    n_patterns = round(float(number[0]))
    if n_patterns == 0:
        msg = (
            f"none of {int(keep.sum())} patterns shows a whole disk of radius {radius:.4g} px with its surroundings; "
            "check radius= and roi=, or pass a mean pattern"
        )
        raise InputError(msg, radius=radius)
    side = round(len(total) ** 0.5)
    return template_of(total.reshape(side, side) / n_patterns, f"mean of {n_patterns} aligned patterns")
