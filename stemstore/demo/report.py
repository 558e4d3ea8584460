"""The report of the demonstration: one HTML page with pictures beside it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from stemstore.demo.compare import Check

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1040px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: .25em .8em; border-bottom: 1px solid #ddd; }
th { text-align: left; } .no { color: #b00020; font-weight: bold; } .yes { color: #1b6e20; }
img { max-width: 100%; } pre { background: #f6f6f6; padding: .8em; overflow-x: auto; font-size: 12.5px; }
"""


def write_report(
    path: Path, *, checks: list[Check], facts: dict[str, str], pictures: dict[str, Path], inspection: str
) -> Path:
    """Write the page.

    Parameters
    ----------
    path
        HTML file; pictures are linked relative to it.
    checks
        Results against truth.
    facts
        Name and value of what was done and how fast.
    pictures
        Caption and file.
    inspection
        Text that ``stemstore inspect`` prints for the raw files.
    """
    rows = "".join(
        f"<tr><td>{_text(check.name)}</td><td>{_text(check.measured)}</td><td>{_text(check.expected)}</td>"
        f'<td class="{"yes" if check.holds else "no"}">{"yes" if check.holds else "NO"}</td></tr>'
        for check in checks
    )
    told = "".join(f"<tr><td>{_text(key)}</td><td>{_text(value)}</td></tr>" for key, value in facts.items())
    shown = "".join(
        f'<h3>{_text(caption)}</h3><img src="{_text(picture.name)}" alt="{_text(caption)}">'
        for caption, picture in pictures.items()
    )
    n_good = sum(check.holds for check in checks)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>stemstore demo</title><style>{STYLE}</style></head><body>
<h1>stemstore demo</h1>
<p>A synthetic 4D-STEM scan was written as raw sector files, converted to a dense and to a counted store, opened
lazily and analysed. The generator knows the truth; each result is compared with it.</p>
<h2>Results against the truth: {n_good} of {len(checks)} hold</h2>
<table><tr><th>result</th><th>measured</th><th>expected</th><th>holds</th></tr>{rows}</table>
<h2>Pictures</h2>{shown}
<h2>What was done</h2><table>{told}</table>
<h2>Inspection of the raw files</h2><pre>{_text(inspection)}</pre>
</body></html>
"""
    path.write_text(page, encoding="utf-8")
    return path


def _text(value: object) -> str:
    return html.escape(str(value))
