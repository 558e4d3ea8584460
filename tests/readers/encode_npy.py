"""NumPy files and archives, written from NEP 1 and the documentation of ``numpy.savez``."""

from __future__ import annotations

import struct
import zipfile

import numpy as np


def encode(array, version=(1, 0), header=None) -> bytes:
    """Write a .npy file by hand: magic, version, length of the header, header, data."""
    if header is None:
        order = array.flags.f_contiguous and not array.flags.c_contiguous
        header = f"{{'descr': {array.dtype.str!r}, 'fortran_order': {order}, 'shape': {array.shape}, }}"
    preamble = 10 if version == (1, 0) else 12
    padded = header + " " * (-(preamble + len(header) + 1) % 64) + "\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(padded))
    content = array.T.tobytes() if array.flags.f_contiguous and not array.flags.c_contiguous else array.tobytes()
    return b"\x93NUMPY" + bytes(version) + length + padded.encode() + content


def some(shape, dtype="<u2"):
    """Distinct pixels."""
    return (np.arange(np.prod(shape)) % 251).astype(dtype).reshape(shape)


def write_npz(path, arrays, *, deflated=False):
    """Write arrays, or ready members, by their names into an archive; gives its path."""
    kind = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", array if isinstance(array, bytes) else encode(array))
    return path
