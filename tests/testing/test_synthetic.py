"""The door: files, truth and frames of one scan belong together."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import stemstore.testing as kit
from stemstore.errors import FormatVersionError, InputError, NotFoundError
from stemstore.sources.contract import FrameSource
from stemstore.testing import SyntheticFrames, SyntheticScan, load_truth, make_scan, truth_of, write_scan
from stemstore.testing.sectors import record_type


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan")
    make_scan(path, scan_shape=(3, 5), seed=9, lost_sectors=[(4, 2)])
    return path


@pytest.fixture(scope="module")
def scan():
    return SyntheticScan((3, 5), seed=9, flyback_columns=1)


def test_files_hold_the_frames_of_the_scan(folder, scan):
    """Every record is the sector of the frame that the scan gives on demand."""
    seen = 0
    for path in sorted(folder.glob("*.data")):
        module = int(path.name.split("module")[1][0])
        for record in np.fromfile(path, record_type(5)):
            part = slice(144 * module, 144 * module + 144)
            np.testing.assert_array_equal(record["data"], scan.frame(int(record["frame"]))[part])
            assert (record["w"], record["h"]) == (6, 3)
            seen += 1
    assert seen == 4 * 18 - 1


def test_truth_comes_back_as_saved(folder, scan):
    """All arrays and parameters survive, and the electrons are those of the scan."""
    truth = load_truth(folder)
    again = truth_of(scan)
    for name in (
        "indptr",
        "indices",
        "phase",
        "diffuse",
        "deflection",
        "com",
        "bright_field_com_noise",
        "lattice",
        "strain",
    ):
        np.testing.assert_array_equal(getattr(truth, name), getattr(again, name))
    assert truth.parameters == again.parameters
    assert truth.scan_shape == (3, 5)
    assert truth.n_frames == 18
    assert truth.indices.dtype == np.uint32
    np.testing.assert_array_equal(truth.electrons(17), scan.electrons(17))
    assert [tuple(place) for place in np.argwhere(truth.lost_sectors)] == [(4, 2)]


def test_calibration_closes(folder):
    """Deflection in pixels, detector step and scan step give back the phase gradient within the probe's blur."""
    truth = load_truth(folder)
    numbers = truth.parameters
    assert numbers["detector_step_per_angstrom"] == pytest.approx(
        numbers["detector_step_mrad"] * 1e-3 / numbers["wavelength_angstrom"]
    )
    slope = 2 * np.pi * truth.deflection[..., 1] * numbers["detector_step_per_angstrom"] * 10 * numbers["scan_step_nm"]
    middle = (truth.phase[:, 2:] - truth.phase[:, :-2]) / 2
    np.testing.assert_allclose(slope[:, 1:-1], middle, atol=0.2 * np.abs(middle).max())


def test_number_of_threads_does_not_matter(tmp_path, monkeypatch):
    """One thread writes the same bytes as three."""
    scan = SyntheticScan((5, 5), seed=1)
    bytes_of = []
    for threads in ("1", "3"):
        monkeypatch.setenv("STEMSTORE_WORKERS", threads)
        write_scan(tmp_path / threads, scan, files_per_module=1)
        bytes_of.append([path.read_bytes() for path in sorted((tmp_path / threads).glob("*.data"))])
    assert bytes_of[0] == bytes_of[1]


def test_missing_and_foreign_truth_is_refused(folder, tmp_path):
    """A folder without truth, and truth of another version, are named."""
    with pytest.raises(NotFoundError, match=r"truth\.npz"):
        load_truth(tmp_path)
    (tmp_path / "truth.npz").write_bytes((folder / "truth.npz").read_bytes())
    document = json.loads((folder / "truth.json").read_text())
    (tmp_path / "truth.json").write_text(json.dumps({**document, "version": 99}))
    with pytest.raises(FormatVersionError, match="version 99"):
        load_truth(tmp_path)


@pytest.mark.parametrize("kind", ["expected", "counted", "camera"])
def test_frames_are_a_frame_source(scan, kind):
    """Frames on demand follow the contract, and a pickled copy gives the same ones."""
    source = SyntheticFrames(scan, kind)
    assert isinstance(source, FrameSource)
    assert source.scan_shape == (3, 6)
    block = source.read_frames(4, 6)
    assert block.dtype == source.dtype
    assert block.shape == (2, *source.frame_shape)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.identity == source.identity
    out = np.zeros_like(block)
    assert copy.read_frames(4, 6, out) is out
    np.testing.assert_array_equal(out, block)


def test_exposures_are_the_leading_axis():
    """With two frames per position the source has shape (2, y, x) and orders its frames so."""
    scan = SyntheticScan((2, 3), frames_per_position=2)
    source = SyntheticFrames(scan, "counted")
    assert source.scan_shape == (2, 2, 3)
    np.testing.assert_array_equal(source.read_frames(7, 8)[0], scan.counted(scan.frame_number(0, 1, 1)))


def test_identity_tells_scans_apart(scan):
    """Another kind, seed, dose or scattering is another identity."""
    others = [SyntheticFrames(scan), SyntheticFrames(scan, "counted")]
    others += [SyntheticFrames(SyntheticScan((3, 5), seed=s, dose=d)) for s, d in ((9, 120), (8, 120), (9, 60))]
    others.append(SyntheticFrames(replace(scan, specimen=replace(scan.sample, diffuse_share=0.03))))
    assert len({other.identity for other in others}) == 6


def test_metadata_are_calibrated(scan):
    """Axes are in nm and 1/angstrom with zero on the optic axis."""
    metadata = SyntheticFrames(scan).metadata
    axes = {axis.name: axis for axis in metadata.axes}
    assert metadata.acquisition.beam_energy.value == 300
    assert metadata.acquisition.flyback_columns == 1
    assert (axes["x"].unit, axes["x"].step, axes["x"].size) == ("nm", 0.5, 6)
    assert axes["kx"].unit == "1/angstrom"
    assert axes["ky"].coordinates()[287:289].sum() == pytest.approx(0, abs=1e-12)


def test_bad_requests_are_refused(scan):
    """Unknown kinds and ranges outside the scan are named."""
    with pytest.raises(InputError, match="kind 'raw'"):
        SyntheticFrames(scan, "raw")
    with pytest.raises(IndexError, match="18 frames"):
        SyntheticFrames(scan).read_frames(17, 19)


def test_every_name_of_the_kit_resolves():
    """The lazy table leads to an object for each public name, and to a clear error for others."""
    assert all(getattr(kit, name).__name__ == name for name in kit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kit.nothing  # noqa: B018  the access is the test


def test_importing_the_kit_is_light():
    """Neither numba nor scipy is loaded before it is needed."""
    code = "import sys, stemstore.testing; print({'numba', 'scipy', 'pydantic'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
