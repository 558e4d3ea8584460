"""A reader of an invented format: 32 bytes of header, then uint16 frames in scan order."""

from __future__ import annotations

import struct
from typing import ClassVar

import numpy as np

from stemstore.errors import TruncatedFileError, UnknownFormatError
from stemstore.sources.files import describe, expand, identity
from stemstore.sources.records import RecordSource
from stemstore_schemas import Acquisition, Axis, Detector, Quantity, SourceMetadata

MAGIC = b"ACME4D\x00\x01"
HEADER = struct.Struct("<8s4Hff8x")  # magic, rows and columns of scan and detector, energy (keV), scan step (nm)


class AcmeReader:
    """Reader of ACME 4D files."""

    name: ClassVar[str] = "acme"
    description: ClassVar[str] = "ACME 4D files"
    extensions: ClassVar[tuple[str, ...]] = (".acme",)

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the magic number, which proves the format."""
        del url
        return 1.0 if first_bytes.startswith(MAGIC) else 0.0

    def __call__(self, url: str | list[str]) -> RecordSource:
        """Open the file: header only, no pixel."""
        path = expand(url)[0]
        with path.open("rb") as file:
            header = file.read(HEADER.size)
        if len(header) < HEADER.size or not header.startswith(MAGIC):
            msg = f"file {str(path)!r} starts with {header[:8]!r}, expected {MAGIC!r}; it is no ACME file"
            raise UnknownFormatError(msg, url=str(path))
        _, ny, nx, rows, columns, energy, step = HEADER.unpack(header)
        files = describe([path])
        expected = HEADER.size + 2 * ny * nx * rows * columns
        if files[0].size < expected:
            msg = f"file {str(path)!r} has {files[0].size} bytes, expected {expected}; copy it again"
            raise TruncatedFileError(msg, url=str(path), found=files[0].size, expected=expected)
        metadata = SourceMetadata(
            acquisition=Acquisition(
                beam_energy=Quantity(value=energy, unit="keV", source="header"),
                scan_shape=(ny, nx),
                scan_shape_source="header",
            ),
            detector=Detector(shape=(rows, columns)),
            axes=[Axis(name=n, size=s, unit="nm", step=step, source="header") for n, s in (("y", ny), ("x", nx))],
            files=files,
        )
        return RecordSource(
            identity=identity(self.name, files),
            scan_shape=(ny, nx),
            frame_shape=(rows, columns),
            metadata=metadata,
            validity=None,
            files=(str(path),),
            counts=(ny * nx,),
            offset=HEADER.size,
            stride=2 * rows * columns,
            file_dtype=np.dtype("<u2"),
        )
