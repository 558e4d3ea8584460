"""The rotation comes out of fields whose rotation is known, and doubtful ones are called doubtful."""

import warnings

import numpy as np
import pytest
import xarray as xr

import stemstore
from stemstore.errors import InputError
from stemstore.ops.phase.rotation import RotationWarning, closed_form, estimate_rotation
from stemstore.ops.phase.transform import com_matrix
from stemstore.testing.arrays import ArrayFrames


def maps(vector, steps=None):
    """Deflections as a Dataset in memory, calibrated where steps are given."""
    attrs = {"units": "1/angstrom"}
    coords = {}
    if steps:
        axes = zip(("y", "x"), vector.shape[1:], steps, strict=True)
        coords = {name: (name, np.arange(n) * step, {"units": "nm"}) for name, n, step in axes}
    values = zip(("com_y", "com_x"), vector, strict=True)
    return xr.Dataset({name: (("y", "x"), v, attrs) for name, v in values}, coords=coords)


def atoms(shape=(48, 56), steps=(1.0, 1.0), width=4.0):
    """Gradient of a periodic phase of narrow positive peaks without high frequencies."""
    rng = np.random.default_rng(7)
    q = np.meshgrid(*(np.fft.fftfreq(n, d) for n, d in zip(shape, steps, strict=True)), indexing="ij")
    peaks = np.zeros(shape)
    peaks[rng.integers(0, shape[0], 9), rng.integers(0, shape[1], 9)] = 1
    spectrum = np.fft.fft2(peaks) * np.exp(-2 * (np.pi * width) ** 2 * (q[0] ** 2 + q[1] ** 2))
    return np.stack([np.fft.ifft2(2j * np.pi * part * spectrum).real for part in q])


def detector(vector, angle, *, transpose=False):
    """What a detector sees whose vectors must be turned by `angle` (after a swap) to lie along the scan."""
    return np.einsum("ij,jyx->iyx", np.linalg.inv(com_matrix(angle, transpose=transpose)), vector)


@pytest.mark.parametrize("transpose", [False, True], ids=["as is", "swapped"])
@pytest.mark.parametrize("angle", [0, 25, -70])
def test_known_rotations_are_found(angle, transpose):
    """Angle within 0.1 degree, and handedness, of noise-free fields; the direction is that of attracted electrons."""
    found = estimate_rotation(maps(detector(atoms(), angle, transpose=transpose)))
    assert found.rotation == pytest.approx(angle, abs=0.1)
    assert found.transpose is transpose
    assert found.reliable
    assert found.residual < 1e-4
    assert found.residuals[not transpose] > 0.3
    assert found.sign_from == "skewness"
    assert found.skewness < 0


def test_opposite_directions_have_the_same_curl():
    """Without contrast the direction is open, and the result says so; a roughly known angle decides."""
    y, x = np.indices((41, 41))
    waves = np.stack([np.cos(2 * np.pi * y / 20), np.cos(2 * np.pi * x / 20)])
    field = maps(detector(waves, 100))
    open_ended = estimate_rotation(field)
    assert open_ended.sign_from == "nothing"
    assert "180 degrees" in str(open_ended)
    assert open_ended.rotation == pytest.approx(-80, abs=0.1)
    known = estimate_rotation(field, near=90)
    assert (known.sign_from, known.rotation) == ("near", pytest.approx(100, abs=0.1))
    assert estimate_rotation(field, near=-90).rotation == pytest.approx(-80, abs=0.1)


def test_a_known_angle_overrides_the_heuristic():
    """Skewness is asked only where nothing is known."""
    field = maps(detector(atoms(), 25))
    assert estimate_rotation(field, near=200).rotation == pytest.approx(-155, abs=0.1)
    assert "heuristic" in str(estimate_rotation(field))


def test_applying_the_estimate_undoes_the_rotation():
    """The turned deflection is the gradient again, by the helper and by the two parameters of dpc."""
    field = maps(detector(atoms(), -40, transpose=True), (0.5, 0.5))
    found = estimate_rotation(field)
    turned = found.apply(field)
    np.testing.assert_allclose(np.stack([turned.com_y, turned.com_x]), atoms(), atol=2e-3 * np.abs(atoms()).max())
    phases = [
        stemstore.dpc(turned).phase,
        stemstore.dpc(field, rotation=found.rotation, transpose=found.transpose).phase,
    ]
    np.testing.assert_allclose(phases[0], phases[1], atol=1e-12)


def test_unequal_scan_steps_are_taken_into_account():
    """A gradient per nm on a scan of 1 x 2 has no curl only when the steps are used."""
    field = detector(atoms((64, 32), (1.0, 2.0), 6.0), 25)
    assert estimate_rotation(maps(field, (1.0, 2.0))).rotation == pytest.approx(25, abs=0.2)
    assert abs(estimate_rotation(maps(field)).rotation - 25) > 1


def test_holes_do_not_count():
    """Positions without a deflection, and those beside them, are left out."""
    field = detector(atoms(), 25)
    field[:, 10:14, 20:30] = np.nan
    field[:, 30, 5] = np.nan
    assert estimate_rotation(maps(field)).rotation == pytest.approx(25, abs=0.3)


def test_the_estimate_is_that_of_the_maps_of_curl_and_divergence():
    """Exactly the inner positions at which both maps are known take part."""
    field = detector(atoms(), 25) + np.random.default_rng(2).normal(0, 1e-4, (2, 48, 56))
    field[:, [5, 20, 33], [7, 40, 12]] = np.nan
    com = maps(field)
    inner = [function(com).values[1:-1, 1:-1] for function in (stemstore.curl, stemstore.divergence)]
    known = np.isfinite(inner).all(axis=0)
    assert (~known).sum() == 15
    angle, residual = closed_form(*(values[known] for values in inner))
    found = estimate_rotation(com)
    assert (found.rotation, found.residual) == (pytest.approx(angle, abs=1e-9), pytest.approx(residual, abs=1e-12))


def test_partial_frames_take_no_part():
    """A deflection that a lost sector made says nothing about the rotation."""
    field, valid = detector(atoms(), 25), np.full((48, 56), 2)
    field[:, 20:24, 20:30], valid[20:24, 20:30] = 1, 1
    com = maps(field)
    with pytest.warns(RotationWarning):
        estimate_rotation(com)
    assert estimate_rotation(com.assign_coords(valid=(("y", "x"), valid))).rotation == pytest.approx(25, abs=0.3)


def test_the_whole_way_from_frames(dataset_of):
    """A turned scan of shifted disks, with an empty and a partial frame, on an odd, non-square detector."""
    field = atoms((20, 24), width=2.0)
    field = detector(3 * field / np.abs(field).max(), 25)
    ky, kx = np.indices((17, 21))
    frames = np.exp(-((ky - 8 - field[0][..., None, None]) ** 2 + (kx - 10 - field[1][..., None, None]) ** 2) / 6)
    frames = np.round(1e4 * frames).astype(np.uint16)
    validity = np.full((20, 24), 2)
    frames[3, 4], frames[9, 9, :8], validity[9, 9] = 0, 0, 1
    found = estimate_rotation(stemstore.center_of_mass(dataset_of(ArrayFrames(frames, validity))))
    assert found.rotation == pytest.approx(25, abs=1)
    assert found.transpose is False


def test_noise_alone_gives_a_warning():
    """Where curl and divergence are alike the result is marked and says so aloud."""
    noise = maps(np.random.default_rng(1).normal(size=(2, 40, 40)))
    with pytest.warns(RotationWarning, match="no reliable rotation"):
        found = estimate_rotation(noise)
    assert not found.reliable
    assert found.residual > 0.25
    assert "no reliable rotation" in str(found)


def test_good_fields_give_no_warning():
    """A pure gradient passes in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert estimate_rotation(maps(atoms())).reliable


def test_a_given_handedness_is_kept():
    """Who knows that nothing is swapped gets an angle for that, with the residual it deserves."""
    with pytest.warns(RotationWarning):
        found = estimate_rotation(maps(detector(atoms(), 25, transpose=True)), transpose=False)
    assert found.transpose is False
    assert found.residual == found.residuals[0] > 0.25


def test_the_grid_of_mean_curl_agrees_to_its_step():
    """The least mean |curl| among whole degrees is the same direction."""
    found = estimate_rotation(maps(detector(atoms(), -70, transpose=True)), method="grid-l1")
    assert (found.rotation, found.transpose, found.method) == (-70, True, "grid-l1")


@pytest.mark.parametrize(
    ("vector", "options", "words"),
    [
        (atoms()[:, :1], {}, "at least 3 positions along 'y', got 1"),
        (atoms()[:, :, :2], {}, "at least 3 positions along 'x', got 2"),
        (np.zeros((2, 5, 5)), {}, "does not vary"),
        (np.full((2, 5, 5), np.nan), {}, "no inner position"),
        (atoms(), {"method": "guess"}, "least-squares"),
    ],
)
def test_rotations_that_cannot_be_found_are_refused(vector, options, words):
    """Too small, constant or empty scans tell no rotation."""
    with pytest.raises(InputError, match=words):
        estimate_rotation(maps(vector), **options)
