"""The four kinds of scan source give the same numbers for the same selection, across shards, blocks and partitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.conversion.job import Job, describe
from stemstore.conversion.plan import CountedPlan, DensePlan
from stemstore.conversion.steps import begin_writing, write_all
from stemstore.conversion.summary import BrightField
from stemstore.ops.imaging.bright_field import bright_field_stack
from stemstore.ops.imaging.dose import thin
from stemstore.ops.imaging.recenter import recenter
from stemstore.ops.imaging.sparse_blocks import to_sparse
from stemstore.progress import NoProgress
from stemstore.scan.calibration import Calibration
from stemstore.scan.lazy import selection_of
from stemstore.scan.open import build
from stemstore.sources import streaming
from stemstore.sources.streaming import scan_source
from stemstore.store.layout import CountedLayout, counted_layout, dense_layout
from stemstore.store.open import open_store
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore_schemas import Acquisition

SHAPES = [(7, 5, 6, 9), (1, 7, 3, 5), (6, 1, 5, 4), (2, 4, 3, 4, 5), (11, 4, 4)]
KINDS = ("raw frames", "raw events", "stored frames", "stored events")


@pytest.fixture(scope="module")
def counts():
    """Electrons of every scan by shape, some positions empty."""
    rng = np.random.default_rng(2)
    return {shape: rng.poisson(0.4, shape).astype(np.uint8) for shape in SHAPES}


@pytest.fixture(scope="module")
def states(counts):
    """State of every frame by shape; missing frames hold nothing."""
    rng = np.random.default_rng(3)
    found = {}
    for shape, frames in counts.items():
        valid = rng.choice(np.array([0, 1, 2], np.uint8), p=[0.2, 0.1, 0.7], size=shape[:-2])
        valid[(0,) * valid.ndim] = 2
        frames[valid == 0] = 0
        found[shape] = valid
    return found


def write(url, source, layout):
    """Write a source as a store of small shards."""
    counted = isinstance(layout, CountedLayout)
    disk = BrightField.guess(np.ones(source.frame_shape))
    parts = {"source": source, "layout": layout, "bright_field": disk, "workers": 1, "memory": 0}
    alone = (1,) * len(source.scan_shape)
    plan = CountedPlan(events=source, **parts) if counted else DensePlan(**parts, together=alone)
    document = describe(plan, Calibration(), {})
    job = Job(plan, document)
    write_all(job, begin_writing(job, str(url), None), NoProgress())
    return open_store(url)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Make all kinds of dataset of frames and their states; raw sources work in pieces of a few frames."""
    folder, known = tmp_path_factory.mktemp("stores"), {}

    def make(frames, valid):
        key = (frames.shape, frames.tobytes(), valid.tobytes())
        if key in known:
            return known[key]
        scan, detector = frames.shape[:-2], frames.shape[-2:]
        tiles = (1,) * (len(scan) - 1)
        dense = replace(
            dense_layout(scan, detector, frames.dtype),
            chunk=(*tiles, min(2, scan[-1]), *detector),
            shard=(*tiles, 2 * min(2, scan[-1]), *detector),
        )
        counted = replace(
            counted_layout(scan, detector, 1.0), frames_per_block=5, blocks_per_shard=2, slots_per_chunk=32
        )
        sources = [
            scan_source(ArrayFrames(frames, valid)),
            scan_source(ArrayEvents(frames, valid)),
            write(folder / f"{len(known)}-dense.zarr", ArrayFrames(frames, valid), dense),
            write(folder / f"{len(known)}-counted.zarr", ArrayEvents(frames, valid), counted),
        ]
        known[key] = [build(one, [], Acquisition(), Calibration(), "test", flyback=False) for one in sources]
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "PARTITION_BYTES", 300)
        patch.setattr(streaming, "BLOCK_BYTES", 120)
        patch.setattr(streaming, "BATCH_BYTES", 90)
        patch.setattr(streaming, "EVENT_BATCH", 1)
        yield make


@pytest.fixture(scope="module")
def scans(counts, states, stored):
    """All kinds of dataset of a shape."""
    return lambda shape: stored(counts[shape], states[shape])


@st.composite
def keys(draw, sizes):
    """A NumPy index that keeps both detector axes."""
    key = []
    for number, size in enumerate(sizes):
        scan_axis = number < len(sizes) - 2
        kind = draw(st.sampled_from(["all", "slice", "list", "int"] if scan_axis else ["all", "slice"]))
        if kind == "all":
            key.append(slice(None))
        elif kind == "slice":
            start = draw(st.integers(0, size - 1))
            stop = draw(st.integers(start + 1, size))
            key.append(slice(start, stop, draw(st.integers(1, 3))))
        elif kind == "int":
            key.append(draw(st.integers(-size, size - 1)))
        else:
            key.append(draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=5)))
    return key


class Stripes:
    """A detector of one's own: two of three diagonals, wherever the detector ends."""

    def weights(self, image):
        return (image.ky_pixel.values[:, None] + 2 * image.kx_pixel.values) % 3 < 2

    def describe(self):
        return "stripes"


def results(ds, mask):
    """Run every operation that takes any selection."""
    image = ds.intensity
    size = image.ky.attrs["stored_size"], image.kx.attrs["stored_size"]
    walk = np.random.default_rng(image.size).normal(0, 1.5, (2, *image.shape[:-2]))
    axis = [(n - 1) / 2 + part for n, part in zip(size, walk, strict=True)]
    found = {
        "values": image.values,
        "virtual": stemstore.virtual_image(image, mask).values,
        "weighted": stemstore.virtual_image(image, mask * 0.5).values,
        "moved": stemstore.virtual_image(image, Stripes(), origin=axis).values,
        "com": stemstore.center_of_mass(image).com_x.values,
        "rings": stemstore.radial_profile(image, bins=4).values,
        "cells": stemstore.polar_profile(image, 3, bins=2).values,
        "speckle": stemstore.radial_variance(image, bins=2).values,
        "boxes": stemstore.bin_detector(image, (min(2, image.sizes["ky"]), 1), partial="keep").values,
        "images": bright_field_stack(image, mask, bin=(1, min(2, image.sizes["kx"]))).values,
        "sparse": to_sparse(image).todense(),
        "map": stemstore.map_frames(image, lambda frame: float(frame.max()) + frame.sum()).values,
    }
    if bool((ds.valid > 0).any()):
        found |= {"mean": stemstore.mean_pattern(image).values, "max": stemstore.max_pattern(image).values}
        found |= {
            "uneven": stemstore.mean_pattern(
                image, weights=np.arange(1.0, 1 + walk[0].size).reshape(walk[0].shape)
            ).values
        }
        found |= {"variance": stemstore.variance_pattern(image, roi=image.valid > 0).values}
    if selection_of(image.data) is not None:  # NumPy, not the lazy array, mixes numbers and lists in one index
        moved = recenter(image, axis)
        found |= {"recentred": moved.intensity.values, "lost": moved.lost.values}
        found["thinned"] = thin(image, 0.6, counting=True).values
    if image.dims[:-2] == ("y", "x"):
        found["binned"] = stemstore.bin_scan(image, (1, min(2, image.sizes["x"]))).values
    return found


@settings(max_examples=40, deadline=None)  # the first example writes the stores
@given(st.data())
def test_every_source_gives_the_same_numbers(scans, data):
    """Frames or events, raw or stored, whole or selected: every operation agrees, and pixels equal the truth."""
    shape = data.draw(st.sampled_from(SHAPES))
    key = data.draw(keys(shape))
    seed = data.draw(st.integers(0, 99))
    expected = None
    for kind, ds in zip(KINDS, scans(shape), strict=True):
        cut = ds.isel(dict(zip(ds.intensity.dims, key, strict=True)))
        mask = np.random.default_rng(seed).random(cut.intensity.shape[-2:]) < 0.5
        mask[0, 0] = True
        found = results(cut, mask)
        expected = expected or found
        for name, values in found.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-12, err_msg=f"{kind}: {name}")


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_the_truth(scans, counts, shape):
    """Every kind of source shows the array it was made of."""
    for kind, ds in zip(KINDS, scans(shape), strict=True):
        np.testing.assert_array_equal(ds.intensity.values, counts[shape], err_msg=kind)


def test_sources_really_have_several_partitions(scans):
    """The scans are cut into pieces; otherwise agreement would prove little."""
    for kind, ds in zip(KINDS, scans(SHAPES[0]), strict=True):
        assert stemstore.virtual_image(ds, stemstore.disk(2)).data.npartitions > 1, kind


@pytest.mark.parametrize("key", [{}, {"y": slice(1, 6, 2)}, {"x": [4, 0, 0]}, {"y": 3}])
def test_disks_are_the_same_in_every_source(stored, key):
    """Bragg disks of a selection do not depend on how the scan is stored."""
    frames = np.random.default_rng(4).poisson(0.2, (7, 5, 24, 22)).astype(np.uint8)
    frames[:, :, 10:15, 8:13] += 3
    valid = np.full((7, 5), 2, np.uint8)
    valid[3, 4] = valid[0, 0] = 0
    frames[valid == 0] = 0
    tables = [stemstore.find_disks(ds.isel(key), radius=2.5) for ds in stored(frames, valid)]
    assert int(tables[0].n_disks.sum()) > 0
    for kind, table in zip(KINDS, tables, strict=True):
        for name in table:
            np.testing.assert_array_equal(table[name].values, tables[0][name].values, err_msg=f"{kind}: {name}")
