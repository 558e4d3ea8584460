"""The central directory of a ``.zip`` whose entries are stored as they are: where each of them lies.

Read by the format's own description (PKWARE, APPNOTE.TXT 6.3.9: end of central directory 4.3.16, its Zip64 forms 4.3.14
and 4.3.15, central headers 4.3.12, local headers 4.3.7, extra field 0x0001 4.5.3). A directory is trusted in nothing:
what overlaps, lies outside, is there twice or bears a name that is no key is refused, before a byte of it is read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from stemstore.errors import CorruptDataError, TruncatedFileError, UnknownFormatError

END = struct.Struct("<4s4H2LH")
LOCATOR = struct.Struct("<4sLQL")
END64 = struct.Struct("<4sQ2H2L4Q")
CENTRAL = struct.Struct("<4s6H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")

END_MARK, LOCATOR_MARK, END64_MARK, CENTRAL_MARK, LOCAL_MARK = (
    b"PK\x05\x06",
    b"PK\x06\x07",
    b"PK\x06\x06",
    b"PK\x01\x02",
    b"PK\x03\x04",
)

LONGEST_END = END.size + LOCATOR.size + END64.size + 0xFFFF
"""Bytes at the end of a file that hold its end record with the longest comment, and the Zip64 records before it."""

_ENCRYPTED = 0x2041  # bits 0, 6 and 13 of the flags: encryption of any kind
_UTF8 = 0x800
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ZIP64 = 1


class Bounds(NamedTuple):
    """Where the central directory lies in the file, and how many entries it has."""

    start: int
    length: int
    n_entries: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored object.

    Attributes
    ----------
    offset
        First byte of its local header.
    size
        Its bytes.
    crc
        CRC-32 of them.
    name
        Bytes of its name in the directory, which its local header repeats.
    """

    offset: int
    size: int
    crc: int
    name: bytes


def find_directory(tail: bytes, size: int, where: str) -> Bounds:
    """Find the central directory by the end of a file.

    Parameters
    ----------
    tail
        Last bytes of the file, at least `LONGEST_END` or all.
    size
        Of the file.
    where
        The file, for messages.

    Raises
    ------
    UnknownFormatError
        It is no zip, or one in several volumes.
    TruncatedFileError
        The directory is not all there.
    CorruptDataError
        It lies somewhere else than directly before the end.
    """
    at = tail.rfind(END_MARK)
    while at >= 0 and not (len(tail) - at >= END.size and at + END.size + _comment(tail, at) == len(tail)):
        at = tail.rfind(END_MARK, 0, at)
    if at < 0:
        msg = f"'{where}' does not end as a zip; check the path, or fetch the file again if it was cut"
        raise UnknownFormatError(msg, url=where)
    _, disk, first, here, n_entries, length, start, _ = END.unpack_from(tail, at)
    stop = size - len(tail) + at
    if _FULL16 in (disk, first, here, n_entries) or _FULL32 in (length, start):
        disk, first, here, n_entries, length, start, stop = _end64(tail, at, size, where)
    if disk or first or here != n_entries:
        msg = f"'{where}' is one of several volumes of a zip; join them, or pack the store with stemstore pack"
        raise UnknownFormatError(msg, url=where)
    if start + length != stop:
        msg = (
            f"the directory of '{where}' is said to end at byte {start + length}, but its end record begins at {stop}; "
            "restore it from a copy"
        )
        raise CorruptDataError(msg, url=where, byte=stop)
    if n_entries * CENTRAL.size > length:
        msg = (
            f"the directory of '{where}' is said to have {n_entries} entries in {length} bytes; restore it from a copy"
        )
        raise CorruptDataError(msg, url=where, found=n_entries)
    return Bounds(start, length, n_entries)


def _comment(tail: bytes, at: int) -> int:
    return int.from_bytes(tail[at + END.size - 2 : at + END.size], "little")


def _end64(tail: bytes, at: int, size: int, where: str) -> tuple[int, ...]:
    """Read the Zip64 records before the end record."""
    place = at - LOCATOR.size
    damaged = f"the Zip64 end records of '{where}' are damaged; restore it from a copy"
    if place < 0 or tail[place : place + 4] != LOCATOR_MARK:
        raise CorruptDataError(damaged, url=where)
    _, _, stop, n_disks = LOCATOR.unpack_from(tail, place)
    record = stop - (size - len(tail))
    if n_disks > 1 or record < 0 or record + END64.size != place or tail[record : record + 4] != END64_MARK:
        raise CorruptDataError(damaged, url=where)
    _, _, _, _, disk, first, here, n_entries, length, start = END64.unpack_from(tail, record)
    return disk, first, here, n_entries, length, start, stop


def parse_directory(body: bytes, bounds: Bounds, where: str) -> dict[str, Entry]:
    """Read all entries; folders, which hold nothing, are left out.

    Raises
    ------
    CorruptDataError
        Entries overlap, lie outside of the file, are there twice, or have names that are no keys.
    UnknownFormatError
        An entry is compressed or encrypted.
    """
    if len(body) != bounds.length:
        msg = f"the directory of '{where}' has {len(body)} of {bounds.length} bytes; restore it from a copy"
        raise TruncatedFileError(msg, url=where, found=len(body), expected=bounds.length)
    entries: dict[str, Entry] = {}
    every: list[tuple[int, Entry]] = []
    at = 0
    for number in range(bounds.n_entries):
        if at + CENTRAL.size > len(body) or body[at : at + 4] != CENTRAL_MARK:
            msg = f"entry {number} of the directory of '{where}' is damaged; restore it from a copy"
            raise CorruptDataError(msg, url=where, entry=number)
        fields = CENTRAL.unpack_from(body, at)
        name_stop = at + CENTRAL.size + fields[10]
        extra_stop = name_stop + fields[11]
        name = body[at + CENTRAL.size : name_stop]
        entry = _entry(fields, name, body[name_stop:extra_stop], where)
        at = extra_stop + fields[12]
        every.append((entry.offset, entry))
        if name.endswith(b"/") and not entry.size:
            continue
        key = _key(name, bool(fields[3] & _UTF8), where)
        if key in entries:
            msg = f"'{where}' holds '{key}' twice; restore it from a copy"
            raise CorruptDataError(msg, url=where, key=key)
        entries[key] = entry
    if at != len(body):
        msg = f"the directory of '{where}' has {len(body) - at} bytes behind its last entry; restore it from a copy"
        raise CorruptDataError(msg, url=where, found=len(body), expected=at)
    _check_apart(every, bounds.start, where)
    return entries


def _entry(fields: tuple[int, ...], name: bytes, extra: bytes, where: str) -> Entry:
    flags, method, crc, packed, size, disk, offset = (fields[n] for n in (3, 4, 7, 8, 9, 13, 16))
    shown = name.decode("utf-8", "backslashreplace")
    if flags & _ENCRYPTED or method:
        how = "encrypted" if flags & _ENCRYPTED else f"compressed (method {method})"
        msg = (
            f"'{shown}' in '{where}' is {how}, so it cannot be read in place; unpack the file and pack it with "
            "stemstore pack, or with 'zip -0'"
        )
        raise UnknownFormatError(msg, url=where, key=shown)
    numbers = [size, packed, offset]
    wide = [n for n, value in enumerate(numbers) if value == _FULL32]
    found = _wide(extra, len(wide))
    if len(found) < len(wide):
        msg = f"'{shown}' in '{where}' lacks its Zip64 sizes; restore the file from a copy"
        raise CorruptDataError(msg, url=where, key=shown)
    for n, value in zip(wide, found, strict=True):
        numbers[n] = value
    size, packed, offset = numbers
    if packed != size or disk not in (0, _FULL16):
        msg = f"'{shown}' in '{where}' is stored as it is, but has {packed} bytes for {size}; restore it from a copy"
        raise CorruptDataError(msg, url=where, key=shown, found=packed, expected=size)
    return Entry(offset, size, crc, name)


def _wide(extra: bytes, count: int) -> list[int]:
    """Give up to `count` numbers of the Zip64 extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64:
            found = extra[at + 4 : at + 4 + length]
            return [int.from_bytes(found[8 * n : 8 * n + 8], "little") for n in range(min(count, len(found) // 8))]
        at += 4 + length
    return []


def _key(name: bytes, utf8: bool, where: str) -> str:
    """Read a name; only what can be a key of a store is one."""
    try:
        key = name.decode("utf-8" if utf8 else "ascii")
    except UnicodeDecodeError:
        key = ""
    parts = key.split("/")
    if not key or "\\" in key or "\0" in key or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        shown = name.decode("utf-8", "backslashreplace")
        msg = f"'{where}' holds an object called {shown!r}, which is no key of a store; restore it from a copy"
        raise CorruptDataError(msg, url=where, key=shown)
    return key


def _check_apart(every: list[tuple[int, Entry]], stop: int, where: str) -> None:
    """Make sure that no two entries share bytes, and that all lie before the directory."""
    every.sort(key=lambda one: one[0])
    borders = [offset for offset, _ in every[1:]] + [stop]
    for (offset, entry), border in zip(every, borders, strict=True):
        if offset + LOCAL.size + len(entry.name) + entry.size > border:
            shown = entry.name.decode("utf-8", "backslashreplace")
            msg = (
                f"'{shown}' in '{where}' takes {entry.size} bytes from byte {offset}, into what begins at byte "
                f"{border}; restore it from a copy"
            )
            raise CorruptDataError(msg, url=where, key=shown, byte=offset)


def data_start(header: bytes, entry: Entry, stop: int, where: str) -> int:
    """Find the first byte of an object behind its local header.

    Parameters
    ----------
    header
        Bytes from ``entry.offset`` on: the fixed part and the name.
    entry
        As the directory describes it.
    stop
        First byte of the directory.
    where
        The file, for messages.

    Raises
    ------
    CorruptDataError
        The local header is that of another object.
    """
    if len(header) == LOCAL.size + len(entry.name):
        fields = LOCAL.unpack_from(header)
        if fields[0] == LOCAL_MARK and fields[3] == 0 and header[LOCAL.size :] == entry.name:
            start = int(entry.offset + LOCAL.size + fields[9] + fields[10])
            if start + entry.size <= stop:
                return start
    shown = entry.name.decode("utf-8", "backslashreplace")
    msg = (
        f"the header of '{shown}' at byte {entry.offset} of '{where}' is not that of the directory; "
        "restore it from a copy"
    )
    raise CorruptDataError(msg, url=where, key=shown, byte=entry.offset)
