"""The verb ``virtual``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from stemstore.cli import options
from stemstore.cli.output import notify, print_facts, print_json, told
from stemstore.errors import InputError

EXAMPLE = "stemstore virtual scan_42.zarr --annulus 20 60 --unit mrad -o adf.png"
DETECTOR = "Detector"


def run(  # noqa: PLR0913  # one parameter per option is how typer reads them
    *,
    scan: options.Scan,
    disk: Annotated[float | None, options.setting("--disk", "Disk of this radius.", DETECTOR, "R")] = None,
    annulus: Annotated[
        tuple[float, float] | None,
        options.setting("--annulus", "Ring: INNER <= r < OUTER.", DETECTOR, "INNER OUTER"),
    ] = None,
    rectangle: Annotated[
        tuple[float, float, float, float] | None,
        options.setting("--rectangle", "Half-open ranges of rows and columns.", DETECTOR, "KY0 KY1 KX0 KX1"),
    ] = None,
    center: Annotated[
        str | None, options.setting("--center", "Centre; the optic axis by default.", DETECTOR, "KY,KX")
    ] = None,
    unit: Annotated[
        str | None, options.setting("--unit", "pixel, mrad, 1/angstrom or 1/nm; that of the axes.", DETECTOR, "UNIT")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="Image to write: .png or .npy.", metavar="FILE", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an image that exists.", rich_help_panel=options.OUTPUT)
    ] = False,
    reader: options.Reader = None,
    scan_shape: options.ScanShape = None,
    flyback: options.Flyback = None,
    format_version: options.FormatVersion = None,
    option: options.Option = None,
    beam_energy: options.BeamEnergy = None,
    scan_step: options.ScanStep = None,
    detector_step: options.DetectorStep = None,
    detector_center: options.DetectorCenter = None,
    as_json: options.AsJson = False,
) -> None:
    """Compute the image of a virtual detector.

    Prints statistics of the image, and writes it where asked.
    """
    given = options.source_options(
        scan_shape=scan_shape,
        flyback=flyback,
        format_version=format_version,
        option=option,
        beam_energy=beam_energy,
        scan_step=scan_step,
        detector_step=detector_step,
        detector_center=detector_center,
    )
    shape = _detector(disk, annulus, rectangle, center, unit)
    from stemstore.cli.image import check_target, write_image
    from stemstore.ops.imaging.virtual import virtual_image
    from stemstore.scan.open import open_scan

    if output is not None:
        check_target(output, overwrite=overwrite)
    with told():
        opened = open_scan(scan, reader=reader, **given)
    image = virtual_image(opened, shape).compute()
    if output is not None:
        write_image(output, image, overwrite=overwrite)
        notify(f"wrote {output}")
    found = {"detector": shape.describe(), "output": output, **statistics(image)}
    if as_json:
        print_json("virtual", found)
    else:
        print_facts([(name.replace("_", " "), _text(value)) for name, value in found.items() if value is not None])


def statistics(image: Any) -> dict[str, Any]:
    """Numbers about an image; missing frames are left out of them."""
    import numpy as np

    values = np.asarray(image.values)
    recorded = values if "valid" not in image.coords else values[image.coords["valid"].values > 0]
    found: dict[str, Any] = {
        "shape": values.shape,
        "dtype": str(values.dtype),
        "units": image.attrs.get("units", "count"),
        "positions": int(recorded.size),
    }
    if recorded.size:
        whole = recorded.astype(np.float64)
        found |= {"minimum": recorded.min().item(), "maximum": recorded.max().item(), "sum": recorded.sum().item()}
        found |= {"mean": float(whole.mean()), "standard_deviation": float(whole.std())}
    return found


def _detector(
    disk: float | None,
    annulus: tuple[float, float] | None,
    rectangle: tuple[float, float, float, float] | None,
    center: str | None,
    unit: str | None,
) -> Any:
    given = {"--disk": disk, "--annulus": annulus, "--rectangle": rectangle}
    named = [flag for flag, value in given.items() if value is not None]
    if len(named) != 1:
        msg = f"got {' and '.join(named) or 'no detector'}; give one of --disk, --annulus and --rectangle"
        raise InputError(msg, found=named)
    if rectangle is not None and center is not None:
        msg = "--rectangle is placed by its ranges and takes no --center; leave one out"
        raise InputError(msg, key="--center")
    middle: Any = None if center is None else options.parse_numbers(center, "--center", 2)
    from stemstore.ops.geometry import detectors

    if rectangle is not None:
        return detectors.rectangle(rectangle[:2], rectangle[2:], unit=unit)
    inner, outer = (0.0, disk) if annulus is None else annulus
    return detectors.annulus(inner, outer or 0.0, center=middle, unit=unit)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return " x ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
