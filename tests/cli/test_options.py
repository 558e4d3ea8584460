"""Texts of options."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore.cli.options import parse_assignments, parse_numbers, parse_shape, source_options
from stemstore.errors import InputError

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("40,41", (40, 41)),
        ("40x41", (40, 41)),
        ("40X41", (40, 41)),
        (" 3 , 4 ", (3, 4)),
        ("2x3x4", (2, 3, 4)),
        ("7", (7,)),
    ],
)
def test_shapes_are_read(text, shape):
    """Commas and crosses separate the extents of a shape."""
    assert parse_shape(text, "--scan-shape") == shape


@pytest.mark.parametrize("text", ["", "4,", "4,z", "-4,4", "0,4", "4.5,4", "1,2,3,4", "4;4", "4 4", "x"])
def test_what_is_no_shape_is_refused(text):
    """Anything else names the option and gives an example."""
    with pytest.raises(InputError, match=r"--scan-shape .* is not a shape; give rows and columns such as 40,41"):
        parse_shape(text, "--scan-shape")


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b", ""])
def test_wrong_numbers_are_refused(text):
    """The number of numbers counts."""
    with pytest.raises(InputError, match=r"--center .* give 2 numbers"):
        parse_numbers(text, "--center", 2)


def test_numbers_are_read():
    """Signs and exponents are numbers."""
    assert parse_numbers("-1.5,2e1", "--center", 2) == (-1.5, 20.0)


@given(st.dictionaries(NAMES, st.recursive(st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4)))
def test_assignments_read_what_json_wrote(values):
    """Every JSON value comes back as it was."""
    assert parse_assignments([f"{key}={json.dumps(value)}" for key, value in values.items()]) == values


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dtype=<u2", {"dtype": "<u2"}),
        ("a=", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("frame-header=8", {"frame_header": 8}),
    ],
)
def test_values_that_are_no_json_stay_text(text, found):
    """Only the first equals sign divides, and dashes in names are underscores."""
    assert parse_assignments([text]) == found


@pytest.mark.parametrize("text", ["a", "=1", "a b=1", "1a=1"])
def test_assignments_need_a_name(text):
    """A text without a name before the equals sign is refused."""
    with pytest.raises(InputError, match="write it as key=value"):
        parse_assignments([text])


def test_a_key_twice_is_refused():
    """The same option twice is a mistake, not a choice of the last."""
    with pytest.raises(InputError, match="'a' is given twice"):
        parse_assignments(["a=1", "a=2"])
    with pytest.raises(InputError, match="'scan_shape' is given twice"):
        source_options(scan_shape="4,5", option=["scan_shape=[4,5]"])


def test_options_take_the_names_of_the_library():
    """Flags become the names that readers and calibration know; what was not given stays out."""
    found = source_options(
        scan_shape="4x5",
        flyback=0,
        format_version=4,
        option=["scan_number=42"],
        beam_energy="300 kV",
        scan_step="0.5,0.6 nm",
        detector_step="1",
        detector_center="7.5,8",
        scan_rotation=None,
    )
    assert found == {
        "scan_shape": (4, 5),
        "flyback_columns": 0,
        "version": 4,
        "scan_number": 42,
        "beam_energy": "300 kV",
        "scan_step": ("0.5", "0.6 nm"),
        "detector_step": "1",
        "detector_center": (7.5, 8.0),
    }
