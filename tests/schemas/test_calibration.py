"""The calibration document: one matrix without a sign to remember, quantities with their source, later words first."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stemstore_schemas import (
    CalibrationDocument,
    CalibrationValues,
    DocumentError,
    Ellipse,
    Quantity,
    SchemaVersionError,
    dump_document,
    load_calibration,
)

UUID = "0b7c6f3e-7a1d-4f0e-9c6a-2f6d5b1a9e10"
axes = st.floats(0.5, 2)


def mrad(value):
    return Quantity(value=value, unit="mrad", source="user")


@given(a=axes, b=axes, theta=st.floats(-400, 400))
def test_an_ellipse_becomes_a_circle(a, b, theta):
    """Points of the ellipse, whose axis a lies along theta from rows towards columns, all come to the distance b."""
    ellipse = Ellipse.of_axes(a, b, theta, source="measured")
    angle = np.linspace(0, 2 * math.pi, 17)
    along, across = a * np.cos(angle), b * np.sin(angle)
    cosine, sine = math.cos(math.radians(theta)), math.sin(math.radians(theta))
    row, column = along * cosine - across * sine, along * sine + across * cosine
    np.testing.assert_allclose(np.hypot(*(np.array(ellipse.matrix) @ [row, column])), b, rtol=1e-12)
    assert np.linalg.det(ellipse.matrix) == pytest.approx(b / a)


def test_the_matrix_is_the_published_one():
    """Row by row, with e = b / a and the angle theta - 90 degrees, as py4DSTEM writes it."""
    a, b, theta = 1.3, 1.1, 0.4
    e, s, c = b / a, math.sin(theta - math.pi / 2), math.cos(theta - math.pi / 2)
    expected = [[e * s * s + c * c, s * c * (1 - e)], [s * c * (1 - e), s * s + e * c * c]]
    np.testing.assert_allclose(Ellipse.of_axes(a, b, math.degrees(theta)).matrix, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"matrix": ((0, 1), (1, 0))}, "positive determinant"),
        ({"matrix": ((1, 2), (2, 4))}, "positive determinant"),
        ({"matrix": ((math.nan, 0), (0, 1))}, "finite number"),
        ({"matrix": ((1, 0), (0, 1)), "a": 1}, "give all three or none"),
        ({"matrix": ((1, 0), (0, 1)), "a": -1, "b": 1, "theta": 0}, "greater than 0"),
    ],
)
def test_matrices_that_are_no_distortion_are_refused(wrong, message):
    """A distortion has an inverse and no mirror in it."""
    with pytest.raises(ValidationError, match=message):
        Ellipse(**wrong)


def test_later_values_take_the_place_of_earlier_ones():
    """What the later values do not state stays."""
    energy = Quantity(value=300, unit="keV", source="header")
    first = CalibrationValues(beam_energy=energy, semi_convergence_angle=mrad(20))
    second = CalibrationValues(semi_convergence_angle=mrad(21), detector_transpose=False)
    both = first.merged(second)
    assert (both.beam_energy, both.semi_convergence_angle, both.detector_transpose) == (energy, mrad(21), False)
    assert first.merged(CalibrationValues()) == first == CalibrationValues().merged(first)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beam_energy": mrad(1)}, "expected 'keV'"),
        ({"detector_step": (mrad(1), mrad(0))}, "above zero"),
        ({"detector_step": (mrad(1),)}, "Field required"),
        ({"scan_step": (mrad(1), mrad(1))}, "expected 'nm'"),
        ({"detector_center": (mrad(1), mrad(1))}, "expected 'pixel'"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_quantities_of_another_kind_are_refused(wrong, message):
    """Every value has its unit."""
    with pytest.raises(ValidationError, match=message):
        CalibrationValues(**wrong)


def test_documents_survive_json():
    """What was written is read again; other kinds and newer versions are told apart."""
    document = CalibrationDocument(
        uuid=UUID, detector_step=(mrad(0.5), mrad(0.6)), ellipse=Ellipse.of_axes(1.1, 1, 0.3), arrays=["dark"]
    )
    written = dump_document(document)
    assert load_calibration(written) == document
    with pytest.raises(SchemaVersionError, match="newer"):
        load_calibration(written | {"version": 2})
    with pytest.raises(DocumentError, match="kind"):
        load_calibration(written | {"kind": "stemstore.scan"})
