"""Spectra, images and lines of every microscopy format: declined as what they are, or opened as the one frame they are.

None of them may pass for a scan: a spectrum image (y, x, energy) has three axes like a stack of patterns.
"""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from encode_dm import DmFile, file_of, image
from encode_emd import some, write_ncem, write_velox
from encode_hyperspy import write_hspy, write_zip, zspy_members
from encode_nexus import group_of, write_nexus
from encode_nion import properties, write_ndata, write_nion_h5
from encode_tia import write as write_tia
from typer.testing import CliRunner

import stemstore
from stemstore.cli.main import app
from stemstore.errors import InputError, ScanWarning, UnknownFormatError

SPECTRA = {
    "EELS": ((3, 4, 50), ("nm", "nm", "eV")),
    "EDS": ((3, 4, 50), ("nm", "nm", "keV")),
    "EELS over time": ((2, 3, 4, 50), ("s", "nm", "nm", "eV")),
    "line of spectra": ((4, 50), ("nm", "eV")),
    "spectrum": ((50,), ("eV",)),
    "line profile": ((50,), ("nm",)),
}
"""Shape and units, slow axis first, of data whose last axis alone is what was measured at a position."""

IMAGE = ((30, 40), ("nm", "nm"))


def ncem(folder, array, units):
    """Write the units in the labels of the axes."""
    return write_ncem(folder / "a.emd", array, dims=[(f"axis {unit}", f"[{unit}]", 0.0, 0.5) for unit in units])


def axes(units, n_signal):
    """Describe axes as HyperSpy does."""
    n_scan = len(units) - n_signal
    return [
        {"name": f"axis {i}", "scale": 0.5, "offset": 0.0, "units": unit, "navigate": i < n_scan}
        for i, unit in enumerate(units)
    ]


def hspy(folder, array, units):
    """Write the kind of signal as `navigate` of the axes."""
    return write_hspy(folder / "a.hspy", array, axes=axes(units, 1 + (units == IMAGE[1])))


def zspy(folder, array, units):
    """Write the same in Zarr."""
    said = axes(units, 1 + (units == IMAGE[1]))
    return write_zip(folder / "a.zspy", zspy_members(array, array.shape, axes=said))


def nion_properties(array, units):
    """Describe an item whose datum has one axis, or two for an image."""
    calibrations = [{"offset": 0.0, "scale": 0.5, "units": unit} for unit in units]
    return properties(array, datum=1 + (units == IMAGE[1]), dimensional_calibrations=calibrations)


def nion(folder, array, units):
    """Write an archive."""
    return write_ndata(folder / "a.ndata1", array, nion_properties(array, units))


def nion_h5(folder, array, units):
    """Write the same in HDF5."""
    return write_nion_h5(folder / "a.h5", array, nion_properties(array, units))


def nexus(folder, array, units):
    """Write axes with units, and nothing about the kind of data."""
    labels = {
        f"axis{i}": (0.5 * np.arange(size), unit) for i, (size, unit) in enumerate(zip(array.shape, units, strict=True))
    }
    return write_nexus(folder / "a.nxs", array, labels)


def nexus_stated(folder, array, units):
    """Write what the data are, and no axes."""
    return write_nexus(folder / "a.nxs", array, interpretation="image" if units == IMAGE[1] else "spectrum")


def dm(folder, array, units):
    """Write the energy slowest, as DigitalMicrograph does."""
    spectral = units[-1].endswith("eV")
    stored = np.ascontiguousarray(np.moveaxis(array, -1, 0)) if spectral else array
    named = (units[-1], *units[:-1]) if spectral else units
    (folder / "a.dm4").write_bytes(DmFile(4).encode(file_of(image(stored, named[::-1]))))
    return folder / "a.dm4"


def tia(folder, array, units):
    """Write elements that are images, or lines."""
    frames = array[None] if units == IMAGE[1] else array.reshape(1, -1, array.shape[-1])
    return write_tia(folder, frames, step=1e-9, origin=(0, 0), data_type=0x4122 if units == IMAGE[1] else 0x4120)


def velox(folder, array, units):
    """Write an image, or a stream of spectra."""
    metadata = {
        "BinaryResult": {"PixelUnitX": "m", "PixelUnitY": "m", "PixelSize": {"width": "1e-9", "height": "1e-9"}}
    }
    path = write_velox(folder / "a.emd", array[None] if units == IMAGE[1] else some((1, 2, 2)), metadata=metadata)
    if units != IMAGE[1]:
        with h5py.File(path, "a") as file:
            del file["Data/Image"]
            kind = "EelsSpectrumImage" if units[-1] == "eV" else "SpectrumStream"
            file[f"Data/{kind}/{'a' * 32}/Data"] = array.reshape(-1, 1)
    return path


FORMATS = {one.__name__: one for one in (ncem, hspy, zspy, nion, nion_h5, nexus, nexus_stated, dm, tia, velox)}

SAID = {
    "ncem": r"spectra and no frames|no stack of frames but /data/scan/data \(uint16, 50\)",
    "hspy": "with 1 signal axes",
    "zspy": "with 1 signal axes",
    "nion": "and 1 of each datum",
    "nion_h5": "and 1 of each datum",
    "nexus": r"spectra and no frames|no stack of frames but /entry/scan/data \(uint16, 50\)",
    "nexus_stated": "spectra and no frames",
    "dm": "holds spectra|holds a line of numbers",
    "tia": "lines of numbers",
    "velox": "holds (EELS|EDS) .* and no frames",
}
"""How each format says that it holds spectra."""

ONE_FRAME = ("dm", "tia", "velox")
"""Formats of cameras, whose images are patterns as often as not: one opens as a scan of one frame."""


def inspected(path):
    """What the command line says about a file: exit code and text, never a traceback."""
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", SPECTRA)
def test_spectra_are_no_scan(name, kind, tmp_path):
    """Spectra on a scan, on a line or alone are refused by what they are, by the library and by ``inspect``."""
    shape, units = SPECTRA[kind]
    path = FORMATS[name](tmp_path, some(shape), units)
    with pytest.raises((InputError, UnknownFormatError), match=SAID[name]) as caught:
        stemstore.open(path)
    code, text = inspected(path)
    assert code in (2, 3)
    assert "".join(str(caught.value).split()) in text.replace(" ", "")


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_is_no_scan(name, tmp_path):
    """An image is refused with its shape, or opens as the one frame that it is, which ``inspect`` shows."""
    path = FORMATS[name](tmp_path, some(IMAGE[0]), IMAGE[1])
    if name not in ONE_FRAME:
        with pytest.raises(InputError, match=r"30 x 40"):
            stemstore.open(path)
        assert inspected(path)[0] == 2
        return
    with pytest.warns(ScanWarning) as told:
        intensity = stemstore.open(path).intensity
    assert sum("kx" in str(one.message) and "m', expected" in str(one.message) for one in told) == 1
    assert intensity.dims == ("frame", "ky", "kx")
    np.testing.assert_array_equal(intensity[0], some(IMAGE[0]))
    code, text = inspected(path)
    assert code == 0
    assert "30 x 40 pixels" in text


@pytest.mark.filterwarnings("ignore::stemstore.errors.ScanWarning")
def test_a_scan_beside_larger_spectra_is_found(tmp_path):
    """Where a file holds patterns and a spectrum image of as many axes, the patterns are the scan."""
    stack, spectra, units = some((6, 5, 4)), some((30, 40, 50)), ("nm", "nm", "eV")
    emd = write_ncem(tmp_path / "a.emd", stack, dims=[("n", "", 0.0, 1.0)] + [("k", "[n_m^-1]", -1.0, 0.5)] * 2)
    dims = [(unit, f"[{unit}]", 0.0, 0.5) for unit in units]
    write_ncem(emd, spectra, dims=dims, group="data/eels", mode="a")
    hyperspy = write_hspy(tmp_path / "a.hspy", stack, axes=axes(("nm", "1/nm", "1/nm"), 2))
    write_hspy(hyperspy, spectra, axes=axes(units, 1), title="EELS", mode="a")
    nxs = write_nexus(tmp_path / "a.nxs", stack, default=False)
    with h5py.File(nxs, "a") as file:
        group = group_of(file["entry"], "eels", "NXdata", signal="data", axes=["y", "x", "energy"])
        group["data"], group["energy"] = spectra, 0.5 * np.arange(50)
        group["energy"].attrs["units"] = "eV"
    for path in (emd, hyperspy, nxs):
        assert stemstore.open(path).intensity.shape == stack.shape
