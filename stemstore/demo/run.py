"""The main job end to end: raw sector files, two stores, images, phase, disks, and a report against the truth."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import stemstore
from stemstore.config import format_size
from stemstore.demo.analysis import Analysis, calibration
from stemstore.demo.clock import Clock
from stemstore.demo.figures import pyplot
from stemstore.demo.pictures import draw
from stemstore.demo.report import write_report
from stemstore.errors import InputError
from stemstore.progress import NoProgress, Progress
from stemstore.testing import SyntheticScan, write_scan

if TYPE_CHECKING:
    from stemstore.conversion.report import ConversionReport
    from stemstore.demo.compare import Check
    from stemstore.testing import Truth

STEPS = 6
LOST = ((3, 5, 1), (11, 20, 0), (11, 21, 0), (19, 7, 3))  # (row, column, module) of records that are never written
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
    pyplot()
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
    pictures = draw(results)
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
