"""LiberTEM opens what is exported for it, with every electron where it was."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1800)]  # the first one installs the program

REQUIREMENT = "libertem==0.16.0"

CODE = """
import libertem.api as lt
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF
context = lt.Context.make_with("inline")
scan = context.load("raw_csr", path=path)
disk = context.create_disk_analysis(dataset=scan, cx=5, cy=3, r=4)
pattern, total = context.run_udf(dataset=scan, udf=[SumUDF(), SumSigUDF()])
print(json.dumps(dict(
    shape=[int(n) for n in scan.shape],
    pattern=np.asarray(pattern["intensity"].data).tolist(),
    total=np.asarray(total["intensity"].data).tolist(),
    image=np.asarray(context.run(disk).intensity.raw_data).tolist(),
)))
"""


@pytest.mark.parametrize("most", [1, 3, 300], ids=["single", "several", "wide"])
@pytest.mark.parametrize("shape", [(5, 7, 8, 12), (2, 5, 7, 8, 12)], ids=["plane", "repeated"])
def test_sums(ask, exported, shape, most):
    """Shape, sum pattern, totals and a virtual image equal NumPy's, whatever the type of the values."""
    counts = np.random.default_rng(0).poisson(0.2, shape).clip(max=most)
    counts[..., 0, 0, :, :] = 0
    counts[..., 1, 2, 3, 4] = most
    found = ask(REQUIREMENT, CODE, exported(counts, "exported.toml"))
    assert found["shape"].tolist() == list(shape)
    np.testing.assert_array_equal(found["pattern"], counts.reshape(-1, 8, 12).sum(0))
    np.testing.assert_array_equal(found["total"].reshape(shape[:-2]), counts.sum((-2, -1)))
    row, column = np.indices((8, 12))
    disk = (row - 3) ** 2 + (column - 5) ** 2 <= 16
    np.testing.assert_array_equal(found["image"].reshape(shape[:-2]), (counts * disk).sum((-2, -1)))


def test_our_reader_and_libertem_agree_on_raw_entries(ask, tmp_path):
    """Entries in any order, with duplicates, zeros and large values, mean the same frames to both."""
    import stemstore

    random = np.random.default_rng(5)
    lengths = random.integers(0, 12, 35)
    lengths[[0, 17, 34]] = 0
    pixels, values = random.integers(0, 96, lengths.sum()), random.integers(0, 300, lengths.sum())
    for name, numbers, kind in (("r", np.cumsum([0, *lengths]), "<u8"), ("p", pixels, ">i4"), ("v", values, ">u2")):
        np.asarray(numbers).astype(kind).tofile(tmp_path / f"{name}.dat")
    lines = ["[params]", 'filetype = "raw_csr"', "nav_shape = [5, 7]", "sig_shape = [8, 12]", "[raw_csr]"]
    for role, name, kind in (("indptr", "r", "<u8"), ("indices", "p", ">i4"), ("data", "v", ">u2")):
        lines += [f'{role}_file = "{name}.dat"', f'{role}_dtype = "{kind}"']
    (tmp_path / "a.toml").write_text("\n".join(lines), encoding="utf-8")
    found = ask(REQUIREMENT, CODE, tmp_path / "a.toml")
    stemstore.convert(tmp_path / "a.toml", tmp_path / "a.zarr")
    ours = stemstore.open(tmp_path / "a.zarr").intensity.values.astype(int)
    np.testing.assert_array_equal(found["pattern"], ours.sum((0, 1)))
    np.testing.assert_array_equal(found["total"], ours.sum((2, 3)))
