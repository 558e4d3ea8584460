"""What ``info`` tells of a series."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from stemstore.cli.output import notify, print_facts, print_json, print_line, print_table
from stemstore.config import format_size
from stemstore.errors import StemStoreError

if TYPE_CHECKING:
    from stemstore.store.series.index import Series
    from stemstore_schemas import SeriesScan


def show(url: str, *, as_json: bool) -> None:
    """Tell what a series holds: its scans, and whether their stores are there."""
    from stemstore.ops.saved.results import results
    from stemstore.store.series.entry import in_parallel
    from stemstore.store.series.index import open_series_group
    from stemstore_schemas import dump_document

    series = open_series_group(url)
    document = series.document
    states = in_parallel(lambda scan: _state(series, scan), document.scans)
    saved = results(url)
    if as_json:
        listed = [{**dump_document(scan), **state} for scan, state in zip(document.scans, states, strict=True)]
        about: dict[str, Any] = {
            "url": series.url,
            "kind": document.kind,
            "uuid": document.uuid,
            "title": document.title,
        }
        about |= {"dim": document.dim, "unit": document.unit, "results": list(saved.values())}
        print_json("info", {**about, "scans": listed})
        return
    sizes = [state["stored_bytes"] for state in states if state["stored_bytes"] is not None]
    facts = [("series", series.url), ("title", document.title or ""), ("uuid", document.uuid)]
    facts += [("scans", str(len(document.scans))), ("axis", document.dim), ("stored", format_size(sum(sizes)))]
    facts.append(("results", ", ".join(saved)))
    print_facts([(label, text) for label, text in facts if text])
    print_line()
    unit = f" ({document.unit})" if document.unit else ""
    columns = ("SCAN", f"{document.dim.upper()}{unit}", "BEGAN", "SHAPE", "PROFILE", "STATE")
    print_table(columns, [_row(scan, state) for scan, state in zip(document.scans, states, strict=True)])
    for scan, state in zip(document.scans, states, strict=True):
        if state["problem"] is not None:
            notify(f"warning: scan {scan.name!r}: {state['problem']}")


def _state(series: Series, scan: SeriesScan) -> dict[str, Any]:
    """Look whether the store of a scan is there, and is the one that was entered."""
    from stemstore.store.commit import read_commit
    from stemstore.store.open import open_store

    found: dict[str, Any] = {"shape": None, "profile": None, "stored_bytes": None, "problem": None}
    try:
        store = open_store(series.child(scan.path))
    except StemStoreError as error:
        return found | {"problem": str(error)}
    commit = read_commit(store.head.storage)
    found |= {"shape": store.document.shape, "profile": store.document.profile}
    found["stored_bytes"] = None if commit is None else commit.n_bytes
    if store.uuid != scan.uuid:
        found["problem"] = f"its store holds another scan now ({store.uuid}), the index says {scan.uuid}"
    return found


def _row(scan: SeriesScan, state: dict[str, Any]) -> tuple[str, ...]:
    place = "-" if scan.order is None or not math.isfinite(scan.order) else f"{scan.order:g}"
    shape = "-" if state["shape"] is None else "x".join(map(str, state["shape"]))
    problem = "ok" if state["problem"] is None else "replaced" if state["shape"] else "missing"
    return scan.name, place, scan.start_time or "-", shape, state["profile"] or "-", problem
