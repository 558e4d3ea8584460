"""Finding the lattice of Bragg vectors: the shortest basis, the same one every time, and what is refused."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.ops.disks.calibration import calibrate_disks
from stemstore.ops.disks.table import dataset_of_table, table_of
from stemstore.ops.lattice.basis import LatticeBasis, find_basis
from stemstore.ops.lattice.basis_search import search_basis

SQUARE = np.array([[20.0, -3.0], [3.0, 20.0]])


def grid(basis, *, reach=4, positions=30, sigma=0.1, seed=0):
    """Vectors of a lattice, the same number at every position."""
    rng = np.random.default_rng(seed)
    orders = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2), axis=-1).reshape(-1, 2)
    q = np.tile(orders @ np.asarray(basis).T, (positions, 1))
    return q + rng.normal(0, sigma, q.shape), np.full(positions, len(orders))


def test_a_lattice_is_found_and_refined(disks_on):
    """The basis of a noisy scan is that of its lattice, to the error of the mean, and the choice of names is fixed."""
    basis = find_basis(disks_on(np.broadcast_to(SQUARE, (8, 9, 2, 2)), sigma=0.2))
    np.testing.assert_allclose(basis.matrix, SQUARE, atol=0.01)
    assert basis.unit == "pixel"
    assert basis.share == 1.0
    assert basis.angle == pytest.approx(90, abs=0.1)
    assert "100% of the disks" in str(basis)


@pytest.mark.parametrize("turn", range(0, 360, 15))
def test_noise_does_not_change_the_choice(turn):
    """Whatever the noise, a square and a hexagonal lattice keep the names of their vectors."""
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    for angle in (60, 90):
        g1, g2 = (
            15 * np.array([c, s]),
            15 * np.array([np.cos(np.deg2rad(turn + angle)), np.sin(np.deg2rad(turn + angle))]),
        )
        first, *others = [search_basis(*grid(np.stack([g1, g2], axis=1), seed=seed)) for seed in range(4)]
        for other in others:
            np.testing.assert_allclose(other, first, atol=0.2)
        assert np.linalg.det(first) == pytest.approx(15**2 * np.sin(np.deg2rad(angle)), rel=0.01)
        assert first[0, 0] > 0.7 * 15 or angle == 90


@hypothesis.given(st.floats(8, 20), st.floats(1, 1.8), st.floats(50, 130), st.floats(-180, 180), st.integers(-2, 2))
@hypothesis.settings(max_examples=25)
def test_the_basis_is_reduced(length, ratio, angle, turn, sheared):
    """Any lattice gives its two shortest vectors, turning from rows to columns; they span the same cell."""
    one, two = length * np.exp(1j * np.deg2rad(turn)), length * ratio * np.exp(1j * np.deg2rad(turn + angle))
    matrix = np.array([[g.real, g.imag] for g in (one, two + sheared * one)]).T
    found = search_basis(*grid(np.array([[one.real, two.real], [one.imag, two.imag]]), positions=8, sigma=0.01))
    g1, g2 = found.T
    assert np.linalg.det(found) == pytest.approx(abs(np.linalg.det(matrix)), rel=0.02)
    assert abs(g1 @ g2) <= 0.53 * (g1 @ g1)
    assert np.hypot(*g1) <= 1.03 * np.hypot(*g2)
    m = np.linalg.solve(found, matrix)
    np.testing.assert_allclose(m, np.rint(m), atol=0.03)


def test_spurious_clusters_do_not_make_the_cell_smaller():
    """A few disks that recur half-way between lattice points are no lattice points."""
    q, n = grid(SQUARE, positions=50)
    extra = np.tile([[10.0, 1.5]], (20, 1)) + np.random.default_rng(1).normal(0, 0.1, (20, 2))
    ends = np.cumsum(n)[:20]
    n[:20] += 1
    np.testing.assert_allclose(search_basis(np.insert(q, ends, extra, axis=0), n), SQUARE, atol=0.2)


def test_the_larger_of_two_grains_is_found():
    """With two grains in one scan the basis is that of one of them, not a mixture."""
    turn = np.deg2rad(20)
    other = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ SQUARE
    (q, n), (r, m) = grid(SQUARE, positions=40), grid(other, positions=25)
    np.testing.assert_allclose(search_basis(np.concatenate([q, r]), np.concatenate([n, m])), SQUARE, atol=0.2)


def test_centred_lattices_have_their_primitive_cell():
    """Where only h + k even is excited the basis is the primitive one."""
    q, n = grid(np.array([[20.0, 20.0], [-20.0, 20.0]]) / 2)
    found = search_basis(q, n)
    assert np.linalg.det(found) == pytest.approx(200, rel=0.01)


def test_a_missing_direct_beam_does_not_matter(disks_on):
    """A beam stop hides the middle; the lattice is found from the others."""
    disks = disks_on(np.broadcast_to(SQUARE, (4, 5, 2, 2)), sigma=0.1)
    table = table_of(disks)
    there = np.hypot(table.qy - 120, table.qx - 133) > 5
    offset = np.concatenate([[0], np.cumsum(there)])[table.offset]
    columns = {name: getattr(table, name)[there] for name in ("qy", "qx", "intensity", "correlation")}
    stopped = dataset_of_table(
        type(table)(
            (4, 5), ("y", "x"), offset, **columns, sigma_q=None, processed=table.processed, detector_shape=(256, 256)
        ),
        {name: disks[name] for name in ("ky", "kx")},
        {},
    )
    np.testing.assert_allclose(find_basis(stopped).matrix, SQUARE, atol=0.02)


def test_a_given_basis_is_refined_and_keeps_its_sense(disks_on):
    """Rough vectors are improved; a left-handed pair stays left-handed, and without refinement nothing changes."""
    disks = disks_on(np.broadcast_to(SQUARE, (4, 5, 2, 2)), sigma=0.1)
    rough = find_basis(disks, g1=(-2.5, 21.0), g2=(20.7, 2.0))
    np.testing.assert_allclose(rough.matrix, SQUARE[:, ::-1], atol=0.02)
    assert rough.angle == pytest.approx(-90, abs=0.2)
    assert find_basis(disks, g1=(-2.5, 21.0), g2=(20.7, 2.0), refine=False).g1 == (-2.5, 21.0)


def test_units_are_those_of_the_vectors(disks_on):
    """Calibrated vectors have a basis in their unit, also on rectangular pixels."""
    disks = disks_on(np.broadcast_to(SQUARE, (3, 3, 2, 2)), steps=(0.02, 0.01))
    basis = find_basis(disks)
    assert basis.unit == "1/angstrom"
    found = np.linalg.solve(np.diag([0.02, 0.01]) @ SQUARE, basis.matrix)
    np.testing.assert_allclose(found, np.rint(found), atol=1e-5)
    assert abs(np.linalg.det(found)) == pytest.approx(1, abs=1e-4)


def test_a_region_chooses_the_grain(disks_on):
    """With roi the basis is that of the region."""
    lattices = np.broadcast_to(SQUARE, (6, 6, 2, 2)).copy()
    lattices[:, :2] = 1.3 * SQUARE
    left = np.zeros((6, 6), bool)
    left[:, :2] = True
    np.testing.assert_allclose(find_basis(disks_on(lattices), roi=left).matrix, 1.3 * SQUARE, atol=1e-3)
    np.testing.assert_allclose(find_basis(disks_on(lattices)).matrix, SQUARE, atol=0.05)


def test_vectors_that_are_not_centred_are_refused(disks_on):
    """Disks in pixels without a known optic axis have no vectors; a wrong origin is found out."""
    disks = disks_on(np.broadcast_to(SQUARE, (3, 3, 2, 2)), sigma=0.1)
    unknown = disks.drop_vars(["ky", "kx"]).assign_coords(ky=np.arange(256), kx=np.arange(256))
    with pytest.raises(InputError, match="vectors are not centred"):
        find_basis(unknown)
    for name, at in (("ky", 129.0), ("kx", 141.0)):
        disks[name].attrs["optic_axis"] = at
    with pytest.raises(InputError, match="vectors are not centred, or there are several grains"):
        find_basis(disks)


def test_an_origin_is_given_once(disks_on):
    """An origin for vectors that have one already is refused."""
    disks = calibrate_disks(disks_on(np.broadcast_to(SQUARE, (3, 3, 2, 2))))
    place = np.full((3, 3), 120.0)
    with pytest.raises(InputError, match="calibrated vectors already"):
        find_basis(disks, origin=(place, place))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"g1": (20, 3)}, "belong together"),
        ({"g1": (20, 3), "g2": (40, 6.1)}, "parallel"),
        ({"g1": (20, 3), "g2": (0, 0)}, "parallel"),
        ({"g1": (20, 3, 1), "g2": (1, 20)}, "pair of numbers"),
        ({"g1": ("20", "3"), "g2": (1, 20)}, "pair of numbers"),
        ({"g1": (20, np.inf), "g2": (1, 20)}, "finite"),
        ({"g1": (900, 3), "g2": (1, 800)}, "do not tell both"),
        ({"roi": np.ones((2, 2), bool)}, "roi is a map"),
    ],
)
def test_bases_that_are_none(disks_on, options, match):
    """Half a basis, parallel vectors and vectors far off all disks are refused."""
    with pytest.raises(InputError, match=match):
        find_basis(disks_on(np.broadcast_to(SQUARE, (3, 3, 2, 2)), sigma=0.1), **options)


def test_too_few_disks(disks_on):
    """One disk, one pair of clusters and a single row span no lattice."""
    with pytest.raises(InputError, match="no position has two disks"):
        find_basis(disks_on(np.broadcast_to(SQUARE, (3, 3, 2, 2)), reach=0))
    q, _ = grid(SQUARE, positions=5)
    row = np.abs(np.linalg.solve(SQUARE, q.T)[1]) < 0.5
    with pytest.raises(InputError, match="one line"):
        search_basis(q[row], np.full(5, row.sum() // 5))
    pairs = np.tile([[0.0, 0.0], [20.0, 3.0]], (5, 1))
    with pytest.raises(InputError, match="too few for a lattice"):
        search_basis(pairs, np.full(5, 2))


def test_a_basis_says_what_it_is():
    """Without disks there is no share; lengths and angle follow from the vectors."""
    basis = LatticeBasis((3.0, 4.0), (-4.0, 3.0), "1/angstrom")
    assert basis.lengths == (5.0, 5.0)
    assert basis.angle == pytest.approx(90)
    assert str(basis) == "g1 (3, 4), g2 (-4, 3) 1/angstrom, 90.00 deg"
