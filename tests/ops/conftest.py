"""Bragg disks on lattices that are known."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.ops.disks.table import DiskTable, dataset_of_table

DETECTOR, CENTRE = (256, 256), (120.0, 133.0)


@pytest.fixture
def disks_on():
    """Make the disks of lattices (…, 2, 2) with g1 and g2 as columns, unit pixel, around the detector's optic axis."""

    def make(lattices, *, reach=4, sigma=0.0, seed=0, shift=None, intensity=None, shape=DETECTOR, dims=None, **axes):
        lattices = np.asarray(lattices, float)
        rng, scan = np.random.default_rng(seed), lattices.shape[:-2]
        orders = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
        q = np.einsum("...ij,pj->...pi", lattices, orders) + np.asarray(CENTRE)
        q = q + (0 if shift is None else np.asarray(shift)[..., None, :])
        counts = np.broadcast_to(100.0 if intensity is None else intensity, q.shape[:-1])
        q = q + sigma * rng.normal(size=q.shape) * np.sqrt(100.0 / counts)[..., None]
        inside = ((q > 4) & (q < np.array(shape) - 4)).all(axis=-1)
        offset = np.concatenate([[0], np.cumsum(inside.reshape(-1, len(orders)).sum(axis=1))])
        columns = [part[inside].astype(np.float32) for part in (q[..., 0], q[..., 1], counts, np.sqrt(counts))]
        dims = ("y", "x")[: len(scan)] if dims is None else dims
        table = DiskTable(scan, dims, offset, *columns, None, np.ones(scan, bool), shape)
        steps = axes.get("steps", (None, None))
        coords = {name: axis_of(name, *at) for name, *at in zip(("ky", "kx"), shape, CENTRE, steps, strict=True)}
        return dataset_of_table(table, coords, axes.get("attrs", {}))

    return make


def axis_of(name, size, zero, step):
    """Make a detector axis that knows its zero, in pixels or 1/angstrom."""
    if step is None:
        return (name, np.arange(size), {"units": "pixel", "optic_axis": zero})
    origin = -zero * step
    return (name, origin + step * np.arange(size), {"units": "1/angstrom", "step": step, "origin": origin})
