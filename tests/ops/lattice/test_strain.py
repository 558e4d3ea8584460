"""Strain and rotation: exact deformations, conventions of other programs, errors, references and what is refused."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import xarray as xr

from stemstore.errors import InputError
from stemstore.ops.disks.calibration import calibrate_disks
from stemstore.ops.lattice.basis import LatticeBasis, find_basis
from stemstore.ops.lattice.fit import fit_lattice
from stemstore.ops.lattice.strain import STRAINS, strain_map

REFERENCE = np.array([[0.25, -0.03], [0.02, 0.31]])
PAIR = tuple(REFERENCE[:, 0]), tuple(REFERENCE[:, 1])
PIXELS = np.array([[24.0, -2.0], [1.0, 23.0]])
CASES = [(0.02, -0.01, 0.005, 0.01), (0.05, -0.03, 0.02, 0.05)]


def turn(angle):
    """Give the matrix that turns rows towards columns."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def deformation(e_yy, e_xx, e_xy, theta):
    """Give the deformation gradient of a stretch and a rotation."""
    return turn(theta) @ np.array([[1 + e_yy, e_xy], [e_xy, 1 + e_xx]])


def lattice_of(matrices, *, sigma=1e-4, covariance=0.0, **attrs):
    """Make a lattice of matrices (…, 2, 2), g1 and g2 as columns."""
    matrices = np.asarray(matrices, float)
    dims = ("y", "x")[: matrices.ndim - 2]
    values = {f"g{j + 1}_{axis}": matrices[..., i, j] for i, axis in enumerate("yx") for j in range(2)}
    values |= {"x0_y": 0 * values["g1_y"], "x0_x": 0 * values["g1_y"]}
    even = np.ones(matrices.shape[:-2])
    values |= {"sigma_g1": sigma * even, "sigma_g2": sigma * even, "covariance": covariance * even}
    values["fitted"] = np.isfinite(matrices).all(axis=(-2, -1))
    return xr.Dataset({name: (dims, one) for name, one in values.items()}, attrs={"unit": "1/angstrom"} | attrs)


def deformed(*cases):
    """Make the lattice of the reference under deformation gradients, one per position of a row."""
    return lattice_of([[np.linalg.inv(np.asarray(one)).T @ REFERENCE for one in cases]])


def values(strain):
    """Give the four components of the first position."""
    return [float(strain[name].values.flat[0]) for name in STRAINS]


@pytest.mark.parametrize("case", CASES)
def test_finite_strain_is_exact(case):
    """A stretch and a rotation come back to rounding, however large."""
    found = strain_map(deformed(deformation(*case)), reference=PAIR)
    np.testing.assert_allclose(values(found), case, atol=1e-12)
    assert found.theta.attrs["units"] == "rad"
    assert found.e_yy.attrs["units"] == "1"


@pytest.mark.parametrize(
    ("g1", "g2", "linear", "exact"),
    [
        (
            (0.24480318, 0.02141368),
            (-0.03407876, 0.31296248),
            (0.019583, -0.010026, 0.005100, 0.009953),
            CASES[0],
        ),
        (
            (0.23671326, 0.02758075),
            (-0.05063755, 0.31816933),
            (0.047454, -0.029062, 0.021584, 0.049582),
            CASES[1],
        ),
    ],
)
def test_numbers_of_a_table(g1, g2, linear, exact):
    """Two deformed lattices in eight digits give the strain they were made with, and the linear formula its own."""
    lattice = lattice_of(np.array([[g1, g2]]).swapaxes(-1, -2))
    np.testing.assert_allclose(values(strain_map(lattice, reference=PAIR)), exact, atol=1e-7)
    np.testing.assert_allclose(
        values(strain_map(lattice, reference=PAIR, definition="infinitesimal")), linear, atol=6e-7
    )


@pytest.mark.parametrize("case", CASES)
def test_the_linear_formula_is_that_of_py4dstem(case):
    """Its numbers are 1 - b_00, 1 - b_11, -(b_01 + b_10) / 2 and (b_01 - b_10) / 2, with b = G G0^-1."""
    lattice = deformed(deformation(*case))
    beta = np.linalg.inv(deformation(*case)).T
    expected = 1 - beta[0, 0], 1 - beta[1, 1], -(beta[0, 1] + beta[1, 0]) / 2, (beta[0, 1] - beta[1, 0]) / 2
    np.testing.assert_allclose(values(strain_map(lattice, reference=PAIR, definition="py4dstem")), expected, atol=1e-12)
    ours = values(strain_map(lattice, reference=PAIR, definition="infinitesimal"))
    np.testing.assert_allclose(ours, [*expected[:3], -expected[3]], atol=1e-12)


def test_signs():
    """A crystal that is longer along y is in tension there; one that turns from y to x has a positive rotation."""
    longer = strain_map(deformed(np.diag([1.1, 1.0])), reference=PAIR)
    np.testing.assert_allclose(values(longer), (0.1, 0, 0, 0), atol=1e-12)
    assert float(deformed(np.diag([1.1, 1.0])).g1_y.squeeze()) < PAIR[0][0]  # longer in space, shorter in diffraction
    turned = strain_map(deformed(turn(0.1)), reference=PAIR)
    np.testing.assert_allclose(values(turned), (0, 0, 0, 0.1), atol=1e-12)
    assert (turn(0.1) @ [1.0, 0.0])[1] > 0
    for definition in ("infinitesimal", "green", "hencky"):
        assert values(strain_map(deformed(turn(0.1)), reference=PAIR, definition=definition))[3] > 0.09


def test_other_measures():
    """Green-Lagrange and Hencky strain of a stretch are (U² - 1) / 2 and log U, also where the stretch is isotropic."""
    stretch = deformation(0.05, -0.03, 0.02, 0.0)
    lattice = deformed(turn(0.05) @ stretch, np.diag([1.07, 1.07]), np.diag([1.0, 1.0]))
    size, axes = np.linalg.eigh(stretch)
    logarithm = axes @ np.diag(np.log(size)) @ axes.T
    for definition, tensor, same in (
        ("green", (stretch @ stretch - np.eye(2)) / 2, (1.07**2 - 1) / 2),
        ("hencky", logarithm, np.log(1.07)),
    ):
        found = strain_map(lattice, reference=PAIR, definition=definition)
        np.testing.assert_allclose(values(found), [tensor[0, 0], tensor[1, 1], tensor[0, 1], 0.05], atol=1e-12)
        np.testing.assert_allclose(found.e_yy[0, 1:], [same, 0], atol=1e-12)
        np.testing.assert_allclose(found.e_xy[0, 1:], 0, atol=1e-12)


@pytest.mark.parametrize("angle", [30.0, -45.0, 90.0])
def test_axes_are_turned(angle):
    """Components along turned axes are R' e R; the rotation of the crystal is the same."""
    plain = strain_map(deformed(deformation(*CASES[1])), reference=PAIR)
    turned = strain_map(deformed(deformation(*CASES[1])), reference=PAIR, axes_rotation=angle)
    e_yy, e_xx, e_xy, theta = values(plain)
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    expected = (
        c * c * e_yy + 2 * c * s * e_xy + s * s * e_xx,
        s * s * e_yy - 2 * c * s * e_xy + c * c * e_xx,
        c * s * (e_xx - e_yy) + (c * c - s * s) * e_xy,
        theta,
    )
    np.testing.assert_allclose(values(turned), expected, atol=1e-12)
    assert turned.attrs["axes_rotation_deg"] == angle


def test_invariants():
    """Dilation, principal strains and their direction do not depend on the axes, but for the angle between them."""
    lattice = deformed(turn(0.2) @ np.diag([1.05, 0.98]) @ turn(0.2).T, np.diag([1.0, 1.02]))
    found = strain_map(lattice, reference=PAIR, derived=True)
    for name, expected in (("dilation", 0.03), ("e_major", 0.05), ("e_minor", -0.02), ("principal_angle", 0.2)):
        assert float(found[name][0, 0]) == pytest.approx(expected, abs=1e-12)
    assert abs(float(found.principal_angle[0, 1])) == pytest.approx(np.pi / 2)
    turned = strain_map(lattice, reference=PAIR, derived=True, axes_rotation=np.rad2deg(0.2))
    np.testing.assert_allclose(turned.e_major, found.e_major)
    assert float(turned.principal_angle[0, 0]) == pytest.approx(0, abs=1e-12)


@hypothesis.given(
    st.tuples(*[st.floats(-0.2, 0.2)] * 3),
    st.floats(-0.7, 0.7),
    st.floats(-180, 180),
    st.booleans(),
    st.floats(0.01, 50),
)
@hypothesis.settings(max_examples=60)
def test_strain_is_a_tensor(strain, theta, angle, mirrored, scale):
    """Turned or mirrored axes and any unit: e' = Q e Q', and the rotation changes its sign in a mirror."""
    axes = turn(np.deg2rad(angle)) @ np.diag([1, -1 if mirrored else 1]) * scale
    gradient = deformation(*strain, theta)
    lattice = lattice_of([[axes @ np.linalg.inv(gradient).T @ REFERENCE]])
    basis = axes @ REFERENCE
    found = values(strain_map(lattice, reference=(tuple(basis[:, 0]), tuple(basis[:, 1]))))
    q = axes / scale
    e = q @ np.array([[strain[0], strain[2]], [strain[2], strain[1]]]) @ q.T
    np.testing.assert_allclose(found, [e[0, 0], e[1, 1], e[0, 1], theta * np.linalg.det(q)], atol=1e-10)


@hypothesis.given(st.integers(-2, 2), st.booleans(), st.booleans())
@hypothesis.settings(max_examples=25)
def test_strain_does_not_depend_on_the_choice_of_basis(a, other, swapped):
    """Any basis of the same lattice, left-handed ones included, gives the same strain."""
    choice = np.array([[1, a], [0, 1]])
    choice = choice.T if other else choice
    choice = choice[:, ::-1] if swapped else choice
    basis = REFERENCE @ choice
    lattice = lattice_of([[np.linalg.inv(deformation(*CASES[1])).T @ basis]])
    found = strain_map(lattice, reference=(tuple(basis[:, 0]), tuple(basis[:, 1])))
    np.testing.assert_allclose(values(found), CASES[1], atol=1e-11)


def test_references():
    """Median of the scan, of a region, of each of several regions, and a basis: each makes its own strain zero."""
    sizes = np.array([[1.0, 1.0, 1.0, 1.02, 1.02, 1.04]])
    lattice = lattice_of(REFERENCE / sizes[..., None, None])
    middle = 2 / (1 / 1.0 + 1 / 1.02)  # the median is that of the reciprocal vectors
    for reference, zero in (
        (None, middle),
        ("median", middle),
        (sizes == 1.02, 1.02),
        (xr.DataArray(sizes.T == 1.0, dims=("x", "y")), 1.0),
        (xr.DataArray(sizes[0] == 1.0, dims="x"), 1.0),
        (PAIR, 1.0),
        (LatticeBasis(*PAIR, "1/angstrom"), 1.0),
    ):
        found = strain_map(lattice, reference=reference)
        np.testing.assert_allclose(found.e_xx, sizes / zero - 1, atol=1e-12)
    np.testing.assert_allclose(found.attrs["reference_g1"], PAIR[0])
    regions = strain_map(lattice, reference=np.array([[0, 0, 0, 1, 1, -1]]))
    np.testing.assert_allclose(regions.e_yy, [[0, 0, 0, 0, 0, np.nan]], atol=1e-12)
    assert regions.fitted.values.tolist() == [[True] * 5 + [False]]
    assert "reference_g1" not in regions.attrs


def test_references_that_are_none():
    """An empty region, one without fitted positions, other shapes, other units and swapped vectors are refused."""
    missing = lattice_of(np.stack([REFERENCE, np.full((2, 2), np.nan)])[None])
    for reference in (np.zeros((1, 2), bool), np.array([[False, True]]), np.array([[-1, 4]])):
        with pytest.raises(InputError, match="no reference"):
            strain_map(missing, reference=reference)
    with pytest.raises(InputError, match="a reference is 'median'"):
        strain_map(missing, reference=np.ones((3, 3), bool))
    with pytest.raises(InputError, match="a reference is 'median'"):
        strain_map(missing, reference="mean")
    with pytest.raises(InputError, match="basis is in 'pixel'"):
        strain_map(missing, reference=LatticeBasis(*PAIR, "pixel"))
    with pytest.raises(InputError, match="swapped"):
        strain_map(missing, reference=PAIR[::-1])
    with pytest.raises(InputError, match="no reference"):
        strain_map(lattice_of(np.full((1, 2, 2, 2), np.nan)))


def test_other_arguments_that_are_refused():
    """An unknown definition, an angle that is none, and datasets of another kind."""
    lattice = lattice_of(REFERENCE[None])
    with pytest.raises(InputError, match="definition 'biot' is not known"):
        strain_map(lattice, definition="biot")
    with pytest.raises(InputError, match="no angle"):
        strain_map(lattice, axes_rotation=np.nan)
    with pytest.raises(InputError, match="expected the result of fit_lattice"):
        strain_map(lattice.drop_vars("g2_x"))
    with pytest.raises(InputError, match="expected the result of fit_lattice"):
        strain_map(lattice.g1_y)


def test_positions_without_a_lattice_stay_empty():
    """NaN and False where there is no fit; the others do not notice."""
    found = strain_map(lattice_of(np.stack([REFERENCE, np.full((2, 2), np.nan), REFERENCE])[None]), derived=True)
    assert found.fitted.values.tolist() == [[True, False, True]]
    for name in set(found.data_vars) - {"fitted"}:
        assert np.isnan(found[name].values[0, 1])
        assert np.isfinite(found[name].values[0, 0])


def test_a_mirrored_lattice_is_no_deformation():
    """A single position whose fit went wrong to a mirror image is left out; the map of the others is made."""
    found = strain_map(lattice_of([[REFERENCE, REFERENCE[:, ::-1], REFERENCE]]), reference=PAIR, definition="hencky")
    assert found.fitted.values.tolist() == [[True, False, True]]
    np.testing.assert_allclose(found.e_yy, [[0, np.nan, 0]], atol=1e-12)


def test_uniform_strain_and_rotation_from_disks(disks_on):
    """5 % strain and 3 degrees of rotation against the undeformed basis: exact to single precision."""
    gradient = deformation(0.05, 0.0, 0.0, np.deg2rad(3))
    disks = disks_on(np.broadcast_to(np.linalg.inv(gradient).T @ PIXELS, (3, 4, 2, 2)))
    pair = tuple(PIXELS[:, 0]), tuple(PIXELS[:, 1])
    found = strain_map(fit_lattice(disks, pair), reference=pair)
    for name, expected in zip(STRAINS, (0.05, 0, 0, np.deg2rad(3)), strict=True):
        np.testing.assert_allclose(found[name], expected, atol=1e-6)


def test_standard_errors_hold_for_repeated_noise(disks_on):
    """Over 400 noisy positions the spread of all four maps is what sigma says, within 10 %, on turned axes as well."""
    intensity = np.random.default_rng(3).uniform(30, 3000, 81)
    disks = disks_on(np.broadcast_to(PIXELS, (20, 20, 2, 2)), sigma=0.2, intensity=intensity, reach=4)
    pair = tuple(PIXELS[:, 0]), tuple(PIXELS[:, 1])
    lattice = fit_lattice(disks, pair)
    for angle in (0.0, 30.0):
        found = strain_map(lattice, reference=pair, axes_rotation=angle)
        for name in STRAINS:
            ratio = float(found[name].std()) / np.sqrt(float((found[f"sigma_{name}"] ** 2).mean()))
            assert 0.9 < ratio < 1.1, name


def test_standard_errors_on_rectangular_pixels(disks_on):
    """Pixels of 1 : 2 in 1/angstrom: strain is right, and each map has its own error, within 15 %."""
    steps = np.array([0.02, 0.01])
    disks = disks_on(np.broadcast_to(PIXELS, (20, 20, 2, 2)), sigma=0.2, steps=tuple(steps), reach=4)
    basis = np.diag(steps) @ PIXELS
    pair = tuple(basis[:, 0]), tuple(basis[:, 1])
    for angle in (0.0, 25.0):
        found = strain_map(fit_lattice(disks, pair), reference=pair, axes_rotation=angle)
        for name in STRAINS:
            assert abs(float(found[name].mean())) < 2e-4
            ratio = float(found[name].std()) / np.sqrt(float((found[f"sigma_{name}"] ** 2).mean()))
            assert 0.85 < ratio < 1.15, name


def test_strain_on_the_axes_of_the_scan(disks_on):
    """A detector that is turned and swapped: vectors turned to the scan give the strain of the specimen."""
    case = CASES[1]
    seen = np.array([[0.0, 1.0], [1.0, 0.0]]) @ turn(np.deg2rad(-20))  # from scan axes to the detector
    basis = 24 * np.eye(2)
    lattices = np.stack([basis, np.linalg.inv(deformation(*case)).T @ basis])[None]
    disks = calibrate_disks(disks_on(seen @ lattices), axes="scan", rotation=20.0, transpose=True)
    pair = tuple(basis[:, 0]), tuple(basis[:, 1])
    found = strain_map(fit_lattice(disks, pair), reference=np.array([[True, False]]))
    np.testing.assert_allclose([float(found[name][0, 1]) for name in STRAINS], case, atol=1e-5)
    assert found.attrs["axes"] == "scan"


def test_a_single_row_and_a_found_basis(disks_on):
    """A scan of one row, with a basis that is found and the median as reference, keeps its differences."""
    sizes = np.array([1.0, 1.0, 1.0, 0.98])
    disks = disks_on(np.broadcast_to(PIXELS, (1, 4, 2, 2)) / sizes[None, :, None, None])
    found = strain_map(fit_lattice(disks, find_basis(disks)))
    np.testing.assert_allclose(found.e_yy.values[0], sizes - 1, atol=1e-5)
    np.testing.assert_allclose(found.e_xx.values[0], sizes - 1, atol=1e-5)
    assert found.attrs["history"].splitlines()[-1].startswith("strain_map(reference='median of the scan'")
