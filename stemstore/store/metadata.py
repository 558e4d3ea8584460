"""What ``zarr.json`` says: the scan document and the arrays, read without zarr so that opening stays cheap."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, FormatVersionError, NotFoundError, StemStoreError, UnknownFormatError
from stemstore.store.codecs import ChunkCodec
from stemstore.store.urls import open_storage
from stemstore_schemas import DocumentError, ScanDocument, SchemaVersionError, dump_document, load_document

if TYPE_CHECKING:
    import os

    from stemstore.store.layout import CountedLayout, DenseLayout
    from stemstore.store.urls import Storage

ROOT = "zarr.json"
ATTRIBUTE = "stemstore"
"""Key of the scan document among the attributes of the root group."""

SERIES = "stemstore.series"
"""Kind of the document of a group of scans, which stands where a scan has its own."""

INTENSITY, GAP, N_SLOTS, VALID, SUMMARY = "intensity", "events/gap", "events/n_slots", "valid", "summary"
CALIBRATION = "calibration"
SAVED = f"{CALIBRATION}/saved"
"""Group of the calibration that was saved last; arrays that a conversion wrote lie in ``calibration`` and stay."""

DERIVED = "derived"
"""Group that holds the groups of saved results."""
PLACES = (CALIBRATION, DERIVED)
"""Names in the root of a store or a series below which groups may be attached."""

COLUMNS = {name: f"events/{name}" for name in ("energy", "offset_ky", "offset_kx")}
"""Arrays of further values of every event, by name."""


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """One array of the store.

    Attributes
    ----------
    path
        Place in the tree, e.g. ``"events/gap"``.
    shape, chunk
        Extents of the array and of what is decoded at once.
    shard
        Extents of one object; None where each chunk is an object of its own.
    dtype
        Native type of the values.
    codec
        Coding of a chunk.
    dims
        Names of the axes.
    attributes
        Further plain attributes (``units``, ``long_name``).
    """

    path: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None
    dtype: np.dtype[Any]
    codec: ChunkCodec
    dims: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def key(self, place: tuple[int, ...]) -> str:
        """Key of the object that holds chunk or shard number `place`."""
        return "/".join([self.path, "c", *map(str, place)])


def read_document(url: str | os.PathLike[str]) -> ScanDocument:
    """Read what a store says about its scan, finished or not.

    Raises
    ------
    NotFoundError, UnknownFormatError, FormatVersionError, CorruptDataError
        As for `stemstore.store.open.open_store`.
    """
    storage = open_storage(url)
    return parse_document(read_root(storage), storage.root)


def read_root(storage: Storage) -> dict[str, Any]:
    """Read the root ``zarr.json`` of a store; errors as for `load_root`."""
    return load_root(storage)[0]


def load_root(storage: Storage) -> tuple[dict[str, Any], bytes]:
    """Read the root ``zarr.json`` of a store, and give its bytes as well.

    Raises
    ------
    NotFoundError
        There is nothing below the url.
    UnknownFormatError
        There is something, but not a Zarr group of format 3.
    """
    try:
        body = storage.get(ROOT)
        found = json.loads(body)
    except NotFoundError as error:
        if not storage.exists():
            msg = f"'{storage.root}' does not exist; check the path"
            raise NotFoundError(msg, url=storage.root) from error
        msg = f"'{storage.root}' has no {ROOT}, so it is not a stemstore store; convert raw data with stemstore convert"
        raise UnknownFormatError(msg, url=storage.root) from error
    except StemStoreError:
        raise
    except (ValueError, RecursionError) as error:
        msg = f"'{storage.root}/{ROOT}' is not JSON ({error}); restore it from a copy"
        raise CorruptDataError(msg, url=storage.root, key=ROOT) from error
    if not isinstance(found, dict) or not isinstance(found.get("attributes", {}), dict):
        msg = f"'{storage.root}/{ROOT}' does not describe a Zarr group of format 3; restore it from a copy"
        raise UnknownFormatError(msg, url=storage.root, key=ROOT)
    return found, body


def parse_document(root: dict[str, Any], url: str) -> ScanDocument:
    """Take the scan document out of the root metadata.

    Raises
    ------
    UnknownFormatError
        It is a Zarr group of somebody else.
    FormatVersionError
        It was written by a newer release.
    CorruptDataError
        The document breaks its own rules.
    """
    found = root.get("attributes", {}).get(ATTRIBUTE)
    if not isinstance(found, dict):
        msg = f"'{url}' is a Zarr group without the attribute {ATTRIBUTE!r}, so not a stemstore store; use zarr.open"
        raise UnknownFormatError(msg, url=url)
    try:
        return load_document(found)
    except SchemaVersionError as error:
        msg = f"cannot open '{url}': {error}"
        raise FormatVersionError(msg, url=url, found=error.found, expected=error.known) from error
    except DocumentError as error:
        if error.found == SERIES:
            msg = f"'{url}' is a series of scans; open it with stemstore.open_series, or name one of its scans"
        else:
            msg = f"cannot open '{url}': {error}"
        raise UnknownFormatError(msg, url=url, found=error.found, expected=error.known) from error
    except ValueError as error:
        msg = f"the scan document of '{url}' is damaged: {error}; restore {ROOT} from a copy"
        raise CorruptDataError(msg, url=url, key=ROOT) from error


def parse_arrays(root: dict[str, Any], url: str) -> dict[str, ArrayInfo]:
    """Describe all arrays that the consolidated metadata list and that this room can read."""
    try:
        consolidated = (root.get("consolidated_metadata") or {}).get("metadata", {})
        arrays = {path: node for path, node in consolidated.items() if node.get("node_type") == "array"}
    except AttributeError as error:
        msg = f"the array metadata of '{url}' are damaged ({error!r}); restore {ROOT} from a copy"
        raise CorruptDataError(msg, url=url, key=ROOT) from error
    known = (INTENSITY, GAP, N_SLOTS, VALID, *COLUMNS.values())
    wanted = {path: node for path, node in arrays.items() if path in known or path.startswith(f"{CALIBRATION}/")}
    return {path: parse_array(path, node) for path, node in wanted.items()}


def parse_array(path: str, node: dict[str, Any]) -> ArrayInfo:
    """Describe one array from its metadata node.

    Raises
    ------
    CorruptDataError
        The metadata contradict themselves.
    UnknownFormatError
        The array is coded in another way than this room writes.
    """
    try:
        return _parse_array(path, node)
    except StemStoreError:
        raise
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        msg = f"the metadata of array '{path}' are damaged ({error!r}); restore {ROOT} from a copy"
        raise CorruptDataError(msg, key=path) from error


def _parse_array(path: str, node: dict[str, Any]) -> ArrayInfo:
    dtype = np.dtype(node["data_type"])
    if dtype.name != node["data_type"] or dtype.kind not in "buifc":
        msg = f"the data type is {node['data_type']!r}, expected one kind of number"
        raise ValueError(msg)
    outer = tuple(node["chunk_grid"]["configuration"]["chunk_shape"])
    codecs, chunk, shard = node["codecs"], outer, None
    if codecs[0]["name"] == "sharding_indexed":
        settings = codecs[0]["configuration"]
        codecs, chunk, shard = settings["codecs"], tuple(settings["chunk_shape"]), outer
    return ArrayInfo(
        path=path,
        shape=tuple(node["shape"]),
        chunk=chunk,
        shard=shard,
        dtype=dtype,
        codec=ChunkCodec.from_zarr(codecs, dtype.itemsize, path),
        dims=tuple(node.get("dimension_names") or ()),
        attributes=node.get("attributes", {}),
    )


def intensity_info(layout: DenseLayout, dims: tuple[str, ...]) -> ArrayInfo:
    """Describe the array of frames of a dense scan."""
    attributes = {"units": "count", "long_name": "detector intensity"}
    dtype = np.dtype(layout.dtype)
    return ArrayInfo(INTENSITY, layout.shape, layout.chunk, layout.shard, dtype, layout.codec, dims, attributes)


def gap_info(layout: CountedLayout, columns: int, max_multiplicity: int) -> ArrayInfo:
    """Describe the array of gaps of a counted scan whose widest block takes `columns` chunks."""
    width = layout.slots_per_chunk
    attributes = {
        "units": "pixel",
        "long_name": "distance to the previous event of the frame in flat detector index",
        "max_multiplicity": max_multiplicity,
    }
    return ArrayInfo(
        path=GAP,
        shape=(layout.n_blocks, max(columns, 1) * width),
        chunk=(1, width),
        shard=(layout.blocks_per_shard, width),
        dtype=np.dtype(np.uint16),
        codec=layout.codec,
        dims=("block", "slot"),
        attributes=attributes,
    )


def metadata_objects(document: ScanDocument, arrays: list[ArrayInfo]) -> dict[str, bytes]:
    """Let zarr write the metadata of a whole store; returns as `group_objects`."""
    return group_objects({ATTRIBUTE: dump_document(document)}, arrays)


def group_objects(attributes: dict[str, Any], arrays: list[ArrayInfo]) -> dict[str, bytes]:
    """Let zarr write the metadata of a group and of all below it.

    Returns
    -------
    objects
        Content of every ``zarr.json`` by key; the one of the group carries the metadata of all others as well.
    """
    import warnings

    import zarr
    from zarr.storage import MemoryStore

    held: dict[str, Any] = {}
    store = MemoryStore(held)
    zarr.create_group(store, zarr_format=3, attributes=attributes)
    for group in sorted({info.path.rpartition("/")[0] for info in arrays} - {""}):
        zarr.create_group(store, path=group, zarr_format=3)
    for info in arrays:
        _declare(store, info)
    with warnings.catch_warnings():
        # zarr warns that consolidated metadata are not yet in the text of format 3; every reader we know uses them
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(store, zarr_format=3)
    return {key: body.to_bytes() for key, body in held.items()}


def _declare(store: Any, info: ArrayInfo) -> None:
    import zarr
    from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

    codec = info.codec
    compressors: list[Any] = [Crc32cCodec()]
    if codec.cname is not None:
        shuffle: Any = codec.shuffle
        cname: Any = codec.cname
        settings: dict[str, Any] = {"cname": cname, "clevel": codec.clevel, "shuffle": shuffle}
        compressors.insert(0, BloscCodec(typesize=codec.itemsize, blocksize=codec.blocksize, **settings))
    zarr.create_array(
        store,
        name=info.path,
        shape=info.shape,
        dtype=info.dtype.newbyteorder("="),
        chunks=info.chunk,
        shards=info.shard,
        filters=None,
        serializer=BytesCodec(endian="little" if codec.itemsize > 1 else None),
        compressors=compressors,
        fill_value=0,
        dimension_names=info.dims,
        attributes=info.attributes,
        zarr_format=3,
    )
