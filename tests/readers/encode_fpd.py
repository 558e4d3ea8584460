"""Files of the fpd library, written from the description of the format."""

from __future__ import annotations

import h5py
import numpy as np

HEADER = (
    "MQ1,000001,00384,01,0006,0008,U16,   1x1,01,2017-02-24 15:58:36.018022,0.007000,0,0,0,"
    "4.000000E+1,0.000000E+0,0.000000E+0,0.000000E+0,0.000000E+0,0.000000E+0,0.000000E+0,0.000000E+0,"
    "MQ1A,2017-02-24T15:58:36.018022847Z,7000000ns,12,"
)


def write_fpd(path, frames, steps=None, units=("pixel", "pixel"), stamp=HEADER, **layout):
    """Write frames (y, x, colour, ky, kx) with the arrays beside them; `steps` of the scan axes, texts without."""
    ny, nx, colours, rows, columns = frames.shape
    axes = [
        ("scanY", units[0], "y" if steps is None else np.arange(ny) * steps[0]),
        ("scanX", units[1], "x" if steps is None else np.arange(nx) * steps[1]),
        ("colour", "colour_index", np.arange(1, colours + 1)),
        ("detY", "?/m", np.arange(rows)),
        ("detX", "?/m", np.arange(columns)),
    ]
    with h5py.File(path, "w") as file:
        file.attrs.update({"fpd_version": "0.3.0", "version_major": 0, "version_minor": 2})

        def array(name, values, axes, unit, **options):
            group = file.create_group(f"fpd_expt/{name}")
            group.attrs["emd_group_type"] = 1
            group.create_dataset("data", data=values, **options).attrs["units"] = unit
            for number, (label, unit_text, coordinates) in enumerate(axes, 1):
                group[f"dim{number}"] = coordinates
                group[f"dim{number}"].attrs.update({"name": label, "units": unit_text})

        array("fpd_data", frames, axes, "Counts", **layout)
        each = frames.shape[:3]
        array("fpd_sum_im", frames.sum((3, 4), dtype="u8"), axes[:3], "Counts")
        array("Exposure", np.full(each, 7_000_000), axes[:3], "nS")
        array("Unixtime", np.full(each, 1_487_951_916_018_022_000), axes[:3], "nS")
        limits = np.zeros((*each, 8), "f4")
        limits[..., 0] = 40
        array("Threshold", limits, [*axes[:3], ("Threshold", "keV", np.arange(8))], "keV")
        if stamp is not None:
            array("binary_hdr", np.full(each, stamp.encode(), dtype="S384"), axes[:3], "")
    return path
