"""EMPAD files as the acquisition program writes them: raw records with footer rows, and XML of two generations."""

from __future__ import annotations

import numpy as np


def raw_bytes(frames) -> bytes:
    """Pixels of every frame, each with its footer of two rows that are never pixels."""
    flat = np.asarray(frames, "<f4").reshape(-1, 128, 128)
    footer = np.full((len(flat), 2, 128), -7e7, "<f4")
    return np.concatenate([flat, footer], axis=1).tobytes()


def ramp(*shape):
    """Distinct pixels, some of them negative and one NaN."""
    frames = np.arange(np.prod(shape) * 128 * 128, dtype=np.float32).reshape(*shape, 128, 128) - 1000
    frames.reshape(-1)[5] = np.nan
    return frames


def old_xml(
    *, pix=None, acquire=(128, 128), search=(64, 64), raw="scan_x4_y4.raw", kind="scan", extra="", pixel_size=None
) -> str:
    """XML of version 0.51; shapes are (rows, columns)."""
    sizes = "" if pix is None else f"<pix_x>{pix[1]}</pix_x><pix_y>{pix[0]}</pix_y>"
    modes = "".join(
        f'<scan_parameters mode="{mode}"><scan_resolution_x>{nx}</scan_resolution_x><scan_size>0.5</scan_size>'
        f"<scan_resolution_y>{ny}</scan_resolution_y></scan_parameters>"
        for mode, (ny, nx) in (("search", search), ("acquire", acquire))
    )
    step = "" if pixel_size is None else f"<calibrated_pixelsize>{pixel_size}</calibrated_pixelsize>"
    return (
        '<root name="a"><timestamp timestamp="1559820600.1" isoformat="2019-06-06T13:30:00.164675"/>'
        f"<software_version>0.51 211118</software_version><type>{kind}</type>{sizes}"
        f'<raw_file filename="{raw}"/><exposure_time>1</exposure_time>{modes}<iom_measurements>'
        "<optics.get_cameralength>0.7225</optics.get_cameralength><source.get_voltage>300000.0</source.get_voltage>"
        "<optics.get_full_scan_field_of_view>[6e-08, 4e-08]</optics.get_full_scan_field_of_view>"
        f"{step}</iom_measurements>{extra}</root>"
    )


def new_xml(*, acquire, raw, field=9e-9, scale=0.75, scan_size=0.5) -> str:
    """XML of version 1.2: the field of view is written multiplied by the scale factor."""
    ny, nx = acquire
    return (
        f'<root name="21"><software_version>1.2.0  (2020-10-29)</software_version><raw_file filename="{raw}"/>'
        f'<scan_parameters mode="acquire"><scan_resolution_x>{nx}</scan_resolution_x><scan_size>{scan_size}</scan_size>'
        f"<scan_resolution_y>{ny}</scan_resolution_y></scan_parameters><iom_measurements><full_scan_field_of_view>"
        f"<scale_factor>{scale}</scale_factor><x>{field}</x><y>{field}</y></full_scan_field_of_view>"
        "<nominal_camera_length>0.1159</nominal_camera_length><high_voltage>300000.0</high_voltage>"
        "</iom_measurements></root>"
    )
