"""HyperSpy files in Zarr 2 (``.zspy``): a folder, or a zip file whose members are stored without compression.

The tree is described in `stemstore_readers.hyperspy_signal`, the arrays in `stemstore_readers.zspy_header`. Attributes
lie in ``.zattrs``. In a zip file one name may occur several times, once per update: the last one counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError, NotFoundError, UnknownFormatError
from stemstore.sources.files import identity
from stemstore.sources.geometry import shape_option
from stemstore.sources.hdf5 import Listed
from stemstore_readers.hyperspy_signal import Signal, check_version, choose_signal, describe_signal
from stemstore_readers.stored_arrays import one_file
from stemstore_readers.zspy_chunks import ChunkSource
from stemstore_readers.zspy_header import parse_header
from stemstore_readers.zspy_tree import ARRAY, ATTRIBUTES, Folder, Zip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.remote import Place
    from stemstore_readers.zspy_header import ArrayHeader

ZIP = b"PK\x03\x04"
EXPERIMENTS = "Experiments/"


class Zspy:
    """Reader of HyperSpy signals in Zarr 2.

    Parameters
    ----------
    dataset
        Path of the signal, or of its array, in a file with several; the largest one by default.
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames in the order of the file.
    """

    name: ClassVar[str] = "zspy"
    description: ClassVar[str] = "HyperSpy signals in Zarr 2, folders or zip files"
    extensions: ClassVar[tuple[str, ...]] = (".zspy",)

    def __init__(self, *, dataset: str | None = None, scan_shape: Sequence[int] | None = None) -> None:
        self.dataset = dataset
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for the attributes of the root: in a folder, or in the head of a zip file."""
        if first_bytes:
            named = url.lower().endswith(".zspy")
            return 0.0 if first_bytes[:4] != ZIP else 1.0 if b'"ZSpy"' in first_bytes else 0.5 * named
        try:
            with Path(url, ATTRIBUTES).open("rb", buffering=0) as file:
                return float(b'"ZSpy"' in (file.read(1024) or b""))
        except (OSError, ValueError):
            return 0.0

    def __call__(self, url: str | list[str]) -> ChunkSource:
        """Open the file: axes and metadata, no pixel.

        Raises
        ------
        InputError
            Several files were given, no signal has scan axes and two detector axes, or its values cannot be decoded.
        UnknownFormatError, FormatVersionError
            It was not written by HyperSpy, or by a newer version.
        CorruptDataError, TruncatedFileError, StorageError
            It is damaged or cannot be read.
        """
        path = one_file(url, ".zspy")
        tree = Folder(path) if path.is_dir() else Zip(path)
        check_version(path, tree.attributes(""), "ZSpy")
        notes: list[str] = []
        headers, signals = _signals(path, tree)
        chosen = choose_signal(path, signals, self.dataset, notes)
        place = chosen.array.name.strip("/")
        top = place.rpartition("/")[0]

        def look(names: str) -> Any:
            *parents, name = names.split(".")
            said = tree.attributes("/".join((top, "metadata", *parents)) + "/").get(name)
            return None if isinstance(said, list) else said

        vendor = {group.rstrip("/") or "/": tree.attributes(group) for group in tree.groups()}
        found, order = describe_signal(chosen, look, vendor, notes)
        header = headers[chosen.array.name]
        files, members = tree.chunks(f"{place}/", header)
        metadata, validity = found.describe(files, self.scan_shape)
        scan = metadata.acquisition.scan_shape or found.shape[:1]
        name = identity(self.name, metadata.files, (place, scan, order))
        where = path if members is not None else path / place
        return ChunkSource(name, scan, metadata, validity, str(where), header, order, members)


def _signals(path: Place, tree: Folder | Zip) -> tuple[dict[str, ArrayHeader], list[Signal]]:
    """Find the signals and the descriptions of their arrays; arrays that cannot be decoded count as ragged.

    Raises
    ------
    UnknownFormatError
        There is none.
    InputError
        The only one cannot be decoded.
    """
    headers: dict[str, ArrayHeader] = {}
    signals, refused = [], []
    for title in tree.titles():
        place = f"{EXPERIMENTS}{title}/"
        try:
            header = parse_header(tree.read(f"{place}data/{ARRAY}"), f"{place}data/{ARRAY} in {str(path)!r}")
        except NotFoundError:
            continue
        except InputError as error:
            refused.append(error)
            signals.append(Signal(Listed(f"/{place}data", (), np.dtype(object)), ()))
            continue
        axes = tuple(tree.attributes(f"{place}axis-{index}/") for index in range(len(header.shape)))
        headers[f"/{place}data"] = header
        signals.append(Signal(Listed(f"/{place}data", header.shape, header.dtype), axes))
    if not headers and refused:
        raise refused[0]
    if not signals:
        msg = f"{str(path)!r} holds no signal below {EXPERIMENTS}; save it again with HyperSpy"
        raise UnknownFormatError(msg, url=str(path))
    return headers, signals
