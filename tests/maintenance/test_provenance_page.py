"""The page on provenance is true: what it shows runs."""

import re
from pathlib import Path

import stemstore
from stemstore.maintenance.crate import crate
from stemstore.testing import make_scan

PAGE = Path(__file__).resolve().parents[2] / "docs" / "provenance.md"


def test_the_page_on_provenance_runs(tmp_path, monkeypatch):
    """The Python blocks run one after the other and leave the files that they speak of."""
    make_scan(tmp_path / "scan_42", scan_shape=(4, 4), dose=80, seed=42)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stemstore, "crate", crate, raising=False)
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(block, names)  # the block is ours
    assert {"ro-crate-metadata.json", "prov.json"} <= {path.name for path in tmp_path.iterdir()}
