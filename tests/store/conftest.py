"""Small scans written as stores, with encoders made from the format and not from the package's kernels."""

import itertools
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stemstore.store.layout import counted_layout, dense_layout
from stemstore.store.writer import StoreWriter
from stemstore.testing.servers import FileServer, Proxy
from stemstore_schemas import Axis, EventEncoding, FrameCounts, ScanDocument

sys.path.insert(0, str(Path(__file__).parent))  # lets the tests of this folder import what they share


def encode_gaps(frames):
    """Gaps and slots of dense integer frames (n, ky, kx), written from the definition."""
    gap, slots = [], []
    for frame in frames.reshape(len(frames), -1):
        last, before = 0, len(gap)
        for index in np.repeat(np.arange(frame.size), frame):
            distance = int(index) - last
            while distance >= 65535:
                gap.append(65535)
                distance -= 65535
            gap.append(distance)
            last = int(index)
        slots.append(len(gap) - before)
    return np.array(gap, np.uint16), np.array(slots, np.uint32)


@pytest.fixture
def make_document():
    """Make a minimal document for a stored shape."""

    def make(shape, *, counted=False, identity=None):
        scan = {1: ("frame",), 2: ("y", "x"), 3: ("frame", "y", "x")}[len(shape) - 2]
        axes = [Axis(name=name, size=n) for name, n in zip((*scan, "ky", "kx"), shape, strict=True)]
        return ScanDocument(
            uuid=identity or str(uuid.uuid4()),
            profile="counted" if counted else "dense",
            axes=axes,
            frames=FrameCounts(valid=int(np.prod(shape[:-2]))),
            encoding=EventEncoding(frames_per_block=1, slots_per_chunk=1) if counted else None,
        )

    return make


@pytest.fixture
def small_layout():
    """Lay out frames in chunks and shards so small that little data have many of them."""

    def make(data, *, profile="fast", chunk=2, shard=4):
        layout = dense_layout(data.shape[:-2], data.shape[-2:], data.dtype, profile=profile)
        n_scan = data.ndim - 2
        sides = {1: (1,), 2: (1, 1), 3: (0, 1, 1)}[n_scan]
        chunks = tuple(chunk**side for side in sides) + layout.chunk[-2:]
        shards = tuple(shard**side for side in sides) + layout.shard[-2:]
        return replace(layout, chunk=chunks, shard=shards)

    return make


@pytest.fixture
def write_dense(make_document, small_layout):
    """Write frames as a finished store and give its url."""

    def write(url, data, *, layout=None, records=None, **options):
        layout = layout or small_layout(data)
        writer = StoreWriter.init(url, make_document(data.shape), layout, **options)
        for number, part in enumerate(layout.partitions):
            writer.write_frames(number, data[part], records(part) if records else None)
        return writer.finalise()

    return write


@pytest.fixture
def write_counted(make_document):
    """Write integer frames as a finished store of events and give its url."""

    def write(url, data, *, layout=None, frames_per_block=5, blocks_per_shard=3, slots_per_chunk=64, **options):
        if layout is None:
            layout = counted_layout(data.shape[:-2], data.shape[-2:], 1.0)
            layout = replace(
                layout,
                frames_per_block=frames_per_block,
                blocks_per_shard=blocks_per_shard,
                slots_per_chunk=slots_per_chunk,
            )
        frames = data.reshape(-1, *data.shape[-2:])
        writer = StoreWriter.init(url, make_document(data.shape, counted=True), layout, **options)
        for number in range(len(layout.partitions)):
            writer.write_events(number, [encode_gaps(frames[a:b]) for a, b in layout.blocks(number)])
        return writer.finalise()

    return write


NUMBERS = itertools.count()


class Place:
    """A bucket, or a folder behind a web server, seen through a proxy; empties the list of requests when asked."""

    def __init__(self, proxy, url, options, keep):
        self.proxy, self.url, self.options, self._keep = proxy, url, options, keep

    def keep(self, folder):
        """Put a local store there, and give its address."""
        return self._keep(Path(folder))

    def requests(self):
        """What was asked for since the last call."""
        found = list(self.proxy.requests)
        self.proxy.requests.clear()
        return found


@pytest.fixture
def quick(monkeypatch):
    """Let requests be sent again without long pauses."""
    monkeypatch.setattr("stemstore.places.retry.FIRST_PAUSE", 0.01)


@pytest.fixture(scope="session")
def s3_server():
    """Run an S3 server of this machine behind a proxy for the time of the tests."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs (extras cloud and test)")
    moto = pytest.importorskip("moto.server", reason="needs moto[server] (extra test)")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
        server.start()
        try:
            with Proxy(server.get_host_and_port()[1]) as proxy:
                yield proxy, s3fs.S3FileSystem(endpoint_url=proxy.url, use_listings_cache=False)
        finally:
            server.stop()


@pytest.fixture(scope="session")
def web_server(tmp_path_factory):
    """Run a web server for the folders of the tests behind a proxy."""
    pytest.importorskip("aiohttp", reason="needs aiohttp (extras cloud and test)")
    folder = tmp_path_factory.getbasetemp()
    with FileServer(folder) as server, Proxy(server.port) as proxy:
        yield proxy, folder


@pytest.fixture
def s3(s3_server, quick):
    """Give an empty bucket of a server that counts requests and fails on demand."""
    proxy, fs = s3_server
    bucket = f"bucket-{next(NUMBERS)}"
    fs.mkdir(bucket)

    def keep(folder):
        fs.put(str(folder), f"{bucket}/", recursive=True)
        proxy.requests.clear()
        return f"s3://{bucket}/{folder.name}"

    place = Place(proxy, f"s3://{bucket}/scan.zarr", {"endpoint_url": proxy.url}, keep)
    place.fs = fs
    place.requests()
    yield place
    proxy.fault, proxy.latency = None, 0.0


@pytest.fixture
def web(web_server, tmp_path, quick):
    """Give a folder behind a web server that counts requests and fails on demand."""
    proxy, root = web_server

    def keep(folder):
        proxy.requests.clear()
        return f"{proxy.url}/{folder.relative_to(root)}"

    yield Place(proxy, f"{proxy.url}/{tmp_path.relative_to(root)}/scan.zarr", {}, keep)
    proxy.fault, proxy.latency = None, 0.0


@pytest.fixture(params=["s3", "web"])
def place(request):
    """Give either kind of server."""
    return request.getfixturevalue(request.param)
