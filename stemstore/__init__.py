"""Chunked array storage and lazy labelled datasets for 4D-STEM.

The names below are the public face. They are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from stemstore._version import __version__

_FACE = {
    "open": ("stemstore.scan.open", "open_scan"),
    "remote": ("stemstore.store.address", "remote"),
    "calibrate": ("stemstore.scan.calibrate", "calibrate"),
    "save_calibration": ("stemstore.scan.saved", "save_calibration"),
    "convert": ("stemstore.conversion.run", "convert"),
    "plan_conversion": ("stemstore.conversion.parts", "plan_conversion"),
    "convert_partition": ("stemstore.conversion.parts", "convert_partition"),
    "finalise_conversion": ("stemstore.conversion.parts", "finalise_conversion"),
    "convert_on_cluster": ("stemstore.conversion.cluster", "convert_on_cluster"),
    "export": ("stemstore.exchange.run", "export"),
    "export_disks": ("stemstore.exchange.bragg_vectors", "export_disks"),
    "open_disks": ("stemstore.exchange.bragg_vectors", "open_disks"),
    "validate": ("stemstore.maintenance.validate", "validate"),
    "crate": ("stemstore.maintenance.crate", "crate"),
    "copy_store": ("stemstore.maintenance.copy", "copy_store"),
    "pack_store": ("stemstore.maintenance.pack", "pack_store"),
    "edit_store": ("stemstore.maintenance.edit", "edit_store"),
    "verify": ("stemstore.conversion.verify", "verify"),
    "inspect": ("stemstore.conversion.inspect", "inspect"),
    "readers": ("stemstore.sources.registry", "readers"),
    "virtual_image": ("stemstore.ops.virtual", "virtual_image"),
    "disk": ("stemstore.ops.detectors", "disk"),
    "annulus": ("stemstore.ops.detectors", "annulus"),
    "rectangle": ("stemstore.ops.detectors", "rectangle"),
    "point": ("stemstore.ops.detectors", "point"),
    "sector": ("stemstore.ops.detectors", "sector"),
    "segments": ("stemstore.ops.detectors", "segments"),
    "mean_pattern": ("stemstore.ops.patterns", "mean_pattern"),
    "max_pattern": ("stemstore.ops.patterns", "max_pattern"),
    "variance_pattern": ("stemstore.ops.patterns", "variance_pattern"),
    "bin_scan": ("stemstore.ops.reduce", "bin_scan"),
    "bin_detector": ("stemstore.ops.binning", "bin_detector"),
    "thin": ("stemstore.ops.dose", "thin"),
    "split_halves": ("stemstore.ops.dose", "split_halves"),
    "recenter": ("stemstore.ops.recenter", "recenter"),
    "bright_field_stack": ("stemstore.ops.bright_field", "bright_field_stack"),
    "to_sparse": ("stemstore.ops.sparse_blocks", "to_sparse"),
    "event_columns": ("stemstore.ops.event_columns", "event_columns"),
    "polar_profile": ("stemstore.ops.polar", "polar_profile"),
    "crystallinity": ("stemstore.ops.crystallinity", "crystallinity"),
    "power_spectrum": ("stemstore.ops.crystallinity", "power_spectrum"),
    "radial_profile": ("stemstore.ops.radial", "radial_profile"),
    "radial_variance": ("stemstore.ops.radial", "radial_variance"),
    "center_of_mass": ("stemstore.ops.com", "center_of_mass"),
    "correct": ("stemstore.ops.corrections", "correct"),
    "find_hot_pixels": ("stemstore.ops.hot_pixels", "find_hot_pixels"),
    "fit_descan": ("stemstore.ops.descan", "fit_descan"),
    "subtract_descan": ("stemstore.ops.descan", "subtract_descan"),
    "estimate_rotation": ("stemstore.ops.rotation", "estimate_rotation"),
    "transform_com": ("stemstore.ops.transform", "transform_com"),
    "find_beam": ("stemstore.ops.beam", "find_beam"),
    "measure_origin": ("stemstore.ops.origins", "measure_origin"),
    "fit_origin": ("stemstore.ops.origins", "fit_origin"),
    "fit_ellipse": ("stemstore.ops.ellipse", "fit_ellipse"),
    "find_rings": ("stemstore.ops.ring_peaks", "find_rings"),
    "detector_step_from_rings": ("stemstore.ops.spacings", "detector_step_from_rings"),
    "detector_step_from_angle": ("stemstore.ops.spacings", "detector_step_from_angle"),
    "scan_step_from_lattice": ("stemstore.ops.scan_step", "scan_step_from_lattice"),
    "divergence": ("stemstore.ops.derivatives", "divergence"),
    "curl": ("stemstore.ops.derivatives", "curl"),
    "com_colours": ("stemstore.ops.colours", "com_colours"),
    "dpc": ("stemstore.ops.dpc", "dpc"),
    "find_disks": ("stemstore.ops.bragg", "find_disks"),
    "disk_lists": ("stemstore.ops.bragg", "disk_lists"),
    "preview_disks": ("stemstore.ops.disk_preview", "preview_disks"),
    "disk_template": ("stemstore.ops.template", "disk_template"),
    "disks_at": ("stemstore.ops.disk_views", "disks_at"),
    "select_disks": ("stemstore.ops.disk_views", "select_disks"),
    "calibrate_disks": ("stemstore.ops.disk_calibration", "calibrate_disks"),
    "bragg_vector_map": ("stemstore.ops.vector_map", "bragg_vector_map"),
    "disk_image": ("stemstore.ops.disk_image", "disk_image"),
    "disk_origin": ("stemstore.ops.disk_origin", "disk_origin"),
    "find_basis": ("stemstore.ops.basis", "find_basis"),
    "index_disks": ("stemstore.ops.lattice", "index_disks"),
    "fit_lattice": ("stemstore.ops.lattice", "fit_lattice"),
    "strain_map": ("stemstore.ops.strain", "strain_map"),
    "detector_from_lattice": ("stemstore.ops.lattice_scale", "detector_from_lattice"),
    "compute": ("stemstore.ops.shared", "compute"),
    "local_cluster": ("stemstore.scan.cluster", "local_cluster"),
    "worker_environment": ("stemstore.scan.cluster", "worker_environment"),
    "save": ("stemstore.ops.save", "save"),
    "open_result": ("stemstore.ops.results", "open_result"),
    "results": ("stemstore.ops.results", "results"),
    "map_frames": ("stemstore.ops.functions", "map_frames"),
    "explain": ("stemstore.ops.explain", "explain"),
}

__all__ = [
    "__version__",
    "annulus",
    "bin_detector",
    "bin_scan",
    "bragg_vector_map",
    "bright_field_stack",
    "calibrate",
    "calibrate_disks",
    "center_of_mass",
    "com_colours",
    "compute",
    "convert",
    "convert_on_cluster",
    "convert_partition",
    "copy_store",
    "correct",
    "crate",
    "crystallinity",
    "curl",
    "detector_from_lattice",
    "detector_step_from_angle",
    "detector_step_from_rings",
    "disk",
    "disk_image",
    "disk_lists",
    "disk_origin",
    "disk_template",
    "disks_at",
    "divergence",
    "dpc",
    "edit_store",
    "estimate_rotation",
    "event_columns",
    "explain",
    "export",
    "export_disks",
    "finalise_conversion",
    "find_basis",
    "find_beam",
    "find_disks",
    "find_hot_pixels",
    "find_rings",
    "fit_descan",
    "fit_ellipse",
    "fit_lattice",
    "fit_origin",
    "index_disks",
    "inspect",
    "local_cluster",
    "map_frames",
    "max_pattern",
    "mean_pattern",
    "measure_origin",
    "open",
    "open_disks",
    "open_result",
    "pack_store",
    "plan_conversion",
    "point",
    "polar_profile",
    "power_spectrum",
    "preview_disks",
    "radial_profile",
    "radial_variance",
    "readers",
    "recenter",
    "rectangle",
    "remote",
    "results",
    "save",
    "save_calibration",
    "scan_step_from_lattice",
    "sector",
    "segments",
    "select_disks",
    "split_halves",
    "strain_map",
    "subtract_descan",
    "thin",
    "to_sparse",
    "transform_com",
    "validate",
    "variance_pattern",
    "verify",
    "virtual_image",
    "worker_environment",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from stemstore.conversion.cluster import convert_on_cluster as convert_on_cluster
    from stemstore.conversion.inspect import inspect
    from stemstore.conversion.parts import convert_partition as convert_partition
    from stemstore.conversion.parts import finalise_conversion as finalise_conversion
    from stemstore.conversion.parts import plan_conversion as plan_conversion
    from stemstore.conversion.run import convert
    from stemstore.conversion.verify import verify as verify
    from stemstore.exchange.bragg_vectors import export_disks as export_disks
    from stemstore.exchange.bragg_vectors import open_disks as open_disks
    from stemstore.exchange.run import export
    from stemstore.maintenance.copy import copy_store as copy_store
    from stemstore.maintenance.crate import crate as crate
    from stemstore.maintenance.edit import edit_store as edit_store
    from stemstore.maintenance.pack import pack_store as pack_store
    from stemstore.maintenance.validate import validate as validate
    from stemstore.ops.basis import find_basis as find_basis
    from stemstore.ops.beam import find_beam
    from stemstore.ops.binning import bin_detector
    from stemstore.ops.bragg import disk_lists as disk_lists
    from stemstore.ops.bragg import find_disks
    from stemstore.ops.bright_field import bright_field_stack
    from stemstore.ops.colours import com_colours
    from stemstore.ops.com import center_of_mass
    from stemstore.ops.corrections import correct
    from stemstore.ops.crystallinity import crystallinity, power_spectrum
    from stemstore.ops.derivatives import curl, divergence
    from stemstore.ops.descan import fit_descan, subtract_descan
    from stemstore.ops.detectors import annulus, disk, point, rectangle, sector, segments
    from stemstore.ops.disk_calibration import calibrate_disks as calibrate_disks
    from stemstore.ops.disk_image import disk_image as disk_image
    from stemstore.ops.disk_origin import disk_origin as disk_origin
    from stemstore.ops.disk_preview import preview_disks as preview_disks
    from stemstore.ops.disk_views import disks_at as disks_at
    from stemstore.ops.disk_views import select_disks as select_disks
    from stemstore.ops.dose import split_halves, thin
    from stemstore.ops.dpc import dpc
    from stemstore.ops.ellipse import fit_ellipse
    from stemstore.ops.event_columns import event_columns
    from stemstore.ops.explain import explain
    from stemstore.ops.functions import map_frames
    from stemstore.ops.hot_pixels import find_hot_pixels
    from stemstore.ops.lattice import fit_lattice as fit_lattice
    from stemstore.ops.lattice import index_disks as index_disks
    from stemstore.ops.lattice_scale import detector_from_lattice as detector_from_lattice
    from stemstore.ops.origins import fit_origin, measure_origin
    from stemstore.ops.patterns import max_pattern, mean_pattern, variance_pattern
    from stemstore.ops.polar import polar_profile
    from stemstore.ops.radial import radial_profile, radial_variance
    from stemstore.ops.recenter import recenter
    from stemstore.ops.reduce import bin_scan
    from stemstore.ops.results import open_result, results
    from stemstore.ops.ring_peaks import find_rings
    from stemstore.ops.rotation import estimate_rotation
    from stemstore.ops.save import save
    from stemstore.ops.scan_step import scan_step_from_lattice
    from stemstore.ops.shared import compute
    from stemstore.ops.spacings import detector_step_from_angle, detector_step_from_rings
    from stemstore.ops.sparse_blocks import to_sparse
    from stemstore.ops.strain import strain_map as strain_map
    from stemstore.ops.template import disk_template as disk_template
    from stemstore.ops.transform import transform_com
    from stemstore.ops.vector_map import bragg_vector_map as bragg_vector_map
    from stemstore.ops.virtual import virtual_image
    from stemstore.scan.calibrate import calibrate
    from stemstore.scan.cluster import local_cluster as local_cluster
    from stemstore.scan.cluster import worker_environment as worker_environment
    from stemstore.scan.open import open_scan as open  # noqa: A004  # the module's own door
    from stemstore.scan.saved import save_calibration
    from stemstore.sources.registry import readers
    from stemstore.store.address import remote as remote


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        msg = f"module {__name__!r} has no attribute {name!r}; the public names are {', '.join(__all__)}"
        raise AttributeError(msg)
    module, attribute = _FACE[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
