"""Google Cloud Storage and Azure Blob Storage, played by emulators on this machine.

gs:// is played by gcp-storage-emulator (PyPI), az:// by Azurite (npm), both behind a proxy that counts requests and
fails on demand. They are asked only where ``STEMSTORE_TEST_CLOUDS`` is set, as by ``make test-clouds``, which gets
them.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stemstore.testing.servers import Proxy

sys.path.insert(0, str(Path(__file__).parent))  # lets the tests of this folder import what they share
from azure_emulator import KEY, azurite, connection

SHAPE = (12, 10, 16, 14)
NUMBERS = itertools.count()


@dataclass
class Cloud:
    """A bucket or container of an emulator.

    Attributes
    ----------
    box
        Its address.
    options
        Storage options that open it; `secret` is in them.
    """

    scheme: str
    proxy: Proxy
    options: dict[str, Any]
    secret: str
    fs: Any
    box: str = field(init=False)

    def __post_init__(self) -> None:
        name = f"box-{os.getpid()}-{next(NUMBERS)}"
        self.fs.mkdir(name)
        self.box = f"{self.scheme}://{name}"
        self.requests()

    def requests(self):
        """What was asked for since the last call."""
        found = list(self.proxy.requests)
        self.proxy.requests.clear()
        return found

    def objects(self, url):
        """Everything below an address, by key."""
        prefix = url.removeprefix(f"{self.scheme}://")
        self.fs.invalidate_cache()
        return {path.removeprefix(f"{prefix}/"): self.fs.cat_file(path) for path in self.fs.find(prefix)}


@pytest.fixture(scope="session", autouse=True)
def _wanted():
    """Skip, and say why, where nobody asked for it."""
    if not os.environ.get("STEMSTORE_TEST_CLOUDS"):
        pytest.skip("starts emulators of Google Cloud Storage and Azure: run make test-clouds")


@pytest.fixture(scope="session")
def google():
    """Run an emulator of Google Cloud Storage behind a proxy; gives the proxy."""
    with pytest.MonkeyPatch.context() as patch:
        # it would look for the kind of a bucket at an address that no emulator has
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        pytest.importorskip("gcsfs", reason="needs gcsfs (extra cloud)")
        server = pytest.importorskip(
            "gcp_storage_emulator.server", reason="needs gcp-storage-emulator, see test-clouds"
        )
        from google_emulator import complete

        complete()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        running = server.create_server("127.0.0.1", port, in_memory=True)
        running.start()
        with Proxy(port) as proxy:
            yield proxy
        running.stop()


@pytest.fixture(scope="session")
def azure(tmp_path_factory):
    """Run Azurite behind a proxy; gives the proxy."""
    pytest.importorskip("adlfs", reason="needs adlfs (extra cloud)")
    program = os.environ.get("STEMSTORE_TEST_AZURITE") or shutil.which("azurite-blob")
    if not program or not Path(program).exists():
        pytest.skip("needs Azurite, see make test-clouds")
    with azurite(program, tmp_path_factory.mktemp("azurite")) as port, Proxy(port) as proxy:
        yield proxy


@pytest.fixture
def gs(google):
    """Give an empty bucket."""
    import gcsfs

    secret = "a-token-of-the-tests"
    options = {"endpoint_url": google.url, "token": "anon", "session_kwargs": {"headers": {"x-token": secret}}}
    yield Cloud("gs", google, options, secret, gcsfs.GCSFileSystem(**options, use_listings_cache=False))
    google.fault = None


@pytest.fixture
def az(azure):
    """Give an empty container."""
    import adlfs

    options = {"connection_string": connection(azure, KEY)}
    fs = adlfs.AzureBlobFileSystem(**options, use_listings_cache=False)
    yield Cloud("az", azure, options, KEY, fs)
    azure.fault = None


@pytest.fixture(params=["gs", "az"])
def cloud(request, monkeypatch):
    """Give an empty place in either cloud; requests are sent again without long pauses."""
    monkeypatch.setattr("stemstore.places.retry.FIRST_PAUSE", 0.01)
    return request.getfixturevalue(request.param)


@pytest.fixture
def data():
    """Electrons of a small scan."""
    return np.random.default_rng(4).poisson(0.6, SHAPE).astype(np.uint8)


@pytest.fixture
def raw(tmp_path, data):
    """Write the scan as raw data."""
    np.save(tmp_path / "scan.npy", data)
    return tmp_path / "scan.npy"


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    """Let the small scan have several shards of several chunks."""
    monkeypatch.setattr("stemstore.store.layout.MAX_CHUNK_BYTES", 4 * SHAPE[2] * SHAPE[3])
    monkeypatch.setattr("stemstore.store.layout.MAX_SHARD_BYTES", 16 * SHAPE[2] * SHAPE[3])


@dataclass
class Bucket:
    """A bucket of an S3 server on this machine."""

    bucket: str
    options: dict[str, Any]


@pytest.fixture
def s3(monkeypatch):
    """Give an empty bucket of S3, to copy to and from."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs (extras cloud and test)")
    moto = pytest.importorskip("moto.server", reason="needs moto[server] (extra test)")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    options = {"endpoint_url": url, "key": "testing", "secret": "testing-secret"}
    name = f"bucket-{next(NUMBERS)}"
    s3fs.S3FileSystem(**options).mkdir(name)
    yield Bucket(name, options)
    server.stop()
