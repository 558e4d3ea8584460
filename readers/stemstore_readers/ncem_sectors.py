"""NCEM 4D Camera: raw sector files of a 576 × 576 detector read out as four modules.

Layouts, file names and the place of each module follow OpenChemistry/stempy (``stempy/reader.cpp``,
``docs/source/4dCamera_header_versions.rst``) and OpenChemistry/distiller. The files carry neither magic number nor
version: the version is an option, and versions 4 and 5, whose records have equal length, cannot be told apart from the
bytes.
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stemstore.errors import InputError, NotFoundError, SectorMismatchError
from stemstore.sources.files import describe, expand, file_size, identity, list_folder
from stemstore.sources.geometry import decide_flyback, shape_option
from stemstore.sources.remote import local_only, place
from stemstore_readers import ncem_sector_blocks as blocks
from stemstore_readers import ncem_sector_index as index
from stemstore_readers.ncem_sector_source import FRAME_SHAPE, SectorSource, extent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stemstore.sources.remote import Place
    from stemstore_schemas import Detector

_MODULE = re.compile(r".*module(\d+).*\.data$")  # greedy: the last "module<digits>" of the file name counts
_SCAN = re.compile(r"data_scan(\d+)_")
_OWN_NAME = re.compile(r"data_scan\d+_.*\.data$")

_STATUS_BYTES = 65536
"""Longest status file that is parsed; real ones have four short fields."""


class NcemSectors:
    """Reader of NCEM 4D Camera sector files.

    Parameters
    ----------
    version
        Header version 1 or 2 (blocks of whole frames), 3 (whole frames), 4 (sectors of 144 columns) or 5 (sectors of
        144 rows). Versions 4 and 5 cannot be told apart by their bytes: a wrong choice between them gives scrambled
        frames, not an error.
    scan_number
        Which scan to read where several lie together.
    scan_shape
        ``(rows, columns)``, flyback included, instead of what the headers say; versions 1 and 2 say nothing, and
        their frames stay a flat stack without it. For these also ``(frames, rows, columns)``.
    flyback_columns
        Columns at the end of each row taken during the flight back. None: one where the scan is one column wider than
        high, reported as a guess, else none.
    swap_xy
        Take x and y of the headers the other way round, as some firmware delivered them.
    allow_missing_modules
        Open the scan although a module has no file; its rows stay zero and every frame is partial.
    """

    name: ClassVar[str] = "ncem_sectors"
    description: ClassVar[str] = "NCEM 4D Camera raw sector files (data_scan…_module….data, header versions 1 to 5)"
    extensions: ClassVar[tuple[str, ...]] = (".data",)

    def __init__(
        self,
        *,
        version: int = 5,
        scan_number: int | None = None,
        scan_shape: Sequence[int] | None = None,
        flyback_columns: int | None = None,
        swap_xy: bool = False,
        allow_missing_modules: bool = False,
    ) -> None:
        known = [*blocks.VERSIONS, *index.LAYOUTS]
        if version not in known:
            msg = f"option version={version!r} is not known; expected one of {', '.join(map(str, known))}"
            raise InputError(msg, key="version", found=version, expected=known)
        in_blocks = version in blocks.VERSIONS
        if in_blocks and (swap_xy or allow_missing_modules):
            msg = (
                f"header version {version} has neither x and y nor modules; leave swap_xy and allow_missing_modules out"
            )
            raise InputError(msg, key="version", found=version)
        if scan_number is not None and (not isinstance(scan_number, int) or not 0 <= scan_number < 2**32):
            msg = f"option scan_number={scan_number!r} is not a scan number; expected a whole number of at least 0"
            raise InputError(msg, key="scan_number", found=scan_number)
        self.version = version
        self.layout = index.LAYOUTS[3 if in_blocks else version]  # blocks hold whole frames too
        self.scan_number = scan_number
        lengths = (2, 3) if in_blocks else (2,)
        self.scan_shape = None if scan_shape is None else shape_option("scan_shape", scan_shape, lengths)
        self.flyback_columns = flyback_columns
        self.swap_xy = swap_xy
        self.allow_missing_modules = allow_missing_modules

    @classmethod
    def matches(cls, url: str, first_bytes: bytes) -> float:
        """Judge by the names of the file or of the files in the folder; the format has no magic number."""
        try:
            path = place(url)
            if first_bytes:
                return _name_confidence(path)
            return max((_name_confidence(entry) for entry in path.iterdir()), default=0.0) if path.is_dir() else 0.0
        except (OSError, ValueError):
            return 0.0

    def __call__(self, url: str | list[str]) -> SectorSource:
        """Open the scan: read all headers, no pixel.

        Parameters
        ----------
        url
            A folder, a file, a pattern, or a list of these (one folder per mount).

        Raises
        ------
        NotFoundError, StorageError
            Nothing is there, or it cannot be read.
        SectorMismatchError
            A module has no file, several scans are mixed, or headers contradict each other or the scan.
        FormatVersionError
            The records do not have the stated version.
        TruncatedFileError
            A file holds no whole record.
        """
        files, notes = self._find(url)
        if self.version in blocks.VERSIONS:
            options: dict[str, Any] = {"scan_shape": self.scan_shape, "flyback_columns": self.flyback_columns}
            return blocks.open_blocks(files, self.version, notes=notes, **options)
        blocks.refuse_blocks(files, self.version)
        index.check_version(files, self.layout)
        records, scan_number, found = index.one_scan(index.gather(files, self.layout), files, self.scan_number)
        notes += self._leftovers(files) + found + self._check_modules(files, records, scan_number)
        shape = (
            index.header_shape(records, files) if self.scan_shape is None else (self.scan_shape[0], self.scan_shape[1])
        )
        position = index.flat_positions(records, files, shape, swap_xy=self.swap_xy)
        sectors = index.build_index(records, files, self.layout, position, math.prod(shape))
        notes += sectors.warnings
        return self._source(files, sectors, shape, scan_number, notes)

    def _find(self, url: str | list[str]) -> tuple[list[index.SectorFile], list[str]]:
        """List the data files and the module of each, leaving out files whose name states another scan."""
        paths: list[Place] = []
        for path in (local_only(found, "the sectors of the 4D Camera") for found in expand(url)):
            paths.extend(_data_files(path) if path.is_dir() else [path])
        if not paths:
            msg = f"{url!r} holds no file with the ending .data; pass the folder that holds the sector files"
            raise NotFoundError(msg, url=str(url))
        stated = {path: int(match.group(1)) for path in paths if (match := _SCAN.match(path.name))}
        notes: list[str] = []
        if self.scan_number is None:
            _refuse_mixture(stated)
        elif self.scan_number in stated.values():
            mine = [path for path in paths if stated.get(path, self.scan_number) == self.scan_number]
            if len(mine) < len(paths):
                notes.append(f"{len(paths) - len(mine)} files of other scans than {self.scan_number} are ignored")
            paths = mine
        unique = list(dict.fromkeys(paths))
        files = [index.SectorFile(path, self._module(path), file_size(path)) for path in unique]
        # A short scan leaves some receiver threads without a frame, and their files empty beside those of the others.
        filled = {file.module for file in files if file.size}
        kept = [file for file in files if file.size or file.module not in filled]
        if len(kept) < len(files):
            notes.append(f"{len(files) - len(kept)} files are empty and left out")
        return kept, notes

    def _module(self, path: Place) -> int:
        if self.layout.n_modules == 1:
            return 0
        match = _MODULE.match(path.name)
        if match is None:
            msg = (
                f"file name {str(path)!r} states no module, expected 'module0' to 'module3' in it; "
                "rename the file, or pass version=3 if it holds whole frames"
            )
            raise InputError(msg, url=str(path))
        module = int(match.group(1))
        if module >= self.layout.n_modules:
            msg = f"file name {str(path)!r} states module {module}, expected 0 to 3; rename the file or leave it out"
            raise InputError(msg, url=str(path), found=module)
        return module

    def _leftovers(self, files: Sequence[index.SectorFile]) -> list[str]:
        cut = [(file, *file.records(self.layout)) for file in files]
        length = self.layout.record_bytes
        return [
            f"file {str(file.path)!r} ends with {left} bytes of a record of {length} bytes; "
            f"its {count} whole records are used"
            for file, count, left in cut
            if left
        ]

    def _check_modules(self, files: Sequence[index.SectorFile], records: index.Records, scan_number: int) -> list[str]:
        present = np.unique(records.module).tolist()
        absent = [module for module in range(self.layout.n_modules) if module not in present]
        if not absent:
            return []
        named = ("module " if len(absent) == 1 else "modules ") + ", ".join(map(str, absent))
        verb = "has" if len(absent) == 1 else "have"
        without_file = not {file.module for file in files} & set(absent)
        text = f"{named} {verb} no file" if without_file else f"{named} {verb} no record of scan {scan_number}"
        if not self.allow_missing_modules:
            folder = str(files[0].path.parent)
            msg = f"{text} in {folder!r}, expected all of 0 to 3; add the files or pass allow_missing_modules=True"
            raise SectorMismatchError(msg, url=folder, found=present, expected=list(range(self.layout.n_modules)))
        return [f"{text}; its pixels are zero and every frame is partial"]

    def _source(
        self,
        files: Sequence[index.SectorFile],
        sectors: index.SectorIndex,
        shape: tuple[int, int],
        scan_number: int,
        notes: list[str],
    ) -> SectorSource:
        from stemstore_schemas import Acquisition, SourceMetadata

        flyback, guessed = decide_flyback(self.flyback_columns, *shape)
        found = int((sectors.offset >= 0).sum())
        share = found / sectors.offset.size
        if found < sectors.offset.size:
            notes.append(
                f"{sectors.offset.size - found} of {sectors.offset.size} sectors are lost ({share:.2%} captured)"
            )
        folders = list(dict.fromkeys(file.path.parent for file in files))
        status, start_time, unread = _receiver_status(folders, scan_number)
        scan_shape = shape if sectors.exposures == 1 else (sectors.exposures, *shape)
        acquisition = Acquisition(
            scan_shape=scan_shape,
            scan_shape_source="header" if self.scan_shape is None else "user",
            flyback_columns=flyback,
            frames_per_position=sectors.exposures,
            start_time=start_time,
            scan_number=scan_number,
        )
        described = describe([file.path for file in files])
        metadata = SourceMetadata(
            acquisition=acquisition,
            detector=_detector(self.layout),
            vendor={"header_version": self.layout.version, "fraction_captured": share, "receiver_status": status},
            warnings=notes + guessed + unread,
            files=described,
        )
        options = (self.layout.version, scan_number, shape, self.swap_xy)
        paths = tuple(str(file.path) for file in files)
        name = identity(self.name, described, options)
        return SectorSource(name, scan_shape, metadata, self.layout, paths, sectors.file, sectors.offset)


def _detector(layout: index.Layout) -> Detector:
    from stemstore_schemas import Detector, Sector

    sectors = []
    for module in range(layout.n_modules if layout.n_modules > 1 else 0):  # whole frames do not tell their sectors
        rows, columns = extent(layout, module)
        sectors.append(Sector(name=f"module{module}", rows=rows, columns=columns))
    return Detector(name="NCEM 4D Camera", shape=FRAME_SHAPE, sectors=sectors)


def _name_confidence(path: Place) -> float:
    if _OWN_NAME.match(path.name):
        return 0.9
    return 0.5 if _MODULE.match(path.name) else 0.0


def _data_files(folder: Place) -> list[Place]:
    """List the data files of a folder, or of its sub-folder ``temp`` where receivers write while a scan runs."""
    entries = list_folder(folder)
    found = [entry for entry in entries if entry.suffix == ".data"]
    if found or not (folder / "temp").is_dir():
        return found
    return [entry for entry in list_folder(folder / "temp") if entry.suffix == ".data"]


def _refuse_mixture(stated: dict[Place, int]) -> None:
    scans = sorted(set(stated.values()))
    if len(scans) > 1:
        folder = str(next(iter(stated)).parent)
        text = ", ".join(map(str, scans[: index.SHOWN])) + (", …" if len(scans) > index.SHOWN else "")
        msg = f"the files in {folder!r} belong to the scans {text}; choose one, for example scan_number={scans[0]}"
        raise SectorMismatchError(msg, url=folder, found=scans)


def _receiver_status(folders: Sequence[Place], scan_number: int) -> tuple[dict[str, Any], str | None, list[str]]:
    """Read what the receivers noted about the scan; never a reason not to open it.

    Returns
    -------
    status, start_time, warnings
        Receiver 0 is the primary one and gives the time.
    """
    status: dict[str, Any] = {}
    warnings: list[str] = []
    for folder in folders:
        for receiver in range(4):
            kept = folder / f"4dstem_rec_status_{receiver}_scan_{scan_number}.json"
            for path in (kept, folder / f"4dstem_rec_status_{receiver}.json"):
                content, problem = _read_json(path)
                warnings += [problem] if problem else []
                if content is not None and (path == kept or content.get("last_scan_number") == scan_number):
                    status.setdefault(str(receiver), content)
    time = status.get("0", {}).get("time")
    try:
        datetime.fromisoformat(time or "")
    except (TypeError, ValueError):
        warnings += [] if time is None else [f"time {time!r} of receiver 0 is not used: it is not ISO 8601"]
        time = None
    return status, time, warnings


def _read_json(path: Place) -> tuple[dict[str, Any] | None, str | None]:
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_STATUS_BYTES))
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, RecursionError) as error:
        return None, f"status file {str(path)!r} is not used: {error}"
    if not isinstance(content, dict):
        return None, f"status file {str(path)!r} is not used: it holds no JSON object"
    return content, None
