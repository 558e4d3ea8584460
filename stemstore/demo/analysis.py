"""Both stores analysed with the public operations, each result held against the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dask.base import compute

import stemstore
from stemstore.demo import compare
from stemstore.testing import SyntheticFrames, predict_image
from stemstore.testing.diffraction import disk_mask

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

    from stemstore._types import BoolArray
    from stemstore.demo.clock import Clock
    from stemstore.demo.compare import Check
    from stemstore.testing import SyntheticScan, Truth

DENSE_SHARE = 0.7  # of the predicted correlation that sums of deposited charge must reach, see _image_checks
RINGS = (1.5, 5.5)  # inner and outer radius of the annular dark field, in radii of a disk


def calibration(truth: Truth) -> dict[str, Any]:
    """Give what a user knows about the microscope and the files do not say."""
    known = truth.parameters
    return {
        "beam_energy": known["beam_energy_kev"],
        "semi_convergence_angle": known["semi_convergence_angle_mrad"],
        "detector_step": known["detector_step_mrad"],
        "detector_center": tuple(known["origin"]),
        "scan_step": known["scan_step_nm"],
        "flyback_columns": known["flyback_columns"],
    }


def true_masks(scan: SyntheticScan) -> dict[str, BoolArray]:
    """Pixels of the two virtual detectors, made without the code under test."""
    radius, centre = scan.optics.disk_radius, scan.optics.centre
    inner, outer = (disk_mask(scan.frame_shape, centre, ratio * radius) for ratio in RINGS)
    return {"bright_field": disk_mask(scan.frame_shape, centre, radius), "annular_dark_field": outer & ~inner}


class Analysis:
    """Opens both stores and computes everything once."""

    def __init__(self, folder: Path, scan: SyntheticScan, truth: Truth, n_events: int) -> None:
        self.folder, self.scan, self.truth, self.n_events = folder, scan, truth, n_events
        self.dense = stemstore.open(folder / "dense.zarr")
        self.counted = stemstore.open(folder / "counted.zarr")
        first = scan.scan_shape[0] * 3 // 4  # below, the specimen is flat: patterns of neighbours may be summed
        self.rows = slice(first, scan.scan_shape[0])
        self.factors = (scan.scan_shape[0] - first, scan.scan_shape[1] // 4)
        # what an image of the probe would tell
        self.radius, self.edge = truth.parameters["disk_radius"], truth.parameters["disk_edge"]
        mask = truth.parameters["mask_radius"]
        self.mask = stemstore.disk(mask, unit="pixel")
        self.detectors = {
            "bright_field": stemstore.disk(self.radius, unit="pixel"),
            "annular_dark_field": stemstore.annulus(RINGS[0] * self.radius, RINGS[1] * self.radius, unit="pixel"),
        }
        self.predictions = {key: predict_image(scan, mask) for key, mask in true_masks(scan).items()}
        self.images: dict[str, dict[str, Any]] = {}

    def run(self, clock: Clock) -> list[Check]:
        """Compute all results and compare them with the truth."""
        checks = []
        clock.step("analyse, counted")
        checks += compare.counting_checks(self.counted, self.truth)
        checks += self._analyse("counted", self.counted.intensity)
        clock.note("analyse, counted", f"{self.n_events:,} electrons; {stemstore.explain(self.counted)}")
        clock.step("analyse, dense")
        checks += compare.identity_checks(self.folder, self.n_events)
        checks += self._analyse("dense", self._above_noise())
        clock.note("analyse, dense", "pixels below the counting threshold set to zero first")
        checks += compare.noise_free_checks(*self._noise_free(), self.truth)
        return checks

    def _analyse(self, name: str, image: xr.DataArray) -> list[Check]:
        com = stemstore.center_of_mass(image, mask=self.mask)
        groups = stemstore.bin_scan(image.isel(y=self.rows), self.factors)
        lazy = (
            stemstore.virtual_image(image, self.detectors),
            com,
            stemstore.dpc(com, descan="none"),
            stemstore.mean_pattern(image),
            groups,
        )
        keys = ("virtual", "com", "dpc", "mean", "groups")
        self.images[name] = dict(zip(keys, compute(*lazy), strict=True))
        found = self.images[name]
        found["disks"] = stemstore.find_disks(found["groups"], radius=self.radius, edge_width=self.edge)
        errors = compare.disk_errors(found["disks"], self.rows, self.factors, self.truth)
        limit = compare.counting_limit(self.scan, self.rows, self.factors) if name == "counted" else None
        return [
            *self._image_checks(name, found["virtual"]),
            *(compare.momentum_checks(name, found["com"], self.truth) if name == "counted" else ()),
            compare.phase_check(name, found["dpc"].phase.values, self.truth),
            *compare.disk_checks(name, errors, limit),
        ]

    def _image_checks(self, name: str, images: xr.Dataset) -> list[Check]:
        """Electrons must show what their number allows; charge less, as each electron leaves another amount of it."""
        share = None if name == "counted" else DENSE_SHARE
        return compare.image_checks(name, images, self.predictions, share)

    def _above_noise(self) -> xr.DataArray:
        """Dense frames without pedestal and noise, as a user would write it."""
        from stemstore.store.metadata import read_document

        counting = read_document(self.folder / "counted.zarr").counting
        threshold = counting.background_threshold[0] if counting and counting.background_threshold else 0.0
        return self.dense.intensity.where(self.dense.intensity > threshold, 0)

    def _noise_free(self) -> tuple[xr.Dataset, Any]:
        """Centre of mass and phase of the expected patterns."""
        from stemstore.scan.calibration import Calibration
        from stemstore.scan.open import build
        from stemstore.sources.streaming import FrameScan

        source = SyntheticFrames(self.scan, "expected")
        known, given = source.metadata, Calibration.split(calibration(self.truth))[0]
        ideal = build(FrameScan(source), known.axes, known.acquisition, given, "synthetic", flyback=False)
        com = stemstore.center_of_mass(ideal, mask=self.mask).compute()
        self.images["noise-free"] = {"com": com, "dpc": stemstore.dpc(com, descan="none").compute()}
        return com, self.images["noise-free"]["dpc"].phase.values
