"""Results know their pictures once a scan is open."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

from stemstore.scan.accessor import Stem
from stemstore.scan.drawing.plot import Plots

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plots.md"


def test_what_is_opened_has_the_accessor(scan):
    """Datasets and arrays of an open scan lead to their pictures."""
    assert isinstance(scan.stem, Stem)
    assert isinstance(scan.intensity.stem.plot, Plots)


def test_opening_registers_the_accessor_and_loads_no_matplotlib():
    """In a fresh interpreter `stem` comes with the opening, and matplotlib only with a picture."""
    code = (
        "import sys, numpy as np, xarray as xr;"
        "from stemstore.scan.open import build; from stemstore.scan.calibration import Calibration;"
        "from stemstore.sources.streaming import scan_source; from stemstore.testing.arrays import ArrayFrames;"
        "from stemstore_schemas import Acquisition;"
        "before = hasattr(xr.DataArray, 'stem');"
        "source = scan_source(ArrayFrames(np.zeros((1, 1, 2, 2), 'u1')));"
        "build(source, [], Acquisition(), Calibration(), '', flyback=False);"
        "print(before, hasattr(xr.DataArray, 'stem'), hasattr(xr.Dataset, 'stem'), 'matplotlib' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True", "True", "False"]


def test_the_page_of_plots_runs(tmp_path, monkeypatch, sample_scan):
    """The Python blocks of the page run one after the other and write the picture they promise."""
    sample_scan(tmp_path / "scan_42.zarr")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(block, names)  # the block is ours
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    names["plt"].close("all")


@pytest.fixture
def sample_scan(monkeypatch):
    """Write a small simulated scan as a store; pictures need no display."""
    from stemstore import convert
    from stemstore.testing import make_scan

    monkeypatch.setenv("MPLBACKEND", "Agg")

    def write(path):
        make_scan(path.with_name("raw"), scan_shape=(8, 8), dose=150, seed=42)
        known = {"beam_energy": "300 keV", "scan_step": "0.5 nm", "detector_step": "0.044 mrad"}
        convert(path.with_name("raw"), path, count=True, **known)

    return write


def test_any_labelled_array_can_be_drawn():
    """The accessor belongs to xarray's types, whoever made them."""
    assert isinstance(xr.Dataset().stem.plot, Plots)
