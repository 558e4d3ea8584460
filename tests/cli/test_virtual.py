"""The verb ``virtual``, and the images that it writes."""

import numpy as np
import pytest

import stemstore
from stemstore.cli.image import scale_bar
from stemstore.testing import write_sectors


def by_hand(frames, inner, outer):
    """Sum inside a ring about the middle of the frame."""
    rows, columns = np.indices(frames.shape[-2:]) - 7.5
    distance = np.hypot(rows, columns)
    return frames[..., (distance >= inner) & (distance < outer)].sum(-1, dtype=np.uint64)


@pytest.mark.parametrize(
    ("options", "ring"),
    [(["--disk", "4"], (0, 4)), (["--annulus", "4", "7.5"], (4, 7.5)), (["--disk", "4.5"], (0, 4.5))],
)
def test_numbers_of_a_store(call, store, frames, tmp_path, options, ring):
    """The image of a store is the exact sum, written as numbers."""
    result = call("virtual", store, *options, "--unit", "pixel", "-o", tmp_path / "image of µ.npy")
    assert result.exit_code == 0, result.output
    assert np.array_equal(np.load(tmp_path / "image of µ.npy"), by_hand(frames, *ring))


def test_raw_data_without_conversion(document, raw, frames):
    """Raw files work alike; the statistics are those of the image."""
    found = document("virtual", raw, "--disk", "4")
    expected = by_hand(frames, 0, 4)
    assert (found["sum"], found["minimum"], found["maximum"]) == (expected.sum(), expected.min(), expected.max())
    assert found["mean"] == pytest.approx(expected.mean())
    assert (found["shape"], found["positions"], found["output"]) == ([4, 5], 20, None)


def test_rectangle(document, raw, frames):
    """A rectangle takes half-open ranges of rows and columns."""
    found = document("virtual", raw, "--rectangle", "2", "5", "0", "16", "--unit", "pixel")
    assert found["sum"] == frames[:, :, 2:5].sum()


def test_center_in_pixels(document, raw, frames):
    """A disk about a given pixel."""
    assert document("virtual", raw, "--disk", "0.5", "--center", "3,12")["sum"] == frames[:, :, 3, 12].sum()


def test_flyback_of_raw_data_is_hidden(document, tmp_path):
    """Columns taken while the beam flew back are no part of the image, with a format version other than the latest."""
    frames = np.random.default_rng(3).poisson(1, (2 * 4, 576, 576)).astype(np.uint16)
    write_sectors(tmp_path, frames, (2, 3), flyback_columns=1, version=4)
    options = ["--reader", "ncem_sectors", "--format-version", "4", "--disk", "9"]
    found = document("virtual", tmp_path, *options, "--flyback", "1")
    assert found["shape"] == [2, 3]
    assert found["sum"] < document("virtual", tmp_path, *options, "--flyback", "0")["sum"]


def test_calibration_given_for_raw_data(document, raw, frames):
    """With a detector step the radius may be an angle."""
    found = document("virtual", raw, "--disk", "8", "--unit", "mrad", "--detector-step", "2 mrad")
    assert found["sum"] == by_hand(frames, 0, 4).sum()


def test_missing_frames_stay_out_of_the_statistics(document, raw, frames):
    """Positions without a frame are not counted as dark."""
    found = document("virtual", raw, "--disk", "4", "--scan-shape", "5x5")
    assert found["positions"] == 20
    assert found["minimum"] == by_hand(frames, 0, 4).min()


def test_missing_calibration_is_exit_2(call, raw):
    """An angle needs a calibrated detector; the hint names the option."""
    result = call("virtual", raw, "--disk", "4", "--unit", "mrad")
    assert result.exit_code == 2
    assert "--detector-step" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no detector"),
        (["--disk", "4", "--annulus", "1", "2"], "--disk and --annulus"),
        (["--disk", "0"], "0 <= inner < outer"),
        (["--disk", "-3"], "0 <= inner < outer"),
        (["--annulus", "5", "2"], "0 <= inner < outer"),
        (["--disk", "4", "--center", "8"], "give 2 numbers"),
        (["--rectangle", "0", "1", "2", "3", "--center", "1,1"], "takes no --center"),
        (["--disk", "4", "-o", "image.jpg"], "must end in .npy or .png"),
        (["--annulus", "1"], "requires 2 arguments"),
    ],
)
def test_wrong_detectors_are_exit_2(call, raw, options, message):
    """Detectors that cannot be are told before anything is read."""
    result = call("virtual", raw, *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())


def test_existing_image_is_exit_4(call, raw, tmp_path):
    """An image is replaced only when asked."""
    target = tmp_path / "a.npy"
    target.write_bytes(b"precious")
    assert call("virtual", raw, "--disk", "4", "-o", target).exit_code == 4
    assert target.read_bytes() == b"precious"
    assert call("virtual", raw, "--disk", "4", "-o", target, "--overwrite").exit_code == 0
    assert np.load(target).shape == (4, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_missing_folder_of_the_image_is_exit_3(call, raw, tmp_path):
    """A folder that does not exist is told before the computation."""
    assert call("virtual", raw, "--disk", "4", "-o", tmp_path / "no" / "a.npy").exit_code == 3


def test_picture(call, store, tmp_path):
    """A picture is a PNG file of a sensible size."""
    pytest.importorskip("matplotlib")
    result = call("virtual", store, "--disk", "4", "--unit", "pixel", "-o", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    head = (tmp_path / "a.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(head[16:20], "big") > 400


def test_picture_without_matplotlib(call, raw, tmp_path, monkeypatch):
    """Without the extra the message says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    result = call("virtual", raw, "--disk", "4", "-o", tmp_path / "a.png")
    assert result.exit_code == 1
    assert "pip install 'stemstore[view]'" in result.stderr


def test_flat_stack_is_no_picture(call, frames, tmp_path):
    """A stack without scan shape has no picture, and the message says what to do."""
    pytest.importorskip("matplotlib")
    np.save(tmp_path / "flat.npy", frames.reshape(20, 16, 16))
    result = call("virtual", tmp_path / "flat.npy", "--disk", "4", "-o", tmp_path / "a.png")
    assert result.exit_code == 2
    assert "state the scan shape" in result.stderr
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("length", "bar"),
    [(100, 20), (10, 2), (7, 2), (3.4, 1), (1, 0.2), (0.05, 0.01), (170, 50), (1000, 200), (1e-3, 2e-4)],
)
def test_scale_bars_are_round(length, bar):
    """The bar is the largest 1, 2 or 5 times a power of ten below three tenths of the width."""
    assert scale_bar(length) == pytest.approx(bar)


def test_same_result_as_the_library(call, store, tmp_path):
    """The command line adds nothing to what the library computes."""
    call("virtual", store, "--annulus", "3", "6", "--unit", "mrad", "-o", tmp_path / "a.npy")
    image = stemstore.virtual_image(stemstore.open(store), stemstore.annulus(3, 6, unit="mrad")).compute()
    assert np.array_equal(np.load(tmp_path / "a.npy"), image.values)
