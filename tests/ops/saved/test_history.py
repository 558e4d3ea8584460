"""Lines of history become entries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stemstore._version import __version__
from stemstore.ops.labels import parameters_text
from stemstore.ops.saved.history import history_entries, history_lines

TIME = "2024-05-17T09:30:00+00:00"


def entry(line):
    (found,) = history_entries([line], TIME)
    return found


@given(
    st.dictionaries(
        st.sampled_from(["radius", "unit", "mask"]),
        st.integers() | st.text(max_size=8) | st.booleans() | st.lists(st.integers(), max_size=3),
    )
)
def test_our_lines_are_taken_apart(parameters):
    """What an operation wrote is found again: its name, its parameters and the version."""
    found = entry(parameters_text("operation", **parameters))
    assert (found.operation, found.parameters, found.time) == ("operation", parameters, TIME)
    assert found.software == {"stemstore": __version__}


@given(st.text(min_size=1).filter(str.strip))
def test_any_line_is_an_entry(line):
    """Whatever somebody wrote has an operation; nothing raises."""
    assert entry(line).operation


def test_values_that_cannot_be_spelled_stay_text():
    """Arrays, names and infinities are kept as they are written."""
    found = entry(parameters_text("f", centre=np.zeros((2, 3)), limit=float("inf"), step=0.5, pair=(1, 2)))
    assert found.parameters == {"centre": "array(2, 3)", "limit": "inf", "step": 0.5, "pair": [1, 2]}
    assert entry("f(3, 2j, a={1: 2}, **more)").parameters == {"0": 3, "1": "2j", "a": {"1": 2}, "**": "more"}


@pytest.mark.parametrize("line", ["made by hand", "a(b", "x = f(1)", "(" * 300])
def test_what_is_no_call_is_the_operation(line):
    """A line of another form is kept whole."""
    assert (entry(line).operation, entry(line).parameters) == (line, {})


def test_lines_come_once():
    """Lines that several arrays share stand once, in order."""
    attributes = [{"history": "a()\nb()"}, {}, {"history": "a()\n\nc()"}]
    assert history_lines(attributes) == ["a()", "b()", "c()"]
