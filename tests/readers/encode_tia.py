"""Encoder of TIA series and their documents, written from the description of the format."""

from __future__ import annotations

import struct

import numpy as np

CODES = {"u1": 1, "u2": 2, "u4": 3, "i1": 4, "i2": 5, "i4": 6, "f4": 7, "f8": 8, "c8": 9}
OBJECT = """<ObjectInfo><ExperimentalConditions>
<MicroscopeConditions><AcceleratingVoltage>{voltage}</AcceleratingVoltage>
</MicroscopeConditions></ExperimentalConditions><ExperimentalDescription><Root>
<Data><Label>Mode</Label><Value> TEM Diffraction</Value><Unit></Unit></Data>
<Data><Label>Camera length</Label><Value>1.1</Value><Unit>m</Unit></Data></Root></ExperimentalDescription>
<AcquireInfo>
<CameraNamePath>BM-Ceta</CameraNamePath>
<DwellTimePath>0.25</DwellTimePath><Binning>2</Binning></AcquireInfo>
</ObjectInfo>"""


def encode(images, dims=None, *, version=0x220, valid=None, step=4e7, origin=(-1e8, -2e8), **more):
    """Pack images (n, rows, columns), given as they are seen, with the last row first; `dims` fastest first.

    Tags lie in front of the images, so that the file ends with its last pixel.
    """
    n, rows, columns = images.shape
    dims = dims if dims is not None else [(n, 1.0, "")]
    pointer, width = ("<I", 4) if version == 0x210 else ("<Q", 8)
    head = struct.pack("<3HII", 0x4949, 0x0197, version, more.get("data_type", 0x4122), 0x4152)
    head += struct.pack("<II", n, n if valid is None else valid)
    body = b""
    for size, delta, unit in dims:
        body += struct.pack("<IddI", size, 0.0, delta, 0)
        body += struct.pack("<I", 6) + b"Number" + struct.pack("<I", len(unit)) + unit.encode()
    table = len(head) + width + 4 + len(body)
    content = head + struct.pack(pointer, table) + struct.pack("<I", len(dims)) + body
    tag = struct.pack("<HHI", 0x4152, 0, 1456165114)
    code = more.get("code", CODES[images.dtype.str[1:]])
    element = struct.pack("<ddIddIHII", origin[0], step, 0, origin[1], step, 0, code, columns, rows)
    blocks = [element + image[::-1].astype(image.dtype.newbyteorder("<")).tobytes() for image in images]
    first = table + 2 * n * width + n * len(tag)
    offsets = [first + i * len(blocks[0]) for i in range(n)]
    tags = [table + 2 * n * width + i * len(tag) for i in range(n)]
    entries = b"".join(struct.pack(pointer, place) for place in [*more.get("offsets", offsets), *tags])
    return content + entries + tag * n + b"".join(blocks)


def document(*voltages):
    """Pack a document that describes a series for each voltage."""
    blocks = (OBJECT.format(voltage=voltage).encode() for voltage in voltages)
    return b"JK\x00\x02" + bytes(28) + b"binary".join(blocks) + b"\xff\x00"


def write(folder, images, dims=None, *, name="scan_1.ser", emi=None, **form):
    """Write a series and its document; gives the path of the series."""
    path = folder / name
    path.write_bytes(encode(images, dims, **form))
    if emi is not None:
        (folder / f"{name.rpartition('_')[0]}.emi").write_bytes(emi)
    return path


def some(shape, dtype="<u2"):
    """Distinct pixels, none of them zero."""
    return (np.arange(np.prod(shape)) % 113 + 1).astype(dtype).reshape(shape)
