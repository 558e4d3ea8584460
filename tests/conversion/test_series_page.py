"""The page on series runs as it stands."""

import re
from pathlib import Path

import pytest

import stemstore
from stemstore.conversion.series.run import convert_series
from stemstore.scan.series.mapping import map_scans
from stemstore.scan.series.open import open_series
from stemstore.store.series.entry import index_series
from stemstore.testing import make_scan

PAGE = Path(__file__).resolve().parents[2] / "docs" / "series.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::stemstore.errors.ScanWarning")  # the scans are small
def test_the_page_on_series_runs(tmp_path, monkeypatch, capsys):
    """Its Python blocks run one after the other, on three small scans."""
    for verb in (convert_series, open_series, map_scans, index_series):
        monkeypatch.setattr(stemstore, verb.__name__, verb, raising=False)
    for number in (1, 2, 3):
        make_scan(tmp_path / "day_3" / f"scan_{number}", scan_shape=(6, 6), dose=150, seed=number)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(block, names)  # the block is ours
    said = capsys.readouterr().out
    assert said.startswith("('time', 'y', 'x', 'ky', 'kx') ['scan_1' 'scan_2' 'scan_3']")
    assert names["patterns"].dims == ("time", "ky", "kx")
    assert dict(names["phase"].sizes) == {"time": 3, "y": 6, "x": 6}
    assert names["ds"].scan.values.tolist() == ["before", "after"]
