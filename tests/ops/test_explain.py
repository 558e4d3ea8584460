"""What road an array takes is said, and what is no scan is refused."""

import numpy as np
import pytest

import stemstore
from stemstore.errors import InputError


def test_explain_says_fused_or_why_not(scan):
    """A plain selection streams; changed values do not."""
    assert stemstore.explain(scan.isel(x=2)).startswith("fused")
    assert "not a plain selection" in stemstore.explain(scan.intensity * 2)
    assert "in memory" in stemstore.explain(scan.intensity.compute())


def test_things_that_are_no_scan_are_refused(scan):
    """Operations need the detector axes."""
    with pytest.raises(InputError, match="lacks"):
        stemstore.mean_pattern(scan.intensity.sum("ky"))
    with pytest.raises(InputError, match="got ndarray"):
        stemstore.mean_pattern(np.zeros((2, 2, 2, 2)))
    with pytest.raises(InputError, match="no variable 'intensity'"):
        stemstore.mean_pattern(scan.rename(intensity="data"))
