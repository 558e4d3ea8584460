"""One small scan as every kind of source, each in several shards, blocks and partitions."""

import uuid
from dataclasses import replace

import numpy as np
import pytest

import stemstore
from stemstore.kernels.events import encode
from stemstore.scan.calibration import Calibration
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.store.layout import counted_layout, dense_layout
from stemstore.store.writer import StoreWriter
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition, Axis, EventEncoding, FrameCounts, ScanDocument

KINDS = ("raw frames", "raw events", "stored frames", "stored events")


def in_memory(source):
    """Open a source in memory as a dataset of several partitions and blocks."""
    scan = scan_source(source)
    scan.chunk, scan.partition = (2, 4), (4, 9)
    return build(scan, [], Acquisition(), Calibration(), "memory", flyback=False)


def write_store(url, frames, *, counted, small=True):
    """Write counts as a finished store and give its url; small shards make even little data have many."""
    layout = (counted_layout if counted else dense_layout)(
        frames.shape[:2], frames.shape[2:], 1.0 if counted else frames.dtype
    )
    if small and counted:
        layout = replace(layout, frames_per_block=7, blocks_per_shard=2, slots_per_chunk=64)
    elif small:
        layout = replace(layout, chunk=(2, 2, *layout.chunk[2:]), shard=(4, 4, *layout.shard[2:]))
    document = ScanDocument(
        uuid=str(uuid.uuid4()),
        profile="counted" if counted else "dense",
        axes=[Axis(name=name, size=n) for name, n in zip(("y", "x", "ky", "kx"), frames.shape, strict=True)],
        frames=FrameCounts(valid=int(np.prod(frames.shape[:2]))),
        encoding=EventEncoding(frames_per_block=1, slots_per_chunk=1) if counted else None,
    )
    writer = StoreWriter.init(str(url), document, layout)
    if not counted:
        for number, part in enumerate(layout.partitions):
            writer.write_frames(number, frames[part])
        return writer.finalise()
    events = ArrayEvents(frames)
    for number in range(len(layout.partitions)):
        blocks = [events.read_events(start, stop) for start, stop in layout.blocks(number)]
        writer.write_events(number, [encode(block.indptr, block.indices) for block in blocks])
    return writer.finalise()


@pytest.fixture(scope="session")
def kinds(counts, tmp_path_factory):
    """The scan as every kind of dataset, by name."""
    folder = tmp_path_factory.mktemp("stores")
    write_store(folder / "dense.zarr", counts, counted=False)
    write_store(folder / "counted.zarr", counts, counted=True)
    stores = [stemstore.open(folder / name) for name in ("dense.zarr", "counted.zarr")]
    return dict(zip(KINDS, [in_memory(ArrayFrames(counts)), in_memory(ArrayEvents(counts)), *stores], strict=True))


@pytest.fixture(params=KINDS)
def any_kind(request, kinds):
    """One kind of dataset after the other."""
    return kinds[request.param]


@pytest.fixture(scope="session")
def store_of():
    """Write counts as a store, dense or counted."""
    return write_store


@pytest.fixture
def memory_of():
    """Open a source in memory as a dataset of several partitions and blocks."""
    return in_memory
