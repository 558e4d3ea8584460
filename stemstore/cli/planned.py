"""What a verb that writes a store would do or has done, in facts and in text."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stemstore.cli import counting
from stemstore.cli.output import notify, print_facts, print_json, times_text
from stemstore.config import format_size

if TYPE_CHECKING:
    from stemstore.conversion.job import Job


def facts(prepared: Job, destination: str) -> dict[str, Any]:
    """Say what a job that is decided would do; nothing is written."""
    from stemstore.conversion.plan import CountedPlan
    from stemstore.sources.geometry import raw_bytes
    from stemstore.store.layout import dump_layout

    made, document = prepared.plan, prepared.document
    counted = isinstance(made, CountedPlan)
    raw = raw_bytes(document.shape, getattr(made.source, "dtype", None))
    # Chunks of a counted store are as wide as a block is expected to fill
    held = (
        made.layout.n_blocks * made.layout.slots_per_chunk * made.layout.slot_bytes
        if isinstance(made, CountedPlan)
        else raw
    )
    thresholds = made.counter.thresholds if isinstance(made, CountedPlan) and made.counter is not None else None
    return {
        "destination": destination,
        "profile": "counted" if counted else "dense",
        "axes": [
            {"name": axis.name, "size": axis.size, "unit": axis.unit, "step": axis.step} for axis in document.axes
        ],
        "shape": document.shape,
        "layout": dump_layout(made.layout),
        "n_shards": made.layout.n_partitions,
        "raw_bytes": raw,
        "bytes_before_compression": held,
        "thresholds": None if thresholds is None else asdict(thresholds),
        "workers": made.workers,
        "memory": made.memory,
        "times_decoded": 1.0 if isinstance(made, CountedPlan) else made.times_decoded,
        "frames": document.frames.model_dump(),
        "warnings": [*made.source.metadata.warnings, *prepared.odd.all],
    }


def refuse_taken(destination: str, *, overwrite: bool, resume: bool = False) -> None:
    """Find out at once, and not after the sampling of frames, that the destination is taken."""
    from stemstore.store.destination import check_free
    from stemstore.store.urls import open_storage

    if resume:
        from stemstore.conversion.steps import unfinished

        if unfinished(destination):
            return
    check_free(open_storage(destination), overwrite=overwrite)


def show(verb: str, found: dict[str, Any], *, as_json: bool) -> None:
    """Print what `facts` says, as JSON or as text."""
    if as_json:
        print_json(verb, {"dry_run": True, **found})
        return
    layout = found["layout"]
    if found["profile"] == "dense":
        pieces = f"chunks {_by(layout['chunk'])}, shards {_by(layout['shard'])}"
    else:
        pieces = f"blocks of {layout['frames_per_block']} frames, {layout['blocks_per_shard']} blocks a shard"
    rows = [
        ("would write", f"{found['destination']} ({found['profile']})"),
        ("shape", _by(found["shape"])),
        ("layout", pieces),
        ("shards", f"{found['n_shards']} or more" if found["profile"] == "counted" else str(found["n_shards"])),
        ("pixels", format_size(found["raw_bytes"])),
        ("to compress", f"about {format_size(found['bytes_before_compression'])}"),
        ("memory", f"{format_size(found['memory'])} with {found['workers']} threads"),
    ]
    if found["times_decoded"] > 1:
        rows.append(("reading", f"chunks of the source are decoded {found['times_decoded']:.3g} times on average"))
    if found["thresholds"] is not None:
        rows.append(("thresholds", counting.thresholds_text(found["thresholds"])))
    print_facts(rows)
    for text in found["warnings"]:
        notify(f"warning: {text}")


def report_facts(report: Any) -> list[tuple[str, str]]:
    """Tell of a finished conversion in labels and texts."""
    ratio = report.raw_bytes / max(1, report.stored_bytes)
    rate = report.raw_bytes / 1e6 / max(1e-9, report.seconds)
    rows = [
        ("store", f"{report.url} ({report.profile})"),
        ("shape", _by(report.shape)),
        ("frames", ", ".join(f"{number} {name}" for name, number in report.frames.items() if number)),
        ("size", f"{format_size(report.stored_bytes)}, compressed {times_text(ratio)}"),
        ("time", f"{report.seconds:.1f} s, {rate:.0f} MB/s of pixels, {report.workers} threads"),
    ]
    if report.n_events is not None:
        recorded = max(1, report.frames["valid"] + report.frames["partial"])
        rows.append(("electrons", f"{report.n_events}, {report.n_events / recorded:.4g} per frame"))
    if report.thresholds is not None:
        rows.append(("thresholds", counting.thresholds_text(report.thresholds)))
    return rows


def _by(shape: Any) -> str:
    return " x ".join(map(str, shape))
