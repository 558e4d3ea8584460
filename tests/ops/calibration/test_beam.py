"""The bright-field disk is found to a fraction of a pixel, with errors that hold, and not where there is none."""

import json
import math

import hypothesis
import numpy as np
import pytest
import xarray as xr
from hypothesis import strategies as st

import stemstore
from stemstore.errors import InputError
from stemstore.ops.calibration.beam import find_beam
from stemstore.testing.arrays import ArrayEvents, ArrayFrames
from stemstore.testing.diffraction import Pattern

SHAPE = (48, 52)


def disk_image(centre, radius=9.0, *, shape=SHAPE, electrons=1e5, share=0.7, spread=200.0, edge=1.0):
    """Expected counts of a disk with a linear edge on a wide diffuse background."""
    return electrons * Pattern(np.array([centre]), np.array([share]), radius, edge, spread).image(shape)


def labelled(image):
    return xr.DataArray(image, dims=("ky", "kx"))


@hypothesis.given(st.floats(14, 33), st.floats(14, 37), st.floats(4, 12))
@hypothesis.settings(max_examples=25)
def test_noise_free_disks_are_measured_to_hundredths_of_a_pixel(row, column, radius):
    """Centre, radius and edge width of a disk come back wherever it lies between the pixels."""
    beam = find_beam(labelled(disk_image((row, column), radius)))
    assert math.hypot(beam.center[0] - row, beam.center[1] - column) < 0.02
    assert beam.radius == pytest.approx(radius, abs=0.03)
    assert beam.edge_width == pytest.approx(1.0, abs=0.3)
    assert beam.area_radius == pytest.approx(radius, abs=0.35)  # it counts whole pixels
    assert beam.on_detector == 1


@pytest.mark.parametrize(("electrons", "scale"), [(3e3, 1.0), (3e4, 1 / 50)], ids=["weak counts", "mean of 50"])
def test_errors_cover_the_truth(electrons, scale):
    """In about 95 of 100 noise realisations centre and radius lie within 1.96 standard errors, whatever a count is."""
    rng = np.random.default_rng(3)
    expected = disk_image((22.3, 27.8), electrons=electrons)
    inside = []
    for _ in range(150):
        beam = find_beam(labelled(rng.poisson(expected) * scale))
        pairs = zip(
            (*beam.center, beam.radius), (22.3, 27.8, 9.0), (*beam.center_sigma, beam.radius_sigma), strict=True
        )
        inside += [abs(found - truth) < 1.96 * sigma for found, truth, sigma in pairs]
    assert 0.91 < np.mean(inside) < 0.985


def test_a_cut_disk_gives_its_true_centre():
    """A disk of which a third lies beyond the border is measured by the edge that is left."""
    beam = find_beam(labelled(disk_image((3.3, 26.4), 10.0)))
    np.testing.assert_allclose(beam.center, (3.3, 26.4), atol=0.03)
    assert beam.radius == pytest.approx(10.0, abs=0.05)
    assert 0.5 < beam.on_detector < 0.75
    assert beam.area_radius == pytest.approx(10.0, rel=0.05)


def test_hot_and_dead_pixels_change_nothing():
    """Pixels that are far too bright, dead or NaN are left out."""
    rng = np.random.default_rng(4)
    clean = rng.poisson(disk_image((22.3, 27.8), electrons=2e4)).astype(float)
    spoilt = clean.copy()
    spoilt[[3, 20, 40, 24], [5, 28, 45, 30]] = 60000, 60000, 60000, np.nan
    spoilt[19, 25] = 0
    before, after = (find_beam(labelled(image)) for image in (clean, spoilt))
    np.testing.assert_allclose(after.center, before.center, atol=0.1)
    assert after.radius == pytest.approx(before.radius, abs=0.1)


def test_near_chooses_a_disk():
    """Of two disks the brightest is taken, or the one around a given place."""
    image = disk_image((12.4, 12.2), 5.0) + disk_image((33.7, 38.1), 5.0, electrons=3e4)
    np.testing.assert_allclose(find_beam(labelled(image)).center, (12.4, 12.2), atol=0.05)
    np.testing.assert_allclose(find_beam(labelled(image), near=(33, 37)).center, (33.7, 38.1), atol=0.05)


def test_a_mask_leaves_pixels_out():
    """Under a mask that hides half of the disk the other half is enough."""
    image = disk_image((22.3, 27.8))
    image[:20] = 3.0
    good = np.ones(SHAPE, bool)
    good[:20] = False
    beam = find_beam(labelled(image), mask=good)
    np.testing.assert_allclose(beam.center, (22.3, 27.8), atol=0.03)
    with pytest.raises(InputError, match="boolean"):
        find_beam(labelled(image), mask=good.astype(float))


@pytest.mark.parametrize("source", [ArrayFrames, ArrayEvents], ids=["dense", "counted"])
def test_a_scan_gives_its_mean_pattern_in_the_unit_of_its_axes(dataset_of, source):
    """A calibrated scan, whole or cropped, gives the disk in its unit and in stored pixels, and a detector for it."""
    rng = np.random.default_rng(5)
    frames = rng.poisson(disk_image((22.3, 27.8), electrons=3e3), (4, 5, *SHAPE)).astype(np.uint16)
    ds = dataset_of(source(frames), detector_step="0.5 mrad", detector_center=(20.0, 25.0))
    beam = find_beam(ds)
    assert (beam.unit, beam.pixel.unit) == ("mrad", "pixel")
    np.testing.assert_allclose(beam.pixel.center, (22.3, 27.8), atol=0.1)
    np.testing.assert_allclose(beam.center, (1.15, 1.4), atol=0.05)
    assert beam.radius == pytest.approx(beam.pixel.radius / 2)
    assert beam.center_sigma[0] == pytest.approx(beam.pixel.center_sigma[0] / 2)
    np.testing.assert_allclose(find_beam(ds.isel(ky=slice(5, 40))).center, beam.center, atol=0.02)
    np.testing.assert_allclose(find_beam(ds, unit="pixel").center, beam.pixel.center)
    inside = stemstore.virtual_image(ds, beam.detector(1.2)).compute()
    assert float(inside.sum()) > 0.65 * frames.sum()


def test_pixels_that_are_not_square(dataset_of):
    """On unequal steps a disk is round in the unit of the axes."""
    rows, columns = np.indices((64, 60))
    away = np.hypot((rows - 31.3) * 0.5, columns - 28.2)
    image = 100 * np.clip(10.0 - away + 0.5, 0, 1) + 1
    ds = dataset_of(ArrayFrames(image[None, None]), detector_step=("0.5 mrad", "1 mrad"), detector_center=(31.3, 28.2))
    beam = find_beam(ds)
    np.testing.assert_allclose(beam.center, (0, 0), atol=0.05)
    assert beam.radius == pytest.approx(10.0, abs=0.1)
    assert beam.pixel.radius == pytest.approx(10.0 / math.sqrt(0.5), abs=0.15)


BARE = {
    "zero": np.zeros(SHAPE),
    "flat": np.full(SHAPE, 7.0),
    "nan": np.full(SHAPE, np.nan),
    "ramp": np.add.outer(np.arange(48.0), np.arange(52.0)),
    "hot pixel": np.where(np.arange(48 * 52).reshape(SHAPE) == 777, 1e4, 0.0),
}


@pytest.mark.parametrize("image", BARE.values(), ids=BARE)
def test_no_disk_is_an_error(image):
    """Patterns without a disk are refused with what is missing."""
    with pytest.raises(InputError, match="no disk"):
        find_beam(labelled(image))


@pytest.mark.parametrize("level", [0.02, 1.0, 100.0])
def test_noise_is_not_a_disk(level):
    """In even noise of any level no disk is found."""
    rng = np.random.default_rng(6)
    for _ in range(10):
        with pytest.raises(InputError, match="no disk"):
            find_beam(labelled(rng.poisson(level, SHAPE).astype(float)))


@pytest.mark.parametrize("name", ["au_strain_nanobeam", "mos2_focus", "mos2_defocus150"])
def test_simulated_scans(sample, frames_of, name):
    """The convergence angle and the centre of multislice simulations come back to a third of a pixel."""
    truth = json.loads(sample(f"sim/{name}.json").read_text())
    with np.load(sample(f"sim/{name}_counts_u16.npz")) as found:
        beam = find_beam(frames_of(found["counts"]))
    # the simulation's aperture is a set of whole pixels, so that its radius is known to a fraction of one only
    assert beam.radius == pytest.approx(truth["semiangle_mrad"] / truth["detector_sampling_mrad"][0], abs=0.33)
    np.testing.assert_allclose(beam.center, truth["detector_centre_px"], atol=0.05)
