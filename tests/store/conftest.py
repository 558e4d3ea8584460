"""Small scans written as stores, with encoders made from the format and not from the package's kernels."""

import uuid
from dataclasses import replace

import numpy as np
import pytest

from stemstore.store.layout import counted_layout, dense_layout
from stemstore.store.writer import StoreWriter
from stemstore_schemas import Axis, EventEncoding, FrameCounts, ScanDocument


def encode_gaps(frames):
    """Gaps and slots of dense integer frames (n, ky, kx), written from the definition."""
    gap, slots = [], []
    for frame in frames.reshape(len(frames), -1):
        last, before = 0, len(gap)
        for index in np.repeat(np.arange(frame.size), frame):
            distance = int(index) - last
            while distance >= 65535:
                gap.append(65535)
                distance -= 65535
            gap.append(distance)
            last = int(index)
        slots.append(len(gap) - before)
    return np.array(gap, np.uint16), np.array(slots, np.uint32)


@pytest.fixture
def make_document():
    """Make a minimal document for a stored shape."""

    def make(shape, *, counted=False, identity=None):
        scan = {1: ("frame",), 2: ("y", "x"), 3: ("frame", "y", "x")}[len(shape) - 2]
        axes = [Axis(name=name, size=n) for name, n in zip((*scan, "ky", "kx"), shape, strict=True)]
        return ScanDocument(
            uuid=identity or str(uuid.uuid4()),
            profile="counted" if counted else "dense",
            axes=axes,
            frames=FrameCounts(valid=int(np.prod(shape[:-2]))),
            encoding=EventEncoding(frames_per_block=1, slots_per_chunk=1) if counted else None,
        )

    return make


@pytest.fixture
def small_layout():
    """Lay out frames in chunks and shards so small that little data have many of them."""

    def make(data, *, profile="fast", chunk=2, shard=4):
        layout = dense_layout(data.shape[:-2], data.shape[-2:], data.dtype, profile=profile)
        n_scan = data.ndim - 2
        sides = {1: (1,), 2: (1, 1), 3: (0, 1, 1)}[n_scan]
        chunks = tuple(chunk**side for side in sides) + layout.chunk[-2:]
        shards = tuple(shard**side for side in sides) + layout.shard[-2:]
        return replace(layout, chunk=chunks, shard=shards)

    return make


@pytest.fixture
def write_dense(make_document, small_layout):
    """Write frames as a finished store and give its url."""

    def write(url, data, *, layout=None, records=None, **options):
        layout = layout or small_layout(data)
        writer = StoreWriter.init(url, make_document(data.shape), layout, **options)
        for number, part in enumerate(layout.partitions):
            writer.write_frames(number, data[part], records(part) if records else None)
        return writer.finalise()

    return write


@pytest.fixture
def write_counted(make_document):
    """Write integer frames as a finished store of events and give its url."""

    def write(url, data, *, layout=None, frames_per_block=5, blocks_per_shard=3, slots_per_chunk=64, **options):
        if layout is None:
            layout = counted_layout(data.shape[:-2], data.shape[-2:], 1.0)
            layout = replace(
                layout,
                frames_per_block=frames_per_block,
                blocks_per_shard=blocks_per_shard,
                slots_per_chunk=slots_per_chunk,
            )
        frames = data.reshape(-1, *data.shape[-2:])
        writer = StoreWriter.init(url, make_document(data.shape, counted=True), layout, **options)
        for number in range(len(layout.partitions)):
            writer.write_events(number, [encode_gaps(frames[a:b]) for a, b in layout.blocks(number)])
        return writer.finalise()

    return write
