"""Files of this machine as if they were elsewhere, for tests of readers: copied into memory, or counted when read."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fsspec import AbstractFileSystem, filesystem, register_implementation

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def copied(folder: Path) -> Iterator[str]:
    """Copy a folder into the memory of fsspec, for the duration of a block; gives its URL."""
    address = f"memory://{uuid.uuid4().hex}"
    memory = filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"{address}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    try:
        yield address
    finally:
        if memory.exists(address):
            memory.rm(address, recursive=True)


class CountedFiles(AbstractFileSystem):
    """Local files at ``counted:///path``, read by ranges only; what is read is counted, whoever reads.

    Attributes
    ----------
    bytes_read, requests
        Since they were last set to zero.
    """

    protocol = "counted"
    cachable = False
    bytes_read: ClassVar[int] = 0
    requests: ClassVar[int] = 0

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Say what is at a path."""
        status = Path(self._strip_protocol(path)).stat()
        kind = "directory" if Path(self._strip_protocol(path)).is_dir() else "file"
        return {"name": path, "size": status.st_size, "type": kind, "mtime": status.st_mtime}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a folder."""
        found = [str(one) for one in Path(self._strip_protocol(path)).iterdir()]
        return [self.info(one) for one in found] if detail else found

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Read a range of bytes, and count it."""
        with Path(self._strip_protocol(path)).open("rb") as file:
            file.seek(start or 0)
            content = file.read(-1 if end is None else end - (start or 0))
        CountedFiles.bytes_read += len(content)
        CountedFiles.requests += 1
        return content


register_implementation("counted", CountedFiles)
