"""One raw scan brought into a series: converted to a store of its own, then entered into the index."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stemstore.conversion.run import convert
from stemstore.conversion.series.report import ScanOutcome
from stemstore.conversion.series.sources import keys_of, places_of
from stemstore.errors import DestinationExistsError, ScanWarning
from stemstore.store.destination import clear
from stemstore.store.open import finished_store, open_store
from stemstore.store.series.entry import entry_of, inputs_of, settled, with_scans
from stemstore.store.series.index import change_series, child_url, open_series_group
from stemstore.store.urls import open_storage

if TYPE_CHECKING:
    from stemstore.conversion.report import ConversionReport
    from stemstore.conversion.series.sources import RawScan
    from stemstore.store.open import StoredScan
    from stemstore_schemas import SeriesDocument, SeriesScan, SourceFile


@dataclass(frozen=True, slots=True)
class Work:
    """What is done to every scan.

    Attributes
    ----------
    url
        The series.
    places
        Of the scans along it, by name; empty where none are given.
    known
        What the scans that were in the series at the beginning are made of, by name, as far as their stores tell.
    options
        Of `stemstore.convert`.
    """

    url: str
    places: dict[str, float]
    known: dict[str, list[SourceFile]]
    options: dict[str, Any]

    def take(self, scan: RawScan) -> ScanOutcome:
        """Bring one scan into the series.

        Raises
        ------
        StemStoreError
            It cannot be converted, or is in the series under another name, or another scan has its name.
        """
        entered = {entry.name: entry for entry in open_series_group(self.url).document.scans}
        if scan.name in entered:
            url = child_url(self.url, entered[scan.name].path)
            self._check_made_of(scan, open_store(url), url)
            return ScanOutcome(scan.name, "there", url)
        self._refuse_known(scan)
        url = child_url(self.url, scan.name)
        report: ConversionReport | None = None
        store = finished_store(url)
        if store is None:
            report = self._convert(scan, url)
            store = open_store(url)
        else:
            self._check_made_of(scan, store, url)
        entry = entry_of(store, path=scan.name, order=self.places.get(scan.name), title=scan.title)
        try:
            self._enter(entry)
        except DestinationExistsError:
            if report is not None:
                _remove(url)  # the same raw data as those of another scan, under other names of files
            raise
        return ScanOutcome(scan.name, "entered" if report is None else "converted", url, report)

    def _convert(self, scan: RawScan, url: str) -> ConversionReport:
        """Convert a scan; what is odd about it is in the report, and told when all scans are done."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScanWarning)
            return convert(scan.source, url, **self.options)

    def _enter(self, entry: SeriesScan) -> None:
        """Add a scan to the index, whoever else adds others at the same time."""

        def change(before: SeriesDocument | None) -> SeriesDocument:
            document = settled(before, dim=None, unit=None, title=None)
            if entry in document.scans:
                return document  # a first attempt whose answer was lost
            return with_scans(document, document.scans, [entry], self.url)

        change_series(self.url, change)

    def _refuse_known(self, scan: RawScan) -> None:
        """Refuse files that are in the series already under another name, before they are converted."""
        mine = places_of(scan.files)
        for name, files in self.known.items():
            if mine and places_of(files) == mine:
                msg = f"scan {scan.name!r} is in '{self.url}' already, as scan {name!r}; leave it out"
                raise DestinationExistsError(msg, url=self.url, scan=scan.name, found=name)

    def _check_made_of(self, scan: RawScan, store: StoredScan, url: str) -> None:
        """Make sure that a store of this name was made from this scan."""
        if not scan.files:
            reason = "it cannot be compared with the raw scan, which does not open"
        elif keys_of(inputs_of(store.document)) != scan.keys:
            reason = "it was made from other files, or from these before they changed"
        else:
            return
        msg = f"'{url}' is in the way of scan {scan.name!r}: {reason}; give the new one another name"
        raise DestinationExistsError(msg, url=url, scan=scan.name)


def _remove(url: str) -> None:
    """Remove a store that this call has made."""
    storage = open_storage(url)
    clear(storage)
    storage.delete()
