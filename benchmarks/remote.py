"""Stores on servers: opening, patterns, rows and whole images at a latency of 30 ms, next to other readers.

    python -m benchmarks.remote                     servers on this machine, 1 GB of scratch data
    python -m benchmarks.remote --latency 0.1       another latency, in seconds

An S3 server (moto) and a web server run in a process of their own behind proxies that add the latency to every request.
The same objects are read by zarr-python and by xarray through s3fs and, where obstore is installed, by zarr-python
through obstore. All of them keep their connections. Times are the best of some rounds, and what is compared ran right
after one another; all share the processors of one machine, so that rates say less about a network than about who needs
the processor more.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers import best
from stemstore.testing.servers import FileServer, Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCAN, DETECTOR = (64, 128), (256, 256)
LONG_SCAN, SMALL_DETECTOR, LONG_CHUNK = (32, 512), (64, 64), (8, 8)
"""One shard of 256 chunks, 64 of them in a row: what a reader does that asks for one after the other."""

ROW = 21
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
PART = 2 * 2**20
LINE = 125e6
"""Bytes per second of a line of 1 Gbit/s."""

CONNECTIONS = 8
"""Of the plain download: what fills a line without using up the processor."""


def write_raw(path: Path, dose: float, scan: tuple[int, int]) -> None:
    """Write frames of Poisson counts; a few of them in changing order."""
    random = np.random.default_rng(1)
    frames = random.poisson(dose, (97, *DETECTOR)).astype(np.uint16)
    raw = np.lib.format.open_memmap(path, "w+", np.uint16, (*scan, *DETECTOR))
    for row in raw:
        row[:] = frames[random.integers(0, len(frames), len(row))]
    raw.flush()


def write_long(url: str) -> None:
    """Write a store of a single long shard."""
    from dataclasses import replace

    from stemstore.store.layout import dense_layout
    from stemstore.store.writer import StoreWriter
    from stemstore_schemas import Axis, FrameCounts, ScanDocument

    frames = np.random.default_rng(1).poisson(0.1, (*LONG_SCAN, *SMALL_DETECTOR)).astype(np.uint8)
    axes = [Axis(name=name, size=n) for name, n in zip(("y", "x", "ky", "kx"), frames.shape, strict=True)]
    document = ScanDocument(
        uuid=str(uuid.uuid4()), profile="dense", axes=axes, frames=FrameCounts(valid=LONG_SCAN[0] * LONG_SCAN[1])
    )
    layout = dense_layout(LONG_SCAN, SMALL_DETECTOR, frames.dtype)
    layout = replace(layout, chunk=(*LONG_CHUNK, *SMALL_DETECTOR), shard=(*LONG_SCAN, *SMALL_DETECTOR))
    writer = StoreWriter.init(url, document, layout)
    writer.write_frames(0, frames)
    writer.finalise()


def petabyte(folder: Path) -> float:
    """Seconds of opening a local store whose metadata say 1.1 PB; there is nothing else of it."""
    import stemstore
    from stemstore.store.commit import write_commit
    from stemstore.store.layout import dense_layout
    from stemstore.store.metadata import ROOT, intensity_info, metadata_objects
    from stemstore.store.urls import open_storage
    from stemstore_schemas import Axis, FrameCounts, ScanDocument

    shape = (65536, 65536, 512, 512)
    axes = [Axis(name=name, size=n) for name, n in zip(("y", "x", "ky", "kx"), shape, strict=True)]
    frames = FrameCounts(valid=shape[0] * shape[1])
    document = ScanDocument(uuid=str(uuid.uuid4()), profile="dense", axes=axes, frames=frames)
    info = intensity_info(dense_layout(shape[:2], shape[2:], np.dtype(np.uint16)), ("y", "x", "ky", "kx"))
    root = metadata_objects(document, [info])[ROOT]
    storage = open_storage(str(folder / "petabyte.zarr"))
    storage.put(ROOT, [root])
    write_commit(storage, document.uuid, root, sizes={}, checksums={})
    return best(lambda: stemstore.open(folder / "petabyte.zarr"), 5)


def serve(folder: str) -> None:
    """Run both servers until the process is ended; tells their ports."""
    from moto.server import ThreadedMotoServer

    s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    s3.start()
    with FileServer(Path(folder)) as web:
        print(s3.get_host_and_port()[1], web.port, flush=True)
        sys.stdin.read()
    s3.stop()


def serve_proxy(port: str, latency: str, bandwidth: str = "") -> None:
    """Run a proxy until the process is ended; tells its port."""
    with Proxy(int(port), float(latency), float(bandwidth) if bandwidth else None) as proxy:
        print(proxy.url.rpartition(":")[2], flush=True)
        sys.stdin.read()


@contextlib.contextmanager
def child(*arguments: str) -> Iterator[list[int]]:
    """Run a server of this file in a process of its own; gives its ports."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.remote", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None  # it was asked for
        line = process.stdout.readline().split()
        if not line:
            msg = f"the server {arguments[0]!r} did not start"
            raise RuntimeError(msg)
        yield [int(port) for port in line]
    finally:
        process.kill()
        process.wait()


class Place:
    """The stores on one server, seen through its proxy."""

    def __init__(self, s3: int, web: int) -> None:
        self.endpoint, self.web = f"http://127.0.0.1:{s3}", f"http://127.0.0.1:{web}"
        self.options = {"endpoint_url": self.endpoint}

    def ours(self, name: str) -> Any:
        """Open a store in the bucket with stemstore."""
        import stemstore

        return stemstore.open(f"s3://bucket/{name}.zarr", storage_options=self.options)

    def zarr_fsspec(self, name: str) -> Any:
        """Open it with zarr and s3fs."""
        import zarr

        store = zarr.storage.FsspecStore.from_url(f"s3://bucket/{name}.zarr", storage_options=self.options)
        return zarr.open_group(store, mode="r", zarr_format=3)

    def zarr_obstore(self, name: str) -> Any:
        """Open it with zarr and obstore."""
        import zarr

        return zarr.open_group(zarr.storage.ObjectStore(self.bucket(f"{name}.zarr")), mode="r", zarr_format=3)

    def xarray(self, name: str) -> Any:
        """Open it with xarray, zarr and s3fs: with labels, as stemstore does."""
        import xarray as xr

        url = f"s3://bucket/{name}.zarr"
        return xr.open_zarr(url, storage_options=self.options, zarr_format=3, consolidated=True, chunks=None)

    def bucket(self, prefix: str) -> Any:
        """Reach the bucket with obstore."""
        from obstore.store import S3Store

        options = {"allow_http": True}
        return S3Store("bucket", prefix=prefix, endpoint=self.endpoint, client_options=options, region="us-east-1")


def small_reads(place: Place) -> dict[str, dict[str, float]]:
    """Seconds of opening, of a pattern and of a row, for every reader."""
    readers: dict[str, Callable[[str], Any]] = {"stemstore": place.ours, "zarr + s3fs": place.zarr_fsspec}
    with contextlib.suppress(ImportError):
        import obstore  # noqa: F401

        readers["zarr + obstore"] = place.zarr_obstore
    readers["xarray + s3fs"] = place.xarray
    found: dict[str, dict[str, float]] = {}
    for name, opening in readers.items():
        intensity = opening("sparse")["intensity"]

        def first(opening: Callable[[str], Any] = opening) -> Any:
            return np.asarray(opening("sparse")["intensity"][3, 5])

        long = opening("long")["intensity"]
        found[name] = {
            "open": best(lambda opening=opening: opening("sparse"), 5),
            "open and first pattern": best(first, 5),
            "pattern": best(lambda intensity=intensity: np.asarray(intensity[11, 17]), 5),
            "row": best(lambda intensity=intensity: np.asarray(intensity[ROW]), 5),
            "row of one long shard": best(lambda long=long: np.asarray(long[ROW]), 5),
            "new row": best(lambda opening=opening: np.asarray(opening("sparse")["intensity"][ROW]), 3),
        }
    return found


def requests_alone(place: Place, paths: list[tuple[str, int]]) -> None:
    """Print what the bytes of a store cost without decoding: by fsspec as stemstore asks it, and by obstore."""
    from stemstore.places.link import Link
    from stemstore.store.address import StoreUrl

    parts = [(path[1:], start, min(start + PART, size)) for path, size in paths for start in range(0, size, PART)]
    n_bytes = sum(stop - start for _, start, stop in parts)
    link = Link(StoreUrl(place.web))

    def fsspec_() -> None:
        for future in [link.read(*part) for part in parts]:
            future.result()

    ways: dict[str, Callable[[], None]] = {"fsspec": fsspec_}
    with contextlib.suppress(ImportError):
        from obstore.store import HTTPStore

        folder = HTTPStore.from_url(place.web, client_options={"allow_http": True})

        async def gather() -> None:
            gate = asyncio.Semaphore(link.concurrency)

            async def one(key: str, start: int, stop: int) -> None:
                async with gate:
                    await folder.get_range_async(key, start=start, end=stop)

            await asyncio.gather(*(one(*part) for part in parts))

        ways["obstore"] = lambda: asyncio.run(gather())
    for name, call in ways.items():
        wall, processor = best(call, 5), best(call, 5, "processor")
        rate, cost = n_bytes / wall / 1e6, processor / n_bytes * 1e9
        print(f"requests alone, {name}: {rate:.0f} MB/s, {cost:.2f} s of processor time per GB")


def plain_download(port: int, paths: list[tuple[str, int]]) -> None:
    """Download objects over a few connections by the means of Python alone, and forget them."""
    parts = [(path, start, min(start + PART, size)) for path, size in paths for start in range(0, size, PART)]

    def some(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        buffer = memoryview(bytearray(PART))
        for path, start, stop in parts[number::CONNECTIONS]:
            connection.request("GET", path, headers={"Range": f"bytes={start}-{stop - 1}"})
            answer, got = connection.getresponse(), 0
            while got < stop - start:
                got += answer.readinto(buffer[got : stop - start])
            answer.read()
        connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as executor:
        list(executor.map(some, range(CONNECTIONS)))


def whole_image(url: str, paths: list[tuple[str, int]]) -> dict[str, float]:
    """Bytes per second of a plain download, and of a virtual image of the whole store from the same server."""
    import stemstore

    scan = stemstore.open(f"{url}/dense.zarr")
    disk = stemstore.disk(40, center=(127, 127))
    port = int(url.rpartition(":")[2])
    n_bytes = sum(size for _, size in paths)
    plain, image = np.inf, np.inf
    for _ in range(4):  # in turns, for other work on the machine comes and goes
        plain = min(plain, best(lambda: plain_download(port, paths), 1))
        image = min(image, best(lambda: stemstore.virtual_image(scan, disk).compute(), 1))
    return {
        "bytes": n_bytes,
        "plain": n_bytes / plain,
        "image": n_bytes / image,
        "pixels": scan.intensity.nbytes / image,
    }


def table(found: dict[str, dict[str, float]]) -> None:
    """Print seconds by reader, and how often the others take longer."""
    names = list(found["stemstore"])
    print(f"{'':26}" + "".join(f"{reader:>22}" for reader in found))
    for name in names:
        ours = found["stemstore"][name]
        cells = [f"{times[name] * 1e3:8.1f} ms {times[name] / ours:6.1f} x" for times in found.values()]
        print(f"{name:26}" + "".join(f"{cell:>22}" for cell in cells))


def verdict(what: str, value: float, goal: float, *, below: bool = False) -> None:
    """Say whether a goal was met."""
    met = value <= goal if below else value >= goal
    print(f"{what}: {value:.3g} (goal {'<=' if below else '>='} {goal:g}: {'met' if met else 'missed'})")


def prepare(folder: Path, s3: int) -> None:
    """Convert scratch data into the folder of the web server and into the bucket."""
    import s3fs

    import stemstore

    fs = s3fs.S3FileSystem(endpoint_url=f"http://127.0.0.1:{s3}")
    fs.mkdir("bucket")
    write_long(str(folder / "long.zarr"))
    fs.put(str(folder / "long.zarr"), "bucket/", recursive=True)
    for name, dose, scan in (("sparse", 0.02, SCAN), ("dense", 30.0, (SCAN[0], SCAN[1] // 2))):
        write_raw(folder / "raw.npy", dose, scan)
        stemstore.convert(folder / "raw.npy", folder / f"{name}.zarr")
        fs.put(str(folder / f"{name}.zarr"), "bucket/", recursive=True)
        (folder / "raw.npy").unlink()


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds added to every request")
    parser.add_argument("serving", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serving:
        {"servers": serve, "proxy": serve_proxy}[options.serving[0]](*options.serving[1:])
        return
    os.environ |= KEYS
    with (
        tempfile.TemporaryDirectory() as folder,
        child("servers", folder) as (s3, web),
        child("proxy", str(s3), str(options.latency)) as (s3_proxy,),
        child("proxy", str(web), str(options.latency)) as (web_proxy,),
        child("proxy", str(web), str(options.latency), str(LINE)) as (line_proxy,),
    ):
        prepare(Path(folder), s3)
        place = Place(s3_proxy, web_proxy)
        started = time.perf_counter()
        found = small_reads(place)
        print(f"latency {options.latency * 1e3:.0f} ms, scan {SCAN}, detector {DETECTOR}, uint16, profile fast")
        table(found)
        ours, theirs = found["stemstore"], found["zarr + s3fs"]
        if options.latency == parser.get_default("latency"):
            verdict("row of one long shard, ms", ours["row of one long shard"] * 1e3, 75, below=True)
        verdict(
            "row of one long shard, times zarr", theirs["row of one long shard"] / ours["row of one long shard"], 15
        )
        verdict("open with labels, times xarray", found["xarray + s3fs"]["open"] / ours["open"], 5)
        verdict("opening 1.1 PB on a disk, ms", petabyte(Path(folder)) * 1e3, 100, below=True)
        keys = [
            (f"/{path.relative_to(folder)}", path.stat().st_size)
            for path in Path(folder).glob("dense.zarr/intensity/c/**/*")
            if path.is_file()
        ]
        requests_alone(place, keys)
        for line, port in (("1 Gbit/s", line_proxy), ("this machine", web_proxy)):
            rates = whole_image(f"http://127.0.0.1:{port}", keys)
            print(
                f"whole store of {rates['bytes'] / 1e6:.0f} MB over {line}: plain {rates['plain'] / 1e6:.0f} MB/s, "
                f"virtual image {rates['image'] / 1e6:.0f} MB/s ({rates['pixels'] / 1e6:.0f} MB/s of pixels)"
            )
            verdict("virtual image, part of the plain download", rates["image"] / rates["plain"], 0.8)
        print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
