"""Trees of Zarr format 2 in a folder or in a zip file: their descriptions, and where their chunks lie."""

from __future__ import annotations

import itertools
import math
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from stemstore.errors import CorruptDataError, InputError, NotFoundError, TruncatedFileError
from stemstore.sources.files import file_size, unreadable
from stemstore.sources.records import open_unbuffered
from stemstore.sources.remote import local_only, openable
from stemstore_readers.zspy_header import parse_json

if TYPE_CHECKING:
    from pathlib import Path

    from stemstore.sources.remote import Place
    from stemstore_readers.zspy_header import ArrayHeader

ARRAY, ATTRIBUTES = ".zarray", ".zattrs"
EXPERIMENTS = "Experiments/"

MAX_FIELD = 2**24
"""Bytes of a ``.zattrs`` or ``.zarray`` that are read."""

MAX_WATCHED = 4096
"""Chunks of a folder whose size and time are part of the identity; of more, only the description of the array is."""

MAX_FOLDERS = 20_000
"""Folders, those of chunks left out, that are looked at."""

_LOCAL_HEADER, _NAME_LENGTHS = 30, slice(26, 30)


class Folder:
    """A tree of Zarr in a folder."""

    def __init__(self, path: Place) -> None:
        self.path = local_only(path, "folders of HyperSpy")

    def read(self, name: str) -> bytes:
        """Read a description by its name in the tree."""
        file = self.path / name
        if file_size(file) > MAX_FIELD:
            msg = f"{str(file)!r} has more than {MAX_FIELD} bytes; it is no description, the folder is damaged"
            raise CorruptDataError(msg, url=str(file))
        try:
            return file.read_bytes()
        except OSError as error:
            raise unreadable(file, error) from error

    def attributes(self, group: str) -> dict[str, Any]:
        """Attributes of a group, which may have none."""
        file = self.path / group / ATTRIBUTES
        return parse_json(self.read(group + ATTRIBUTES), str(file)) if file.is_file() else {}

    def titles(self) -> list[str]:
        """Names of the signals."""
        top = self.path / EXPERIMENTS
        return sorted(child.name for child in top.iterdir() if child.is_dir()) if top.is_dir() else []

    def groups(self) -> list[str]:
        """List the groups that have attributes; arrays are not entered."""
        found, todo, seen = [], [self.path], 0
        while todo and seen < MAX_FOLDERS:
            folder = todo.pop(0)
            seen += 1
            if (folder / ATTRIBUTES).is_file():
                place = folder.relative_to(self.path).as_posix()
                found.append("" if place == "." else f"{place}/")
            if not (folder / ARRAY).is_file():
                todo.extend(sorted(child for child in folder.iterdir() if child.is_dir() and not child.is_symlink()))
        return found

    def chunks(self, place: str, header: ArrayHeader) -> tuple[list[Path], None]:
        """Files that the identity of an array follows.

        Raises
        ------
        TruncatedFileError
            A chunk without compression has the wrong size.
        """
        files = [self.path / place / ARRAY]
        grid = [range(-(-size // chunk)) for size, chunk in zip(header.shape, header.chunks, strict=True)]
        if math.prod(map(len, grid)) > MAX_WATCHED:
            return files, None
        for numbers in itertools.product(*grid):
            file = self.path / place / header.separator.join(map(str, numbers))
            if not file.is_file():
                continue
            if header.compressor is None and file_size(file) < header.chunk_bytes:
                msg = f"chunk {str(file)!r} has {file_size(file)} bytes, expected {header.chunk_bytes}; copy it again"
                raise TruncatedFileError(msg, url=str(file), found=file_size(file), expected=header.chunk_bytes)
            files.append(file)
        return files, None


class Zip:
    """A tree of Zarr in a zip file; of several members with one name the last one counts."""

    def __init__(self, path: Place) -> None:
        self.path = path
        size = file_size(path)
        try:
            with openable(path) as source, zipfile.ZipFile(source) as file:
                entries = {entry.filename: entry for entry in file.infolist()}
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            msg = f"{str(path)!r} of {size} bytes has no directory of a zip file ({error}); it was cut, copy it again"
            raise TruncatedFileError(msg, url=str(path), found=size) from error
        except OSError as error:
            raise unreadable(path, error) from error
        packed = next((name for name, entry in entries.items() if entry.compress_type != zipfile.ZIP_STORED), None)
        if packed is not None:
            msg = f"member {packed!r} of {str(path)!r} is compressed by zip; repack it with zip -0, or unpack it"
            raise InputError(msg, url=str(path), key=packed)
        self.entries = {name: (entry.header_offset, entry.file_size) for name, entry in entries.items()}
        beyond = next((name for name, (start, length) in self.entries.items() if start + length > size), None)
        if beyond is not None:
            msg = f"member {beyond!r} of {str(path)!r} ends behind the file of {size} bytes; copy it again"
            raise TruncatedFileError(msg, url=str(path), key=beyond, found=size)

    def read(self, name: str) -> bytes:
        """Read a description by its name in the tree."""
        if name not in self.entries:
            msg = f"{str(self.path)!r} has no member {name!r}; it is damaged, save the signal again"
            raise NotFoundError(msg, url=str(self.path), key=name)
        offset, size = self.entries[name]
        if size > MAX_FIELD:
            msg = f"member {name!r} of {str(self.path)!r} has more than {MAX_FIELD} bytes; it is no description"
            raise CorruptDataError(msg, url=str(self.path), key=name)
        return read_member(str(self.path), offset, size)

    def attributes(self, group: str) -> dict[str, Any]:
        """Attributes of a group, which may have none."""
        name = group + ATTRIBUTES
        return parse_json(self.read(name), f"{name} in {str(self.path)!r}") if name in self.entries else {}

    def titles(self) -> list[str]:
        """Names of the signals."""
        inside = (name.removeprefix(EXPERIMENTS) for name in self.entries if name.startswith(EXPERIMENTS))
        return sorted({name.partition("/")[0] for name in inside if "/" in name})

    def groups(self) -> list[str]:
        """List the groups that have attributes."""
        return [name.removesuffix(ATTRIBUTES) for name in self.entries if name.rpartition("/")[2] == ATTRIBUTES]

    def chunks(self, place: str, header: ArrayHeader) -> tuple[list[Place], dict[str, tuple[int, int]]]:
        """File that the identity of an array follows, and where its chunks are."""
        inside = {name.removeprefix(place): at for name, at in self.entries.items() if name.startswith(place)}
        return [self.path], {name: at for name, at in inside.items() if name[:1].isdigit()}


def read_member(path: str, offset: int, size: int) -> bytes:
    """Read a member of a zip file that is stored without compression.

    Raises
    ------
    TruncatedFileError
        The file ends inside the member.
    StorageError
        The file cannot be read.
    """
    with open_unbuffered(path) as file:
        try:
            file.seek(offset)
            head = file.read(_LOCAL_HEADER) or b""
            name, extra = np.frombuffer(head[_NAME_LENGTHS].ljust(4, b"\0"), "<u2").tolist()
            file.seek(name + extra, 1)
            content = file.read(size) or b""
        except OSError as error:
            raise unreadable(path, error) from error
    if len(content) != size:
        msg = f"zip file {path!r} ends inside the member at byte {offset}; it was shortened, open it again"
        raise TruncatedFileError(msg, url=path, byte=offset, found=len(content), expected=size)
    return content
