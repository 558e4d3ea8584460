"""RAW_CSR as LiberTEM describes it, looked at with NumPy and a TOML parser alone."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest

import stemstore
from stemstore.errors import InputError
from stemstore.exchange.raw_csr import RAW_CSR, owned
from stemstore.exchange.run import export
from stemstore.exchange.target import CountedScan
from stemstore.progress import NoProgress
from stemstore.sources.electrons import multiplicity
from stemstore.testing.arrays import ArrayEvents


def written(folder, counts, name="scan.toml"):
    """Write electrons per pixel and give the parameters of the description and the numbers of the flat files."""
    source = ArrayEvents(np.asarray(counts))
    scan = CountedScan("memory", None, source, multiplicity(source))
    RAW_CSR.check(scan)
    RAW_CSR.write(scan, RAW_CSR.files(folder / name), NoProgress())
    return read(folder / name)


def read(path):
    """Read a description and the files that it names."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    table = document[document["params"]["filetype"]]
    roles = ("indptr", "indices", "data")
    arrays = [np.fromfile(path.parent / table[f"{role}_file"], table[f"{role}_dtype"]) for role in roles]
    return document["params"], [table[f"{role}_dtype"] for role in roles], arrays


def test_layout(tmp_path, store):
    """Shapes, types and numbers of a store are those of its frames."""
    export(store, tmp_path / "a b µ.toml")
    params, dtypes, (indptr, indices, data) = read(tmp_path / "a b µ.toml")
    assert params == {"filetype": "raw_csr", "nav_shape": [6, 8], "sig_shape": [7, 9]}
    assert dtypes == ["<i8", "<i4", "<u1"]
    dense = stemstore.open(store).intensity.values.reshape(48, 63)
    assert np.diff(indptr).tolist() == dense.sum(axis=1).tolist()
    assert indices.tolist() == np.nonzero(dense)[1].tolist()
    assert (data == 1).all()


@pytest.mark.parametrize(("most", "dtype"), [(1, "<u1"), (255, "<u1"), (256, "<u2"), (70_000, "<u4")])
def test_values_take_the_smallest_type(tmp_path, most, dtype):
    """Each pixel has one entry with its electrons, in the smallest unsigned type."""
    counts = np.random.default_rng(0).poisson(0.5, (2, 3, 4, 5)).clip(max=1)
    counts[1, 1, 2, 3] = most
    _, dtypes, (indptr, indices, data) = written(tmp_path, counts)
    assert dtypes[2] == dtype
    dense = np.zeros((6, 20), int)
    dense[np.repeat(np.arange(6), np.diff(indptr)), indices] = data
    np.testing.assert_array_equal(dense, counts.reshape(6, 20))
    assert len(indices) == np.count_nonzero(counts)


@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 1, 3)])
def test_any_number_of_scan_axes(tmp_path, shape):
    """Frames are written in the order of the scan, whatever its axes."""
    counts = np.random.default_rng(1).poisson(0.5, (*shape, 4, 5))
    params, _, (indptr, _, data) = written(tmp_path, counts)
    assert params["nav_shape"] == list(shape)
    sums = np.add.reduceat(np.append(data, 0).astype(int), indptr[:-1]) * (np.diff(indptr) > 0)
    assert sums.tolist() == counts.sum((-2, -1)).reshape(-1).tolist()


def test_empty_scan(tmp_path):
    """A scan without a single electron has empty files and a whole row index."""
    _, _, (indptr, indices, data) = written(tmp_path, np.zeros((2, 2, 3, 3), int))
    assert indptr.tolist() == [0] * 5
    assert len(indices) == len(data) == 0


def test_frames_beyond_the_index(tmp_path):
    """A detector with more pixels than a signed 32-bit number can name is refused."""

    class Huge(ArrayEvents):
        def __init__(self):
            super().__init__(np.zeros((1, 1, 1, 1), int))
            self.frame_shape = (2**16, 2**16)

    scan = CountedScan("memory", None, Huge(), np.zeros(1, np.uint32))
    with pytest.raises(InputError, match="4294967296 pixels, indices of RAW_CSR end at 2147483648"):
        RAW_CSR.check(scan)


@pytest.mark.parametrize(
    "text", ["", "[params", "[params]\nfiletype = 'raw'\n[raw]\n", "[params]\nfiletype = 'raw_csr'\n"]
)
def test_other_descriptions_own_nothing(tmp_path, text):
    """A file that is no whole description owns no files."""
    (tmp_path / "a.toml").write_text(text)
    assert owned(tmp_path / "a.toml") == set()
    assert owned(tmp_path / "missing.toml") == set()
