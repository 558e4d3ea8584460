"""A synthetic scan gives the same frames however it is asked, with the electrons that it promises."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.testing import Crystal, Specimen, SyntheticScan


@pytest.fixture(scope="module")
def scan():
    return SyntheticScan((6, 8), seed=2, flyback_columns=1)


def test_numbers_count_rows_flyback_and_exposures(scan):
    """A frame's number is (row * width + column) * exposures + exposure, with the flyback column in the width."""
    assert scan.n_frames == 6 * 9
    assert scan.frame_number(2, 3) == 21
    assert SyntheticScan((6, 8), frames_per_position=3).frame_number(2, 3, 1) == 58


def test_frames_do_not_depend_on_order(scan):
    """Frames asked for backwards, twice, or from a pickled copy are the same."""
    forward = [scan.frame(i) for i in range(3)]
    copy = pickle.loads(pickle.dumps(scan))
    for i in (2, 0, 1):
        np.testing.assert_array_equal(scan.frame(i), forward[i])
        np.testing.assert_array_equal(copy.frame(i), forward[i])


def test_exposure_is_electrons_and_frame(scan):
    """The truth and the frame of one exposure come from the same electrons."""
    electrons, frame = scan.exposure(7)
    np.testing.assert_array_equal(electrons, scan.electrons(7))
    np.testing.assert_array_equal(frame, scan.frame(7))
    bright = frame.ravel()[np.unique(electrons)] > 30
    assert bright.mean() > 0.85


def test_other_seed_gives_other_electrons(scan):
    """Seed and frame number both matter."""
    assert not np.array_equal(scan.electrons(0), SyntheticScan((6, 8), seed=3, flyback_columns=1).electrons(0))
    assert not np.array_equal(scan.electrons(0), scan.electrons(1))


def test_dose_is_the_mean_number_of_electrons():
    """Numbers of 400 frames are Poisson: mean and variance are the dose."""
    numbers = np.array([len(SyntheticScan((20, 20), seed=4).positions(i)) for i in range(400)])
    assert numbers.mean() == pytest.approx(120, abs=4 * np.sqrt(120 / 400))
    assert numbers.var() == pytest.approx(120, rel=0.3)


def test_expected_pattern_holds_the_dose(scan):
    """Nearly all electrons hit the detector, and the pattern's centre of mass is the deflection."""
    image = scan.expected(scan.frame_number(3, 4))
    assert image.sum() == pytest.approx(120, rel=2e-3)
    place = np.indices(image.shape).reshape(2, -1) @ image.ravel() / image.sum() - 287.5
    # the border of the detector cuts the far diffuse tail, of up to half of the electrons, more on one side
    np.testing.assert_allclose(place, scan.deflection[3, 4], atol=0.03)


def test_disks_lie_on_the_strained_lattice(scan):
    """Disk (h, k) of a position is at origin + deflection + h g1 + k g2 of that position."""
    pattern = scan.pattern(scan.frame_number(1, 6))
    order = [tuple(pair) for pair in scan.sample.crystal.orders].index((1, -1))
    g1, g2 = scan.lattice[1, 6]
    np.testing.assert_allclose(pattern.centres[order + 1], 287.5 + scan.deflection[1, 6] + g1 - g2)
    assert not np.allclose(scan.lattice[1, 6], scan.lattice[1, 1], atol=0.1)


def test_bright_disk_and_bragg_disks_do_not_touch(scan):
    """The mask radius encloses the bright-field disk and leaves out its neighbours at any deflection."""
    reach = scan.optics.disk_radius + scan.optics.disk_edge + np.linalg.norm(scan.deflection, axis=-1).max()
    assert reach < scan.mask_radius
    assert scan.mask_radius + reach < 2 * scan.mask_radius + 1e-9


def test_diffuse_electrons_come_from_all_disks_alike(scan):
    """On the thickest place each disk has lost the same share, and all shares still sum to one."""
    thick, flat = (np.unravel_index(i, (6, 8)) for i in (scan.phase.argmax(), scan.phase.argmin()))
    one, other = (scan.pattern(scan.frame_number(*map(int, place))) for place in (thick, flat))
    np.testing.assert_allclose(one.shares.sum(), 1 - 0.53)
    np.testing.assert_allclose(one.shares / other.shares, (1 - 0.53) / (1 - scan.diffuse[flat]))
    assert scan.diffuse[flat] < 0.5


def test_uniform_specimen_has_one_share(scan):
    """A number in place of a map holds at every position, as the map of that number does."""
    number = SyntheticScan((6, 8), specimen=replace(scan.sample, diffuse_share=0.2))
    array = SyntheticScan((6, 8), specimen=replace(scan.sample, diffuse_share=np.full((6, 8), 0.2)))
    assert (number.diffuse == 0.2).all()
    np.testing.assert_allclose(number.pattern(11).shares.sum(), 0.8)
    np.testing.assert_array_equal(number.expected(11), array.expected(11))


def test_flyback_sees_the_mean_of_its_row(scan):
    """The flyback frame has the mean deflection, lattice and diffuse share of the row."""
    pattern = scan.pattern(scan.frame_number(2, 8))
    np.testing.assert_allclose(1 - pattern.shares.sum(), scan.diffuse[2].mean())
    np.testing.assert_allclose(pattern.centres[0], 287.5 + scan.deflection[2].mean(axis=0))


def test_exposures_differ_but_share_their_pattern():
    """Exposures of one position have equal expectation and different electrons."""
    scan = SyntheticScan((2, 2), frames_per_position=2)
    np.testing.assert_array_equal(scan.expected(2), scan.expected(3))
    assert not np.array_equal(scan.electrons(2), scan.electrons(3))


def test_counted_frame_holds_every_electron(scan):
    """The counted image has the electrons at their pixels."""
    image = scan.counted(5)
    np.testing.assert_array_equal(np.repeat(np.arange(image.size), image.ravel()), scan.electrons(5))


def test_no_dose_no_electrons():
    """A scan without beam gives empty truth and frames of pedestal."""
    scan = SyntheticScan((2, 2), dose=0.0)
    assert len(scan.electrons(0)) == 0
    assert scan.frame(0).mean() == pytest.approx(20.5, abs=0.1)


def test_given_specimen_is_used(scan):
    """Strain and crystal of a given specimen set the lattice."""
    sample = replace(
        scan.sample, crystal=Crystal(rotation=0.0), strain=np.zeros((6, 8, 2, 2)), rotation=np.zeros((6, 8))
    )
    flat = SyntheticScan((6, 8), specimen=sample)
    np.testing.assert_allclose(flat.lattice[5, 7], np.eye(2) / (3.905 * flat.optics.pixel_step))


def test_bad_scans_are_refused(scan):
    """Shapes, doses and frame numbers that make no sense are named."""
    with pytest.raises(InputError, match="frame 54 is outside"):
        scan.frame(54)
    with pytest.raises(InputError, match="dose -1"):
        SyntheticScan((2, 2), dose=-1)
    with pytest.raises(InputError, match=r"do not cover the scan of shape \(2, 2\)"):
        SyntheticScan((2, 2), specimen=scan.sample)
    with pytest.raises(InputError, match=r"bright_share of the specimen spans 1\.2 to 1\.2"):
        replace(scan.sample, bright_share=1.2)
    with pytest.raises(InputError, match=r"diffuse_share of the specimen spans -0\.5 to 0\.0"):
        replace(scan.sample, diffuse_share=np.array([-0.5, 0.0]))
    with pytest.raises(InputError, match=r"diffuse_share of shape \(8, 6\) does not cover"):
        SyntheticScan((6, 8), specimen=replace(scan.sample, diffuse_share=np.zeros((8, 6))))
    assert isinstance(scan.sample, Specimen)
