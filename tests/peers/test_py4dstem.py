"""py4DSTEM opens Bragg vectors that are exported for it, and writes ones that are read here: the same vectors."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.exchange.bragg_vectors import export_disks, open_disks
from stemstore.ops.disks.calibration import calibrate_disks
from stemstore.ops.disks.image import disk_image
from stemstore.ops.disks.origin import disk_origin
from stemstore.ops.disks.vector_map import bragg_vector_map
from stemstore.ops.geometry.detectors import annulus
from stemstore.scan.calibrate import calibrate
from stemstore.testing.arrays import ArrayFrames
from stemstore.testing.disks import lattice_disks

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]  # the first one installs the program

REQUIREMENT = "py4DSTEM==0.14.18"

QUIET = """
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    import py4DSTEM
    vectors = py4DSTEM.read(path)
def flat(getter, field):
    rows, columns = vectors.Rshape
    return np.concatenate([getter[int(i), int(j)].data[field] for i in range(rows) for j in range(columns)]).tolist()
"""

READ = (
    QUIET
    + """
fields = ("qx", "qy", "intensity")
state = vectors.calstate
raw_map = vectors.histogram(mode="raw", sampling=2)
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    image = vectors.get_virtual_image("annular", ((), (0.3, 0.5)), ellipse=True, pixel=True, rotate=True)
print(json.dumps(dict(
    shape=[int(n) for n in (*vectors.Rshape, *vectors.Qshape)],
    lengths=[len(vectors.raw[i, j].qx) for i in range(vectors.Rshape[0]) for j in range(vectors.Rshape[1])],
    raw=[flat(vectors.raw, field) for field in fields],
    cal=[flat(vectors.cal, field) for field in fields],
    state=[bool(state[name]) for name in ("center", "ellipse", "pixel", "rotate")],
    units=[vectors.calibration.get_Q_pixel_units(), vectors.calibration.get_R_pixel_units()],
    sizes=[vectors.calibration.get_Q_pixel_size(), vectors.calibration.get_R_pixel_size()],
    image=image.data.tolist(),
    raw_map=raw_map.data.tolist(),
)))
"""
)

WRITE = """
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    import py4DSTEM
    vectors = py4DSTEM.BraggVectors((3, 4), (64, 80))
    random = np.random.default_rng(3)
    for i in range(3):
        for j in range(4):
            points = np.zeros(5 * i + j, [("qx", "f8"), ("qy", "f8"), ("intensity", "f8")])
            points["qx"], points["qy"] = random.uniform(2, 60, len(points)), random.uniform(2, 75, len(points))
            points["intensity"] = np.sort(random.uniform(1, 100, len(points)))[::-1]
            vectors._v_uncal[i, j].add(points)
    cal = vectors.calibration
    cal.set_Q_pixel_size(0.02)
    cal.set_Q_pixel_units("A^-1")
    cal.set_R_pixel_size(1.5)
    cal.set_R_pixel_units("nm")
    cal.set_origin((31.5 + 0.1 * np.arange(12.0).reshape(3, 4), 40.25 - 0.2 * np.arange(12.0).reshape(3, 4)))
    cal.set_ellipse((30.0, 28.5, 0.6))
    cal.set_QR_rotflip((0.3, True))
    vectors.setcal()
    py4DSTEM.save(path, vectors, tree=True)
def flat(getter, field):
    return np.concatenate([getter[i, j].data[field] for i in range(3) for j in range(4)]).tolist()
print(json.dumps(dict(
    raw=[flat(vectors.raw, field) for field in ("qx", "qy", "intensity")],
    cal=[flat(vectors.cal, field) for field in ("qx", "qy")],
    map=vectors.histogram(mode="raw").data.tolist(),
)))
"""

ORIGIN = (
    QUIET
    + """
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    qx0, qy0, mask = vectors.measure_origin(center_guess=(44, 55))
print(json.dumps(dict(qx0=np.asarray(qx0).tolist(), qy0=np.asarray(qy0).tolist())))
"""
)


def calibrated(dataset_of, **more):
    """Disks of a scan that is calibrated in every way that py4DSTEM knows."""
    y, x = np.indices((4, 5))
    places = np.stack([44.25 + 0.3 * y, 54.5 - 0.2 * x], -1)
    scan = dataset_of(ArrayFrames(np.zeros((4, 5, 90, 110), np.uint8)), detector_step="0.02 1/angstrom", scan_step=2)
    origin = (places[..., 0] - 44.5) * 0.02, (places[..., 1] - 54.5) * 0.02
    scan = calibrate(scan, origin=origin, ellipse={"a": 50, "b": 48, "theta": 25}, scan_rotation=-20, **more)
    return lattice_disks(origin=places, noise=0.2, coords=scan.coords, attrs=scan.intensity.attrs)


@pytest.mark.parametrize("transpose", [False, True])
def test_exported_vectors(ask, tmp_path, dataset_of, transpose):
    """Raw and calibrated vectors, the map and a virtual image are the same there."""
    disks = calibrated(dataset_of, detector_transpose=transpose)
    export_disks(disks, tmp_path / "vectors.h5")
    found = ask(REQUIREMENT, READ, tmp_path / "vectors.h5")
    assert found["shape"].tolist() == [4, 5, 90, 110]
    np.testing.assert_array_equal(found["lengths"], disks.n_disks.values.ravel())
    np.testing.assert_array_equal(found["raw"], [disks.qy, disks.qx, disks.correlation])
    assert found["state"].all()
    assert found["units"].tolist() == ["A^-1", "nm"]
    np.testing.assert_allclose(found["sizes"], [0.02, 2])
    ours = calibrate_disks(disks, axes="scan")
    np.testing.assert_allclose(found["cal"][:2], [ours.gy, ours.gx], atol=1e-9)
    raw = bragg_vector_map(disks, weights="correlation", sampling=2)
    np.testing.assert_allclose(raw, found["raw_map"], atol=1e-6)
    ring = disk_image(disks, annulus(0.3, 0.5), weights="correlation")
    np.testing.assert_allclose(ring, found["image"], rtol=1e-6)


def test_vectors_written_there(ask, tmp_path):
    """Positions, intensities, calibrated vectors and the map of a file of py4DSTEM are its own."""
    found = ask(REQUIREMENT, WRITE, tmp_path / "theirs.h5")
    disks = open_disks(tmp_path / "theirs.h5")
    np.testing.assert_allclose([disks.qy, disks.qx, disks.correlation], found["raw"], rtol=1e-6)
    assert disks.n_disks.values.ravel().tolist() == [5 * i + j for i in range(3) for j in range(4)]
    ours = calibrate_disks(disks, axes="scan")
    np.testing.assert_allclose([ours.gy, ours.gx], found["cal"], atol=1e-6)
    assert ours.gy.units == "1/angstrom"
    np.testing.assert_allclose(bragg_vector_map(disks, weights="correlation"), found["map"], atol=1e-3)
    assert float(disks.y[1]) == 1.5


def test_origins(ask, tmp_path, dataset_of):
    """The disk nearest to a guess is the one that py4DSTEM takes for the unscattered beam."""
    disks = calibrated(dataset_of)
    export_disks(disks, tmp_path / "vectors.h5")
    found = ask(REQUIREMENT, ORIGIN, tmp_path / "vectors.h5")
    ours = disk_origin(disks, guess=(44, 55), unit="pixel")
    np.testing.assert_allclose([ours.origin_ky, ours.origin_kx], [found["qx0"], found["qy0"]], atol=1e-5)
