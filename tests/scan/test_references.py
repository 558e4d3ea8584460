"""Images of the detector from arrays, files of any reader, stores, and the data themselves."""

import numpy as np
import pytest

import stemstore
from stemstore.errors import CorruptDataError, InputError, NotFoundError, UnknownFormatError
from stemstore.scan.references import load_reference
from stemstore.sources.references import KnownImage

SHAPE = (5, 6)
STACK = np.random.default_rng(1).integers(0, 1000, (4, *SHAPE), np.uint16)


@pytest.fixture
def folder(tmp_path):
    """The same frames as NumPy file, as raw file with a description and as store; one of them, and an image."""
    np.save(tmp_path / "stack.npy", STACK)
    np.save(tmp_path / "one.npy", STACK[:1])
    np.save(tmp_path / "image.npy", STACK[0])
    (tmp_path / "stack.raw").write_bytes(STACK.tobytes())
    description = '{"shape": [4, 5, 6], "dtype": "<u2"}'
    (tmp_path / "stack.raw.json").write_text(description)
    stemstore.convert(tmp_path / "stack.npy", tmp_path / "stack.zarr")
    return tmp_path


@pytest.mark.parametrize("name", ["stack.npy", "stack.raw", "stack.zarr"])
def test_the_mean_of_several_frames(folder, name):
    """Frames of a dark measurement are averaged, whatever holds them."""
    found = load_reference(folder / name, "dark", SHAPE)
    np.testing.assert_allclose(found.values, STACK.mean(axis=0), rtol=1e-15)
    assert found.origin == str(folder / name)


def test_flags_are_single_images(folder):
    """A mask of several frames is none; one frame is as good as an image."""
    for name in ("one.npy", "image.npy"):
        flags = load_reference(folder / name, "bad_pixels", SHAPE).values
        np.testing.assert_array_equal(flags, STACK[0] != 0)
    with pytest.raises(InputError, match="holds 4 frames, expected one image"):
        load_reference(folder / "stack.npy", "mask", SHAPE)


def test_what_is_no_image(folder):
    """Missing files, texts, damaged arrays, other shapes and undecided flags are told apart."""
    (folder / "notes.txt").write_text("dark")
    (folder / "cut.npy").write_bytes((folder / "image.npy").read_bytes()[:-1])
    for given, error, match in (
        (folder / "gone.npy", NotFoundError, "does not exist"),
        (folder / "notes.txt", UnknownFormatError, "no reader recognises"),
        (folder / "cut.npy", CorruptDataError, "cannot be read as a NumPy array"),
        (np.ones((6, 5)), InputError, r"has shape \(6, 5\) .* expected shape \(5, 6\)"),
        (np.full(SHAPE, np.nan), InputError, "neither true nor false"),
        ("detector", InputError, "the data carry no mask"),
    ):
        with pytest.raises(error, match=match):
            load_reference(given, "mask", SHAPE)


def test_what_the_data_carry():
    """Bad pixels are those outside the mask of the detector."""
    mask = STACK[0] > 300
    carried = {"mask": KnownImage(mask)}
    np.testing.assert_array_equal(load_reference("detector", "mask", SHAPE, carried).values, mask)
    np.testing.assert_array_equal(load_reference("detector", "bad_pixels", SHAPE, carried).values, ~mask)
