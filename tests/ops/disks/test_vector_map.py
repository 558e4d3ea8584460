"""Bragg vector maps: where disks go, what they count, and what other operations read off the map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.errors import InputError
from stemstore.ops.calibration.ellipse import fit_ellipse
from stemstore.ops.calibration.ring_peaks import find_rings
from stemstore.ops.disks.calibration import calibrate_disks
from stemstore.ops.disks.vector_map import bragg_vector_map
from stemstore.ops.geometry.detectors import disk
from stemstore.ops.imaging.radial import radial_profile
from stemstore.testing.arrays import ArrayFrames
from stemstore.testing.disks import lattice_disks


@pytest.fixture
def labels(dataset_of):
    """Coordinates and attributes of a calibrated scan."""
    frames = ArrayFrames(np.zeros((4, 5, 90, 110), np.uint8))
    scan = dataset_of(frames, detector_step=0.5, beam_energy=300, detector_center=(40, 50))
    return {"coords": scan.coords, "attrs": scan.intensity.attrs}


def test_known_bins():
    """A disk at (44.25, 54.5) gives its intensity to four bins; one on a pixel to one."""
    disks = lattice_disks((1, 1), origin=(44.25, 54.5), lattice=np.eye(2) * 200)
    found = bragg_vector_map(disks)
    assert found.shape == (90, 110)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[44:46, 54:56], 1000 * np.array([[0.375, 0.375], [0.125, 0.125]]))
    assert found.sum() == pytest.approx(1000)
    nearest = bragg_vector_map(disks, method="nearest", weights="correlation")
    assert float(nearest[44, 55]) == float(nearest.sum()) == 100
    fine = bragg_vector_map(disks, sampling=4, weights=None)
    assert fine.shape == (360, 440)
    assert float(fine[177, 218]) == float(fine.sum()) == 1
    assert fine.ky[177] == 44.25
    assert (fine.units, found.units, found.n_disks) == ("count", "count", 1)


@given(st.sampled_from([0.5, 1, 2.5]), st.sampled_from(["bilinear", "nearest"]))
def test_nothing_is_lost(sampling, method):
    """The sum of a map is that of the disks inside; the others are counted."""
    y, x = np.indices((4, 5))
    disks = lattice_disks(origin=np.stack([4.0 * y, 110 - 20.0 * x], -1), noise=0.4)
    found = bragg_vector_map(disks, sampling=sampling, method=method, weights=None)
    assert found.sum() == pytest.approx(found.n_disks)
    assert found.n_disks + found.n_outside == disks.sizes["peak"]
    assert found.n_outside < 0.1 * disks.sizes["peak"]


def test_axes_of_the_detector(labels):
    """A raw map has the detector's axes, of a cut detector too, between its pixels, and its optic axis."""
    cut = {name: one for name, one in labels["coords"].items() if "k" not in name}
    scan = labels["coords"].to_dataset().isel(ky=slice(10, 90), kx=slice(20, 110))
    disks = lattice_disks((4, 5), (80, 90), origin=(30, 30), coords={**cut, **scan.coords}, attrs=labels["attrs"])
    found = bragg_vector_map(disks, sampling=2)
    np.testing.assert_allclose(found.ky[::2], scan.ky, atol=1e-12)
    np.testing.assert_allclose(found.kx[1:-1:2], (scan.kx.values[1:] + scan.kx.values[:-1]) / 2)
    assert found.ky.units == found.kx.units == scan.ky.units == "1/angstrom"
    assert float(found.ky[int(found.values.argmax()) // found.sizes["kx"]]) == pytest.approx(0, abs=1e-12)
    assert found.beam_energy_keV == 300
    pixels = bragg_vector_map(lattice_disks(), sampling=3)
    assert (pixels.ky.units, pixels.ky.optic_axis) == ("pixel", 44.5)


def test_centred(labels):
    """A centred map has the optic axis in its middle bin, whatever the origin does, and holds the whole detector."""
    y, x = np.indices((4, 5))
    disks = lattice_disks(origin=np.stack([40.3 + y, 50.1 - x], -1), **labels)
    step = float(labels["coords"]["ky"].step)
    moved = calibrate_disks(disks, origin=((0.3 + y) * step, (0.1 - x) * step))
    found = bragg_vector_map(moved, centred=True, sampling=2)
    assert found.shape == (2 * 99 + 1, 2 * 119 + 1)
    assert found.ky[99] == found.kx[119] == 0
    assert found.ky[100] == step / 2
    assert float(found[99, 119]) == pytest.approx(20 * 1000, rel=1e-4)
    assert 0 < found.n_outside < 20  # at the border, where the origin moved
    raw = bragg_vector_map(disks, centred=True)
    assert float(raw.max()) < 8000  # the origins differ
    assert raw.n_outside == 0


def test_turned(labels):
    """A map along the scan axes turns with its vectors, and is large enough for the corners of the detector."""
    disks = lattice_disks(origin=(40, 50), lattice=((20, 0), (0, 15)), **labels)
    found = bragg_vector_map(calibrate_disks(disks, axes="scan", rotation=90), centred=True)
    step = float(labels["coords"]["ky"].step)
    spots = found.where(found > 5000, drop=True).stack(spot=("ky", "kx")).dropna("spot")
    places = {(round(float(spot.ky) / step), round(float(spot.kx) / step)) for spot in spots}
    assert {(0, 0), (-15, 0), (15, 0), (0, 20), (0, -20)} <= places
    assert found.n_outside == 0


def test_region(labels):
    """Only the positions of a region are added up."""
    disks = lattice_disks(**labels)
    roi = np.zeros((4, 5), bool)
    roi[1, 2:4] = True
    for centred in (False, True):
        some, all_of_them = (bragg_vector_map(disks, roi=one, centred=centred) for one in (roi, None))
        np.testing.assert_allclose(some, all_of_them / 10)
    assert some.n_disks * 10 == all_of_them.n_disks


def test_operations_on_patterns_read_the_map(labels):
    """Rings and their ellipse are found on a map as on a pattern, in its units."""
    from scipy.ndimage import gaussian_filter

    bent, total = [[1.03, 0.0], [0.0, 1.0]], 0.0
    for angle in np.radians(np.arange(0, 60, 3.0)):
        c, s = np.cos(angle), np.sin(angle)
        grain = np.array([[20.0, 0.0], [10.0, 17.3205]]) @ [[c, -s], [s, c]]
        disks = lattice_disks((1, 1), (120, 120), lattice=grain, distortion=bent)
        total = total + bragg_vector_map(disks, centred=True, sampling=2)
    plane = total.copy(data=gaussian_filter(total.values, 1.5))
    found = fit_ellipse(plane, 16, 24)
    assert found.ratio == pytest.approx(1.03, abs=0.002)
    assert abs(found.theta) < 1
    round_again = calibrate_disks(disks, ellipse=found)
    assert np.hypot(round_again.gy, round_again.gx).values[1:7] == pytest.approx(20, abs=0.03)
    assert float(find_rings(radial_profile(plane), minimum=10).radius[0]) == pytest.approx(20.3, abs=0.2)


def test_an_ellipse_of_the_scan_stays_with_raw_maps():
    """Shapes on a raw map see the ellipse of the scan; on a calibrated one it has been taken away."""
    attrs = {"ellipse_matrix": [0.5, 0.0, 0.0, 1.0], "scan_rotation_deg": 3.0}
    disks = lattice_disks(attrs=attrs)
    raw, made = bragg_vector_map(disks), bragg_vector_map(disks, centred=True)
    assert "ellipse_matrix" in raw.attrs
    assert not attrs.keys() & made.attrs.keys()
    assert disk(10).weights(raw).sum() == pytest.approx(2 * disk(10).weights(made).sum(), rel=0.05)


def test_refusals():
    """Options that are not known, sizes that are none and weights that nobody has are refused."""
    disks = lattice_disks()
    for options, text in [
        ({"method": "cubic"}, "method 'cubic' is not known"),
        ({"sampling": 0}, "sampling = 0 is no number of bins per pixel"),
        ({"sampling": 1e3}, r"the map would have \(90000, 110000\) bins"),
        ({"weights": "sigma_q"}, "weights 'sigma_q' are not known"),
        ({"roi": np.ones((4, 4), bool)}, "roi is a map of the scan's shape"),
    ]:
        with pytest.raises(InputError, match=text):
            bragg_vector_map(disks, **options)
    unknown = disks.assign(intensity=np.nan * disks.intensity)
    with pytest.raises(InputError, match="no disk has a finite intensity; pass weights='correlation'"):
        bragg_vector_map(unknown)
    some = disks.assign(intensity=disks.intensity.where(disks.intensity > 500))
    assert bragg_vector_map(some).n_unweighted == (disks.intensity <= 500).sum()
