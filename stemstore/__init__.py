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
    "open_series": ("stemstore.scan.series.open", "open_series"),
    "remote": ("stemstore.store.address", "remote"),
    "calibrate": ("stemstore.scan.calibrate", "calibrate"),
    "save_calibration": ("stemstore.scan.saved", "save_calibration"),
    "convert": ("stemstore.conversion.run", "convert"),
    "convert_series": ("stemstore.conversion.series.run", "convert_series"),
    "index_series": ("stemstore.store.series.entry", "index_series"),
    "map_scans": ("stemstore.scan.series.mapping", "map_scans"),
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
    "rechunk_store": ("stemstore.conversion.rechunk", "rechunk_store"),
    "pack_store": ("stemstore.maintenance.pack", "pack_store"),
    "edit_store": ("stemstore.maintenance.edit", "edit_store"),
    "verify": ("stemstore.conversion.verify", "verify"),
    "inspect": ("stemstore.conversion.inspect", "inspect"),
    "readers": ("stemstore.sources.registry", "readers"),
    "virtual_image": ("stemstore.ops.imaging.virtual", "virtual_image"),
    "disk": ("stemstore.ops.geometry.detectors", "disk"),
    "annulus": ("stemstore.ops.geometry.detectors", "annulus"),
    "rectangle": ("stemstore.ops.geometry.detectors", "rectangle"),
    "point": ("stemstore.ops.geometry.detectors", "point"),
    "sector": ("stemstore.ops.geometry.detectors", "sector"),
    "segments": ("stemstore.ops.geometry.detectors", "segments"),
    "mean_pattern": ("stemstore.ops.imaging.patterns", "mean_pattern"),
    "max_pattern": ("stemstore.ops.imaging.patterns", "max_pattern"),
    "variance_pattern": ("stemstore.ops.imaging.patterns", "variance_pattern"),
    "bin_scan": ("stemstore.ops.imaging.reduce", "bin_scan"),
    "bin_detector": ("stemstore.ops.imaging.binning", "bin_detector"),
    "thin": ("stemstore.ops.imaging.dose", "thin"),
    "split_halves": ("stemstore.ops.imaging.dose", "split_halves"),
    "recenter": ("stemstore.ops.imaging.recenter", "recenter"),
    "bright_field_stack": ("stemstore.ops.imaging.bright_field", "bright_field_stack"),
    "to_sparse": ("stemstore.ops.imaging.sparse_blocks", "to_sparse"),
    "event_columns": ("stemstore.ops.imaging.event_columns", "event_columns"),
    "polar_profile": ("stemstore.ops.imaging.polar", "polar_profile"),
    "crystallinity": ("stemstore.ops.imaging.crystallinity", "crystallinity"),
    "power_spectrum": ("stemstore.ops.imaging.crystallinity", "power_spectrum"),
    "radial_profile": ("stemstore.ops.imaging.radial", "radial_profile"),
    "radial_variance": ("stemstore.ops.imaging.radial", "radial_variance"),
    "center_of_mass": ("stemstore.ops.phase.com", "center_of_mass"),
    "correct": ("stemstore.ops.corrections", "correct"),
    "find_hot_pixels": ("stemstore.ops.imaging.hot_pixels", "find_hot_pixels"),
    "fit_descan": ("stemstore.ops.phase.descan", "fit_descan"),
    "subtract_descan": ("stemstore.ops.phase.descan", "subtract_descan"),
    "estimate_rotation": ("stemstore.ops.phase.rotation", "estimate_rotation"),
    "transform_com": ("stemstore.ops.phase.transform", "transform_com"),
    "find_beam": ("stemstore.ops.calibration.beam", "find_beam"),
    "measure_origin": ("stemstore.ops.calibration.origins", "measure_origin"),
    "fit_origin": ("stemstore.ops.calibration.origins", "fit_origin"),
    "fit_ellipse": ("stemstore.ops.calibration.ellipse", "fit_ellipse"),
    "find_rings": ("stemstore.ops.calibration.ring_peaks", "find_rings"),
    "detector_step_from_rings": ("stemstore.ops.calibration.spacings", "detector_step_from_rings"),
    "detector_step_from_angle": ("stemstore.ops.calibration.spacings", "detector_step_from_angle"),
    "scan_step_from_lattice": ("stemstore.ops.calibration.scan_step", "scan_step_from_lattice"),
    "divergence": ("stemstore.ops.phase.derivatives", "divergence"),
    "curl": ("stemstore.ops.phase.derivatives", "curl"),
    "com_colours": ("stemstore.ops.phase.colours", "com_colours"),
    "dpc": ("stemstore.ops.phase.dpc", "dpc"),
    "find_disks": ("stemstore.ops.disks.find", "find_disks"),
    "disk_lists": ("stemstore.ops.disks.find", "disk_lists"),
    "preview_disks": ("stemstore.ops.disks.preview", "preview_disks"),
    "disk_template": ("stemstore.ops.disks.template", "disk_template"),
    "disks_at": ("stemstore.ops.disks.views", "disks_at"),
    "select_disks": ("stemstore.ops.disks.views", "select_disks"),
    "calibrate_disks": ("stemstore.ops.disks.calibration", "calibrate_disks"),
    "bragg_vector_map": ("stemstore.ops.disks.vector_map", "bragg_vector_map"),
    "disk_image": ("stemstore.ops.disks.image", "disk_image"),
    "disk_origin": ("stemstore.ops.disks.origin", "disk_origin"),
    "find_basis": ("stemstore.ops.lattice.basis", "find_basis"),
    "index_disks": ("stemstore.ops.lattice.fit", "index_disks"),
    "fit_lattice": ("stemstore.ops.lattice.fit", "fit_lattice"),
    "strain_map": ("stemstore.ops.lattice.strain", "strain_map"),
    "detector_from_lattice": ("stemstore.ops.lattice.scale", "detector_from_lattice"),
    "compute": ("stemstore.ops.shared", "compute"),
    "local_cluster": ("stemstore.scan.cluster", "local_cluster"),
    "worker_environment": ("stemstore.scan.cluster", "worker_environment"),
    "save": ("stemstore.ops.saved.save", "save"),
    "open_result": ("stemstore.ops.saved.results", "open_result"),
    "results": ("stemstore.ops.saved.results", "results"),
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
    "convert_series",
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
    "index_series",
    "inspect",
    "local_cluster",
    "map_frames",
    "map_scans",
    "max_pattern",
    "mean_pattern",
    "measure_origin",
    "open",
    "open_disks",
    "open_result",
    "open_series",
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
    "rechunk_store",
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
    from stemstore.conversion.rechunk import rechunk_store
    from stemstore.conversion.run import convert
    from stemstore.conversion.series.run import convert_series
    from stemstore.conversion.verify import verify as verify
    from stemstore.exchange.bragg_vectors import export_disks as export_disks
    from stemstore.exchange.bragg_vectors import open_disks as open_disks
    from stemstore.exchange.run import export
    from stemstore.maintenance.copy import copy_store as copy_store
    from stemstore.maintenance.crate import crate as crate
    from stemstore.maintenance.edit import edit_store as edit_store
    from stemstore.maintenance.pack import pack_store as pack_store
    from stemstore.maintenance.validate import validate as validate
    from stemstore.ops.calibration.beam import find_beam
    from stemstore.ops.calibration.ellipse import fit_ellipse
    from stemstore.ops.calibration.origins import fit_origin, measure_origin
    from stemstore.ops.calibration.ring_peaks import find_rings
    from stemstore.ops.calibration.scan_step import scan_step_from_lattice
    from stemstore.ops.calibration.spacings import detector_step_from_angle, detector_step_from_rings
    from stemstore.ops.corrections import correct
    from stemstore.ops.disks.calibration import calibrate_disks as calibrate_disks
    from stemstore.ops.disks.find import disk_lists as disk_lists
    from stemstore.ops.disks.find import find_disks
    from stemstore.ops.disks.image import disk_image as disk_image
    from stemstore.ops.disks.origin import disk_origin as disk_origin
    from stemstore.ops.disks.preview import preview_disks as preview_disks
    from stemstore.ops.disks.template import disk_template as disk_template
    from stemstore.ops.disks.vector_map import bragg_vector_map as bragg_vector_map
    from stemstore.ops.disks.views import disks_at as disks_at
    from stemstore.ops.disks.views import select_disks as select_disks
    from stemstore.ops.explain import explain
    from stemstore.ops.functions import map_frames
    from stemstore.ops.geometry.detectors import annulus, disk, point, rectangle, sector, segments
    from stemstore.ops.imaging.binning import bin_detector
    from stemstore.ops.imaging.bright_field import bright_field_stack
    from stemstore.ops.imaging.crystallinity import crystallinity, power_spectrum
    from stemstore.ops.imaging.dose import split_halves, thin
    from stemstore.ops.imaging.event_columns import event_columns
    from stemstore.ops.imaging.hot_pixels import find_hot_pixels
    from stemstore.ops.imaging.patterns import max_pattern, mean_pattern, variance_pattern
    from stemstore.ops.imaging.polar import polar_profile
    from stemstore.ops.imaging.radial import radial_profile, radial_variance
    from stemstore.ops.imaging.recenter import recenter
    from stemstore.ops.imaging.reduce import bin_scan
    from stemstore.ops.imaging.sparse_blocks import to_sparse
    from stemstore.ops.imaging.virtual import virtual_image
    from stemstore.ops.lattice.basis import find_basis as find_basis
    from stemstore.ops.lattice.fit import fit_lattice as fit_lattice
    from stemstore.ops.lattice.fit import index_disks as index_disks
    from stemstore.ops.lattice.scale import detector_from_lattice as detector_from_lattice
    from stemstore.ops.lattice.strain import strain_map as strain_map
    from stemstore.ops.phase.colours import com_colours
    from stemstore.ops.phase.com import center_of_mass
    from stemstore.ops.phase.derivatives import curl, divergence
    from stemstore.ops.phase.descan import fit_descan, subtract_descan
    from stemstore.ops.phase.dpc import dpc
    from stemstore.ops.phase.rotation import estimate_rotation
    from stemstore.ops.phase.transform import transform_com
    from stemstore.ops.saved.results import open_result, results
    from stemstore.ops.saved.save import save
    from stemstore.ops.shared import compute
    from stemstore.scan.calibrate import calibrate
    from stemstore.scan.cluster import local_cluster as local_cluster
    from stemstore.scan.cluster import worker_environment as worker_environment
    from stemstore.scan.open import open_scan as open  # noqa: A004  # the module's own door
    from stemstore.scan.saved import save_calibration
    from stemstore.scan.series.mapping import map_scans
    from stemstore.scan.series.open import open_series
    from stemstore.sources.registry import readers
    from stemstore.store.address import remote as remote
    from stemstore.store.series.entry import index_series


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
