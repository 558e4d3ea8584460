"""Data items of Nion Swift: ``.ndata1`` (``.ndata``) archives and ``.h5`` files.

==========================  =========================================================================================
place                       content
==========================  =========================================================================================
``.ndata1``                 a zip file without compression: ``data.npy`` and ``metadata.json``
``.h5``                     the dataset ``data``, whose attribute ``properties`` is the same JSON
==========================  =========================================================================================

The JSON is described in `stemstore_readers.nion_item`.

Sources: nion-software/nionswift (``nion/swift/model/NDataHandler.py``, ``HDF5Handler.py``) and nion-software/niondata
(``DataAndMetadata``) for the layout and the keys.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import CorruptDataError, InputError, StemStoreError, TruncatedFileError, UnknownFormatError
from stemstore.sources.files import file_size, identity, unreadable
from stemstore.sources.geometry import shape_option
from stemstore.sources.hdf5 import Listed, ask_hdf5, attribute, dtype_of, is_hdf5, open_hdf5, text
from stemstore.sources.hdf5_frames import Hdf5Source, Part
from stemstore.sources.records import RecordSource
from stemstore.sources.remote import local_only, openable, place
from stemstore_readers.nion_item import describe_item, parse_properties
from stemstore_readers.npy import FortranSource, read_header
from stemstore_readers.stored_arrays import hdf5_source, one_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    import h5py

    from stemstore.sources.remote import Place

ZIP = b"PK\x03\x04"
DATA, PROPERTIES = "data.npy", "metadata.json"

MAX_JSON = 2**26
"""Bytes of the JSON that are read."""

DIRECTORY_BYTES = 1024
"""Bytes at the end of an archive that hold the names of its two members."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")


class Nion:
    """Reader of data items of Nion Swift.

    Parameters
    ----------
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames in the order of the file.
    """

    name: ClassVar[str] = "nion"
    description: ClassVar[str] = "data items of Nion Swift (.ndata1, .ndata, .h5)"
    extensions: ClassVar[tuple[str, ...]] = (".ndata1", ".ndata", ".h5")

    def __init__(self, *, scan_shape: Sequence[int] | None = None) -> None:
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the two members of the archive in its directory, or for the dataset with its attribute."""
        if is_hdf5(first_bytes):
            return ask_hdf5(url, first_bytes, _sureness)
        if first_bytes[:4] != ZIP:
            return 0.0
        try:
            with place(url).open("rb", buffering=0) as file:
                file.seek(max(file.seek(0, 2) - DIRECTORY_BYTES, 0))
                directory = file.read(DIRECTORY_BYTES) or b""
        except (OSError, ValueError):
            return 0.0
        return 1.0 if DATA.encode() in directory and PROPERTIES.encode() in directory else 0.0

    def __call__(self, url: str | list[str]) -> Hdf5Source | RecordSource | FortranSource:
        """Open the data item: its JSON, no pixel.

        Raises
        ------
        InputError
            Several files were given, or the item is no stack of frames.
        UnknownFormatError
            The file is no data item of Nion Swift.
        CorruptDataError, TruncatedFileError, StorageError
            The file is damaged or cannot be read.
        """
        path = one_file(url, "Nion Swift")
        try:
            with path.open("rb") as file:
                head = file.read(4096)
        except OSError as error:
            raise unreadable(path, error) from error
        return self._hdf5(path) if is_hdf5(head) else self._archive(path, head)

    def _hdf5(self, path: Place) -> Hdf5Source:
        import h5py

        with open_hdf5(path) as file:
            data = file.get("data")
            properties = None if data is None else attribute(data, "properties")
            if not isinstance(data, h5py.Dataset) or properties is None:
                held = ", ".join(map(text, file))
                msg = f"file {str(path)!r} holds {held}, expected 'data' with the attribute properties; not of Swift"
                raise UnknownFormatError(msg, url=str(path))
            found = describe_item(path, _listed(data), parse_properties(text(properties).encode(), str(path)))
            return hdf5_source(self.name, [Part.of(data)], found, self.scan_shape)

    def _archive(self, path: Place, head: bytes) -> RecordSource | FortranSource:
        start, content = _members(path, head)
        header = read_header(path, start)
        end = header.start + math.prod(header.shape) * header.dtype.itemsize
        if end > file_size(path):
            size = file_size(path)
            msg = f"{DATA} in {str(path)!r} ends at byte {end}, behind the file of {size} bytes; copy it again"
            raise TruncatedFileError(msg, url=str(path), found=size, expected=end)
        array = Listed(f"/{DATA}", header.shape, header.dtype)
        found = describe_item(path, array, parse_properties(content, f"{PROPERTIES} in {str(path)!r}"))
        if header.fortran_order:
            found.notes.append(f"{DATA} is in Fortran order; every frame is spread over the whole file, reads are slow")
        metadata, validity = found.describe([path], self.scan_shape)
        scan = metadata.acquisition.scan_shape or found.shape[:1]
        name = identity(self.name, metadata.files, scan)
        if header.fortran_order:
            here = local_only(path, "arrays in Fortran order")
            return FortranSource(name, scan, metadata, validity, str(here), header)
        return RecordSource(
            identity=name,
            scan_shape=scan,
            frame_shape=(header.shape[-2], header.shape[-1]),
            metadata=metadata,
            validity=validity,
            files=(str(path),),
            counts=(math.prod(header.shape[:-2]),),
            offset=header.start,
            stride=math.prod(header.shape[-2:]) * header.dtype.itemsize,
            file_dtype=header.dtype,
        )


def _sureness(file: Any) -> float:
    import h5py

    data = file.get("data")
    return float(isinstance(data, h5py.Dataset) and "properties" in data.attrs)


def _listed(data: h5py.Dataset) -> Listed:
    dtype = dtype_of(data)
    return Listed("/data", tuple(data.shape or ()), np.dtype(object) if dtype is None else dtype)


def _members(path: Place, head: bytes) -> tuple[int, bytes]:
    """Find where the array starts in an archive, and read its JSON.

    Raises
    ------
    TruncatedFileError
        The directory at the end is missing.
    UnknownFormatError
        The file is no archive, or holds other members.
    InputError
        A member is compressed.
    CorruptDataError
        A member is not where the directory says.
    """
    if head[:4] != ZIP:
        msg = f"file {str(path)!r} starts with {head[:8]!r}, expected a zip or HDF5 file; it is no data item of Swift"
        raise UnknownFormatError(msg, url=str(path), found=head[:8])
    try:
        with openable(path) as source, zipfile.ZipFile(source) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            missing = {DATA, PROPERTIES} - set(entries)
            if missing:
                msg = f"archive {str(path)!r} lacks {', '.join(sorted(missing))}; it is no data item of Swift"
                raise UnknownFormatError(msg, url=str(path), found=sorted(entries)[:10])
            entry, properties = entries[DATA], entries[PROPERTIES]
            if entry.compress_type != zipfile.ZIP_STORED or properties.file_size > MAX_JSON:
                msg = f"{DATA} in {str(path)!r} is compressed, or {PROPERTIES} too long; repack the file with zip -0"
                raise InputError(msg, url=str(path))
            content = archive.read(properties)
    except StemStoreError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, zlib.error) as error:
        msg = f"archive {str(path)!r} cannot be read: {error}; it was cut short or is damaged, copy it again"
        raise TruncatedFileError(msg, url=str(path)) from error
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        magic, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size).ljust(_LOCAL_HEADER.size))
    if magic != ZIP:
        msg = f"{DATA} is not at byte {entry.header_offset} of {str(path)!r}; the file is damaged, copy it again"
        raise CorruptDataError(msg, url=str(path), byte=entry.header_offset)
    return entry.header_offset + _LOCAL_HEADER.size + name + extra, content
