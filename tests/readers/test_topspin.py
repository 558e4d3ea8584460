"""TopSpin: frames sorted as numbers, the raster found in the beam positions, gaps marked and never closed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from encode_topspin import EXPERIMENT_XML, IMAGE, SERIES, grid, write_series, write_topspin
from evidence import check_array, expected, whole
from hypothesis import given
from hypothesis import strategies as st

import stemstore
from stemstore.errors import CorruptDataError, InputError, StemStoreError, UnknownFormatError
from stemstore.sources.contract import MISSING, VALID
from stemstore.testing import ReaderTests
from stemstore_readers.topspin import Topspin
from stemstore_readers.topspin_xml import find_raster, parse_xml, read_position

FRAME = (6, 8)


def ramp(n, dtype="<f4"):
    """Distinct frames."""
    return np.arange(n * 48).reshape(n, *FRAME).astype(dtype)


class TestConformance(ReaderTests):
    """The shared tests on more than ten frames, which sort as numbers; lazy, which RosettaSciIO 0.15 is not."""

    reader_cls = Topspin
    truncation = "error"

    def make_file(self, tmp_path):
        truth = ramp(12)
        return str(write_topspin(tmp_path / "a.app5", truth, grid(3, 4))), truth.reshape(3, 4, *FRAME), {}

    def last_file(self, url):
        return Path(url)

    def make_big_file(self, tmp_path):
        path = write_topspin(tmp_path / "big.app5", ramp(0), grid(2, 2))
        with h5py.File(path, "a") as file:
            for number in range(4):
                file.create_dataset(f"{SERIES}/{number}/Data", (2048, 2048), "<f4", chunks=(512, 512))
        return str(path), {}


class TestConformanceEncoded(TestConformance):
    """The shared tests on frames that HDF5 decodes, laid out by the user."""

    make_big_file = ReaderTests.make_big_file

    def make_file(self, tmp_path):
        truth = ramp(12, ">u2")
        path = write_topspin(tmp_path / "a.app5", truth, None, chunks=FRAME, compression="gzip")
        return str(path), truth.reshape(4, 3, *FRAME).astype("u2"), {"scan_shape": (4, 3)}


class TestConformanceOtherOrder(TestConformance):
    """The shared tests on contiguous frames in the other byte order."""

    make_big_file = ReaderTests.make_big_file

    def make_file(self, tmp_path):
        truth = ramp(6, ">i4")
        return str(write_topspin(tmp_path / "a.app5", truth, grid(2, 3))), truth.reshape(2, 3, *FRAME).astype("i4"), {}


@pytest.mark.parametrize("name", ["topspin/topspin_test_A.app5", "topspin/topspin_from_file.app5"])
def test_samples(sample, name):
    """Cut-down scans of a microscope: every pixel, the raster, the angles, lazily where other readers load all."""
    truth = expected(sample, name)
    source = Topspin()(str(sample(name)))
    check_array(whole(source), truth)
    for axis, wanted in zip(source.metadata.axes, truth["axes"], strict=True):
        factor = 1e3 if wanted["units"] == "Angle" else 1.0  # rad there, mrad here
        assert axis.name == wanted["name"]
        assert axis.step == pytest.approx(wanted["scale"] * factor)
        assert axis.origin == pytest.approx(wanted["offset"] * factor)
    assert source.metadata.acquisition.beam_energy.value == 200
    assert source.metadata.acquisition.instrument == "Talos 200keV"
    assert any("10 frames were found" in text for text in source.metadata.warnings)


def test_header(tmp_path):
    """Optics, time, names; X calibrates columns and Y rows, where RosettaSciIO takes the first for rows; texts stay."""
    metadata = Topspin()(str(write_topspin(tmp_path / "a.app5", ramp(12), grid(3, 4)))).metadata
    acquisition = metadata.acquisition
    assert acquisition.beam_energy.value == 200
    assert acquisition.camera_length.value == 2800
    assert acquisition.dwell_time.value == 0.01
    assert acquisition.magnification == 10000
    assert acquisition.start_time == "2025-05-12T12:27:54"
    assert (acquisition.operator, acquisition.sample) == ("A. Person", "steel & gold")
    assert [axis.unit for axis in metadata.axes] == ["nm", "nm", "mrad", "mrad"]
    np.testing.assert_allclose([axis.step for axis in metadata.axes], [2, 2, 0.01, 0.02])
    np.testing.assert_allclose([axis.origin for axis in metadata.axes], [50, 100, -3, -4])
    assert "IsPrecessionEnabled" in metadata.vendor["experiment"]
    assert "RequestedBeamPosition" in metadata.vendor["first_frame"]
    assert not metadata.warnings


def test_missing_frame_in_the_middle(tmp_path):
    """A number that is missing is a missing frame; the ones behind it keep their place."""
    truth = ramp(12)
    numbers = [number for number in range(12) if number != 5]
    source = Topspin()(str(write_topspin(tmp_path / "a.app5", truth[numbers], grid(3, 4), numbers)))
    assert source.scan_shape == (3, 4)
    assert source.validity.tolist() == [VALID] * 5 + [MISSING] + [VALID] * 6
    frames = whole(source).reshape(12, *FRAME)
    np.testing.assert_array_equal(frames[numbers], truth[numbers])
    assert np.isnan(frames[5]).all()
    assert any("11 frames were found, 12 were planned" in text for text in source.metadata.warnings)


def test_scan_that_ended_early(tmp_path):
    """A last row that is not complete is one; what it lacks is marked missing."""
    source = Topspin()(str(write_topspin(tmp_path / "a.app5", ramp(10), grid(3, 4), planned=12)))
    assert source.scan_shape == (3, 4)
    assert source.validity.tolist() == [VALID] * 10 + [MISSING] * 2
    assert any("10 frames were found, 12 were planned" in text for text in source.metadata.warnings)


def test_scattered_positions(tmp_path):
    """Positions without a raster give a flat stack and are kept; no square root is taken."""
    places = np.random.default_rng(2).random((9, 2)) * 1e-7
    source = Topspin()(str(write_topspin(tmp_path / "a.app5", ramp(9), places)))
    assert source.scan_shape == (9,)
    assert source.metadata.acquisition.scan_shape_alternatives == [(3, 3)]
    np.testing.assert_allclose(source.metadata.vendor["beam_positions_nm"], places[:, ::-1] * 1e9)
    assert any("form no raster" in text for text in source.metadata.warnings)


def test_frames_without_texts(tmp_path):
    """Without texts there are no axes; the frames are read all the same."""
    source = Topspin()(str(write_topspin(tmp_path / "a.app5", ramp(6), None, experiment=None)))
    np.testing.assert_array_equal(whole(source), ramp(6))
    assert not source.metadata.axes
    assert any("missing or no XML" in text for text in source.metadata.warnings)


def test_several_series_and_experiments(tmp_path):
    """The longest series is read and the others are told; an option names one, also inside an experiment."""
    other = "b" + SERIES[1:]
    path = write_topspin(tmp_path / "a.app5", ramp(6), grid(2, 3))
    with h5py.File(path, "a") as file:
        experiment = file.create_group("c" + SERIES[1:])
        experiment["Metadata"] = np.bytes_(EXPERIMENT_XML.format(series=other, count=8))
        write_series(experiment.create_group(other), ramp(8) + 1, grid(2, 4))
    source = Topspin()(str(path))
    np.testing.assert_array_equal(whole(source), (ramp(8) + 1).reshape(2, 4, *FRAME))
    assert any(f"/{SERIES} (6 frames)" in text for text in source.metadata.warnings)
    assert Topspin(dataset=SERIES)(str(path)).scan_shape == (2, 3)
    assert Topspin(dataset=f"c{SERIES[1:]}/{other}")(str(path)).scan_shape == (2, 4)
    with pytest.raises(InputError, match="names no series"):
        Topspin(dataset="none")(str(path))


def test_scan_shape_of_the_user(tmp_path):
    """The user's shape counts instead of the raster; a larger one ends in missing frames."""
    path = write_topspin(tmp_path / "a.app5", ramp(6), grid(2, 3))
    assert Topspin(scan_shape=(3, 2))(str(path)).scan_shape == (3, 2)
    assert Topspin(scan_shape=(6,))(str(path)).scan_shape == (6,)
    larger = Topspin(scan_shape=(2, 4))(str(path))
    assert larger.validity.tolist() == [VALID] * 6 + [MISSING] * 2


def test_frames_of_another_shape(tmp_path):
    """A frame that differs from the first one is named."""
    path = write_topspin(tmp_path / "a.app5", ramp(6), grid(2, 3))
    with h5py.File(path, "a") as file:
        del file[f"{SERIES}/4/Data"]
        file[f"{SERIES}/4/Data"] = np.zeros((2, 2), "<f4")
    with pytest.raises(CorruptDataError, match=r"frame 4 of /a0db.* shape \(2, 2\), expected float32 of \(6, 8\)"):
        Topspin()(str(path))


def test_other_files(tmp_path):
    """A file with images only is no scan, and says so."""
    with h5py.File(tmp_path / "a.app5", "w") as file:
        file[IMAGE] = np.zeros((3, 4))
    with pytest.raises(UnknownFormatError, match="no series of frames"):
        Topspin()(str(tmp_path / "a.app5"))


def test_texts_that_are_refused():
    """Entities are not expanded, and what is no XML is none."""
    assert parse_xml('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>') is None
    assert parse_xml("<a><b></a>") is None
    assert np.isnan(read_position(b"RequestedBeamPosition</Name><Value><X>no</X><Y>1</Y>").real)


@given(ny=st.integers(1, 7), nx=st.integers(2, 7), turn=st.floats(-3.1, 3.1), cut=st.integers(0, 6))
def test_rasters_of_any_direction(ny, nx, turn, cut):
    """A raster is found whatever its direction, and also when its last row ended early."""
    places = grid(ny, nx, turn=turn)
    positions = (places[:, 0] + 1j * places[:, 1])[: ny * nx - min(cut, nx - 1)]
    if len(positions) < 2:
        return
    raster = find_raster(positions)
    assert raster.shape == ((ny, nx) if ny > 1 else (1, len(positions)))
    assert abs(raster.fast) == pytest.approx(2e-9)


def test_serpentine_scan_is_no_raster():
    """Rows that alternate in direction are not taken for rows in one direction."""
    places = grid(4, 5).reshape(4, 5, 2)
    places[1::2] = places[1::2, ::-1]
    assert find_raster(places[..., 0].ravel() + 1j * places[..., 1].ravel()) is None


def test_detection(tmp_path):
    """The file is found by content."""
    path = write_topspin(tmp_path / "a.h5", ramp(12), grid(3, 4))
    assert stemstore.open(path).intensity.shape == (3, 4, *FRAME)


def test_damaged_files(tmp_path):
    """Cut or changed anywhere, the file gives pixels or an error of ours, and detection never raises."""
    path = write_topspin(tmp_path / "a.app5", ramp(6), grid(2, 3))
    content, rng, opened = path.read_bytes(), np.random.default_rng(19), 0
    for _ in range(120):
        broken = bytearray(content)
        for place in rng.integers(0, len(broken), 3):
            broken[place] = rng.integers(256)
        path.write_bytes(broken if rng.random() < 0.7 else broken[: rng.integers(len(broken))])
        assert 0 <= Topspin.matches(str(path), path.read_bytes()[:4096]) <= 1
        with suppress(StemStoreError):
            source = Topspin()(str(path))
            opened += 1
            whole(source)
    assert 0 < opened < 120
