"""Calibrating an open dataset changes coordinates and attributes, and nothing else."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import stemstore
from stemstore.errors import CalibrationMissingError, CorruptDataError, InputError
from stemstore.scan.calibrate import calibrate
from stemstore.scan.calibration import Calibration
from stemstore.scan.lazy import selection_of
from stemstore.scan.open import build
from stemstore.sources.streaming import scan_source
from stemstore.testing.arrays import ArrayFrames
from stemstore_schemas import Acquisition, Ellipse, Quantity

SHAPE = (5, 6, 12, 10)
FRAMES = np.random.default_rng(8).integers(0, 500, SHAPE).astype(np.uint16)
VALUES = {
    "beam_energy": 300,
    "semi_convergence_angle": "20 mrad",
    "scan_rotation": -12.5,
    "scan_step": ("0.5 nm", 0.4),
    "detector_step": (1.0, "1.5 mrad"),
    "detector_center": (5.25, 4),
}


def opened(**calibration):
    """Open the frames from memory."""
    frames = scan_source(ArrayFrames(FRAMES))
    return build(frames, [], Acquisition(), Calibration(**calibration), "memory", flyback=False)


def assert_same(one, other):
    """Coordinates, attributes and pixels agree, up to rounding."""
    xr.testing.assert_allclose(one, other, rtol=1e-12)
    for name in one.coords:
        own, their = one[name].attrs, other[name].attrs
        assert {**own, "origin": 0} == {**their, "origin": 0}, name
        assert own.get("origin", 0) == pytest.approx(their.get("origin", 0), rel=1e-12)
    assert one.intensity.attrs == other.intensity.attrs
    assert one.attrs == other.attrs


def test_calibrating_is_like_opening_with_the_same_values():
    """The door by which values come in does not matter, and the array stays a plain selection of its scan."""
    ds = calibrate(opened(), **VALUES)
    assert_same(ds, opened(**VALUES))
    assert selection_of(ds.intensity.data) is not None
    assert stemstore.explain(ds).startswith("fused")
    assert ds.ky.attrs["units"] == "1/angstrom"
    assert ds.intensity.attrs["scan_rotation_deg"] == ds.attrs["scan_rotation_deg"] == -12.5


def test_the_given_dataset_stays_as_it_is():
    """A new dataset is made; the old one keeps coordinates and attributes."""
    plain, before = opened(), opened()
    calibrate(plain, **VALUES, ellipse=np.eye(2), origin=(np.ones((5, 6)), np.ones((5, 6))))
    assert_same(plain, before)
    assert list(plain.coords) == list(before.coords)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_values_add_up(data):
    """Stating some values after others is stating all at once, in any order and on any selection."""
    names = data.draw(st.permutations(sorted(VALUES)))
    cut = data.draw(st.integers(0, len(names)))
    first, second = ({name: VALUES[name] for name in part} for part in (names[:cut], names[cut:]))
    part = {
        dim: data.draw(st.sampled_from([slice(None), slice(1, None, 2), slice(None, None, -1), [3, 0, 4], 2]))
        for dim in data.draw(st.sets(st.sampled_from(["y", "x"])))
    }
    part |= {
        dim: data.draw(st.sampled_from([slice(2, 9), slice(None, None, -3), [1, 7, 2]]))
        for dim in data.draw(st.sets(st.sampled_from(["ky", "kx"])))
    }
    stepwise = calibrate(calibrate(opened(), **first).isel(part), **second)
    assert_same(stepwise, calibrate(opened(), **VALUES).isel(part))
    assert_same(calibrate(stepwise), stepwise)


def test_later_values_take_the_place_of_earlier_ones():
    """A step in mrad follows a new beam energy; a new step keeps the optic axis, a new centre the step."""
    ds = calibrate(opened(**VALUES), beam_energy=80)
    assert_same(ds, opened(**VALUES | {"beam_energy": 80}))
    ds = calibrate(opened(**VALUES), detector_step="2 mrad")
    assert_same(ds, opened(**VALUES | {"detector_step": "2 mrad"}))
    ds = calibrate(opened(**VALUES), detector_center=(1, 2))
    assert_same(ds, opened(**VALUES | {"detector_center": (1, 2)}))


def test_a_centre_without_a_step_counts_in_pixels(scan, counts):
    """Axes stay stored pixel numbers; detectors and moments go by the stated centre, also after a crop or a step."""
    ds = calibrate(scan, detector_center=(3.5, 2))
    np.testing.assert_array_equal(ds.ky, np.arange(14))
    row, column = np.indices((14, 10))
    mask = (row - 3.5) ** 2 + (column - 2) ** 2 < 3**2
    part = ds.isel(ky=slice(1, None), kx=slice(None, None, -1))
    np.testing.assert_array_equal(stemstore.virtual_image(part, stemstore.disk(3)), (counts * mask).sum((2, 3)))
    com, plain = (stemstore.center_of_mass(one).compute() for one in (ds, scan))
    np.testing.assert_allclose(com.com_y - plain.com_y, 6.5 - 3.5)
    stepped = calibrate(ds, detector_step="2 mrad")
    np.testing.assert_allclose(stepped.ky, 2 * (np.arange(14) - 3.5))
    assert "optic_axis" not in stepped.ky.attrs


def test_binned_detectors_are_calibrated_by_their_own_pixels():
    """Steps and centres belong to the boxes; the place of the optic axis is kept."""
    plain = stemstore.bin_detector(opened(), 2)
    np.testing.assert_allclose(calibrate(plain, detector_step="3 mrad").ky, 3 * (np.arange(6) - 2.5))
    binned = stemstore.bin_detector(opened(**VALUES), 2)
    np.testing.assert_allclose(calibrate(binned, detector_step="3 1/nm").ky, 0.3 * (np.arange(6) - (5.25 - 0.5) / 2))


def test_sources_and_uncertainties_are_kept():
    """A quantity brings both along; the attribute is plain JSON."""
    energy = Quantity(value=300, unit="keV", source="measured", uncertainty=0.3)
    ds = calibrate(opened(), beam_energy=energy, semi_convergence_angle=20)
    said = json.loads(ds.attrs["calibration"])
    assert said["beam_energy"] == {"value": 300, "unit": "keV", "source": "measured", "uncertainty": 0.3}
    assert said["semi_convergence_angle"]["source"] == "user"


@pytest.mark.parametrize("form", ["matrix", "mapping", "record", "dataset", "axes"])
def test_ellipses_in_any_form(form):
    """All forms give the same matrix, row by row, in plain numbers."""
    ellipse = Ellipse.of_axes(1.1, 0.9, 20)
    given = {
        "matrix": np.array(ellipse.matrix),
        "mapping": {"matrix": ellipse.matrix, "a": 1.1, "b": 0.9, "theta": 20, "residual": 0.1},
        "record": ellipse,
        "dataset": xr.Dataset({"matrix": (("row", "column"), np.array(ellipse.matrix))}),
        "axes": {"a": 1.1, "b": 0.9, "theta": 20},
    }[form]
    ds = calibrate(opened(), ellipse=given, detector_transpose=True)
    np.testing.assert_allclose(np.reshape(ds.intensity.attrs["ellipse_matrix"], (2, 2)), ellipse.matrix)
    assert ds.intensity.attrs["detector_transpose"] == 1
    json.dumps(ds.intensity.attrs)
    plain = calibrate(ds, ellipse=False)
    assert not [name for name in (*plain.attrs, *plain.intensity.attrs) if name.startswith("ellipse")]
    assert "ellipse" not in json.loads(plain.attrs["calibration"])


def test_ellipses_in_a_unit_are_brought_to_pixels():
    """A matrix for vectors in mrad acts on the same vectors when pixels are not square."""
    ds = opened(detector_step=(2.0, 3.0), beam_energy=300)
    ellipse = {"a": 1.1, "b": 0.9, "theta": 20, "unit": "mrad", "ratio_sigma": 0.01}
    matrix = np.reshape(calibrate(ds, ellipse=ellipse).intensity.attrs["ellipse_matrix"], (2, 2))
    expected = np.array(Ellipse.of_axes(1.1, 0.9, 20).matrix) @ [2 * 3, 3 * 4]
    np.testing.assert_allclose([2, 3] * (matrix @ [3, 4]), expected)
    with pytest.raises(CalibrationMissingError, match="mrad"):
        calibrate(opened(), ellipse=ellipse)


@pytest.mark.parametrize("unit", ["pixel", "mrad", "1/angstrom"])
def test_origins_are_kept_in_stored_pixels(unit):
    """Maps on any axes become pixel numbers, which later steps and centres leave alone; selections keep them."""
    ds = opened(beam_energy=300, detector_step=("2 mrad", "3 mrad"), detector_center=(5, 4))
    rows, columns = np.random.default_rng(1).normal(5, 1, (2, 5, 6))
    step = {"pixel": (1, 1), "mrad": (2, 3), "1/angstrom": (ds.ky.attrs["step"], ds.kx.attrs["step"])}[unit]
    zero = (0, 0) if unit == "pixel" else (5, 4)
    maps = [
        xr.DataArray((part - z) * s, dims=("y", "x"), attrs={"units": unit})
        for part, z, s in zip((rows, columns), zero, step, strict=True)
    ]
    part = calibrate(ds.isel(kx=slice(None, None, -2), ky=slice(3, None)), origin=maps)
    np.testing.assert_allclose(part.origin_ky, rows)
    later = calibrate(part, detector_step="1 mrad", detector_center=(0, 0)).isel(y=[4, 1], x=3)
    np.testing.assert_allclose(later.intensity.origin_kx, columns[[4, 1], 3])
    assert "origin_ky" not in calibrate(part, origin=False).coords


def test_deflections_become_origins():
    """The centre of mass of a dataset, as an origin of it, is where the beam is."""
    ds = calibrate(opened(**VALUES), origin=stemstore.center_of_mass(opened(**VALUES)))
    rows = (FRAMES * np.arange(12)[:, None]).sum((2, 3)) / FRAMES.sum((2, 3))
    np.testing.assert_allclose(ds.origin_ky, rows)


def test_lazy_origins_cost_one_pass():
    """Both maps of a lazy result are computed together."""
    source, passes = scan_source(ArrayFrames(FRAMES)), []
    run = source.run
    source.run = lambda selection, *rest: (passes.append(selection.n_positions), run(selection, *rest))[1]
    ds = build(source, [], Acquisition(), Calibration(), "memory", flyback=False)
    com = stemstore.center_of_mass(ds)
    calibrate(ds, origin=com)
    assert sum(passes) == 30
    calibrate(ds, origin=(com.com_y, com.com_x))
    assert sum(passes) == 60


def test_origins_need_not_be_known_where_nothing_was_recorded(frames_of):
    """A missing frame may have no origin; a recorded one must."""
    validity = np.full(SHAPE[:2], 2)
    validity[1, 2] = 0
    maps = np.ones((2, *SHAPE[:2]))
    maps[:, 1, 2] = np.nan
    ds = calibrate(frames_of(FRAMES, validity), origin=tuple(maps))
    assert np.isnan(ds.origin_ky[1, 2])
    with pytest.raises(InputError, match=r"not finite at 1 positions, first at \(1, 2\)"):
        calibrate(frames_of(FRAMES), origin=tuple(maps))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"detector_steps": 1}, "'detector_steps' is no calibration; expected some of origin, ellipse"),
        ({"beam_energy": "300 nm"}, "beam_energy"),
        ({"detector_step": Quantity(value=1, unit="nm", source="user")}, "step of ky and kx"),
        ({"ellipse": np.eye(3)}, "not understood"),
        ({"ellipse": [[0, 1], [1, 0]]}, "positive determinant"),
        ({"ellipse": {"a": 1, "b": 2}}, "theta"),
        ({"ellipse": {"a": 0, "b": 2, "theta": 0}}, "not understood"),
        ({"origin": (3.0, 4.0)}, "given by detector_center"),
        ({"origin": (np.ones((2, 2)), np.ones((2, 2)))}, r"shape \(2, 2\), but the scan is \(5, 6\)"),
        ({"origin": 3}, "pair of maps"),
        ({"origin": xr.Dataset({"a": 1})}, "lacks"),
    ],
)
def test_what_is_no_calibration_is_refused(options, match):
    """The message names the value and what would do."""
    with pytest.raises(InputError, match=match):
        calibrate(opened(), **options)


def test_only_scans_are_calibrated():
    """A dataset without intensity, and a statement that was tampered with, are refused; the variable alone is fine."""
    with pytest.raises(InputError, match="only a scan"):
        calibrate(xr.Dataset({"a": 1}), beam_energy=300)
    ds = opened(beam_energy=300)
    ds["intensity"].attrs["calibration"] = "{"
    with pytest.raises(CorruptDataError, match="calibrate again"):
        calibrate(ds, beam_energy=300)
    image = calibrate(opened().intensity, **VALUES)
    xr.testing.assert_identical(image, opened(**VALUES).intensity)
