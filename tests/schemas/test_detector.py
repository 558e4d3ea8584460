"""The detector and its sectors."""

import pytest
from pydantic import ValidationError

from stemstore_schemas import Detector, Sector


def test_four_sectors_fill_a_detector():
    """Sectors are half-open ranges of rows and columns."""
    sectors = [Sector(name=str(n), rows=(144 * n, 144 * (n + 1)), columns=(0, 576)) for n in range(4)]
    assert Detector(shape=(576, 576), sectors=sectors).sectors[3].rows == (432, 576)


def test_sectors_stay_on_the_detector():
    """A sector beyond the detector is refused with its name and edges."""
    with pytest.raises(ValidationError, match="sector 'a' ends at row 9, column 4, outside"):
        Detector(shape=(8, 4), sectors=[Sector(name="a", rows=(0, 9), columns=(0, 4))])


def test_sector_names_are_unique():
    """Two sectors of one name cannot be told apart."""
    sector = Sector(name="a", rows=(0, 1), columns=(0, 1))
    with pytest.raises(ValidationError, match="expected each name once"):
        Detector(sectors=[sector, sector])


@pytest.mark.parametrize("rows", [(2, 2), (3, 1)])
def test_empty_sectors_are_refused(rows):
    """A range ends after it starts."""
    with pytest.raises(ValidationError, match=r"sector 'a' has rows .* expected start < stop"):
        Sector(name="a", rows=rows, columns=(0, 1))
