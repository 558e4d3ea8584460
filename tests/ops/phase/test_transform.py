"""Deflections are turned by the matrix that a convention means, and conventions that are equal give equal numbers."""

import numpy as np
import pytest
import xarray as xr

from stemstore.errors import InputError
from stemstore.ops.phase.transform import com_matrix, transform_com

SWAP = np.array([[0, 1], [1, 0]])


def deflections(*shape):
    """Random deflections with the dims of a scan."""
    values = np.random.default_rng(0).normal(size=(2, *shape))
    attrs = {"units": "mrad", "history": "before"}
    return xr.Dataset({name: (("y", "x"), v, attrs) for name, v in zip(("com_y", "com_x"), values, strict=True)})


def stack(com):
    """Both components, rows first."""
    return np.stack([com.com_y.values, com.com_x.values])


@pytest.mark.parametrize(
    ("convention", "angle", "options", "matrix"),
    [
        ("stemstore", 90, {}, [[0, -1], [1, 0]]),
        ("stemstore", 90, {"transpose": True}, [[-1, 0], [0, 1]]),
        ("stemstore", 0, {"transpose": True}, [[0, 1], [1, 0]]),
        ("stemstore", 0, {"transpose": True, "flip_y": True}, [[0, 1], [-1, 0]]),
        ("py4dstem", 90, {}, [[0, -1], [1, 0]]),
        ("py4dstem", 90, {"transpose": True}, [[-1, 0], [0, 1]]),
        ("quantem", 90, {"transpose": True}, [[-1, 0], [0, 1]]),
        ("libertem", 90, {}, [[0, 1], [-1, 0]]),
        ("libertem", 90, {"flip_y": True}, [[0, 1], [1, 0]]),
        ("libertem", 0, {"flip_y": True}, [[-1, 0], [0, 1]]),
        ("pyxem", 90, {}, [[0, 1], [-1, 0]]),
    ],
)
def test_check_matrices(convention, angle, options, matrix):
    """Quarter turns and flips have the known matrix, and the deflection is multiplied by it."""
    com = deflections(3, 4)
    np.testing.assert_allclose(com_matrix(angle, convention=convention, **options), matrix, atol=1e-15)
    turned = transform_com(com, rotation=angle, convention=convention, **options)
    np.testing.assert_allclose(stack(turned), np.einsum("ij,jyx->iyx", matrix, stack(com)), atol=1e-12)


@pytest.mark.parametrize("angle", [0, 17, 90, -63.5, 200])
def test_conventions_that_mean_the_same_are_the_same(angle):
    """An angle of py4DSTEM is minus that of LiberTEM; a swap is LiberTEM's flip at 90 degrees less the angle."""
    py4dstem, libertem = (lambda t, c=c, **kw: com_matrix(t, convention=c, **kw) for c in ("py4dstem", "libertem"))
    np.testing.assert_allclose(py4dstem(angle), libertem(-angle), atol=1e-15)
    np.testing.assert_allclose(py4dstem(angle, transpose=True), libertem(90 - angle, flip_y=True), atol=1e-15)
    # pyxem's shifts are column first and negated, rotated by [[cos, -sin], [sin, cos]]⁻¹ on (column, row)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    on_columns_first = np.array([[cos, -sin], [sin, cos]])
    there_and_back = (-SWAP) @ on_columns_first @ (-SWAP)
    np.testing.assert_allclose(com_matrix(angle, convention="pyxem"), there_and_back, atol=1e-15)
    np.testing.assert_allclose(com_matrix(angle, convention="pyxem"), libertem(angle), atol=1e-15)


def test_the_result_says_what_was_applied():
    """The matrix of all transformations so far is kept, and the history tells each."""
    once = transform_com(deflections(2, 2), rotation=30)
    twice = transform_com(once, matrix=[[0, 1], [1, 0]])
    np.testing.assert_allclose(np.reshape(twice.com_y.attrs["com_matrix"], (2, 2)), SWAP @ com_matrix(30))
    both = np.einsum("ij,jyx->iyx", SWAP @ com_matrix(30), stack(deflections(2, 2)))
    np.testing.assert_allclose(stack(twice), both, atol=1e-15)
    assert twice.com_x.attrs["history"].count("transform_com") == 2
    assert twice.com_x.attrs["units"] == "mrad"


def test_a_flip_leaves_the_other_component_alone():
    """A missing number in one component stays there when the matrix does not mix."""
    com = deflections(2, 2)
    com["com_y"][0, 0] = np.nan
    assert np.isfinite(transform_com(com, flip_y=True).com_x).all()
    assert np.isnan(transform_com(com, rotation=10).com_x[0, 0])


def test_standard_errors_turn_with_the_deflection(dataset_of, counts):
    """Errors after a turn are those of the turned positions of all electrons."""
    import stemstore
    from stemstore.testing.arrays import ArrayFrames

    com = stemstore.center_of_mass(dataset_of(ArrayFrames(counts)), sigma=True)
    turned = transform_com(com, rotation=33, transpose=True).isel(y=4, x=5).compute()
    electrons = np.repeat(np.argwhere(np.ones((14, 10))), counts[4, 5].ravel(), axis=0)
    expected = np.cov(com_matrix(33, transpose=True) @ electrons.T, bias=True) / len(electrons)
    found = [turned.com_y_sigma**2, turned.com_covariance, turned.com_x_sigma**2]
    np.testing.assert_allclose(found, expected[[0, 0, 1], [0, 1, 1]], rtol=1e-9)
    assert turned.com_y_sigma.attrs["long_name"] == "standard error of com_y"


def test_transformations_are_lazy(dataset_of, counts):
    """Nothing is read until the result is computed."""
    import stemstore
    from stemstore.testing.arrays import ArrayFrames

    turned = transform_com(stemstore.center_of_mass(dataset_of(ArrayFrames(counts))), rotation=12)
    assert turned.com_y.chunks is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"convention": "libertem", "transpose": True}, "libertem knows no transpose"),
        ({"convention": "py4dstem", "flip_y": True}, "py4dstem knows no flip_y"),
        ({"convention": "emd"}, "convention 'emd' is not known"),
        ({"matrix": np.eye(2), "rotation": 3}, "either a matrix or"),
        ({"matrix": np.eye(3)}, r"shape \(2, 2\)"),
        ({"matrix": [[0, np.nan], [1, 0]]}, "finite"),
    ],
)
def test_contradictions_are_refused(options, words):
    """What a convention does not speak of cannot be asked of it."""
    with pytest.raises(InputError, match=words):
        transform_com(deflections(2, 2), **options)


def test_only_deflections_can_be_turned():
    """The result of another operation is refused."""
    with pytest.raises(InputError, match=r"without \['com_x'\]"):
        transform_com(deflections(2, 2)[["com_y"]])
