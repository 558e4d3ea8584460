"""The XML file of an EMPAD scan: scan sizes, energies and steps, as two generations of the program wrote them.

Elements have names with dots in them and are therefore looked up by name among the children, never as paths.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from stemstore.errors import CorruptDataError, StemStoreError, UnknownFormatError
from stemstore.sources.files import unreadable

if TYPE_CHECKING:
    from stemstore.sources.remote import Place
    from stemstore_schemas import Axis

MAX_XML_BYTES = 2**20
"""Longest XML file that is parsed; those of the program have a few kilobytes."""

MAX_EXTENT = 2**20
"""Largest scan row or column that is believed."""

CENTRE = 64
"""Nominal pixel of the optic axis along rows and columns."""

AGREEMENT = 0.02
"""Relative difference up to which the two statements on the detector step agree: both have three to four digits."""

_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class EmpadXml:
    """What an XML file says.

    Attributes
    ----------
    text
        The file, verbatim.
    raw_file
        Base name of the raw file; empty where it is not stated.
    is_series
        Whether frames of one place were taken instead of a scan.
    shapes
        Statements on ``(rows, columns)`` of the scan with where they stand, the most trusted first.
    scan_sizes
        Part of the full field of view that was scanned, by mode.
    numbers
        Single numbers by element name, in the units of the file (V, m, rad, ms).
    field_of_view : unit m
        (y, x) as old versions wrote it; empty for new ones.
    full_field : unit m
        Field of view of the larger scan dimension times `scale_factor`, from version 1.2; None for older ones.
    """

    text: str
    raw_file: str
    is_series: bool
    shapes: tuple[tuple[str, tuple[int, int]], ...]
    scan_sizes: dict[str, float]
    numbers: dict[str, float]
    start_time: str | None
    field_of_view: tuple[float, ...]
    full_field: float | None

    def described(self, scan_shape: tuple[int, ...]) -> tuple[dict[str, Any], list[Axis], list[str]]:
        """Bring the values to the fields and units of the schema.

        Returns
        -------
        acquisition, axes, warnings
        """
        from stemstore_schemas import Axis, Quantity

        changes: dict[str, Any] = {} if self.start_time is None else {"start_time": self.start_time}
        fields = (
            ("beam_energy", ("source.get_voltage", "high_voltage"), 1e-3, "keV"),
            ("camera_length", ("optics.get_cameralength", "nominal_camera_length"), 1e3, "mm"),
            ("exposure_time", ("exposure_time",), 1e-3, "s"),
        )
        for name, elements, factor, unit in fields:
            value = next((self.numbers[element] for element in elements if self.numbers.get(element, 0) > 0), None)
            if value is not None:
                changes[name] = Quantity(value=value * factor, unit=unit, source="header")
        axes = []
        if len(scan_shape) > 1:
            for name, size, step in zip(("y", "x"), scan_shape[-2:], self._scan_steps(scan_shape), strict=True):
                if step is not None:
                    axes.append(Axis(name=name, size=size, unit="nm", step=step * 1e9, source="header"))
        detector, notes = self._detector_step(changes)
        if detector is not None:
            axes += [
                Axis(name=name, size=128, unit="1/nm", step=detector, origin=-CENTRE * detector, source="header")
                for name in ("ky", "kx")
            ]
        return changes, axes, notes

    def _scan_steps(self, scan_shape: tuple[int, ...]) -> tuple[float | None, float | None]:
        """Give the steps (y, x) in m. Version 1.2 writes field of view times scale factor, of the larger extent."""
        ny, nx = scan_shape[-2:]
        if len(self.field_of_view) == 2:  # noqa: PLR2004 (y and x)
            return self.field_of_view[0] / ny, self.field_of_view[1] / nx
        scale = self.numbers.get("scale_factor", 0.0)
        if self.full_field is None or scale <= 0:
            return None, None
        part = self.scan_sizes.get("acquire", 1.0)
        stated = dict(self.shapes)
        if stated.get("scan_parameters acquire") != (ny, nx) and stated.get("scan_parameters search") == (ny, nx):
            part = self.scan_sizes.get("search", 1.0)
        step = self.full_field / scale * part / max(ny, nx)
        return (step, step) if 0 < step < math.inf else (None, None)

    def _detector_step(self, acquisition: dict[str, Any]) -> tuple[float | None, list[str]]:
        """Step in 1/nm, and a warning where the angle that is stated as well contradicts it."""
        from stemstore_schemas.electron import wavelength

        stated = self.numbers.get("calibrated_pixelsize", 0.0) * 1e9
        if not 0 < stated < math.inf:
            return None, []
        angle, energy = self.numbers.get("calibrated_diffraction_angle", 0.0) * 1e3, acquisition.get("beam_energy")
        if angle <= 0 or energy is None:
            return stated, []
        expected = stated * wavelength(energy.value) * 100  # mrad = 1/nm · angstrom · 0.1 nm/angstrom · 1000 mrad
        if abs(angle / expected - 1) <= AGREEMENT:
            return stated, []
        text = (
            f"the XML states a detector pixel of {stated:.5g} 1/nm (calibrated_pixelsize), that is {expected:.4g} "
            f"mrad, and of {angle:.4g} mrad (calibrated_diffraction_angle); the first is used"
        )
        return stated, [text]


def read_xml(path: Place) -> EmpadXml:
    """Read and parse an XML file.

    Raises
    ------
    UnknownFormatError, CorruptDataError
        As for `parse_header`.
    StorageError, NotFoundError
        The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_XML_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        return parse_header(content)
    except StemStoreError as error:
        error.add_note(f"in the XML file {str(path)!r}")
        error.context.setdefault("url", str(path))
        raise


def raw_name(path: Place) -> str:
    """Name of the raw file that an XML file states; empty where it is no XML of EMPAD."""
    try:
        return read_xml(path).raw_file
    except StemStoreError:
        return ""


def parse_header(content: bytes) -> EmpadXml:
    """Parse the XML of an EMPAD scan.

    Raises
    ------
    UnknownFormatError
        The XML describes something else.
    CorruptDataError
        It is no XML of a believable length; entities are not expanded but refused.
    """
    if len(content) > MAX_XML_BYTES or b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        msg = (
            f"XML has {len(content)} bytes or declares entities, expected a plain XML file of at most {MAX_XML_BYTES}; "
            "it is not of an EMPAD, give another file"
        )
        raise CorruptDataError(msg, found=len(content), expected=MAX_XML_BYTES)
    try:
        root = ET.fromstring(content)  # entities were refused above
        text = content.decode("utf-8", "backslashreplace")
    except (ET.ParseError, ValueError, LookupError) as error:
        msg = f"XML cannot be parsed: {error}; copy the file again"
        raise CorruptDataError(msg) from error
    children = {child.tag: child for child in root}
    if root.tag != "root" or "raw_file" not in children:
        msg = f"XML starts with the element {root.tag!r} without raw_file, expected that of an EMPAD; give its file"
        raise UnknownFormatError(msg, found=root.tag, expected="root")
    modes = {child.get("mode", ""): child for child in root if child.tag == "scan_parameters"}
    measured = _children(children.get("iom_measurements"))
    field = _children(measured.get("full_scan_field_of_view"))
    numbers = {tag: value for tag, element in {**children, **measured, **field}.items() if (value := _number(element))}
    size_pair = [abs(float(one)) for one in _FLOAT.findall(_text(measured.get("optics.get_full_scan_field_of_view")))]
    good = len(size_pair) == 2 and all(0 < one < 1 for one in size_pair)  # noqa: PLR2004 (x and y; a metre is no field)
    return EmpadXml(
        text=text,
        raw_file=re.split(r"[\\/]", children["raw_file"].get("filename", "").strip())[-1],
        is_series=_text(children.get("type")).lower() == "series",
        shapes=tuple(_shapes(children, modes)),
        scan_sizes={
            mode: size for mode, element in modes.items() if (size := _number(_children(element).get("scan_size")))
        },
        numbers=numbers,
        start_time=_time(children.get("timestamp")),
        field_of_view=(size_pair[1], size_pair[0]) if good else (),
        full_field=_number(field.get("x")) or None,
    )


def _shapes(children: dict[str, ET.Element], modes: dict[str, ET.Element]) -> list[tuple[str, tuple[int, int]]]:
    stated = [("pix_x and pix_y", children.get("pix_y"), children.get("pix_x"))]
    for mode in ("acquire", "search"):
        inside = _children(modes.get(mode))
        stated.append((f"scan_parameters {mode}", inside.get("scan_resolution_y"), inside.get("scan_resolution_x")))
    shapes = [(where, (int(_number(rows)), int(_number(columns)))) for where, rows, columns in stated]
    return [(where, shape) for where, shape in shapes if all(0 < extent <= MAX_EXTENT for extent in shape)]


def _children(element: ET.Element | None) -> dict[str, ET.Element]:
    return {} if element is None else {child.tag: child for child in element}


def _text(element: ET.Element | None) -> str:
    return "" if element is None or element.text is None else element.text.strip()


def _number(element: ET.Element | None) -> float:
    """Read the number that an element holds; 0 where it holds none, for no value read here can be 0."""
    try:
        value = float(_text(element))
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0


def _time(element: ET.Element | None) -> str | None:
    from datetime import datetime

    try:
        return None if element is None else datetime.fromisoformat(element.get("isoformat", "")).isoformat()
    except ValueError:
        return None
