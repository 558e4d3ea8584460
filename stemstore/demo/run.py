"""The main job end to end: raw sector files, two stores, images, phase, disks, and a report against the truth."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.base import compute

import stemstore
from stemstore.config import format_size
from stemstore.demo import compare, figures
from stemstore.demo.report import write_report
from stemstore.errors import InputError
from stemstore.progress import NoProgress, Progress
from stemstore.testing import SyntheticFrames, SyntheticScan, predict_image, write_scan
from stemstore.testing.diffraction import disk_mask

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from stemstore._types import BoolArray
    from stemstore.conversion.run import ConversionReport
    from stemstore.demo.compare import Check
    from stemstore.testing import Truth

STEPS = 6
LOST = ((3, 5, 1), (11, 20, 0), (11, 21, 0), (19, 7, 3))  # (row, column, module) of records that are never written
DENSE_SHARE = 0.7  # of the predicted correlation that sums of deposited charge must reach, see _image_checks
RINGS = (1.5, 5.5)  # inner and outer radius of the annular dark field, in radii of a disk
MIN_SCAN = 24  # positions along each side below which the groups for disk detection are too small


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demonstration found.

    Attributes
    ----------
    report
        The HTML page.
    checks
        Every result against the truth.
    """

    report: Path
    checks: list[Check]

    @property
    def holds(self) -> bool:
        """Whether every result agrees with the truth."""
        return all(check.holds for check in self.checks)


@dataclass(slots=True)
class Clock:
    """Times the steps for the report."""

    progress: Progress
    facts: dict[str, str] = field(default_factory=dict)
    started: float = 0.0

    def step(self, what: str) -> None:
        """Begin a step."""
        self.progress.advance(1 if self.started else 0)
        self.started = time.perf_counter()
        self.facts[what] = ""

    def note(self, what: str, text: str) -> None:
        """Finish a step with its time and a remark."""
        self.facts[what] = f"{time.perf_counter() - self.started:.1f} s; {text}"


def run_demo(
    folder: Path,
    *,
    scan_shape: tuple[int, int] = (40, 40),
    dose: float = 120.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> DemoResult:
    """Simulate a scan, convert it twice, analyse both stores and compare with the truth.

    Parameters
    ----------
    folder
        Receives ``raw/``, ``dense.zarr``, ``counted.zarr``, pictures, ``results.json`` and ``report.html``; what an
        earlier run left there is replaced.
    scan_shape
        Rows and columns; 40 x 40 is about 1 GB of raw data.
    dose
        Electrons per frame.
    seed
        Of everything random.
    progress
        Receives the advance.

    Raises
    ------
    InputError
        The scan is too small for the analysis.
    OptionalDependencyError
        matplotlib is missing (extra ``view``).
    """
    if min(scan_shape) < MIN_SCAN:
        msg = f"the demo needs at least {MIN_SCAN} x {MIN_SCAN} positions, got {scan_shape}; give a larger --scan-shape"
        raise InputError(msg, found=scan_shape, expected=MIN_SCAN)
    figures.pyplot()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    clock = Clock(progress or NoProgress())
    clock.progress.start("demo", STEPS)
    scan = SyntheticScan(scan_shape, dose=dose, seed=seed, flyback_columns=1)
    truth = generate(folder / "raw", scan, clock)
    inspection = stemstore.inspect(folder / "raw", flyback_columns=1)
    reports = convert_twice(folder, truth, clock)
    results = Analysis(folder, scan, truth, reports["counted"].n_events or 0)
    checks = results.run(clock)
    clock.step("pictures")
    pictures = results.draw()
    clock.note("pictures", f"{len(pictures)} files")
    document = {"schema_version": 1, "checks": [asdict(check) for check in checks], "facts": clock.facts}
    (folder / "results.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    path = write_report(
        folder / "report.html", checks=checks, facts=clock.facts, pictures=pictures, inspection=str(inspection)
    )
    clock.progress.advance()
    return DemoResult(path, checks)


def generate(raw: Path, scan: SyntheticScan, clock: Clock) -> Truth:
    """Write the raw sector files with a few lost sectors; an earlier run's files are removed."""
    clock.step("generate raw files")
    if (raw / "truth.json").is_file():
        shutil.rmtree(raw)
    lost = [(scan.frame_number(row, column), module) for row, column, module in LOST]
    truth = write_scan(raw, scan, lost_sectors=lost)
    n_bytes = sum(path.stat().st_size for path in raw.glob("*.data"))
    clock.note("generate raw files", f"{format_size(n_bytes)} in {len(list(raw.glob('*.data')))} files")
    return truth


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


def convert_twice(folder: Path, truth: Truth, clock: Clock) -> dict[str, ConversionReport]:
    """Convert the raw files to a dense and to a counted store."""
    reports = {}
    for name in ("dense", "counted"):
        clock.step(f"convert, {name}")
        report = stemstore.convert(
            folder / "raw", folder / f"{name}.zarr", count=name == "counted", overwrite=True, **calibration(truth)
        )
        ratio = report.raw_bytes / report.stored_bytes
        clock.note(
            f"convert, {name}", f"{format_size(report.stored_bytes)}, {ratio:.1f} times smaller than the raw pixels"
        )
        reports[name] = report
    return reports


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
        self.radius = truth.parameters["disk_radius"]
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
            stemstore.find_disks(groups, radius=self.radius),
        )
        keys = ("virtual", "com", "dpc", "mean", "groups", "disks")
        self.images[name] = dict(zip(keys, compute(*lazy), strict=True))
        found = self.images[name]
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

    def draw(self) -> dict[str, Path]:
        """Write the pictures; gives caption and file."""
        return dict(self._pictures())

    def _pictures(self) -> Iterator[tuple[str, Path]]:
        step = (float(self.counted.x[1] - self.counted.x[0]), str(self.counted.x.attrs["units"]))
        counted, dense, ideal = (self.images[name] for name in ("counted", "dense", "noise-free"))
        images = {
            f"{variable.replace('_', ' ')}, {name} ({unit})": result["virtual"][variable]
            for name, unit, result in (("counted", "electrons", counted), ("dense", "ADU", dense))
            for variable in self.detectors
        }
        yield "Virtual images", figures.save_images(self.folder / "virtual.png", images, step=step)
        phases = {
            "projected phase, truth (rad)": self.truth.phase - self.truth.phase.mean(),
            "iDPC, counted (rad)": counted["dpc"].phase,
            "iDPC, dense (rad)": dense["dpc"].phase,
            "iDPC, noise-free (rad)": ideal["dpc"].phase,
        }
        path = self.folder / "phase.png"
        yield "Phase by iDPC", figures.save_images(path, phases, step=step, cmap="inferno")
        pixel = abs(float(self.counted.kx[1] - self.counted.kx[0]))
        path = self.folder / "deflection.png"
        field = self.truth.deflection * pixel
        yield "Centre of mass", figures.save_vectors(path, counted["com"], field, step=step)
        one = counted["disks"].isel(y=0, x=0).assign(pattern=counted["groups"].isel(y=0, x=0))
        rings = {
            "bright field": (self.radius, "white"),
            "dark field, inner": (RINGS[0] * self.radius, "cyan"),
            "dark field, outer": (RINGS[1] * self.radius, "cyan"),
        }
        path = self.folder / "patterns.png"
        yield "Diffraction patterns", figures.save_pattern(path, counted["mean"], rings, one)
        valid = self.counted.coords.get("valid", np.full(self.truth.scan_shape, 2))
        path = self.folder / "valid.png"
        yield "State of the frames (2 valid, 1 partial)", figures.save_images(path, {"valid": valid}, step=step)
