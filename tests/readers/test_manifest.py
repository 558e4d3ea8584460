"""Every entry of the sample data's manifest reads as other programs measured it, or is declined as what it is.

An entry is in one of three tables: frames, of which every pixel is compared; data that are no frames, declined by an
error that names them, and compared where an option reads them all the same; streams of events, whose hits are counted.
An entry in no table, or in two, fails.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import stemstore
from stemstore.errors import InputError, NotFoundError, ScanWarning, StemStoreError, UnknownFormatError


@dataclass(frozen=True)
class Frames:
    """How an entry is opened and laid out: by default as its first file is, in the shape of the manifest.

    Attributes
    ----------
    why
        Reason of anything below.
    file
        Part of the name of the file that is opened.
    options
        What the files do not say, or what asks for data that are no patterns.
    shape
        Ours, where the manifest lists the same pixels in another one.
    rows
        First row of our frames that is in the entry, and the row behind the last.
    blank
        Frames at the end which the entry counts and which were never recorded.
    surplus
        Frames of the entry that are in none of ours; they are not compared, nor is anything over all frames.
    transposed
        Whether the manifest has the axes in reverse order.
    """

    why: str = ""
    file: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    rows: tuple[int | None, int | None] = (None, None)
    blank: int = 0
    surplus: int = 0
    transposed: bool = False


@dataclass(frozen=True)
class Declined:
    """What the error says that an entry is, and how it is read all the same where it can be."""

    error: type[StemStoreError]
    match: str
    read: Frames | None = None


FRAMES = {
    **dict.fromkeys(
        (
            "merlin/Single_1_Frame_CounterDepth_12_Rows_256.mib",
            "merlin/Single_9_Frame_CounterDepth_6_Rows_256.mib",
            "merlin/Single_9_Frame_CounterDepth_24_Rows_256.mib",
            "merlin/Quad_1_Frame_CounterDepth_12_Rows_256.mib",
            "merlin/Quad_1_Frame_CounterDepth_1_Rows_256RAW.mib",
            "merlin/Single_1_Frame_CounterDepth_1_Rows_256RAW.mib",
            "merlin/Quad_9_Frame_CounterDepth_6_Rows_256.mib",
            "merlin/Quad_1_Frame_CounterDepth_1_Rows_256.mib",
            "merlin/test_6bit_RAW_1frame.mib",
            "merlin/test_12bit_RAW_1frame.mib",
            "merlin/test_12bit_notRAW_1frame.mib",
            "merlin/001_4x2_6bit.mib",
            "merlin/002_merlin_test_roi_sig256x128_nav4x2_hot_pixel_52x_39y.mib",
            "blockfile/test1.blo",
            "tvips/test_tvips_2345_000.tvips",
            "tvips/test_tvips_2233_000.tvips",
            "empad/map4x4.xml",
            "de_mrc/20241021_00405_movie.mrc",
            "de_mrc/Custom_movie.mrc",
            "mrc/temp.mrc",
            "topspin/topspin_test_A.app5",
            "topspin/topspin_from_file.app5",
            "dm/dmTest_3D_int16_64,65,66.dm4",
            "dm/dmTest_float32_nonSquare_diffPixelSize.dm3",
            "dm/2D_test_diffraction_pattern.dm3",
            "dm/2D_test_STEM_image.dm3",
            "dm/3D_test-1.dm3",
            "dm/ref_F_1_2.dm4",
            "emd/py4DSTEM_size2x3x4x5.h5",
            "emd/Si100_4D.emd",
            "velox/Camera Ceta Diffraction Micro.emd",
            "velox/STEM HAADF Diffraction Micro.emd",
            "velox/fei_example_tem_stack.emd",
            "tia/128x128x5-diffraction_preview.emi",
            "tia/16_STOimage.emi",
            "nexus/simple_signal.nxs",
            "hspy/subset_data.hspy",
            "tiff/test_loading_image_saved_with_imageJ_stack.tif",
            "arina/test_00_master.h5",
            "arina_made/arinaA_06x05_master.h5",
        ),
        Frames(),
    ),
    **dict.fromkeys(
        ("sim/mos2_focus", "sim/mos2_defocus150", "sim/au_strain_nanobeam"),
        Frames("the parameters are listed first", file="counts_u16.npz"),
    ),
    "de_seq/test.seq": Frames(
        "the file has room for 15 frames, 10 were recorded, the others are zero", shape=(10, 64, 64), blank=5
    ),
    "de_seq/test_Top_14-13-42.780.seq": Frames(
        "an image holds 256 upper halves of frames, which are joined with the lower ones",
        shape=(512, 64, 64),
        rows=(0, 32),
    ),
    "de_seq/test_Bottom_14-13-42.822.seq": Frames(
        "the third image has no partner among those of the upper halves",
        shape=(512, 64, 64),
        rows=(32, 64),
        surplus=1,
    ),
    "emd/example_signal.emd": Frames("the manifest has HyperSpy's order, the reverse of the file's", transposed=True),
    "fpd/fpd_file_test.hdf5": Frames("the axis of the only colour is dropped", shape=(2, 2, 256, 256)),
    "empad2/g2_linear_3x4.raw": Frames(
        "nothing in the file or in its name says what it is", options={"reader": "empad_g2", "scan_shape": (3, 4)}
    ),
}
"""Frames, and how they are opened."""

SPECTRA = Frames("spectra are read where they are asked for", options={"fastest": "detector"})

DECLINED = {
    "empad/map128x128_version1.2.0.xml": Declined(NotFoundError, "names 'scan_x128_y128.raw', which is not beside it"),
    "pantarhei/panta_rhei_sample.prz": Declined(InputError, r"holds no stack of patterns \(CameraY 16, CameraX 16\)"),
    "dm/3D_EELS_SI.dm4": Declined(InputError, "holds spectra", SPECTRA),
    "dm/08_carbon.dm3": Declined(InputError, "holds spectra", SPECTRA),
    "dm/2D_test-3.dm3": Declined(InputError, r"\(2, 2\) complex numbers holds complex numbers"),
    "emd/Acquisition_18.emd": Declined(InputError, r"no stack of frames but .*\(uint16, 1024 x 1024\)"),
    "hspy/Amorphous.hspy": Declined(InputError, r"\(int64, 512 x 512\) with 2 signal axes, expected scan axes and two"),
    "zspy/signal1d_10x10-ZipStore.zspy": Declined(InputError, r"\(int64, 10 x 10\) with 1 signal axes"),
    "nexus/nexus_dls_example.nxs": Declined(
        UnknownFormatError,
        "holds spectra and no frames",
        Frames(
            "spectra are asked for by their path", options={"reader": "nexus", "dataset": "/entry1/testdata/nexustest"}
        ),
    ),
}
"""Data that are no frames, or not all of them, and what is said of them."""

EVENTS = {f"tpx3/raw_test_data_{name}.tpx3" for name in ("00", "01", "tdc_00")}
"""Streams of hits."""

NO_DIGEST = {entry for entry in FRAMES if entry.startswith("sim/")} | {"de_seq/test_Bottom_14-13-42.822.seq"}
"""Frames whose digest the manifest does not have, or has with frames that are in none of ours."""

BLOCK = 2**22
"""Bytes of pixels that are held at a time."""

READ = FRAMES | {entry: one.read for entry, one in DECLINED.items() if one.read is not None}


@pytest.fixture(scope="module")
def manifest(sample):
    """Entries by their names."""
    content = json.loads(sample("manifest.json").read_text(encoding="utf-8"))
    return {entry["id"]: entry for entry in content["entries"] + content["simulations"]}


def opened(sample, entry, how):
    """Intensities of the file that stands for an entry."""
    path = next(one["file"] for one in entry["files"] if how.file in one["file"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScanWarning)
        return stemstore.open(sample(path), flyback=True, **how.options).intensity


def own_shape(how, truth):
    """Shape in which an entry opens: a scan in rows where the manifest knows of one, an image as one frame."""
    scan = truth.get("true_scan_shape") or truth.get("scan_shape") or truth["shape"][:-2] or [1]
    return how.shape or (*scan, *truth["shape"][-2:])


def blocks(intensity, how):
    """Pixels of an entry in the order of the manifest, some rows of the scan in memory at a time."""
    if how.transposed:
        yield intensity.values.transpose()
        return
    step = max(BLOCK // intensity[0].nbytes, 1)
    for first in range(0, len(intensity), step):
        yield intensity[first : first + step].values[..., slice(*how.rows), :]
    for _ in range(how.blank):
        yield np.zeros(intensity.shape[-2:], intensity.dtype)


def measured(pixels, shape, places):
    """Measure what the manifest states, block by block: the digest, the sums of the frames, the range, some values."""
    digest, sums, ranges, values = hashlib.sha256(), [], [], {}
    done, n_frame = 0, math.prod(shape[-2:])
    for block in pixels:
        digest.update(np.ascontiguousarray(block, block.dtype.newbyteorder("<")))
        sums.extend(block.sum((-2, -1), dtype="f8" if block.dtype.kind == "f" else "i8").flat)
        ranges.append((block.min(), block.max()))
        values |= {one: block.flat[one - done] for one in places if done <= one < done + block.size}
        done += block.size
    per_frame = np.reshape(sums, (done // n_frame, -1)).sum(1)
    lows, highs = zip(*ranges, strict=True)
    return {
        "size": done,
        "array_sha256_little_endian_c_order": digest.hexdigest(),
        "sum_per_frame": per_frame,
        "min": min(lows),
        "max": max(highs),
        "values": [values.get(one) for one in places],
    }


def test_every_entry_is_in_one_table(manifest):
    """No entry of the manifest is passed over, and no table speaks of one that is not there."""
    named = [*FRAMES, *DECLINED, *EVENTS]
    assert len(named) == len(set(named))
    assert set(named) == set(manifest)


def test_every_departure_has_its_reason():
    """What is not read and compared as the manifest has it says why."""
    assert all(how.why for how in READ.values() if how != Frames())


@pytest.mark.parametrize("name", READ)
def test_pixels(name, sample, manifest):
    """Shape, type, sums, range, listed values and the digest of all pixels are those of the manifest."""
    how, truth = READ[name], manifest[name]["expect"]
    intensity, shape = opened(sample, manifest[name], how), truth["shape"]
    assert intensity.shape == own_shape(how, truth)
    assert intensity.dtype == truth["dtype"]
    n_common = math.prod(shape) - how.surplus * math.prod(shape[1:])
    listed = [(int(np.ravel_multi_index(one["index"], shape)), one["value"]) for one in truth.get("values", ())]
    listed = [one for one in listed if one[0] < n_common]
    found = measured(blocks(intensity, how), shape, [place for place, _ in listed])
    assert found["size"] == n_common
    assert found["values"] == [value for _, value in listed]
    if "sum_per_frame" in truth:
        known = truth["sum_per_frame"][: n_common // math.prod(shape[-2:])]
        np.testing.assert_allclose(found["sum_per_frame"], known, rtol=1e-12 if intensity.dtype.kind == "f" else 0)
    if how.surplus:
        return
    total = truth.get("sum", truth.get("sum_float64"))
    assert math.isclose(found["sum_per_frame"].sum(), total, rel_tol=1e-12 if intensity.dtype.kind == "f" else 0)
    assert {key: found[key] for key in ("min", "max") if key in truth}.items() <= truth.items()
    key = "array_sha256_little_endian_c_order"
    assert (found[key] == truth[key]) if key in truth else name in NO_DIGEST


@pytest.mark.parametrize("name", DECLINED)
def test_what_is_no_scan_is_declined(name, sample, manifest):
    """Images, spectra, complex numbers and files without their data are refused by an error that names them."""
    one = DECLINED[name]
    with pytest.raises(one.error, match=one.match):
        stemstore.open(sample(manifest[name]["files"][0]["file"]))


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_events(name, sample, manifest):
    """A stream of hits without a trigger opens as one frame of all of them; test_tpx3.py compares each."""
    intensity = opened(sample, manifest[name], Frames())
    assert len(intensity) == 1
    assert int(intensity.sum()) == manifest[name]["expect"]["packets"]["pixel"]
