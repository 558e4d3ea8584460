"""Speed of strain mapping after the disks are found: basis, index and fit, strain.

    python -m benchmarks.strain                                 40 000 positions of 47 disks
    python -m benchmarks.strain --py4dstem /venv/bin/python     compare with py4DSTEM, installed for that interpreter

One thread, processor time, best of some rounds. The disks are those of a lattice that varies over the scan, with
noise. The loop over positions in NumPy does what programs without compiled loops do: index, weigh, least squares.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported

import numpy as np

from benchmarks.operations import Table
from benchmarks.peers import best

DETECTOR, CENTRE, BASIS = (256, 256), (128, 128), np.array([[28.0, -2.0], [1.0, 27.0]])
ORDERS = np.array([(h, k) for h in range(-4, 5) for k in range(-4, 5) if h * h + k * k <= 16])[1:-1]
NOISE, ROTATION, SLICE = 0.2, 30.0, 1024


def make(scan: tuple[int, int]) -> Any:
    """Make the disks of a scan whose strain and rotation vary by a per cent and half a degree."""
    from stemstore.ops.disks.calibration import calibrate_disks
    from stemstore.ops.disks.table import DiskTable, dataset_of_table

    random = np.random.default_rng(0)
    lattices = (np.eye(2) + random.normal(0, 0.007, (*scan, 2, 2))) @ BASIS
    q = np.einsum("...ij,pj->...pi", lattices, ORDERS) + CENTRE
    counts = np.broadcast_to(random.uniform(100, 2000, len(ORDERS)), q.shape[:-1])
    q = q + random.normal(0, NOISE, q.shape)
    n, disks = scan[0] * scan[1], len(ORDERS)
    columns = (part.astype(np.float32).ravel() for part in (q[..., 0], q[..., 1], counts, np.sqrt(counts)))
    table = DiskTable(scan, ("y", "x"), np.arange(n + 1) * disks, *columns, None, np.ones(scan, bool), DETECTOR)
    axes = {
        name: (name, np.arange(size), {"units": "pixel", "optic_axis": float(zero)})
        for name, size, zero in zip(("ky", "kx"), DETECTOR, CENTRE, strict=True)
    }
    return calibrate_disks(dataset_of_table(table, axes, {}))


def loop(disks: Any, positions: int) -> np.ndarray:
    """Index and fit position by position in NumPy."""
    inverse, offset = np.linalg.inv(BASIS), disks.offset.values
    q, weights = np.stack([disks.gy.values, disks.gx.values], axis=1), np.sqrt(disks.intensity.values.astype(float))
    found = np.empty((positions, 3, 2))
    for i in range(positions):
        own = slice(offset[i], offset[i + 1])
        orders = np.rint(q[own] @ inverse.T)
        near = np.hypot(*(q[own] - orders @ BASIS.T).T) < np.hypot(*BASIS[:, 0]) / 4
        design = np.column_stack([np.ones(near.sum()), orders[near]]) * weights[own][near, None]
        found[i] = np.linalg.lstsq(design, q[own][near] * weights[own][near, None], rcond=None)[0]
    return found


def compare(disks: Any, scan: tuple[int, int], interpreter: str, table: Table, ours: float) -> None:
    """Let py4DSTEM do the same disks: speed, and the difference of the maps."""
    from stemstore.ops.lattice.fit import fit_lattice
    from stemstore.ops.lattice.strain import strain_map

    reach = float(np.hypot(*BASIS[:, 0]) / 4)
    columns = {name: disks[name].values for name in ("offset", "qy", "qx", "correlation")}
    about = {"scan": scan, "detector": DETECTOR, "centre": CENTRE, "basis": BASIS, "reach": reach, "rotation": ROTATION}
    with tempfile.TemporaryDirectory() as folder:
        job, result = Path(folder) / "job.npz", Path(folder) / "result.npz"
        np.savez(job, **columns, **about)
        command = [interpreter, str(Path(__file__).with_name("strain_peer.py")), str(job), str(result)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"py4DSTEM was not compared: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
            return
        theirs = dict(np.load(result))
    n = scan[0] * scan[1]
    rate = n / float(theirs["fit"] + theirs["strain"])
    note = f"py4DSTEM {rate:.0f} positions/s, {n} positions"
    table.add("index, fit and strain, against py4DSTEM", ours / rate, "x", goal=50, note=note)
    pair = tuple(BASIS[:, 0]), tuple(BASIS[:, 1])
    lattice = fit_lattice(disks, pair, weights="py4dstem", max_distance=reach, outliers=np.inf)
    maps = strain_map(lattice, reference=pair, definition="py4dstem", axes_rotation=ROTATION)
    names = {"e_yy": "e_xx", "e_xx": "e_yy", "e_xy": "e_xy", "theta": "theta"}
    apart = max(float(np.abs(maps[own].values - theirs[name]).max()) for own, name in names.items())
    print(f"largest difference to py4DSTEM's maps, axes turned by {ROTATION:g} deg: {apart:.1e}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--py4dstem", metavar="PYTHON", help="interpreter that py4DSTEM is installed for")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from stemstore.ops.lattice.basis import find_basis
    from stemstore.ops.lattice.fit import fit_lattice
    from stemstore.ops.lattice.strain import strain_map

    def whole(disks: Any, basis: Any) -> Any:
        return strain_map(fit_lattice(disks, basis))

    table, scan = Table(), (200, 200)
    disks, n = make(scan), scan[0] * scan[1]
    basis = find_basis(disks)
    lattice = fit_lattice(disks, basis)
    seconds = {
        "basis": best(lambda: find_basis(disks), options.rounds, "processor"),
        "index and fit": best(lambda: fit_lattice(disks, basis), options.rounds, "processor"),
        "strain": best(lambda: strain_map(lattice), options.rounds, "processor"),
    }
    both = best(lambda: whole(disks, basis), options.rounds, "processor")
    table.add("find the basis", seconds["basis"], "s", note=f"{n} positions of {len(ORDERS)} disks")
    for name in ("index and fit", "strain"):
        table.add(name, n / seconds[name] / 1000, "1000/s")
    table.add("index, fit and strain", n / both / 1000, "1000/s", goal=50, note="positions per second and core")
    part = make((32, 32))
    one = best(lambda: whole(part, basis), options.rounds, "processor")
    table.add("1024 positions, index, fit and strain", 1000 * one, "ms", note="goal: less than 25")
    slow = best(lambda: loop(part, SLICE), 1, "processor") / SLICE
    table.add("index and fit, against a loop in NumPy", slow * n / seconds["index and fit"], "x")
    if options.py4dstem:
        compare(part, (32, 32), options.py4dstem, table, n / both)
    sys.exit("missed: " + "; ".join(table.missed) if table.missed else 0)


if __name__ == "__main__":
    main()
