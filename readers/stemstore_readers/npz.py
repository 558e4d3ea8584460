"""NumPy ``.npz`` archives with an array of 3 to 5 axes, as ``numpy.savez`` and ``numpy.savez_compressed`` write them.

See `npy_archive` for the layout. Source: the documentation of ``numpy.savez``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from stemstore.errors import InputError
from stemstore.sources.geometry import shape_option
from stemstore.sources.hdf5 import Listed
from stemstore_readers.npy_archive import LOCAL_HEADER, ZIP, locate, opened_archive
from stemstore_readers.npy_archive_source import member_source
from stemstore_readers.stored_arrays import Findings, choose_array, one_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.records import RecordSource
    from stemstore.sources.remote import Place
    from stemstore_readers.npy_archive import Member
    from stemstore_readers.npy_archive_source import MemberSource

MAX_MEMBERS = 1000
"""Members of an archive that are looked at; archives of ``numpy.savez`` have a few."""


class Npz:
    """Reader of arrays ``(y, x, ky, kx)``, ``(frame, y, x, ky, kx)`` or flat stacks ``(frame, ky, kx)`` in archives.

    Parameters
    ----------
    dataset
        Name of the array; the largest of those with most axes otherwise.
    scan_shape
        ``(y, x)`` or ``(frame, y, x)`` to lay out the frames in the order of the file.
    """

    name: ClassVar[str] = "npz"
    description: ClassVar[str] = "NumPy archives with an array of 3, 4 or 5 axes"
    extensions: ClassVar[tuple[str, ...]] = (".npz",)

    def __init__(self, *, dataset: str | None = None, scan_shape: Sequence[int] | None = None) -> None:
        self.dataset = dataset
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, (2, 3))

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Look for an archive whose first member is an array; formats that use such archives have more to show."""
        if first_bytes[: len(ZIP)] != ZIP or len(first_bytes) < LOCAL_HEADER.size:
            return 0.0
        _, length, _ = LOCAL_HEADER.unpack_from(first_bytes)
        first = first_bytes[LOCAL_HEADER.size : LOCAL_HEADER.size + length]
        if not first.endswith(b".npy"):
            return 0.0
        return 0.7 if url.lower().endswith(".npz") else 0.4

    def __call__(self, url: str | list[str]) -> RecordSource | MemberSource:
        """Open the archive: its directory and the headers of its arrays, no pixel.

        Raises
        ------
        InputError
            Several files were given, no array is a stack of frames, or none has the name asked for.
        UnknownFormatError, CorruptDataError, TruncatedFileError, StorageError
            As for `npy_archive.opened_archive` and `npy_archive.locate`.
        """
        path = one_file(url, "npz")
        members, others = _arrays(path)
        notes: list[str] = []
        arrays = [Listed(f"/{name}", member.shape, member.dtype) for name, member in members.items()]
        chosen = choose_array(path, arrays, self.dataset, notes)
        member = members[chosen.name.removeprefix("/")]
        if member.fortran_order and member.stored:
            notes.append(f"{member.name} is in Fortran order; every frame is spread over the whole array, slowly read")
        found = Findings(
            shape=member.shape,
            stated=[None] * len(member.shape),
            vendor=others
            | {
                name: {"descr": one.dtype.str, "fortran_order": one.fortran_order, "shape": list(one.shape)}
                for name, one in members.items()
            },
            notes=notes,
        )
        return member_source(self.name, path, member, tuple(range(len(member.shape))), found, self.scan_shape)


def _arrays(path: Place) -> tuple[dict[str, Member], dict[str, str]]:
    """Find the arrays of real numbers in an archive, and why the others are none."""
    members: dict[str, Member] = {}
    others: dict[str, str] = {}
    with opened_archive(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
        if len(entries) > MAX_MEMBERS:
            msg = f"archive {str(path)!r} has {len(entries)} arrays, expected at most {MAX_MEMBERS}; it is no scan"
            raise InputError(msg, url=str(path), found=len(entries), expected=MAX_MEMBERS)
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            try:
                members[name] = locate(path, archive, entry)
            except InputError as error:
                others[name] = f"left out: {error}"
    return members, others
