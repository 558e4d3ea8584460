"""What the conversion of a series did, scan by scan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stemstore.errors import SeriesIncompleteError

if TYPE_CHECKING:
    from stemstore.conversion.report import ConversionReport

State = Literal["converted", "entered", "there", "failed"]


@dataclass(frozen=True, slots=True)
class ScanOutcome:
    """What became of one scan.

    Attributes
    ----------
    name
        Of the scan.
    state
        ``"converted"`` now; ``"entered"`` into the index, its store having been finished before; ``"there"`` since an
        earlier call; or ``"failed"``.
    url
        Its store.
    report
        Of its conversion; None where it was not converted now.
    error
        Why it failed.
    """

    name: str
    state: State
    url: str
    report: ConversionReport | None = None
    error: str | None = None


@dataclass(slots=True)
class SeriesReport:
    """What the conversion of a series did.

    Attributes
    ----------
    url
        The series.
    scans
        What became of each scan, in order.
    skipped
        Entries of the folder that no reader recognises.
    seconds
        Wall time.
    """

    url: str
    scans: list[ScanOutcome] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def named(self, state: State) -> list[str]:
        """Names of the scans with this outcome."""
        return [scan.name for scan in self.scans if scan.state == state]

    @property
    def warnings(self) -> list[str]:
        """What was odd about scans that were converted, with their names."""
        found = [(scan.name, scan.report) for scan in self.scans]
        return [f"scan {name!r}: {text}" for name, report in found if report is not None for text in report.warnings]

    def check(self) -> None:
        """Make sure that no scan failed.

        Raises
        ------
        SeriesIncompleteError
            Some did; its notes say why.
        """
        failed = {scan.name: scan.error for scan in self.scans if scan.state == "failed"}
        if not failed:
            return
        rest = len(self.scans) - len(failed)
        names = ", ".join(failed)
        what = (
            f"{len(failed)} of {len(self.scans)} scans could not be converted: {names}; the other {rest} are in "
            f"'{self.url}'"
            if rest
            else f"no scan could be converted to '{self.url}': {names}"
        )
        msg = f"{what}. Mend what is wrong and repeat the call with resume=True (--resume)"
        error = SeriesIncompleteError(msg, url=self.url, failed=failed, report=self)
        for name, reason in failed.items():
            error.add_note(f"scan {name!r}: {reason}")
        raise error
