"""References to files of every format lead to the encoded pixels, or are refused because the pixels are packed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from encode_merlin_mib import Mib, pixels
from test_converted import CASES, opened, written

import stemstore
from stemstore.errors import InputError
from stemstore_readers.placed_frames import Band, PlacedSource
from stemstore_schemas import SourceMetadata

EVENTS, CHUNKS, PACKED = "holds electron events", "in chunks or", "are packed, compressed or spread"

REFUSED = {
    EVENTS: ("ncem_counted", "raw_csr", "tpx3"),
    CHUNKS: (
        *("dectris", "fpd-TestConformance", "nexus-TestConformance"),
        *("emd_ncem-TestChunked", "emd_ncem-TestPrismatic", "emd_velox-TestChunkedByFrame", "emd_velox-TestLaidOut"),
        *("hspy-TestOneScanAxis", "nion-TestHdf5"),
    ),
    PACKED: (
        *("dm-TestConformanceScattered", "empad_g2-TestConformanceDecoded", "frms6", "k2is", "zspy"),
        *("nion-TestSeriesInFortranOrder", "npy-TestConformanceFortran", "npz-TestDeflated", "npz-TestFortran"),
        "pantarhei-TestConformanceDeflated",
    ),
    "are RAW, as read out with 24 bit": ("merlin_mib-TestConformanceRaw",),
    "are compressed": ("topspin-TestConformanceEncoded",),
}
"""Files that are refused by what is said, named by format where all of one are."""

QUICK = ("blockfile", "de_seq", "dm", "empad", "merlin_mib", "mrc", "npy", "raw_binary", "tia", "tvips")


def read(path):
    """Read references by fsspec, zarr and xarray alone."""
    options = {"fo": str(path), "remote_protocol": "file"}
    return xr.open_dataset("reference://", engine="zarr", backend_kwargs={"storage_options": options})


def case(param):
    """Keep formats for `make test-all` that add nothing to the quick ones."""
    quick = param.values[0].reader_cls.name in QUICK
    return param if quick else pytest.param(*param.values, id=param.id, marks=[*param.marks, pytest.mark.slow])


def refusal(name):
    """What is said of a case that is refused; None where it is not."""
    given = (name, name.partition("-")[0])
    return next((text for text, names in REFUSED.items() if any(one in names for one in given)), None)


@pytest.mark.parametrize("cls", [case(param) for param in CASES if refusal(param.id) is None])
def test_referred_pixels_are_the_encoded_ones(cls, tmp_path):
    """Programs that know nothing of the format see the pixels, states and axes that stemstore sees."""
    url, truth, options = written(cls, tmp_path / "raw")
    report = stemstore.export(url, tmp_path / "a.json", **options)
    found, expected = read(tmp_path / "a.json"), opened(url, **options)
    if report.notes:
        found = found.sortby("ky_pixel")
    assert found.intensity.dtype == truth.dtype
    np.testing.assert_array_equal(found.intensity.values, truth)
    for name, coordinate in expected.coords.items():
        np.testing.assert_array_equal(found[name].values, coordinate.values)
        assert found[name].attrs.get("units") == coordinate.attrs.get("units")


@pytest.mark.parametrize("cls", [case(param) for param in CASES if refusal(param.id) is not None])
def test_what_does_not_lie_in_the_files_is_refused(cls, tmp_path, request):
    """Events and packed frames are refused with the reason and the way out, and nothing is written."""
    url, _, options = written(cls, tmp_path / "raw")
    with pytest.raises(InputError, match=rf"{refusal(request.node.callspec.id)}.*stemstore\.convert"):
        stemstore.export(url, tmp_path / "a.json", **options)
    assert not (tmp_path / "a.json").exists()


def test_rows_that_lie_upside_down(tmp_path):
    """Labels follow the rows of files that hold the last one first, and the report says so."""
    (tia,) = (param.values[0] for param in CASES if param.id == "tia-TestConformance")
    url, truth, _ = written(tia, tmp_path)
    report = stemstore.export(url, tmp_path / "a.json")
    found = read(tmp_path / "a.json")
    np.testing.assert_array_equal(found.intensity.values, truth[:, :, ::-1])
    np.testing.assert_array_equal(found.ky_pixel.values, np.arange(truth.shape[2])[::-1])
    assert "sortby('ky_pixel')" in report.notes[0]


def test_flyback_columns_are_left_out(tmp_path):
    """Columns that are not wanted have no reference, of files with a header before every frame and of stores."""
    truth = pixels((3, 4, 16, 24), 12)
    url = Mib(truth).write(tmp_path / "scan.mib")
    given = {"scan_shape": (3, 4), "flyback_columns": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stemstore.convert(url, tmp_path / "a.zarr", **given)
    for source, options in ((url, given), (tmp_path / "a.zarr", {})):
        stemstore.export(source, tmp_path / "w.json", overwrite=True, **options)
        report = stemstore.export(source, tmp_path / "a.json", flyback=False, overwrite=True, **options)
        np.testing.assert_array_equal(read(tmp_path / "w.json").intensity.values, truth)
        np.testing.assert_array_equal(read(tmp_path / "a.json").intensity.values, truth[:, :3])
        assert report.shape == (3, 3, 16, 24)


def test_bands_of_unequal_height_are_refused():
    """Bands that are no tiles of one shape cannot be chunks."""
    bands = tuple(Band("a", np.zeros(1, np.int64), first, rows) for first, rows in ((0, 2), (2, 1)))
    source = PlacedSource("a", (1,), (3, 4), SourceMetadata(), None, bands, np.dtype("u1"))
    with pytest.raises(InputError, match="in bands of unequal height"):
        source.frame_extents(0, 1)
