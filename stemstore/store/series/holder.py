"""What may hold saved results: the store of a scan, or a series of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stemstore.errors import UnknownFormatError
from stemstore.store.commit import digest, read_commit
from stemstore.store.metadata import ROOT, SERIES
from stemstore.store.open import open_store
from stemstore.store.series.index import open_series_group
from stemstore.store.urls import open_storage
from stemstore_schemas import SourceFile

if TYPE_CHECKING:
    import os

    from stemstore.store.urls import Storage


@dataclass(frozen=True, slots=True)
class Holder:
    """A place for saved results.

    Attributes
    ----------
    url
        Of the store or the series.
    uuid
        Its identity; results that belong here carry the same.
    storage
        Where it lies.
    is_series
        Whether it is a series.
    """

    url: str
    uuid: str
    storage: Storage
    is_series: bool

    def described(self) -> SourceFile:
        """Describe it as the input of a result: of a series its index, which names the scans."""
        if self.is_series:
            body = self.storage.get(ROOT)
            return SourceFile(path=self.url, size=len(body), digest=digest(body), uuid=self.uuid)
        commit = read_commit(self.storage)
        size, shards = (0, None) if commit is None else (commit.n_bytes, commit.shards_digest)
        return SourceFile(path=self.url, size=size, digest=shards, uuid=self.uuid)


def open_holder(url: str | os.PathLike[str], *, allow_incomplete: bool = False) -> Holder:
    """Open the store or series at a place; errors as of `stemstore.store.open.open_store`."""
    try:
        scan = open_store(url, allow_incomplete=allow_incomplete)
    except UnknownFormatError as error:
        if error.context.get("found") != SERIES:
            raise
        series = open_series_group(url)
        return Holder(series.url, series.document.uuid, open_storage(url), is_series=True)
    return Holder(scan.url, scan.uuid, scan.head.storage, is_series=False)
