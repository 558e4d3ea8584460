"""The virtual bright-field stack."""

import numpy as np
import pytest

import stemstore
from stemstore.errors import CalibrationMissingError, InputError
from stemstore.kernels import pixel_images
from stemstore.ops.imaging.bright_field import bright_field_stack
from stemstore.scan import pieces
from stemstore.testing.arrays import ArrayEvents, ArrayFrames


def test_one_image_per_pixel(scan, counts):
    """Image k is the virtual image of pixel k of the disk, in physical coordinates."""
    ds = stemstore.calibrate(scan, detector_step="0.5 mrad", semi_convergence_angle=1.6)
    stack = bright_field_stack(ds)
    disk = stemstore.disk(1.6).weights(ds.intensity)
    assert stack.dims == ("k", "y", "x")
    assert stack.dtype == np.uint16
    np.testing.assert_array_equal(stack, np.moveaxis(counts[..., disk], -1, 0))
    rows, columns = np.nonzero(disk)
    np.testing.assert_array_equal(stack.ky, ds.ky.values[rows])
    np.testing.assert_array_equal(stack.kx_pixel, columns)
    assert stack.ky.attrs["units"] == "mrad"
    assert (stack.n_pixels == 1).all()
    np.testing.assert_array_equal(stack.sum("k"), stemstore.virtual_image(ds, stemstore.disk(1.6)))


def test_boxes(scan, counts):
    """Boxes count from the first visible pixel; those covered in part are kept with fewer pixels, or dropped."""
    mask = np.zeros((14, 10), bool)
    mask[2:9, 3:8] = True
    kept = bright_field_stack(scan, mask, bin=(3, 4))
    assert kept.n_pixels.values.tolist() == [1, 4, 3, 12, 3, 12]
    np.testing.assert_array_equal(kept[3], counts[:, :, 3:6, 4:8].sum((2, 3)))
    assert (float(kept.ky_pixel[3]), float(kept.kx_pixel[3])) == (4.0, 5.5)
    whole = bright_field_stack(scan, mask, bin=(3, 4), partial="drop")
    np.testing.assert_array_equal(whole, kept[[3, 5]])
    cut = bright_field_stack(scan.isel(ky=slice(1, None)), mask[1:], bin=(3, 4))
    np.testing.assert_array_equal(cut[0], counts[:, :, 2:4, 3:4].sum((2, 3)))


def test_patterns_that_move(scan):
    """The origin of each position is followed as by a detector, and can be ignored."""
    walk = np.random.default_rng(1).integers(-2, 3, (2, 11, 9))
    ds = stemstore.calibrate(scan, origin=(walk[0] + 6.5, walk[1] + 4.5))
    disk = stemstore.disk(2.1)
    np.testing.assert_array_equal(bright_field_stack(ds, disk).sum("k"), stemstore.virtual_image(ds, disk))
    still = bright_field_stack(ds, disk, origin=False)
    np.testing.assert_array_equal(still.sum("k"), stemstore.virtual_image(ds, disk, origin=False))


@pytest.mark.parametrize("kind", [ArrayFrames, ArrayEvents])
def test_types(dataset_of, kind):
    """Images are as wide as the largest sum needs; too narrow a type is refused, never wrapped around."""
    counts = np.full((2, 3, 20, 20), 200, np.uint8)
    ds, everything = dataset_of(kind(counts)), np.ones((20, 20), bool)
    wide = bright_field_stack(ds, everything, bin=20)
    assert wide.dtype == np.uint32
    assert (wide == 80_000).all()
    assert bright_field_stack(ds, everything, bin=16).dtype == np.uint16  # 256 x 255 still fits
    with pytest.raises(InputError, match=r"does not fit into uint16|than uint16 can hold"):
        bright_field_stack(ds, everything, bin=20, dtype=np.uint16).compute()


def test_other_pixels(frames_of):
    """Signed pixels give signed images, floats give floats with NaN at missing frames."""
    frames = np.random.default_rng(0).normal(0, 50, (3, 4, 5, 6))
    mask = np.ones((5, 6), bool)
    signed = bright_field_stack(frames_of(frames.astype(np.int16)), mask, bin=2)
    assert signed.dtype == np.int32
    np.testing.assert_array_equal(signed[0], frames.astype(np.int16)[:, :, :2, :2].sum((2, 3)))
    valid = np.full((3, 4), 2)
    valid[1, 1] = 0
    real = bright_field_stack(frames_of(frames, valid), mask)
    np.testing.assert_allclose(real[7, 0], frames[0, :, 1, 1])
    assert np.isnan(real[:, 1, 1]).all()


def test_large_stacks_come_in_small_pieces(dataset_of, counts, monkeypatch):
    """Tasks and scratch are bounded, whatever the number of images; the stack is the same."""
    ds = dataset_of(ArrayEvents(counts))
    expected = bright_field_stack(ds, np.ones((14, 10), bool)).compute()
    monkeypatch.setattr(pieces, "OUTPUT_BYTES", 20 * 140 * 2)
    monkeypatch.setattr(pixel_images, "SCRATCH_BYTES", 3 * 140 * 2)
    stack = bright_field_stack(ds, np.ones((14, 10), bool))
    assert max(stack.data.chunks[1]) * max(stack.data.chunks[2]) <= 20
    np.testing.assert_array_equal(stack, expected)


def test_a_stack_goes_into_a_store(tmp_path, monkeypatch):
    """A stack larger than the memory budget is refused in memory, and saved block by block."""
    from stemstore.conversion.run import convert

    counts = np.random.default_rng(0).poisson(0.05, (24, 24, 40, 40)).astype(np.uint8)
    np.save(tmp_path / "scan.npy", counts)
    convert(str(tmp_path / "scan.npy"), str(tmp_path / "scan.zarr"))
    ds = stemstore.open(tmp_path / "scan.zarr")
    monkeypatch.setattr(pieces, "OUTPUT_BYTES", 2**17)
    stack = bright_field_stack(ds, np.ones((40, 40), bool))
    monkeypatch.setenv("STEMSTORE_MAX_MEMORY", "1MiB")
    with pytest.raises(stemstore.errors.MemoryBudgetError, match=r"stemstore\.save"):
        stemstore.compute(stack)
    monkeypatch.delenv("STEMSTORE_MAX_MEMORY")
    saved = stemstore.save(stack, ds, "stack")
    np.testing.assert_array_equal(saved, np.moveaxis(counts.reshape(24, 24, -1), -1, 0))
    assert saved.dims == ("k", "y", "x")
    np.testing.assert_array_equal(saved.ky_pixel, np.arange(1600) // 40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"detector": np.full((14, 10), 0.5)}, "gives weights of float64"),
        ({"detector": np.ones((14, 10), bool), "bin": 0}, "bin=0 does not fit"),
        ({"detector": np.ones((14, 10), bool), "bin": 11}, "bin=11 does not fit"),
        ({"detector": np.ones((14, 10), bool), "partial": "some"}, "expected 'drop' or 'keep'"),
        ({"detector": np.ones((14, 10), bool), "dtype": "f4"}, "choose an integer type"),
        ({"detector": np.eye(14, 10, dtype=bool), "bin": 2, "partial": "drop"}, "holds no whole box"),
    ],
)
def test_impossible_arguments(scan, arguments, message):
    """What gives no stack is refused."""
    with pytest.raises(InputError, match=message):
        bright_field_stack(scan, **arguments)


def test_no_detector_and_no_angle(scan):
    """Without a convergence angle the bright field is not guessed."""
    with pytest.raises(CalibrationMissingError, match="semi-convergence angle of this scan is not known"):
        bright_field_stack(scan)
