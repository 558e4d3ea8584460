"""Small writers of the files whose reading is timed: just what a reader wants to see, around random counts."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIDE = 256
MEBI = 2**20


def counts(shape: tuple[int, ...], dtype: str = "<u2", seed: int = 0) -> np.ndarray:
    """Poisson counts of a bright disk on a diffuse background."""
    row, column = np.indices(shape[-2:]) - (np.array(shape[-2:])[:, None, None] - 1) / 2
    r = np.hypot(row, column) / shape[-2]
    expected = np.where(r < 1 / 8, 20, 0) + 12 * np.exp(-((5 * r) ** 2)) + 0.05
    return np.random.default_rng(seed).poisson(expected, shape).astype(dtype)


@dataclass(frozen=True)
class Form:
    """A format whose frames lie at a fixed stride.

    Attributes
    ----------
    reader, file
        Name of the reader, and of the file; {y} and {x} are the scan.
    head
        Bytes in front of all frames of a scan (y, x).
    before, after
        Bytes in front of each frame, by its number, and how many lie behind it.
    tail
        Bytes behind all frames.
    beside
        Text in a file beside it: its suffix, and the text for a scan.
    place
        Puts stored frames where they are seen, by NumPy.
    stated
        Options of the reader for a scan.
    """

    reader: str
    file: str
    head: Callable[[int, int], bytes] = lambda *_: b""
    before: Callable[[int], bytes] = lambda _: b""
    after: int = 0
    tail: int = 0
    shape: tuple[int, int] = (SIDE, SIDE)
    dtype: str = "<u2"
    beside: tuple[str, Callable[[int, int], str]] | None = None
    place: Callable[[np.ndarray, np.ndarray], None] = np.copyto
    stated: Callable[[tuple[int, int]], dict[str, Any]] = lambda _: {}

    @property
    def size(self) -> int:
        """Bytes of the pixels of a frame."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize

    @property
    def record(self) -> np.dtype[Any]:
        """One frame as NumPy sees it."""
        return np.dtype(
            [("before", "V", len(self.before(0))), ("pixels", self.dtype, self.shape), ("after", "V", self.after)]
        )

    def write(self, folder: Path, scan: tuple[int, int], *, sparse: bool = False) -> Path:
        """Write a scan; a sparse one has its first and last headers and a hole for the rest."""
        n, path = scan[0] * scan[1], folder / self.file.format(y=scan[0], x=scan[1])
        block = counts((32, *self.shape), self.dtype)
        with path.open("wb") as file:
            file.write(self.head(*scan))
            start, stride = file.tell(), self.record.itemsize
            for number in (0, 1, n - 1) if sparse else range(n):
                file.seek(start + number * stride)
                file.write(self.before(number) + (b"" if sparse else block[number % 32].tobytes()))
            file.truncate(start + n * stride + self.tail)
        if self.beside is not None:
            path.with_name(path.name + self.beside[0]).write_text(self.beside[1](*scan))
        return path

    def mapped(self, path: Path, n: int) -> np.ndarray:
        """See n frames in a plain memory map."""
        start = path.stat().st_size - n * self.record.itemsize - self.tail
        return np.memmap(path, self.record, "r", start, n)["pixels"]


def _npy(y: int, x: int) -> bytes:
    text = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({y}, {x}, {SIDE}, {SIDE}), }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117).encode() + b"\n"


def _mrc(y: int, x: int) -> bytes:
    head = bytearray(1024)
    struct.pack_into("<4i", head, 0, SIDE, SIDE, y * x, 6)
    struct.pack_into("<3i6f3i", head, 28, SIDE, SIDE, y * x, SIDE, SIDE, 1, 90, 90, 90, 1, 2, 3)
    struct.pack_into("<i", head, 108, 20140)
    head[208:216] = b"MAP DD\0\0"
    return bytes(head)


def _seq(y: int, x: int) -> bytes:
    head = bytearray(8192)
    struct.pack_into("<I24s2i", head, 0, 0xFEED, "Norpix seq".encode("utf-16-le"), 5, 1024)
    stride = 2 * SIDE * SIDE + 8192
    struct.pack_into("<9Id", head, 548, SIDE, SIDE, 16, 12, 2 * SIDE * SIDE, 100, y * x, 0, stride, 333.0)
    return bytes(head)


def _blo(y: int, x: int) -> bytes:
    start = 0x1000 + y * x
    fields = (b"IMGBLO", 0x0102, 0x1000, start, 131135, SIDE, 256, x, y, 0, 12.5, 10.0, 200000, 6250, 2000, 43970.5)
    return struct.pack("<6sH3I5H2dIHId22d", *fields, *range(22)).ljust(start, b"\0")


def _mib(number: int) -> bytes:
    thresholds = ",".join(["0.000000E+0"] * 8)
    head = (
        f"MQ1,{number + 1:06d},00384,01,0256,0256,U16,   1x1,01,2024-05-17 09:30:00.000000,0.001000,0,0,0,{thresholds},"
    )
    text = head + "3RX," + ",".join(["000"] * 27) + ",MQ1A,2024-05-17T09:30:00.000000000Z,1000000ns,12,"
    return text.encode().ljust(384, b"\0")


def _tvips(y: int, x: int) -> bytes:
    return struct.pack("<13I", 256, 2, SIDE, SIDE, 16, 0, 0, 1, 1, 31000, 200, 80, 128).ljust(256, b"\0")


def _frms6(y: int, x: int) -> bytes:
    return struct.pack("<HH3xB80sHH928sI", 1024, 64, 6, b"pnCCD", 528, 264, b"", y * x)


def _tia(y: int, x: int) -> bytes:
    n, body = y * x, struct.pack("<IddII6sI", y * x, 0.0, 1.0, 0, 6, b"Number", 0)
    table = 34 + len(body)
    head = struct.pack("<3H4IQI", 0x4949, 0x0197, 0x220, 0x4122, 0x4152, n, n, table, 1) + body
    offsets = table + 24 * n + np.arange(n, dtype="<u8") * (50 + 2 * 2048**2)
    tags = table + 16 * n + np.arange(n, dtype="<u8") * 8
    return head + offsets.tobytes() + tags.tobytes() + struct.pack("<HHI", 0x4152, 0, 1456165114) * n


def _dm(y: int, x: int) -> bytes:
    data = 2 * SIDE * SIDE * y * x

    def tag(name: bytes, body: bytes, *, group: bool = True, more: int = 0) -> bytes:
        return struct.pack(">BH", 20 if group else 21, len(name)) + name + struct.pack(">Q", len(body) + more) + body

    def group(*tags: bytes) -> bytes:
        return struct.pack(">BBQ", 1, 0, len(tags)) + b"".join(tags)

    def number(name: bytes, value: int) -> bytes:
        return tag(name, b"%%%%" + struct.pack(">2Q", 1, 5) + struct.pack("<I", value), group=False)

    sizes = tag(b"Dimensions", group(*(number(b"", size) for size in (SIDE, SIDE, x, y))))
    pixels = tag(b"Data", b"%%%%" + struct.pack(">4Q", 3, 20, 4, data // 2), group=False, more=data)
    image = tag(b"ImageData", group(number(b"DataType", 10), sizes, pixels), more=data)
    body = group(tag(b"ImageList", group(tag(b"", group(image), more=data)), more=data))
    return struct.pack(">IQI", 4, len(body) + data, 1) + body


def _unfold(out: np.ndarray, stored: np.ndarray) -> None:
    out[:, :264], out[:, 264:] = stored[:, :, :264], stored[:, ::-1, :263:-1]


def _description(y: int, x: int) -> str:
    return json.dumps({"shape": [y, x, SIDE, SIDE], "dtype": "<u2"})


FORMS = (
    Form("raw_binary", "scan.raw", beside=(".json", _description)),
    Form("npy", "scan.npy", _npy),
    Form("mrc", "scan.mrc", _mrc),
    Form("empad", "scan_x{x}_y{y}.raw", after=1024, shape=(128, 128), dtype="<f4"),
    Form("blockfile", "scan.blo", _blo, lambda i: b"\xaa\x55" + struct.pack("<I", i), dtype="u1"),
    Form("merlin_mib", "scan.mib", before=_mib, dtype=">u2"),
    Form("de_seq", "scan.seq", _seq, after=8192),
    Form("tvips", "scan_000.tvips", _tvips, lambda i: struct.pack("<3I", i + 1, 1700000000 + i, 0).ljust(128, b"\0"),
         stated=lambda scan: {"scan_shape": scan, "sync_offset": 0}),  # else the headers of all frames are read
    Form("empad_g2", "scan_x{x}_y{y}.raw", shape=(128, 128), dtype="<u4"),
    Form("dm", "scan.dm4", _dm, tail=8, stated=lambda _: {"fastest": "detector"}),
    Form("tia", "scan_1.ser", _tia, lambda _: struct.pack("<ddIddIHII", 0, 4e7, 0, 0, 4e7, 0, 2, 2048, 2048),
         shape=(2048, 2048), place=lambda out, stored: np.copyto(out, stored[:, ::-1])),
    Form("frms6", "scan_001.frms6", _frms6, lambda i: struct.pack("<4xIIIQ", 1700000000, 0, i, 0).ljust(64, b"\0"),
         shape=(264, 528), place=_unfold),
)  # fmt: skip


def contiguous(folder: Path, scan: tuple[int, int], *, sparse: bool = False) -> Path:
    """Write a NeXus file whose frames lie one after the other."""
    import h5py

    path = folder / "scan.nxs"
    with h5py.File(path, "w") as file:
        data = file.create_group("entry/scan")
        for group, kind in ((file, "NXroot"), (file["entry"], "NXentry"), (data, "NXdata")):
            group.attrs["NX_class"] = kind
        data.attrs["signal"] = "data"
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        space = h5py.h5s.create_simple((*scan, SIDE, SIDE))
        frames = h5py.Dataset(h5py.h5d.create(data.id, b"data", h5py.h5t.STD_U16LE, space, settings))
        for y in range(0 if sparse else scan[0]):
            frames[y] = counts((scan[1], SIDE, SIDE), seed=y % 2)
    return path


def raw_merlin(path: Path, depth: int, n: int) -> Path:
    """Write frames as one chip sends them, of a counter of so many bits."""
    bits = {1: 1, 6: 8, 12: 16, 24: 32}[depth]
    columns = 512 if depth == 24 else SIDE
    head = f"MQ1,{{:06d}},00384,01,{columns:04d},0256,R64,   1x1,01,2024-05-17 09:30:00.000000,0.001000,0,0,0,"
    tail = ",".join(["0.000000E+0"] * 8) + ",3RX," + ",".join(["000"] * 27)
    tail += f",MQ1A,2024-05-17T09:30:00.000000000Z,1000000ns,{depth},"
    random = np.random.default_rng(0)
    high = 2 ** min(depth, 12) if depth > 1 else 256
    kind = "u1" if depth <= 6 else ">u2"
    block = random.integers(0, high, (16, SIDE * SIDE * bits // 8 // np.dtype(kind).itemsize)).astype(kind)
    with path.open("wb") as file:
        for i in range(n):
            file.write((head.format(i + 1) + tail).encode().ljust(384, b"\0") + block[i % 16].tobytes())
    return path


def k2(folder: Path, n: int) -> Path:
    """Write the eight sectors of frames of 12 bit, without a tag file."""
    payload = np.random.default_rng(0).integers(0, 256, (8, 22320)).astype(np.uint8)
    for sector in range(8):
        with (folder / f"scan_{sector + 1}.bin").open("wb") as file:
            for number in range(32 * n):
                frame, place = divmod(number, 32)
                x, y = 16 * (15 - place % 16), 930 * (place // 16)
                head = struct.pack(">I4xBB6xIHHI", 0xFFFF0055, 1, 3, number, 256, 1860, frame)
                file.write(head + struct.pack(">HHHHI", x, y, x + 15, y + 929, 22360) + payload[place % 8].tobytes())
    return folder / "scan_1.bin"


def dectris(folder: Path, frames: np.ndarray) -> Path:
    """Write frames as the detector packs them; needs hdf5plugin."""
    import h5py
    import hdf5plugin

    path = folder / "scan_data_000001.h5"
    with h5py.File(path, "w") as file:
        packed = hdf5plugin.Bitshuffle(nelems=0, cname="lz4")
        stored = file.create_dataset("entry/data/data", data=frames, chunks=(1, *frames.shape[1:]), **packed)
        stored.attrs["image_nr_low"], stored.attrs["image_nr_high"] = 1, len(frames)
    return path


def tpx3(path: Path, scan: tuple[int, int], n_hits: int, dwell: int = 64) -> Path:
    """Write hits of one chip at random positions, in the disorder of its buffers; lines begin with an edge.

    `dwell` in clock cycles of 25 ns.
    """
    random = np.random.default_rng(0)
    flat = np.sort(random.integers(0, scan[0] * scan[1], n_hits))
    line = scan[1] * dwell + 500
    clock = 1000 + flat // scan[1] * line + flat % scan[1] * dwell + random.integers(0, dwell, n_hits)
    clock = clock[np.argsort(clock + random.integers(0, 2000, n_hits), kind="stable")]
    column, row = np.clip(random.normal(128, 40, (2, n_hits)), 0, 255).astype(np.int64)
    address = (column & 0xFE) << 8 | (row & 0xFC) << 1 | (column & 1) << 2 | row & 3
    rest = (clock & 0x3FFF) << 30 | random.integers(1, 60, n_hits) << 20 | random.integers(0, 16, n_hits) << 16
    words = np.uint64(0xB << 60) | (address << 44 | rest | clock >> 14 & 0xFFFF).astype(np.uint64)
    begin = 1000 + np.arange(scan[0]) * line
    number = np.arange(scan[0]) * 2 + 2 & 0xFFF
    edges = np.uint64(0x6F << 56) | (number << 44 | begin << 12 | 1 << 5).astype(np.uint64)
    words = np.insert(words, np.searchsorted(np.sort(clock), begin), edges)
    words = words[: len(words) // 100 * 100].reshape(-1, 100)
    header = np.full((len(words), 1), 800 << 48 | 0x33585054, np.uint64)
    np.concatenate([header, words], axis=1).astype("<u8").tofile(path)
    return path
