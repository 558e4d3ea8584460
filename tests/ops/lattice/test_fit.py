"""The lattice of every position as a labelled map: what it is fitted to, how well, and where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.ops.disks.calibration import calibrate_disks
from stemstore.ops.lattice.basis import LatticeBasis, find_basis
from stemstore.ops.lattice.fit import LatticeWarning, fit_lattice, index_disks

BASIS = np.array([[24.0, -2.0], [1.0, 23.0]])
PAIR = tuple(BASIS[:, 0]), tuple(BASIS[:, 1])


def scan(shape=(4, 5), basis=BASIS):
    """Give every position the same lattice."""
    return np.broadcast_to(basis, (*shape, 2, 2))


def matrices(lattice):
    """Give [g1 g2] of every position."""
    rows = [np.stack([lattice[f"g1_{axis}"], lattice[f"g2_{axis}"]], axis=-1) for axis in ("y", "x")]
    return np.stack(rows, axis=-2)


def test_every_position_has_its_own_lattice(disks_on):
    """Maps hold what the disks were made of, with units, on the scan's coordinates; the origin is fitted as well."""
    rng = np.random.default_rng(0)
    truth = BASIS * (1 + 0.02 * rng.normal(size=(4, 5, 1, 1)))
    shift = rng.normal(0, 0.5, (4, 5, 2))
    disks = disks_on(truth, shift=shift).assign_coords(y=("y", np.arange(4) * 2.0, {"units": "nm"}))
    lattice = fit_lattice(disks, find_basis(disks))
    np.testing.assert_allclose(matrices(lattice), truth, atol=1e-5)
    np.testing.assert_allclose(np.stack([lattice.x0_y, lattice.x0_x], axis=-1), shift, atol=1e-5)
    assert lattice.fitted.all()
    assert lattice.y.attrs["units"] == "nm"
    assert {lattice[name].attrs["units"] for name in ("x0_y", "g2_x", "sigma_g1", "residual")} == {"pixel"}
    assert lattice.attrs["off_lattice"] == 0
    assert lattice.attrs["axes"] == "detector"
    assert "fit_lattice(" in lattice.attrs["history"]


@pytest.mark.parametrize(("weights", "share"), [("intensity", 0.1), ("sigma", 0.1), ("py4dstem", 0.01)])
def test_weights(disks_on, weights, share):
    """A displaced disk of a tenth of the electrons pulls a tenth as much, and a hundredth with py4DSTEM's weights."""
    intensity = np.full(81, 100.0)
    intensity[10] = 10.0
    disks = disks_on(scan(), intensity=intensity)
    faint = disks.intensity.values < 50
    columns = {"correlation": disks.intensity, "sigma_q": 1 / np.sqrt(disks.intensity)}
    disks = disks.assign(columns | {"qy": disks.qy + np.where(faint, 3.0, 0.0).astype(np.float32)})
    disks["sigma_q"].attrs["units"] = "pixel"
    pull, full = (
        abs(matrices(fit_lattice(disks, PAIR, weights=name, outliers=np.inf)) - BASIS).max() for name in (weights, None)
    )
    assert full > 0.01
    assert pull / full == pytest.approx(share, rel=0.1)


def test_standard_errors_hold_for_repeated_noise(disks_on):
    """Over 400 positions of 60 unequal disks the spread of the vectors is what sigma says, within 10 %."""
    intensity = np.random.default_rng(3).uniform(30, 3000, 81)
    disks = disks_on(scan((20, 20)), sigma=0.2, intensity=intensity)
    lattice = fit_lattice(disks, PAIR)
    for name, truth in (("g1", BASIS[:, 0]), ("g2", BASIS[:, 1]), ("x0", (0, 0))):
        spread = [((lattice[f"{name}_{axis}"] - at) ** 2).mean() for axis, at in zip("yx", truth, strict=True)]
        ratio = np.sqrt(np.mean(spread) / (lattice[f"sigma_{name}"] ** 2).mean())
        assert 0.9 < ratio < 1.1


def test_rectangular_pixels_and_units(disks_on):
    """Vectors in 1/angstrom on pixels of 1 : 2 are right, and the errors of the two axes differ as the pixels do."""
    disks = disks_on(scan((12, 12)), sigma=0.2, steps=(0.02, 0.01))
    lattice = fit_lattice(disks, find_basis(disks, g1=BASIS[:, 0] * (0.02, 0.01), g2=BASIS[:, 1] * (0.02, 0.01)))
    away = matrices(lattice) - np.diag([0.02, 0.01]) @ BASIS
    spread = np.sqrt((away**2).mean(axis=(0, 1, 3)))
    assert lattice.g1_y.attrs["units"] == "1/angstrom"
    assert spread[0] / spread[1] == pytest.approx(2, rel=0.15)
    noise = np.reshape(lattice.attrs["noise"], (2, 2))
    np.testing.assert_allclose(noise, np.diag([1.6, 0.4]), atol=1e-12)
    expected = np.sqrt(float((lattice.sigma_g1**2).mean()) * np.diag(noise))
    np.testing.assert_allclose(spread, expected, rtol=0.15)


def test_an_ellipse_and_a_rotation_are_honoured(disks_on):
    """Vectors calibrated for distortion, swap and scan rotation give the lattice on the scan axes."""
    ellipse = np.array([[0.97, 0.01], [0.01, 0.99]])
    disks = disks_on(scan(basis=np.linalg.inv(ellipse) @ BASIS))
    lattice_axes = calibrate_disks(disks, ellipse=ellipse, axes="scan", rotation=30.0, transpose=True)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    expected = np.array([[c, -s], [s, c]]) @ BASIS[::-1]
    lattice = fit_lattice(lattice_axes, find_basis(lattice_axes, g1=expected[:, 0], g2=expected[:, 1]))
    np.testing.assert_allclose(matrices(lattice), np.broadcast_to(expected, (4, 5, 2, 2)), atol=1e-5)
    assert lattice.attrs["axes"] == "scan"


def test_an_origin_of_every_position_is_taken_off(disks_on):
    """Patterns that drift by more than a cell are indexed with the origin of each."""
    shift = np.stack(np.meshgrid(np.arange(4) * 10.0, np.arange(5) * 8.0, indexing="ij"), axis=-1)
    disks = disks_on(scan(), shift=shift)
    lattice = fit_lattice(disks, PAIR, origin=(120 + shift[..., 0], 133 + shift[..., 1]))
    np.testing.assert_allclose(matrices(lattice), scan(), atol=1e-4)
    np.testing.assert_allclose(lattice.x0_y, 0, atol=1e-4)


def test_vectors_that_are_not_centred_are_refused(disks_on):
    """Disks in pixels of a detector that does not know its optic axis have no lattice."""
    disks = disks_on(scan()).drop_vars(["ky", "kx"]).assign_coords(ky=np.arange(256), kx=np.arange(256))
    for operation in (fit_lattice, index_disks):
        with pytest.raises(InputError, match="vectors are not centred"):
            operation(disks, PAIR)


def test_a_turned_grain_is_flagged(disks_on):
    """Where the lattice is turned by 40 degrees there is no fit, no number, and most disks are off the lattice."""
    turn = np.deg2rad(40)
    truth = scan().copy()
    truth[:, 3:] = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ BASIS
    lattice = fit_lattice(disks_on(truth, sigma=0.1), PAIR)
    np.testing.assert_array_equal(lattice.fitted, np.broadcast_to([True] * 3 + [False] * 2, (4, 5)))
    assert np.isnan(lattice.g1_y.where(~lattice.fitted, drop=True)).all()
    assert (lattice.off_lattice[:, 3:] > 0.5).all()
    assert (lattice.off_lattice[:, :3] == 0).all()
    assert 0.2 < lattice.attrs["off_lattice"] < 0.5
    with pytest.warns(LatticeWarning, match="of the disks lie off the lattice"):
        fit_lattice(disks_on(truth[:, 3:]), PAIR)


def test_two_grains_at_one_position_share_its_disks(disks_on):
    """With disks of two grains in every pattern the one that the basis belongs to is fitted; the other is counted."""
    turn = np.deg2rad(40)
    other = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ BASIS
    mixed = disks_on(np.stack([scan(), scan(basis=other)], axis=2), dims=("y", "x", "grain"), sigma=0.1)
    # the grains of a position follow one another in the list: every second bound is one of a whole position
    bounds = mixed.offset.values[::2]
    counts = {"offset": ("bound", bounds), "n_disks": (("y", "x"), np.diff(bounds).reshape(4, 5))}
    joined = mixed.isel(grain=0).drop_dims("bound").assign(counts)
    lattice = fit_lattice(joined, PAIR, min_share=0.3)
    assert lattice.fitted.all()
    np.testing.assert_allclose(matrices(lattice), scan(), atol=0.2)
    assert (lattice.off_lattice > 0.25).all()
    assert not fit_lattice(joined, PAIR, min_share=0.8).fitted.any()


def test_masked_and_empty_positions_have_no_lattice(disks_on):
    """Positions that were not looked at, and those with too few disks, are NaN and not fitted."""
    disks = disks_on(scan())
    looked = np.ones((4, 5), bool)
    looked[1, 2] = False
    lattice = fit_lattice(disks.assign_coords(processed=(("y", "x"), looked)), PAIR)
    np.testing.assert_array_equal(lattice.fitted, looked)
    assert np.isnan(lattice.sigma_g1.values[1, 2])
    assert not fit_lattice(disks_on(scan(), reach=1), PAIR, min_peaks=10).fitted.any()


@pytest.mark.parametrize("shape", [(), (7,), (1, 6), (6, 1), (2, 3, 4)])
def test_scans_of_any_shape(disks_on, shape):
    """A single pattern, a line, a single row and extra axes are fitted like any scan."""
    dims = ("time", "y", "x")[-len(shape) :] if shape else ()
    lattice = fit_lattice(disks_on(scan(shape), dims=dims), PAIR)
    assert lattice.g1_y.dims == dims
    np.testing.assert_allclose(matrices(lattice), scan(shape), atol=1e-5)


def test_disks_are_numbered(disks_on):
    """Every disk has its order; one between the lattice points is not accepted."""
    disks = disks_on(scan((2, 2)), sigma=0.05)
    stray = disks.copy()
    stray["qy"] = disks.qy + np.where(np.arange(disks.sizes["peak"]) == 17, 12, 0).astype(np.float32)
    index = index_disks(stray, PAIR)
    assert index.h.dtype == index.k.dtype == np.int16
    q = np.stack([disks.qy - 120, disks.qx - 133], axis=1)
    there = np.arange(len(q)) != 17
    np.testing.assert_allclose(np.stack([index.h, index.k], axis=1)[there] @ BASIS.T, q[there], atol=0.3)
    assert not index.accepted[17]
    assert index.accepted.mean() > 0.95
    assert index.attrs["accepted"] == float(index.accepted.mean())
    assert set(stray.merge(index).data_vars) > {"h", "k", "qy"}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"weights": "counts"}, "weights 'counts' are not known"),
        ({"weights": "sigma"}, "no sigma_q"),
        ({"min_peaks": 3}, "needs at least 4 disks"),
        ({"min_share": 1.5}, "no share"),
        ({"max_distance": 0.0}, "max_distance = 0.0"),
        ({"outliers": -1.0}, "outliers = -1.0"),
    ],
)
def test_options_out_of_range(disks_on, options, match):
    """Options that cannot be meant are refused by name."""
    with pytest.raises(InputError, match=match):
        fit_lattice(disks_on(scan((1, 1))), PAIR, **options)


def test_a_basis_of_other_vectors_is_refused(disks_on):
    """A basis in pixels or on other axes does not fit the vectors; what is no basis is refused as well."""
    disks = disks_on(scan((1, 1)), steps=(0.01, 0.01))
    with pytest.raises(InputError, match=r"basis is in 'pixel' and the vectors are in '1/angstrom'"):
        fit_lattice(disks, LatticeBasis(*PAIR, "pixel"))
    turned = calibrate_disks(disks, axes="scan", rotation=10.0)
    with pytest.raises(
        InputError, match="basis lies along the axes of the scan, the vectors along those of the detector"
    ):
        fit_lattice(disks, find_basis(turned, g1=(0.236, 0.03), g2=(-0.06, 0.223)))
    with pytest.raises(InputError, match="a basis is what find_basis returns"):
        fit_lattice(disks, "auto")
