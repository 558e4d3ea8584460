"""Strain by py4DSTEM, run by the interpreter that it is installed for; see `benchmarks.strain`.

    python benchmarks/strain_peer.py job.npz result.npz

The job holds the disks of a scan; the result the seconds of indexing and fitting and of strain, and the maps.
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np


def main(job: str, result: str) -> None:
    """Fit and map, without the pictures that the class draws."""
    import matplotlib as mpl

    mpl.use("agg")
    warnings.simplefilter("ignore")
    from py4DSTEM import BraggVectors, StrainMap
    from py4DSTEM.process.strain.latticevectors import get_rotated_strain_map, get_strain_from_reference_g1g2

    given = np.load(job)
    shape, detector, centre = (tuple(int(n) for n in given[name]) for name in ("scan", "detector", "centre"))
    vectors = BraggVectors(shape, detector)
    for flat in range(shape[0] * shape[1]):
        own = slice(given["offset"][flat], given["offset"][flat + 1])
        columns = (given[name][own].astype(float) for name in ("qy", "qx", "correlation"))
        vectors._v_uncal[divmod(flat, shape[1])].add_data_by_field(tuple(columns))
    vectors.calibration.set_origin(centre)
    vectors.calibration.set_QR_rotation_degrees(0)
    vectors.calibration.set_QR_flip(False)
    vectors.setcal()
    strain = StrainMap(vectors)
    lattice = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    from emdfile import PointList

    fields = [("qx", float), ("qy", float), ("g1_ind", int), ("g2_ind", int)]
    points = lattice @ given["basis"].T
    strain.braggdirections = PointList(np.rec.fromarrays([*points.T, *lattice.T], dtype=fields))
    start = time.process_time()
    strain.fit_basis_vectors(max_peak_spacing=float(given["reach"]))
    fitted = time.process_time()
    plain = get_strain_from_reference_g1g2(strain.g1g2_map, given["basis"][:, 0], given["basis"][:, 1])
    angle = np.deg2rad(float(given["rotation"]))
    turned = get_rotated_strain_map(plain, np.cos(angle), np.sin(angle), flip_theta=False)
    done = time.process_time()
    maps = {name: turned.get_slice(name).data for name in ("e_xx", "e_yy", "e_xy", "theta", "mask")}
    np.savez(result, fit=fitted - start, strain=done - fitted, **maps)


if __name__ == "__main__":
    main(*sys.argv[1:])
