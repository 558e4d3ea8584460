"""The verb ``info``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemstore.cli import options, series_info
from stemstore.cli.output import notify, print_facts, print_json, print_line, print_table, times_text
from stemstore.config import format_size
from stemstore.errors import UnknownFormatError

if TYPE_CHECKING:
    from stemstore.ops.saved.results import SavedResult
    from stemstore.store.open import StoredScan

EXAMPLE = "stemstore info scan_42.zarr --history"


def run(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Path or URL.", show_default=False)],
    tree: Annotated[bool, typer.Option("--tree", help="List the arrays as well.")] = False,
    history: Annotated[bool, typer.Option("--history", help="List what was done as well.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Tell what a store or a series holds.

    Axes, calibration, frames, size and saved results; a store that is not finished can be looked at as well. Of a
    series its scans, and whether their stores are there.
    """
    from stemstore.ops.saved.results import results
    from stemstore.store.metadata import SERIES
    from stemstore.store.open import open_store

    try:
        scan = open_store(store, allow_incomplete=True)
    except UnknownFormatError as error:
        if error.context.get("found") != SERIES:
            raise
        series_info.show(store, as_json=as_json)
        return
    size = sizes(scan)
    saved = list(results(scan.head.url).values())
    if as_json:
        from stemstore_schemas import dump_document

        document = {"url": scan.head.url, "complete": scan.head.complete, "sizes": size, "arrays": arrays(scan)}
        print_json("info", {**document, "results": saved, "document": dump_document(scan.document)})
        return
    print_facts([*_facts(scan, size), *((f"result {one.name}", _result_text(one)) for one in saved)])
    if tree:
        print_line()
        print_table(("ARRAY", "SHAPE", "CHUNK", "SHARD", "TYPE"), [_row(entry) for entry in arrays(scan)])
    if history:
        print_line()
        print_table(("TIME", "OPERATION", "SOFTWARE", "INPUTS"), [_step(entry) for entry in scan.document.history])
    if not scan.head.complete:
        notify(f"warning: the conversion to {scan.head.url!r} did not finish")


def sizes(scan: StoredScan) -> dict[str, Any]:
    """Bytes of a store and what they amount to; None where an unfinished store does not tell."""
    from stemstore.sources.geometry import raw_bytes
    from stemstore.store.commit import read_commit

    commit = read_commit(scan.head.storage) if scan.head.complete else None
    document = scan.document
    raw = raw_bytes(document.shape, None if document.profile == "counted" else scan.dtype)
    found: dict[str, Any] = {"raw_bytes": raw, "stored_bytes": None, "n_shards": None, "compression_ratio": None}
    if commit is not None:
        found |= {"stored_bytes": commit.n_bytes, "n_shards": commit.n_shards}
        found["compression_ratio"] = raw / max(1, commit.n_bytes)
    n_events = None if document.counting is None else document.counting.n_events
    if n_events is not None:
        recorded = document.frames.valid + document.frames.partial
        found["events_per_frame"] = n_events / max(1, recorded)
        held = _event_bytes(scan)
        found["bits_per_event"] = None if held is None else 8 * held / max(1, n_events)
    return found


def _event_bytes(scan: StoredScan) -> int | None:
    """Size of the shards of events; None for remote stores, which would be asked once per shard."""
    from stemstore.store.metadata import GAP
    from stemstore.store.urls import is_local

    if not is_local(scan.head.url):
        return None
    storage = scan.head.storage
    return sum(storage.size(key) or 0 for key in storage.keys(f"{GAP}/c/"))


def arrays(scan: StoredScan) -> list[dict[str, Any]]:
    """Describe the arrays of a store, those of an unfinished one as far as they are declared."""
    from stemstore.store.metadata import read_root
    from stemstore.store.objects import listed_arrays

    infos = {info.path: info for info in listed_arrays(read_root(scan.head.storage))}
    return [
        {
            "path": info.path,
            "shape": info.shape,
            "chunk": info.chunk,
            "shard": info.shard,
            "dtype": str(info.dtype),
            "dims": info.dims,
            "units": info.attributes.get("units"),
        }
        for info in ({**scan.head.arrays, **infos}).values()
    ]


def _frames_text(scan: StoredScan) -> str:
    """Count the frames by their states; of an unfinished store those that are written."""
    frames = scan.document.frames.model_dump()
    if not scan.head.complete:
        states = scan.head.validity()
        written = sum(frames.values()) if states is None else int((states > 0).sum())
        return f"{written} of {sum(frames.values())} written"
    return ", ".join(f"{number} {name}" for name, number in frames.items() if number)


def _facts(scan: StoredScan, size: dict[str, Any]) -> list[tuple[str, str]]:
    document = scan.document
    rows = [
        ("store", scan.head.url),
        ("state", "complete" if scan.head.complete else "not finished"),
        ("profile", f"{document.profile}, {scan.dtype}"),
        ("uuid", document.uuid),
        *((f"axis {axis.name}", _axis_text(axis)) for axis in document.axes),
        ("frames", _frames_text(scan)),
        ("pixels", format_size(size["raw_bytes"])),
    ]
    if document.acquisition.flyback_columns:
        rows.append(
            ("flyback", f"columns at the end of each row: {document.acquisition.flyback_columns}, hidden when opened")
        )
    if size["stored_bytes"] is not None:
        ratio = f"compressed {times_text(size['compression_ratio'])}"
        rows.append(("stored", f"{format_size(size['stored_bytes'])} in {size['n_shards']} shards, {ratio}"))
    rows += [(f"array {info.path}", _pieces(info)) for info in scan.head.arrays.values() if info.shard is not None]
    for name in ("beam_energy", "semi_convergence_angle", "camera_length", "dwell_time", "scan_rotation"):
        quantity = getattr(document.acquisition, name)
        if quantity is not None:
            rows.append((name.replace("_", " "), f"{quantity.value:g} {quantity.unit} (from {quantity.source})"))
    return rows + _counting_facts(document.counting, size) + _origin(document.history)


def _pieces(info: Any) -> str:
    grid = math.prod(-(-extent // shard) for extent, shard in zip(info.shape, info.shard, strict=True))
    return f"chunks of {_by(info.chunk)}, shards of {_by(info.shard)}, {grid} of them"


def _origin(history: list[Any]) -> list[tuple[str, str]]:
    """Tell what was done last, and from what."""
    if not history:
        return []
    entry = history[-1]
    return [("history", f"{entry.operation} on {entry.time}, {len(entry.inputs)} files; {_software(entry)}")]


def _counting_facts(counting: Any, size: dict[str, Any]) -> list[tuple[str, str]]:
    if counting is None:
        return []
    rows = [("counting rule", counting.rule)]
    if counting.background_threshold is not None:
        limits = ", ".join(f"{limit:.4g}" for limit in counting.background_threshold)
        rows.append(("thresholds", f"background {limits}, X-ray {_upper(counting.xray_threshold)}"))
    if counting.n_events is not None:
        bits = size.get("bits_per_event")
        coding = "" if bits is None else f", {bits:.3g} bit per electron"
        rows.append(("electrons", f"{counting.n_events}, {size['events_per_frame']:.4g} per frame{coding}"))
    return rows


def _upper(limit: float | None) -> str:
    return "none" if limit is None or math.isinf(limit) else f"{limit:.4g}"


def _axis_text(axis: Any) -> str:
    if axis.source is None:
        return f"{axis.size} pixels, not calibrated"
    last = axis.origin + axis.step * (axis.size - 1)
    return f"{axis.size} steps of {axis.step:.4g} {axis.unit}, {axis.origin:.4g} to {last:.4g} (from {axis.source})"


def _result_text(saved: SavedResult) -> str:
    if saved.problem is not None:
        return f"cannot be opened: {saved.problem}"
    held = ", ".join(
        f"{name} ({', '.join(variable.dims)}){f' in {variable.units}' if variable.units else ''}"
        for name, variable in saved.variables.items()
    )
    return f"{saved.operation or 'of unknown origin'}, saved on {saved.time}: {held}"


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    return (entry["path"], *(_by(entry[name]) for name in ("shape", "chunk", "shard")), entry["dtype"])


def _step(entry: Any) -> tuple[str, ...]:
    inputs = ", ".join(source.path for source in entry.inputs[:3])
    more = f" and {len(entry.inputs) - 3} more" if len(entry.inputs) > 3 else ""  # noqa: PLR2004  # as shown above
    return (entry.time, entry.operation, _software(entry), inputs + more)


def _software(entry: Any) -> str:
    return ", ".join(f"{name} {version}" for name, version in entry.software.items())


def _by(shape: tuple[int, ...] | None) -> str:
    return "-" if not shape else "x".join(map(str, shape))
