"""The object that makes a store finished: written last, and the only proof that nothing is missing."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stemstore.errors import ChecksumError, CorruptDataError, FormatVersionError, NotFoundError
from stemstore_schemas import CommitDocument, SchemaVersionError, dump_document, load_commit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stemstore.store.urls import Storage

COMMIT = "stemstore.commit.json"


def digest(body: bytes) -> str:
    """SHA-256 of bytes as ``sha256:<hexadecimal>``."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def shards_digest(checksums: Mapping[str, int]) -> str:
    """Digest of the table of shard checksums: one line ``key crc32`` per shard, sorted by key."""
    lines = "".join(f"{key} {crc:08x}\n" for key, crc in sorted(checksums.items()))
    return digest(lines.encode())


def write_commit(
    storage: Storage, uuid: str, root: bytes, *, sizes: Mapping[str, int], checksums: Mapping[str, int]
) -> CommitDocument:
    """Declare a store finished; everything else must be durable by now.

    Parameters
    ----------
    storage, uuid
        The store and its identity.
    root
        Content of the root ``zarr.json``.
    sizes, checksums
        Bytes and CRC-32 of every shard by key.

    Raises
    ------
    DestinationExistsError
        Somebody else has finished a store there meanwhile.
    """
    commit = CommitDocument(
        uuid=uuid,
        n_shards=len(sizes),
        n_bytes=sum(sizes.values()),
        metadata_digest=digest(root),
        shards_digest=shards_digest(checksums),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    storage.create(COMMIT, [json.dumps(dump_document(commit), indent=2).encode()])
    return commit


def read_commit(storage: Storage) -> CommitDocument | None:
    """Read the commit object, None where the store was not finished.

    Raises
    ------
    FormatVersionError
        It was written by a newer release.
    CorruptDataError
        It is no commit document.
    """
    try:
        body = storage.get(COMMIT)
    except NotFoundError:
        return None
    try:
        return load_commit(json.loads(body))
    except SchemaVersionError as error:
        msg = f"cannot open '{storage.root}': {error} ({COMMIT})"
        raise FormatVersionError(msg, url=storage.root, found=error.found, expected=error.known) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        msg = f"'{storage.root}/{COMMIT}' is damaged: {error}; restore it from a copy"
        raise CorruptDataError(msg, url=storage.root, key=COMMIT) from error


def check_root(url: str, root: bytes, commit: CommitDocument) -> None:
    """Make sure that the root metadata are those that the commit object vouches for.

    Raises
    ------
    ChecksumError
        They are not.
    """
    found = digest(root)
    if found != commit.metadata_digest:
        msg = (
            f"'{url}/zarr.json' has the digest {found}, the commit object says {commit.metadata_digest}; where a "
            "change by stemstore edit was interrupted, 'stemstore edit' finishes it, and where another program changed "
            "them on purpose, 'stemstore edit --accept' takes them; otherwise restore it from a copy"
        )
        raise ChecksumError(msg, url=url, key="zarr.json", found=found, expected=commit.metadata_digest)
