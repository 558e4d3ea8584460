"""Raw files on a web server: the same scans as the files of this machine, in this process and in others."""

import importlib
import math
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import fsspec
import numpy as np
import pytest

import stemstore
from stemstore.errors import NotFoundError, StorageError
from stemstore.testing.elsewhere import CountedFiles
from stemstore.testing.reader_tests import read
from stemstore.testing.servers import FileServer

SECRETS = ("passw0rd", "0123abc")

SERVED = (
    "blockfile",
    "de_seq",
    "dectris",
    "dm",
    "emd_ncem",
    "emd_py4dstem",
    "empad_g2",
    "hspy",
    "merlin_mib",
    "mrc",
    "nexus",
    "nion",
    "npy",
    "npz",
    "pantarhei",
    "raw_binary",
    "tia",
    "tiff",
    "topspin",
    "zspy",
)
"""Readers whose first conformance test needs no listing of a folder."""


@pytest.mark.filterwarnings("ignore:the server does not list:stemstore.errors.ScanWarning")
@pytest.mark.parametrize("name", SERVED)
def test_a_web_server_serves_the_same_scan(name, tmp_path):
    """Ranges over HTTP give the pixels of the local file, and opening asks for no whole file."""
    tests = importlib.import_module(f"test_{name}")
    case = next(cls for key, cls in vars(tests).items() if key.startswith("Test") and hasattr(cls, "reader_cls"))
    url, _, options = case().make_file(tmp_path)
    here = case.reader_cls(**options)(url)
    with FileServer(tmp_path) as server:
        there = case.reader_cls(**options)(f"{server.url}/{Path(url).relative_to(tmp_path).as_posix()}")
        whole = [request.target for request in server.requests if request.method == "GET" and not request.range]
        assert not [target for target in whole if (tmp_path / target.lstrip("/")).is_file()]
        copy, n_frames = pickle.loads(pickle.dumps(there)), math.prod(here.scan_shape)
        np.testing.assert_array_equal(read(copy, 0, n_frames), read(here, 0, n_frames))
        assert copy.metadata.acquisition == here.metadata.acquisition


@pytest.fixture
def scan(tmp_path):
    """A raw scan of 16-bit frames in a folder."""
    frames = np.random.default_rng(6).integers(0, 4000, (6, 5, 32, 32), np.uint16)
    np.save(tmp_path / "scan.npy", frames)
    return frames


def test_secrets_stay_out_of_sight(tmp_path, scan):
    """Password and signature of a link are in no attribute, name, message, history or plain metadata."""
    with FileServer(tmp_path) as server:
        link = f"{server.url.replace('//', '//me:passw0rd@')}/scan.npy?signature=0123abc"
        ds = stemstore.open(link)
        report = stemstore.convert(link, tmp_path / "a.zarr", dark=link)
        info = stemstore.store.open.open_store(str(tmp_path / "a.zarr")).document.model_dump_json()
        inspected = str(stemstore.inspect(link))
        with pytest.raises(NotFoundError) as missing:
            stemstore.open(link.replace("scan", "none"))
        graph = dict(ds.intensity.data.dask)
    texts = (str(ds), str(ds.attrs), str(list(graph)), repr(report), info, inspected, str(missing.value))
    assert not [secret for secret in SECRETS for text in texts if secret in text]
    np.testing.assert_allclose(
        stemstore.open(tmp_path / "a.zarr").intensity.values, scan - scan.mean(axis=(0, 1)), rtol=1e-5, atol=1e-3
    )


def test_other_processes_read_it_too(tmp_path, scan):
    """A lazy dataset of a URL computes in another process, its password included, and streams its operations."""
    with FileServer(tmp_path) as server, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        ds = stemstore.open(f"{server.url.replace('//', '//me:passw0rd@')}/scan.npy")
        values = ds.intensity.compute(scheduler="processes", pool=pool).values
        image = stemstore.virtual_image(ds, stemstore.disk(8, center=(16, 16)))
        image = image.compute(scheduler="processes", pool=pool)
    np.testing.assert_array_equal(values, scan)
    inside = np.hypot(*np.ogrid[-16:16, -16:16]) < 8
    np.testing.assert_array_equal(image, scan[..., inside].sum(axis=-1))


@pytest.mark.filterwarnings("ignore:the server does not list:stemstore.errors.ScanWarning")
def test_files_that_no_folder_shows(tmp_path):
    """Where a server lists nothing, all files of a series are named; one alone is said to lack the others."""
    tests = importlib.import_module("test_frms6")
    url, _, options = tests.TestConformance().make_file(tmp_path)
    here = tests.Frms6(**options)(url)
    names = sorted(path.name for path in tmp_path.glob("*.frms6"))
    with FileServer(tmp_path) as server:
        there = tests.Frms6(**options)([f"{server.url}/{name}" for name in names])
        np.testing.assert_array_equal(read(there, 0, 6), read(here, 0, 6))
        with pytest.raises(NotFoundError, match=r"no file m_001\.frms6 with the frames"):
            tests.Frms6(**options)(f"{server.url}/m.hdr")


class Locked(CountedFiles):
    """Files that open to those who know the word."""

    protocol = "locked"

    def info(self, path, **more):
        if self.storage_options.get("word") != "sesame seed":
            msg = f"{path} is locked for {self.storage_options}"
            raise PermissionError(msg)
        return super().info(path, **more)


def test_storage_options_open_raw_files(tmp_path, scan):
    """Options reach the file system at every turn, and stand in no message."""
    fsspec.register_implementation("locked", Locked, clobber=True)
    url = f"locked://{tmp_path}/scan.npy"
    ds = stemstore.open(url, storage_options={"word": "sesame seed"})
    copy = pickle.loads(pickle.dumps(ds.intensity))
    np.testing.assert_array_equal(copy.values, scan)
    assert "sesame" not in str(ds.attrs)
    with pytest.raises(StorageError, match="is locked for") as refused:
        stemstore.open(url, storage_options={"word": "open barley"})
    assert "barley" not in str(refused.value)
