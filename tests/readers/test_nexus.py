"""NeXus: the data that a file says to show, axes by name in any spelling, links named where they lead nowhere."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from encode_nexus import group_of, write_nexus, write_nxem
from evidence import check_array, expected, whole

import stemstore
from stemstore.errors import InputError, NotFoundError, StemStoreError, UnknownFormatError
from stemstore.testing import ReaderTests
from stemstore_readers.nexus import Nexus

SHAPE = (3, 4, 6, 8)
PLAIN = {"y": ([0.0, 0.5, 1.0], "nm"), "x": ([10.0, 9.75, 9.5, 9.25], "nm"), ".1": None, ".2": None}


def ramp(shape=SHAPE, dtype="<u2"):
    """Distinct pixels."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def axes_of(path, **options):
    """Name, step, origin and unit of the axes."""
    return [(a.name, a.step, a.origin, a.unit) for a in Nexus(**options)(str(path)).metadata.axes]


class TestConformance(ReaderTests):
    """The shared tests on compressed data with named scan axes."""

    reader_cls = Nexus
    truncation = "error"

    def make_file(self, tmp_path):
        layout = {"chunks": (1, 2, 6, 8), "compression": "gzip"}
        return str(write_nexus(tmp_path / "a.nxs", ramp(), PLAIN, layout=layout)), ramp(), {}

    def last_file(self, url):
        return Path(url)

    def make_big_file(self, tmp_path):
        path = write_nexus(tmp_path / "big.nxs", ramp())
        with h5py.File(path, "a") as file:
            del file["entry/scan/data"]
            file.create_dataset("entry/scan/data", (32, 32, 256, 256), "<u2", chunks=(1, 1, 256, 256))
        return str(path), {}


class TestConformanceNxem(TestConformance):
    """The shared tests on an NXem image, contiguous floats."""

    make_big_file = ReaderTests.make_big_file

    def make_file(self, tmp_path):
        truth = ramp(dtype="<f4")
        return str(write_nxem(tmp_path / "a.nxs", truth)), truth, {}


class TestConformanceAnyDataset(TestConformance):
    """The shared tests on a dataset of a plain HDF5 file, named by the user and laid out anew."""

    make_big_file = ReaderTests.make_big_file

    def make_file(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["some/where/frames"] = ramp((12, 6, 8), ">i4")
        options = {"dataset": "some/where/frames", "scan_shape": (3, 4)}
        return str(tmp_path / "a.h5"), ramp(dtype="i4"), options


@pytest.mark.parametrize("name", ["nexus/simple_signal.nxs", "nexus/nexus_dls_example.nxs"])
def test_samples(sample, name):
    """Files of HyperSpy and of a beamline read as h5py reads them; spectra are named and read on request only."""
    options = {}
    if "dls" in name:
        options = {"dataset": "/entry1/testdata/nexustest"}
        with pytest.raises(UnknownFormatError, match=r"spectra and no frames.*/entry1/testdata/nexustest/data"):
            Nexus()(str(sample(name)))
    check_array(whole(Nexus(**options)(str(sample(name)))), expected(sample, name))


def test_nxem(tmp_path):
    """Axes, beam and optics of an NXem file, whatever the names that end in a number, in any unit."""
    metadata = Nexus()(str(write_nxem(tmp_path / "a.nxs", ramp()))).metadata
    acquisition = metadata.acquisition
    assert acquisition.beam_energy.value == 200
    assert acquisition.semi_convergence_angle.value == pytest.approx(21.5)
    assert acquisition.camera_length.value == pytest.approx(100)
    assert acquisition.magnification == 1e6
    assert acquisition.instrument == "Titan"
    assert acquisition.start_time == "2024-05-17T09:30:00+02:00"
    assert [axis.step for axis in metadata.axes] == pytest.approx([0.5, 0.25, 0.1, 0.2])
    assert [axis.unit for axis in metadata.axes] == ["nm", "nm", "1/nm", "1/nm"]
    assert not metadata.warnings


def test_descending_axis_keeps_its_sign(tmp_path):
    """Rosettasciio takes the smallest coordinate and the absolute step; here the first one and its sign stay."""
    assert axes_of(write_nexus(tmp_path / "a.nxs", ramp(), PLAIN)) == [
        ("y", 0.5, 0.0, "nm"),
        ("x", -0.25, 10.0, "nm"),
    ]


@pytest.mark.parametrize("axes", ["y,x,.,.", "[y:x]", np.bytes_("y x"), np.array([b"y", b"x", b".", b"."])])
def test_spellings_of_axes(tmp_path, axes):
    """A list of names, or one text with commas, colons or brackets, as text or as bytes."""
    path = write_nexus(tmp_path / "a.nxs", ramp(), PLAIN, axes=axes)
    assert [axis[1] for axis in axes_of(path)] == [0.5, -0.25]


def test_indices_name_the_axis(tmp_path):
    """``@<name>_indices`` counts, not the place in the list; a number or an array of one."""
    path = write_nexus(tmp_path / "a.nxs", ramp(), PLAIN, axes=["x", "y"], y_indices=0, x_indices=np.array([1]))
    assert [axis[1] for axis in axes_of(path)] == [0.5, -0.25]


def test_scaled_coordinates_and_edges(tmp_path):
    """Coordinates may be scaled, and may be the edges of the positions."""
    path = write_nexus(tmp_path / "a.nxs", ramp(), {"y": ([0, 1, 2, 3], "um"), "x": ([0, 1, 2, 3], "nm")})
    with h5py.File(path, "a") as file:
        file["entry/scan/x"].attrs.update({"scaling_factor": 0.5, "offset": 3.0})
    assert axes_of(path) == [("y", 1000.0, 500.0, "nm"), ("x", 0.5, 3.0, "nm")]


@pytest.mark.parametrize("coordinates", [[0.0, 1.0, 5.0], [1.0, 2.0], [0.0, np.nan, 1.0], [["a"]]])
def test_coordinates_of_no_use(tmp_path, coordinates):
    """Uneven, short or senseless coordinates are left out and reported; the file opens all the same."""
    path = write_nexus(tmp_path / "a.nxs", ramp(), {"y": (coordinates, "nm"), "x": PLAIN["x"]})
    metadata = Nexus()(str(path)).metadata
    assert [axis.name for axis in metadata.axes] == ["x"]
    assert any("'y'" in text for text in metadata.warnings)


def test_signal_marked_in_the_old_way(tmp_path):
    """Before 2014 the dataset itself was marked, and named its axes."""
    path = tmp_path / "a.nxs"
    with h5py.File(path, "w") as file:
        data = group_of(group_of(file, "entry", "NXentry"), "scan", "NXdata")
        data["counts"] = ramp()
        data["counts"].attrs.update({"signal": 1, "axes": "y:x"})
        data["y"] = [0.0, 2.0, 4.0]
        data["y"].attrs["units"] = "nm"
    source = Nexus()(str(path))
    np.testing.assert_array_equal(whole(source), ramp())
    assert source.metadata.axes[0].step == 2


def test_detector_axes_in_front(tmp_path):
    """Two axes without a name are the detector wherever they are; so are those in units of diffraction."""
    stored = ramp().transpose(2, 3, 0, 1)
    path = write_nexus(tmp_path / "a.nxs", stored, {".1": None, ".2": None, "y": PLAIN["y"], "x": PLAIN["x"]})
    source = Nexus()(str(path))
    np.testing.assert_array_equal(whole(source), ramp())
    assert any("axes [0, 1] of the array are the detector" in text for text in source.metadata.warnings)
    named = {"a": (np.arange(6) - 3.0, "mrad"), "b": (np.arange(8) - 3.0, "mrad"), "c": PLAIN["y"], "d": PLAIN["x"]}
    path = write_nexus(tmp_path / "b.nxs", stored, named)
    np.testing.assert_array_equal(whole(Nexus()(str(path))), ramp())


def test_default_and_largest(tmp_path):
    """What the file says to show counts; without it the largest, and the others are told; an option chooses."""
    path = write_nexus(tmp_path / "a.nxs", ramp())
    with h5py.File(path, "a") as file:
        other = group_of(file["entry"], "other", "NXdetector")
        other["data"] = ramp((4, 4, 6, 8))
    assert Nexus()(str(path)).scan_shape == (3, 4)
    with h5py.File(path, "a") as file:
        del file.attrs["default"]
    source = Nexus()(str(path))
    assert source.scan_shape == (4, 4)
    assert any("/entry/scan/data" in text for text in source.metadata.warnings)
    for name in ("/entry/scan", "entry/scan/data"):
        assert Nexus(dataset=name)(str(path)).scan_shape == (3, 4)
    with pytest.raises(InputError, match=r"names nothing in .* there are /entry/other/data"):
        Nexus(dataset="entry/none")(str(path))
    with pytest.raises(InputError, match="no path inside a file"):
        Nexus(dataset=3)


def test_links(tmp_path):
    """Linked and virtual data are followed; a missing file is named, with the place where it was looked for."""
    write_nexus(tmp_path / "data.nxs", ramp())
    path = tmp_path / "a.nxs"
    with h5py.File(path, "w") as file:
        scan = group_of(group_of(file, "entry", "NXentry"), "scan", "NXdata", signal="data")
        scan["data"] = h5py.ExternalLink("data.nxs", "/entry/scan/data")
        file["alias"] = h5py.SoftLink("/entry/scan")
    source = Nexus()(str(path))
    np.testing.assert_array_equal(whole(source), ramp())
    assert [Path(file.path).name for file in source.metadata.files] == ["a.nxs", "data.nxs"]
    np.testing.assert_array_equal(whole(Nexus(dataset="alias")(str(path))), ramp())
    (tmp_path / "data.nxs").unlink()
    with pytest.raises(NotFoundError, match=rf"'data\.nxs', which is missing .*{tmp_path}"):
        Nexus()(str(path))


def test_what_is_no_scan(tmp_path):
    """Images, and HDF5 files of no class, are declined; the message lists what could be named."""
    image = write_nexus(tmp_path / "image.nxs", ramp((6, 8)))
    with pytest.raises(InputError, match="no stack of frames but /entry/scan/data"):
        Nexus()(str(image))
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["deep/frames"] = ramp()
    with pytest.raises(UnknownFormatError, match=r"no NeXus data; .*dataset=…: /deep/frames \(uint16, 3 x 4 x 6 x 8\)"):
        stemstore.open(tmp_path / "plain.h5")
    assert stemstore.open(tmp_path / "plain.h5", dataset="deep/frames").intensity.shape == SHAPE


def test_odd_metadata(tmp_path):
    """A time that is none, an energy without a unit and bytes that are no text do not keep a file from opening."""
    path = write_nexus(tmp_path / "a.nxs", ramp())
    with h5py.File(path, "a") as file:
        file["entry/start_time"] = "yesterday"
        file["entry/measurement/instrument/ebeam_column/electron_source/voltage"] = 200.0
        file["entry"].attrs["title"] = np.bytes_(b"\xc5")
    metadata = Nexus()(str(path)).metadata
    assert metadata.acquisition.start_time is None
    assert metadata.acquisition.beam_energy is None
    assert metadata.vendor["entry@title"] == "Å"
    assert any("yesterday" in text for text in metadata.warnings)
    assert any("voltage is 200" in text for text in metadata.warnings)


def test_electron_source(tmp_path):
    """The energy of a source is that of the beam where the probe is said to be electrons, and only there."""
    path = write_nexus(tmp_path / "a.nxs", ramp())
    with h5py.File(path, "a") as file:
        file["entry/instrument/source/energy"] = 80.0
        file["entry/instrument/source/energy"].attrs["units"] = "keV"
    assert Nexus()(str(path)).metadata.acquisition.beam_energy is None
    with h5py.File(path, "a") as file:
        file["entry/instrument/source/probe"] = np.bytes_("electron")
    assert Nexus()(str(path)).metadata.acquisition.beam_energy.value == 80


def test_detection(tmp_path):
    """The file is found by content."""
    path = write_nxem(tmp_path / "a.hdf5", ramp())
    assert stemstore.open(path).intensity.shape == SHAPE


def test_damaged_files(tmp_path):
    """Cut or changed anywhere, the file gives pixels or an error of ours, and detection never raises."""
    path = write_nexus(tmp_path / "a.nxs", ramp(), PLAIN, layout={"chunks": (1, 2, 6, 8), "compression": "gzip"})
    content, rng, opened = path.read_bytes(), np.random.default_rng(17), 0
    for _ in range(80):
        broken = bytearray(content)
        for place in rng.integers(0, len(broken), 3):
            broken[place] = rng.integers(256)
        path.write_bytes(broken if rng.random() < 0.7 else broken[: rng.integers(len(broken))])
        assert 0 <= Nexus.matches(str(path), path.read_bytes()[:4096]) <= 1
        with suppress(StemStoreError):
            source = Nexus()(str(path))
            opened += 1
            whole(source)
    assert 0 < opened < 80


def test_the_mask_of_the_detector(tmp_path):
    """A mask beside the data or in the detector of the entry is handed on; one of another shape is not ours."""
    path = write_nexus(tmp_path / "a.nxs", ramp(), PLAIN)
    assert Nexus()(str(path)).references == {}
    bits = (ramp(SHAPE[2:]) % 5 == 0).astype("<u4") * 4
    with h5py.File(path, "a") as file:
        detector = file.create_group("entry/instrument/detector_2")
        detector["pixel_mask"] = bits[:-1]
    assert Nexus()(str(path)).references == {}
    with h5py.File(path, "a") as file:
        del file["entry/instrument/detector_2/pixel_mask"]
        file["entry/instrument/detector_2/pixel_mask"] = bits
    np.testing.assert_array_equal(Nexus()(str(path)).references["mask"].read(), bits == 0)
