"""The page on stores on servers: what it shows runs."""

import re
from pathlib import Path

import stemstore
from stemstore.testing import make_scan

PAGE = Path(__file__).resolve().parents[2] / "docs" / "remote.md"


def test_the_page_runs(s3, web, tmp_path, monkeypatch):
    """The Python blocks run one after the other, on a bucket and a web server of this machine."""
    make_scan(tmp_path / "scan_42", scan_shape=(8, 8), dose=150, seed=42)
    stemstore.convert(tmp_path / "scan_42", tmp_path / "scan_42.zarr")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.proxy.url)
    s3.fs.mkdir("lab")
    names = {}
    page = PAGE.read_text(encoding="utf-8").replace("https://data.example.org", web.url.rpartition("/")[0])
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(block, names)  # the block is ours
    assert "bright_field" in stemstore.results(names["there"])
    assert list((tmp_path / "blocks").rglob("*.block"))
    s3.fs.rm("lab", recursive=True)
