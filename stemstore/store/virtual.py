"""An array whose chunks lie somewhere else: its metadata in the words of Zarr formats 2 and 3.

Format 2 is what reference files in JSON and Parquet are read with. It has no chunk that ends in a checksum without a
codec that few programs know, so there the checksum is left out of the range of bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.store.codecs import CRC_BYTES, SHUFFLES

if TYPE_CHECKING:
    from stemstore.store.codecs import ChunkCodec


@dataclass(frozen=True, eq=False)
class VirtualArray:
    """An array without data of its own.

    Attributes
    ----------
    name
        Of the array in its group.
    shape, chunk
        Extents of the array, and of a chunk; chunks at the far edges are whole ones.
    dtype
        Type of the values in the byte order of the chunks.
    codec
        How a chunk is encoded; None for bare values in C order.
    dims
        Names of the axes.
    attributes
        Further attributes, plain JSON.
    fill
        What absent chunks hold; None says that they are absent and nothing more. xarray takes the fill value of
        format 2 for the mark of a missing pixel, so a zero would turn every dark pixel into NaN.
    """

    name: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: ChunkCodec | None
    dims: tuple[str, ...]
    attributes: dict[str, Any]
    fill: float | None = None

    @property
    def suffix(self) -> int:
        """Bytes at the end of every chunk that format 2 does not refer to."""
        return 0 if self.codec is None else CRC_BYTES

    def to_v2(self) -> dict[str, dict[str, Any]]:
        """Give the documents ``.zarray`` and ``.zattrs``."""
        compressor = None
        if self.codec is not None and self.codec.cname is not None:
            compressor = {
                "id": "blosc",
                "cname": self.codec.cname,
                "clevel": self.codec.clevel,
                "shuffle": SHUFFLES.index(self.codec.shuffle),
                "blocksize": self.codec.blocksize,
            }
        described = {
            "zarr_format": 2,
            "shape": list(self.shape),
            "chunks": list(self.chunk),
            "dtype": self.dtype.str,
            "order": "C",
            "compressor": compressor,
            "filters": None,
            "fill_value": "NaN" if self.fill is not None and np.isnan(self.fill) else self.fill,
            "dimension_separator": ".",
        }
        return {".zarray": described, ".zattrs": self.attributes | {"_ARRAY_DIMENSIONS": list(self.dims)}}

    def declare(self, store: Any) -> None:
        """Write the metadata of format 3 into a store of zarr."""
        import zarr
        from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

        compressors: list[Any] = []
        if self.codec is not None:
            compressors = [Crc32cCodec()]
            if self.codec.cname is not None:
                shuffle: Any = self.codec.shuffle
                cname: Any = self.codec.cname
                settings: dict[str, Any] = {"cname": cname, "clevel": self.codec.clevel, "shuffle": shuffle}
                settings |= {"typesize": self.codec.itemsize, "blocksize": self.codec.blocksize}
                compressors.insert(0, BloscCodec(**settings))
        order = None if self.dtype.itemsize == 1 else "big" if self.dtype.str.startswith(">") else "little"
        zarr.create_array(
            store,
            name=self.name,
            shape=self.shape,
            dtype=self.dtype.newbyteorder("="),
            chunks=self.chunk,
            filters=None,
            serializer=BytesCodec(endian=order),
            compressors=compressors or None,
            fill_value=0 if self.fill is None else self.fill,
            dimension_names=self.dims,
            attributes=self.attributes,
            zarr_format=3,
        )
