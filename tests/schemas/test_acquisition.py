"""Scan geometry."""

import pytest
from pydantic import ValidationError

from stemstore_schemas import Acquisition


def test_a_guessed_scan_shape_keeps_its_alternatives():
    """A guess is marked as one."""
    scan = Acquisition(scan_shape=(8, 9), scan_shape_source="guessed", scan_shape_alternatives=[(9, 8), (72,)])
    assert scan.n_positions == 72
    assert Acquisition.model_validate_json(scan.model_dump_json()) == scan


def test_an_unknown_scan_shape_has_no_positions():
    """Nothing is invented for a scan of unknown shape."""
    assert Acquisition().n_positions is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scan_shape": (4, 4)}, "give both or none"),
        ({"scan_shape_source": "user"}, "give both or none"),
        ({"scan_shape": (4, 0), "scan_shape_source": "user"}, "greater than 0"),
        ({"scan_shape": (), "scan_shape_source": "user"}, "at least 1 item"),
        ({"scan_shape": (4, 4), "scan_shape_source": "user", "flyback_columns": 4}, "rows of scan_shape"),
        ({"flyback_columns": -1}, "greater than or equal to 0"),
        ({"frames_per_position": 0}, "greater than 0"),
        ({"start_time": "noon"}, "'noon' is not ISO 8601"),
        ({"voltage": 300}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_scans_are_refused(wrong, message):
    """A scan shape is positive, says where it comes from, and includes the flyback columns."""
    with pytest.raises(ValidationError, match=message):
        Acquisition(**wrong)


def test_a_start_time_may_lack_its_zone():
    """Many headers do not state a zone."""
    assert Acquisition(start_time="2024-05-17T09:30:00").start_time == "2024-05-17T09:30:00"
