"""stempy opens what is exported for it, with every electron where it was."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]  # the first one installs the program

REQUIREMENT = "stempy==3.6.0"

CODE = """
from stempy.io.sparse_array import SparseArray
from stempy.image import create_stem_images
scan = SparseArray.from_hdf5(path, keep_flyback={keep})
rows = [[int(pixel) for pixel in row] for row in scan.data.reshape(-1)]
image = create_stem_images(scan, (0,), (4,), center=(5, 3))  # centre is (column, row)
print(json.dumps(dict(
    scan_shape=[int(n) for n in scan.scan_shape],
    frame_shape=[int(n) for n in scan.frame_shape],
    frames_per_position=scan.num_frames_per_scan,
    lengths=[len(row) for row in rows],
    events=sum(rows, []),
    pattern=np.asarray(scan.sum(axis=scan.scan_axes)).tolist(),
    total=np.asarray(scan.sum(axis=scan.frame_axes)).tolist(),
    image=np.asarray(image)[0].tolist(),
    threshold=float(scan.metadata.get("electron_counting", dict()).get("background_threshold", -1)),
)))
"""


def counts_of(*shape, most=1):
    """Electrons per pixel of a sparse scan with an empty first position, neither scan nor detector square."""
    counts = np.random.default_rng(0).poisson(0.2, shape).clip(max=most)
    counts[..., 0, 0, :, :] = 0
    return counts


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("shape", [(5, 7, 8, 12), (2, 5, 7, 8, 12)], ids=["single", "repeated"])
def test_sums_and_events(ask, exported, shape, keep):
    """Shapes, rows, sum pattern and totals equal NumPy's, with the last column and without."""
    counts = counts_of(*shape)
    found = ask(REQUIREMENT, CODE.format(keep=keep), exported(counts, "scan.h5"))
    counts = counts if keep else counts[..., :-1, :, :]
    exposures = counts.reshape(-1, *counts.shape[-4:])  # (exposure, y, x, ky, kx)
    assert found["scan_shape"].tolist() == list(exposures.shape[1:3])
    assert found["frame_shape"].tolist() == [8, 12]
    assert found["frames_per_position"] == len(exposures)
    rows = np.moveaxis(exposures, 0, 2).reshape(-1, 96)
    assert found["lengths"].tolist() == rows.sum(1).tolist()
    assert found["events"].tolist() == np.nonzero(rows)[1].tolist()
    np.testing.assert_array_equal(found["pattern"], exposures.sum((0, 1, 2)))
    np.testing.assert_array_equal(found["total"], exposures.sum((0, 3, 4)))


def test_virtual_image(ask, exported):
    """A disk sums the same electrons; the frames are square, for stempy exchanges rows and columns of its masks."""
    counts = counts_of(2, 5, 7, 12, 12)
    found = ask(REQUIREMENT, CODE.format(keep=True), exported(counts, "scan.h5"))
    row, column = np.indices((12, 12))
    disk = (row - 3) ** 2 + (column - 5) ** 2 < 16
    np.testing.assert_array_equal(found["image"] / 0xFFFF, (counts * disk).sum((0, 3, 4)))  # the weight of its masks


def test_several_electrons_in_a_pixel(ask, exported):
    """What one row cannot hold lies in further rows; the sums over all rows are exact."""
    counts = counts_of(3, 4, 8, 12, most=3)
    counts[1, 2, 3, 4] = 3
    found = ask(REQUIREMENT, CODE.format(keep=True), exported(counts, "scan.h5"))
    assert found["frames_per_position"] == 3
    np.testing.assert_array_equal(found["pattern"], counts.sum((0, 1)))
    np.testing.assert_array_equal(found["total"], counts.sum((2, 3)))


@pytest.mark.parametrize("value", [0, 1])
def test_rows_of_equal_length(ask, exported, value):
    """Scans whose frames all have as many events open as well."""
    counts = np.full((3, 4, 8, 12), value)
    found = ask(REQUIREMENT, CODE.format(keep=True), exported(counts, "scan.h5"))
    np.testing.assert_array_equal(found["pattern"], counts.sum((0, 1)))


def test_thresholds_arrive(ask, tmp_path):
    """The background threshold of a counted store stands where stempy keeps its own."""
    import stemstore
    from stemstore.exchange.run import export

    frames = np.random.default_rng(1).normal(20, 2, (4, 5, 8, 12)).clip(0).round().astype(np.uint16)
    frames[:, :, 4, 6] = 90
    np.save(tmp_path / "a.npy", frames)
    limits = {"background_threshold": 40.5, "xray_threshold": 500}
    stemstore.convert(tmp_path / "a.npy", tmp_path / "a.zarr", count=True, **limits)
    export(tmp_path / "a.zarr", tmp_path / "a.h5")
    found = ask(REQUIREMENT, CODE.format(keep=True), tmp_path / "a.h5")
    assert found["threshold"] == 40.5
    assert found["events"].tolist() == [4 * 12 + 6] * 20
