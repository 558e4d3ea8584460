"""Strain of the same disks by py4DSTEM and here: the same numbers, under the names that the documentation says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stemstore.ops.lattice.fit import fit_lattice
from stemstore.ops.lattice.strain import strain_map
from stemstore.testing.disks import lattice_disks

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]  # the first one installs the program

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
REQUIREMENT = "py4DSTEM==0.14.18"
BASIS = np.array([[20.0, -2.0], [3.0, 18.0]])
PAIR = tuple(BASIS[:, 0]), tuple(BASIS[:, 1])

CODE = f"""
import contextlib, io, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
from strain_peer import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main(path, path + ".npz")
found = np.load(path + ".npz")
print(json.dumps({{name: found[name].tolist() for name in found}}))
"""


@pytest.mark.parametrize("angle", [0.0, 35.0])
def test_the_linear_strain_is_that_of_py4dstem(ask, tmp_path, angle):
    """With its weights and its formula all four maps are equal to rounding, on turned axes as well."""
    axes = {
        name: (name, np.arange(size), {"units": "pixel", "optic_axis": zero})
        for name, size, zero in (("ky", 90, 45.0), ("kx", 110, 54.0))
    }
    disks = lattice_disks(lattice=BASIS.T, origin=(45.0, 54.0), noise=0.3, coords=axes)
    columns = {name: disks[name].values for name in ("offset", "qy", "qx", "correlation")}
    about = {"scan": (4, 5), "detector": (90, 110), "centre": (45, 54), "basis": BASIS, "reach": 4.0, "rotation": angle}
    np.savez(tmp_path / "job.npz", **columns, **about)
    theirs = ask(REQUIREMENT, CODE, tmp_path / "job.npz")
    lattice = fit_lattice(disks, PAIR, weights="py4dstem", max_distance=4.0, outliers=np.inf)
    ours = strain_map(lattice, reference=PAIR, definition="py4dstem", axes_rotation=angle)
    assert (theirs["mask"] == 1).all()
    assert abs(ours.e_yy).max() > 1e-4
    for own, name in (("e_yy", "e_xx"), ("e_xx", "e_yy"), ("e_xy", "e_xy"), ("theta", "theta")):
        np.testing.assert_allclose(ours[own], theirs[name], atol=1e-10, err_msg=name)
