"""Whatever was done to a scan before, in whatever order: results equal NumPy's, and plain selections stay streamed."""

import dask
import numpy as np
import xarray as xr
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

import stemstore

DIMS = ("y", "x", "ky", "kx")


def assigned(image, number):
    """Assign into a copy."""
    image = image.copy(deep=True)
    image[{image.dims[0]: slice(0, 1)}] = number
    return image


def points(image, number):
    """Pick positions along both scan axes, or along the first."""
    picks = np.random.default_rng(number)
    dims = image.dims[:-2]
    axes = {dim: xr.DataArray(picks.integers(0, image.sizes[dim], 7), dims="point") for dim in dims[:2]}
    return image.isel(axes) if all(image.shape) else image


def turned(image):
    """Put the detector first and last again."""
    return image.transpose("kx", ...).transpose(*image.dims)


SELECTING = {
    "slice": lambda x, n: x.isel({x.dims[0]: slice(n, None)}),
    "stride": lambda x, n: x.isel({x.dims[-3]: slice(None, None, 1 + n)}),
    "reverse": lambda x, n: x.isel({x.dims[0]: slice(None, None, -1)}),
    "fancy": lambda x, n: x.isel({x.dims[-3]: [n % x.shape[-3], 0, 0]}) if x.shape[-3] else x,
    "shuffle": lambda x, n: x.isel({x.dims[0]: np.random.default_rng(n).permutation(x.shape[0])}),
    "flags": lambda x, n: x.isel({x.dims[0]: np.arange(x.shape[0]) % (n + 1) == 0}),
    "detector": lambda x, n: x.isel(ky=slice(n, None), kx=slice(0, -n or None)),
    "pixels": lambda x, n: x.isel(ky=[n, 3, n]) if x.sizes["ky"] > 3 else x,
    "label": lambda x, n: x.sel(ky=[x.ky.values[-1]]) if x.indexes["ky"].is_unique and x.sizes["ky"] else x,
    "points": points,
    "chunk": lambda x, n: x.chunk({x.dims[0]: n + 1, "kx": 4}),
    "copy": lambda x, n: x.copy(deep=True),
    "rename": lambda x, n: x.rename({x.dims[0]: f"{x.dims[0]}_{n}"}),
    "coordinates": lambda x, n: x.assign_coords({x.dims[0]: np.arange(x.shape[0])[::-1] * 0.5}),
}
CHANGING = {
    "twice": lambda x, n: x * 2,
    "where": lambda x, n: x.where(x > n, 0).astype(x.dtype),
    "swap": lambda x, n: turned(x),
    "load": lambda x, n: x.copy().load().chunk({x.dims[0]: 2}),
    "persist": lambda x, n: x.persist(),
    "assign": assigned,
    "roll": lambda x, n: x.roll({x.dims[0]: n}),
    "join": lambda x, n: xr.concat([x.isel({x.dims[0]: slice(None, 1)}), x], dim=x.dims[0], join="outer"),
    "type": lambda x, n: x.astype("i4"),
}
STEPS = SELECTING | CHANGING


def labelled(data):
    """An array with plain coordinates."""
    return xr.DataArray(
        data, dims=DIMS, coords={dim: np.arange(float(n)) for dim, n in zip(DIMS, data.shape, strict=True)}
    )


@settings(max_examples=80)
@given(st.data())
def test_everything_equals_numpy_after_any_chain_of_steps(kinds, counts, data):
    """An image, patterns and reductions are right, on every kind of source."""
    steps = data.draw(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 3)), max_size=5))
    lazy, plain = labelled(kinds[data.draw(st.sampled_from(sorted(kinds)))].intensity.data), labelled(counts)
    for name, number in steps:
        lazy, plain = STEPS[name](lazy, number), STEPS[name](plain.copy(deep=True), number)
    assume(plain.size)
    expected, scan = plain.values.astype(np.int64), plain.dims[:-2]
    mask = np.arange(expected.shape[-2])[:, None] % 2 == np.arange(expected.shape[-1]) % 2
    results = [stemstore.virtual_image(lazy, mask), stemstore.mean_pattern(lazy), stemstore.max_pattern(lazy)]
    results += [lazy.sum(("ky", "kx")), lazy.mean(scan), lazy.max(scan), lazy]
    together = data.draw(st.sampled_from([stemstore.compute, dask.compute]))
    image, mean, largest, total, plain_mean, plain_largest, values = together(*results, scheduler="sync")
    np.testing.assert_array_equal(values, plain)
    np.testing.assert_array_equal(image, (expected * mask).sum((-1, -2)))
    np.testing.assert_array_equal(total, plain.sum(("ky", "kx")))
    axes = tuple(range(len(scan)))
    np.testing.assert_allclose(mean, expected.mean(axes), rtol=1e-12)
    np.testing.assert_allclose(plain_mean, expected.mean(axes), rtol=1e-12)
    for found in (largest, plain_largest):
        np.testing.assert_array_equal(found, expected.max(axes))
    fused = stemstore.explain(lazy).startswith("fused")
    event("fused" if fused else "generic")
    if set(SELECTING) >= {name for name, _ in steps}:
        assert fused
