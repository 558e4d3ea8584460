"""Inspection: what headers tell, and what a sample adds."""

import json
from dataclasses import asdict

import numpy as np
import pytest

import stemstore
from stemstore.conversion.inspect import inspect
from stemstore.conversion.inspection import shape_text
from stemstore.errors import AmbiguousFormatError, InputError, NotFoundError, UnknownFormatError
from stemstore.sources.contract import Events
from stemstore_schemas import Acquisition, Quantity, SourceFile, SourceMetadata

SHAPE = (6, 7, 48, 48)


def saved(path, array):
    """Save an array and give its path as text."""
    np.save(path, array)
    return str(path)


@pytest.fixture
def plain(tmp_path):
    """Frames of zeros, 4-D."""
    return saved(tmp_path / "plain.npy", np.zeros(SHAPE, np.uint16))


class Source:
    """Frames in memory whose metadata and reads are watched."""

    identity = "memory"
    scan_shape, frame_shape, dtype, validity = SHAPE[:2], SHAPE[2:], np.dtype(np.uint16), None

    def __init__(self, frames=None, **acquisition):
        self.frames = frames
        self.read = []
        files = [SourceFile(path=f"part{number}.data", size=10) for number in range(7)]
        self.metadata = SourceMetadata(
            acquisition=Acquisition(**acquisition), files=files, warnings=["module 3 ends early"]
        )

    def read_frames(self, start, stop, out=None):
        self.read.extend(range(start, stop))
        return self.frames[start:stop]


class EventsInMemory(Source):
    """Three electrons in every frame."""

    read_frames = None

    def read_events(self, start, stop):
        n = stop - start
        self.read.extend(range(start, stop))
        return Events(np.arange(n + 1) * 3, np.tile(np.uint32([1, 5, 9]), n), self.frame_shape)


@pytest.fixture
def opened(monkeypatch):
    """Let any path open as a given source."""

    def use(source):
        monkeypatch.setattr("stemstore.sources.registry.open_source", lambda *_args, **_options: source)
        return source

    return use


def camera_frames(per_frame):
    """Frames of Gaussian read noise with `per_frame` bright pixels, well apart, in each."""
    rng = np.random.default_rng(2)
    frames = rng.normal(30, 4, (SHAPE[0] * SHAPE[1], *SHAPE[2:])).clip(0)
    frames[:, 4 : 4 + 6 * per_frame : 6, 10] = 400
    return np.round(frames).astype(np.uint16)


def test_public_name():
    """The function is part of the public face."""
    assert stemstore.inspect is inspect


def test_frames_of_a_file(plain):
    """Shape, type, size and reader come from the header."""
    found = inspect(plain)
    assert (found.kind, found.reader, found.claims["npy"]) == ("frames", "npy", 1.0)
    assert (found.scan_shape, found.frame_shape, found.dtype) == ((6, 7), (48, 48), "uint16")
    assert (found.scan_shape_source, found.scan_shape_alternatives) == ("header", [])
    assert found.raw_bytes == 6 * 7 * 48 * 48 * 2
    assert found.file_bytes == found.raw_bytes + 128, "the header of a small npy file takes 128 bytes"
    assert found.frames == {"valid": 42, "partial": 0, "missing": 0}
    assert found.files == [plain]


def test_all_readers_are_asked(plain):
    """The confidence of every reader is told; none is asked when the user names one."""
    assert set(inspect(plain).claims) == set(stemstore.readers())
    named = inspect(plain, "npy")
    assert (named.reader, named.claims) == ("npy", {})
    assert "npy (as asked)" in str(named)


def test_no_pixel_is_read(opened):
    """Without a sample headers are all that is touched."""
    source = opened(Source())
    inspect("anything", "npy")
    assert source.read == []


def test_flat_stack(tmp_path):
    """A stack without scan shape lists the shapes that fit, and advises to state one."""
    found = inspect(saved(tmp_path / "flat.npy", np.zeros((12, 4, 4), np.float32)))
    assert (found.scan_shape, found.scan_shape_source) == ((12,), None)
    assert {(3, 4), (4, 3), (2, 6), (6, 2)} == set(found.scan_shape_alternatives)
    assert any("state the scan shape" in text for text in found.advice)


def test_scan_shape_of_the_user(tmp_path):
    """Reader options are honoured, missing frames are counted."""
    found = inspect(saved(tmp_path / "flat.npy", np.zeros((12, 4, 4), np.uint8)), scan_shape=(4, 4))
    assert (found.scan_shape, found.scan_shape_source) == ((4, 4), "user")
    assert found.frames == {"valid": 12, "partial": 0, "missing": 4}
    assert len(found.warnings) == 1


def test_guesses_are_told(opened):
    """A guessed scan shape and flyback columns are in text and advice."""
    opened(
        Source(scan_shape=SHAPE[:2], scan_shape_source="guessed", scan_shape_alternatives=[(7, 6)], flyback_columns=1)
    )
    found = inspect("anything", "npy")
    assert any("is a guess" in text for text in found.advice)
    text = str(found)
    assert "6 x 7 positions (from guessed)" in text
    assert "7 x 6" in text
    assert "columns at the end of each row: 1" in text


def test_known_and_missing_values(opened):
    """What headers and user tell has unit and origin; the rest is listed as missing."""
    opened(Source(beam_energy=Quantity(value=300, unit="keV", source="header")))
    found = inspect("anything", "npy", scan_step="0.5 nm", detector_step=(1.0, 2.0))
    assert found.known["beam_energy"] == "300 keV (from header)"
    assert found.known["scan_step"] == "0.5 nm (from user)"
    assert found.known["detector_step"].endswith("1/angstrom (from user)")
    assert " and " in found.known["detector_step"], "rectangular pixels show both steps"
    assert found.missing == ["semi_convergence_angle", "camera_length", "dwell_time", "scan_rotation"]
    assert not any("state " in text for text in found.advice)


def test_nothing_known(plain):
    """Without any calibration the advice names what is needed for physical axes."""
    found = inspect(plain)
    assert found.known == {}
    assert "state beam_energy, scan_step, detector_step" in found.advice[-1]


@pytest.mark.parametrize("per_frame", [1, 6])
def test_sample_counts_electrons(opened, per_frame):
    """A sample reads at most 8 frames and finds the electrons in them."""
    source = opened(Source(camera_frames(per_frame)))
    found = inspect("anything", "npy", sample=True)
    assert len(set(source.read)) <= 8
    assert found.events_per_frame == pytest.approx(per_frame, abs=0.2)
    assert any("converting with counting" in text for text in found.advice)


@pytest.mark.parametrize("frames", [np.zeros((42, 48, 48), np.uint16), np.zeros((42, 48, 48), np.float32)])
def test_sample_that_cannot_be_counted(opened, frames):
    """Constant frames and floats have no noise peak; nothing is claimed about them."""
    source = opened(Source(frames))
    source.dtype = frames.dtype
    found = inspect("anything", "npy", sample=True)
    assert found.events_per_frame is None
    assert not any("counting" in text for text in found.advice)


def test_counted_events(opened):
    """Events have no pixel type, and their rate is counted and not estimated."""
    source = opened(EventsInMemory())
    found = inspect("anything", "npy", sample=True)
    assert (found.kind, found.dtype, found.events_per_frame) == ("events", None, 3.0)
    assert len(source.read) == 8
    assert found.raw_bytes == 6 * 7 * 48 * 48 * 2


@pytest.mark.parametrize("counted", [False, True])
def test_store(tmp_path, counted):
    """A store is recognised; its values come from its document."""
    raw = saved(tmp_path / "a.npy", camera_frames(6).reshape(SHAPE))
    limits = {"background_threshold": 60, "xray_threshold": 900} if counted else {}
    report = stemstore.convert(raw, tmp_path / "a.zarr", count=counted, scan_step=0.5, **limits)
    found = inspect(tmp_path / "a.zarr")
    assert (found.kind, found.reader, found.claims, found.complete) == ("store", None, {}, True)
    assert (found.scan_shape, found.frame_shape) == ((6, 7), (48, 48))
    assert found.known["scan_step"] == "0.5 nm (from user)"
    assert 0 < found.file_bytes < found.raw_bytes
    rate = report.n_events / 42 if counted else None
    assert (found.dtype, found.events_per_frame) == (None if counted else "uint16", rate)
    assert found.occupancy == (6 / 48**2 if counted else None)
    assert found.thresholds is None if not counted else found.thresholds["background"] == 60


def test_sample_tells_occupancy_and_thresholds(tmp_path):
    """Raw frames and a store of them show the same share of lit pixels, the noise and where thresholds would lie."""
    raw = saved(tmp_path / "a.npy", camera_frames(6).reshape(SHAPE))
    stemstore.convert(raw, tmp_path / "a.zarr")
    for url in (raw, tmp_path / "a.zarr"):
        found = inspect(url, sample=True)
        assert found.occupancy == pytest.approx(6 / 48**2, rel=0.05)
        assert found.thresholds["pedestal_mean"] == pytest.approx(30, abs=0.2)
        assert found.thresholds["background"] == pytest.approx(30 + 5 * 4.01, abs=0.6)
        text = str(found)
        assert "0.26 % of the pixels" in text
        assert "noise alone makes" in text


def test_plot_of_the_fit(tmp_path):
    """The picture is written; what has no noise peak, or another ending, is refused."""
    raw = saved(tmp_path / "a.npy", camera_frames(6).reshape(SHAPE))
    inspect(raw, plot=tmp_path / "fit.png")
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"ends in \.png, \.pdf or \.svg"):
        inspect(raw, plot=tmp_path / "fit.xyz")
    with pytest.raises(InputError, match="no noise peak"):
        inspect(saved(tmp_path / "b.npy", np.zeros((4, 5, 9, 9), np.uint16)), plot=tmp_path / "b.png")


def test_store_takes_no_reader_options(tmp_path, plain):
    """Options of readers mean nothing for a store; calibration does."""
    stemstore.convert(plain, tmp_path / "a.zarr")
    assert inspect(tmp_path / "a.zarr", beam_energy=200).known["beam_energy"] == "200 keV (from user)"
    with pytest.raises(InputError, match=r"is a store and takes no options \['scan_shape'\]"):
        inspect(tmp_path / "a.zarr", scan_shape=(7, 6))


def test_text_is_aligned_and_complete(opened):
    """Every line has its label and a text; long lists are cut and say so."""
    opened(Source())
    text = str(inspect("anything", "npy"))
    width = len("not known") + 2
    assert "part4.data and 2 more" in text
    assert "module 3 ends early" in text
    assert all(line[width - 2 : width] == "  " and line[width] != " " for line in text.splitlines())


def test_files_of_one_folder_share_it(opened):
    """The folder of many files is written once."""
    source = opened(Source())
    files = [SourceFile(path=f"/data/scan 4/part{number}.data", size=1) for number in range(7)]
    source.metadata = source.metadata.model_copy(update={"files": files})
    text = str(inspect("anything", "npy"))
    assert "7 in /data/scan 4: part0.data, part1.data" in text
    assert text.count("/data/scan 4") == 1


def test_result_is_plain(plain):
    """The inspection can be written as JSON."""
    assert json.loads(json.dumps(asdict(inspect(plain))))["scan_shape"] == [6, 7]


def test_errors_pass(tmp_path, monkeypatch):
    """Missing, unknown and ambiguous data are refused by kind."""
    with pytest.raises(NotFoundError, match="does not exist"):
        inspect(tmp_path / "nothing.npy")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UnknownFormatError, match="no reader recognises"):
        inspect(tmp_path / "notes.txt")
    path = saved(tmp_path / "a.npy", np.zeros((2, 2, 4, 4), np.uint8))
    monkeypatch.setattr(stemstore.readers()["raw_binary"].cls, "matches", classmethod(lambda *_: 1.0))
    with pytest.raises(AmbiguousFormatError, match="equal confidence"):
        inspect(path)


def test_shape_text():
    """Shapes are written with crosses."""
    assert (shape_text((40, 41)), shape_text((7,))) == ("40 x 41", "7")
