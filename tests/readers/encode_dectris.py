"""Dectris files, written from the description of the format."""

from __future__ import annotations

import h5py
import numpy as np


def bitshuffle():
    """Options of the filter that the detectors use; empty where it is not installed."""
    try:
        import hdf5plugin
    except ImportError:
        return {}
    return dict(hdf5plugin.Bitshuffle(nelems=0, cname="lz4"))


def write_data(path, frames, low=1, compressed=False, numbered=True):
    """One data file."""
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = np.bytes_("NXentry")
        data = entry.create_group("data")
        data.attrs["NX_class"] = np.bytes_("NXdata")
        options = bitshuffle() if compressed else {}
        stored = data.create_dataset("data", data=frames, chunks=(1, *frames.shape[1:]), **options)
        if numbered:
            stored.attrs["image_nr_low"] = np.uint64(low)
            stored.attrs["image_nr_high"] = np.uint64(low + len(frames) - 1)


def write_master(path, links, mask=None, triggers=(1, 1), **changes):
    """The master file; `changes` replaces values below the detector, a None leaves one out."""
    values = {
        "description": np.bytes_("Dectris ARINA CZT"),
        "bit_depth_readout": np.uint16(8),
        "count_time": 9.9e-5,
        "frame_time": 1e-4,
        "x_pixel_size": 1e-4,
        "y_pixel_size": 2e-4,
        "threshold_energy": 17500.0,
        "pixel_mask_applied": np.int8(1),
        "saturation_value": np.int64(8352),
        "detectorSpecific/nimages": np.uint64(triggers[1]),
        "detectorSpecific/ntrigger": np.uint64(triggers[0]),
        "detectorSpecific/photon_energy": 300000.0,
        "detectorSpecific/data_collection_date": np.bytes_("2025-05-03T01:51:00.302+02:00"),
        **changes,
    }
    with h5py.File(path, "w") as file:
        file["entry/definition"] = np.bytes_("NXmx")
        file["entry/definition"].attrs["version"] = np.bytes_("1.4")
        for number, name in links.items():
            file[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(name, "/entry/data/data")
        for key, value in values.items():
            if value is not None:
                file[f"entry/instrument/detector/{key}"] = value
        if mask is not None:
            file["entry/instrument/detector/detectorSpecific/pixel_mask"] = mask.astype(np.uint32)


def write_sidecar(path, shape, prescan=0, arrays=True, **changes):
    """The file of the microscope; its attributes are arrays of one, or scalars."""
    values = {
        "NumPixelsY": shape[0],
        "NumPixelsX": shape[1],
        "NumPixelsPrescan": prescan,
        "Pixel Size": 0.5,
        "IsPixelSizeCalibrated": 1,
        "Camera Length": 0.115,
        "High Tension": 300000.0,
        "Magnification": 1.65e8,
        "ScanDwellTime": 1e-4,
        "Rotation": 12.0,
        **changes,
    }
    with h5py.File(path, "w") as file:
        group = file.create_group("STEM Metadata")
        for key, value in values.items():
            group.attrs[key] = np.array([value]) if arrays else value
        file["detector 1 [BF]/image"] = np.zeros((40, 40), np.uint16)


def write_scan(folder, frames, per_file, shape=None, compressed=False, **master):
    """Data files of `per_file` frames each, their master and, with `shape`, the sidecar; gives the master."""
    links = {}
    for number, start in enumerate(range(0, len(frames), per_file), 1):
        links[number] = f"scan_data_{number:06d}.h5"
        write_data(folder / links[number], frames[start : start + per_file], start + 1, compressed)
    master.setdefault("triggers", (len(frames), 1))
    write_master(folder / "scan_master.h5", links, **master)
    if shape is not None:
        write_sidecar(folder / "scan.h5", shape)
    return folder / "scan_master.h5"
