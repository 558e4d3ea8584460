"""NeXus files, written from the description of the format."""

from __future__ import annotations

import h5py
import numpy as np


def group_of(parent, name, kind, **attributes):
    """Make a group of a NeXus class."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    group.attrs.update(attributes)
    return group


def write_nexus(path, frames, labels=None, signal="data", default=True, layout=None, **attributes):
    """Write /entry/scan with `frames`; `labels` maps names of axes to (coordinates, unit) or None."""
    labels = {} if labels is None else labels
    with h5py.File(path, "w") as file:
        file.attrs["NX_class"] = "NXroot"
        entry = group_of(file, "entry", np.bytes_("NXentry"))
        data = group_of(entry, "scan", "NXdata", signal=signal, **attributes)
        data.create_dataset(signal, data=frames, **(layout or {}))
        if default:
            file.attrs["default"], entry.attrs["default"] = "entry", np.bytes_("scan")
        if labels and "axes" not in attributes:
            data.attrs["axes"] = ["." if name.startswith(".") else name for name in labels]
        for name, coordinates in labels.items():
            if coordinates is not None:
                data[name] = coordinates[0]
                if coordinates[1] is not None:
                    data[name].attrs["units"] = coordinates[1]
    return path


def write_nxem(path, frames):
    """Write the image of an NXem measurement with its optics, axes slow to fast: m, k, j, i."""
    units = {"m": ("nm", 0.5), "k": ("nm", 0.25), "j": ("1/nm", 0.1), "i": ("1/nm", 0.2)}
    with h5py.File(path, "w") as file:
        file.attrs.update({"NX_class": "NXroot", "default": "entry"})
        entry = group_of(file, "entry", "NXentry")
        entry["definition"], entry["start_time"] = "NXem", "2024-05-17T09:30:00+02:00"
        measurement = group_of(entry, "measurement", "NXem_measurement")
        source = group_of(measurement, "instrument", "NXem_instrument")
        source["name"] = "Titan"
        source = group_of(group_of(source, "ebeam_column", "NXebeam_column"), "electron_source", "NXsource")
        source["voltage"] = 200.0
        source["voltage"].attrs["units"] = "kV"
        event = group_of(measurement, "event1", "NXem_event_data")
        optics = group_of(group_of(event, "instrument", "NXem_instrument"), "optics", "NXem_optical_system")
        optics["semi_convergence_angle"] = 0.0215
        optics["semi_convergence_angle"].attrs["units"] = "rad"
        optics["camera_length"] = 0.1
        optics["camera_length"].attrs["units"] = "m"
        optics["magnification"] = 1e6
        image = group_of(event, "image1", "NXimage")
        names = [f"axis_{letter}" for letter in units]
        data = group_of(image, "image_4d", "NXdata", signal="intensity", axes=names)
        data["intensity"] = frames
        for place, (letter, (unit, step)) in enumerate(units.items()):
            data[f"axis_{letter}"] = step * (np.arange(frames.shape[place]) - (2 if letter in "ji" else 0))
            data[f"axis_{letter}"].attrs["units"] = unit
            data.attrs[f"axis_{letter}_indices"] = np.array([place])
    return path
