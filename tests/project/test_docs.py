"""Documentation that is true: what it shows runs, what it lists is there, what it links exists."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stemstore
from stemstore.testing import make_scan

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *DOCS.glob("formats/*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks(page, language="python"):
    """Take the fenced code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def scan_42(tmp_path_factory):
    """Make a folder that holds the small scan which all examples speak of."""
    folder = tmp_path_factory.mktemp("examples")
    make_scan(folder / "scan_42", scan_shape=(8, 8), dose=150, seed=42)
    return folder


@pytest.fixture
def at_scan_42(scan_42, tmp_path, monkeypatch):
    """Stand in a folder where ``scan_42/`` is."""
    (tmp_path / "scan_42").symlink_to(scan_42 / "scan_42", target_is_directory=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("at_scan_42")
def test_the_ten_lines_of_the_readme(capsys):
    """The Python block of the README runs as it stands, and is as short as it says."""
    (block,) = blocks(ROOT / "README.md")
    assert len([line for line in block.splitlines() if line.strip()]) <= 12
    names = {}
    exec(block, names)  # the block is ours
    assert names["images"].bright.shape == names["phase"].shape == (8, 8)
    assert np.isfinite(names["phase"].values).all()
    assert "bright" in capsys.readouterr().out


@pytest.mark.usefixtures("at_scan_42")
def test_the_quickstart_runs():
    """The Python blocks of the quickstart run one after the other."""
    names = {}
    for block in blocks(DOCS / "quickstart.md"):
        exec(block, names)  # the block is ours
    assert names["ds"].intensity.dims == ("y", "x", "ky", "kx")
    assert int(names["disks"].n_disks.max()) > 1


@pytest.mark.usefixtures("at_scan_42")
def test_the_page_on_saved_results_runs():
    """The Python blocks of the page on results run one after the other, and what they saved is there."""
    names = {}
    for block in blocks(DOCS / "results.md"):
        exec(block, names)  # the block is ours
    assert {"com", "binned"} <= set(stemstore.results("scan_42.zarr"))


@pytest.mark.usefixtures("at_scan_42")
def test_the_page_on_events_runs():
    """The Python blocks of the page on events run one after the other."""
    names = {}
    for block in blocks(DOCS / "events.md"):
        exec(block, names)  # the block is ours


@pytest.mark.usefixtures("at_scan_42")
@pytest.mark.parametrize("page", ["bragg.md", "bragg_vectors.md"])
def test_the_pages_on_disks_run(page):
    """The Python blocks of the pages on Bragg disks run one after the other on the converted scan."""
    stemstore.convert("scan_42", "scan_42.zarr", flyback_columns=1, count=True)
    names = {}
    for block in blocks(DOCS / page):
        exec(block, names)  # the block is ours
    assert names["disks"].sizes["peak"] > 64


@pytest.mark.usefixtures("at_scan_42")
def test_the_commands_of_the_quickstart_run():
    """The shell lines of the quickstart work one after the other."""
    (block,) = blocks(DOCS / "quickstart.md", "bash")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line in block.splitlines():
        command = shlex.split(line)
        found = subprocess.run(
            [shutil.which(command[0], path=path), *command[1:]], capture_output=True, text=True, check=False
        )
        assert found.returncode == 0, found.stderr
        assert "576" in found.stdout


def test_every_reader_has_a_page():
    """The formats' table lists each built-in reader and its page, and each page says what it has to say."""
    table = (DOCS / "formats" / "index.md").read_text(encoding="utf-8")
    ours = {name for name, info in stemstore.readers().items() if info.package == "stemstore"}
    pages = {page.stem for page in DOCS.glob("formats/*.md")} - {"index"}
    assert pages == ours
    for name in ours:
        assert f"[{name}]({name}.md)" in table
        text = (DOCS / "formats" / f"{name}.md").read_text(encoding="utf-8")
        assert all(f"**{part}" in text for part in ("Read:", "Not read:", "Scan shape:", "Quirks"))


def test_every_reader_option_is_documented():
    """The page of a reader names each option of its constructor."""
    for name, info in stemstore.readers().items():
        if info.package == "stemstore":
            text = (DOCS / "formats" / f"{name}.md").read_text(encoding="utf-8")
            assert not [option for option in info.options if option not in text]


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_every_public_name_is_listed(page):
    """README and interface page name each public function."""
    text = (ROOT / page).read_text(encoding="utf-8")
    names = set(stemstore.__all__) - {"__version__"}
    listed = set(re.findall(r"(?:`|stemstore\.)(\w+)", text))
    assert not names - listed


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md", "CHANGELOG.md"])
def test_every_verb_is_listed(page):
    """The pages name each verb of the command line, and no other."""
    from stemstore.cli.main import VERBS

    verbs = {verb.__name__.rpartition(".")[2] for verb in VERBS}
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not [verb for verb in verbs if f"`{verb}`" not in text]
    assert not set(re.findall(r"`stemstore ([a-z]\w*)", text)) - verbs


def test_every_exit_code_is_listed():
    """The table of exit codes is the one of the program."""
    from stemstore.cli.exit import MEANING

    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE))
    assert listed == {str(code): meaning for code, meaning in MEANING.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Each relative link of a page leads to a file of the repository."""
    links = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_example_reader_keeps_the_contract():
    """The tests that the guide shows pass for the reader that the guide shows."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(EXAMPLES)]
    found = subprocess.run(
        command, env=environment(EXAMPLES), cwd=EXAMPLES, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout
    assert " passed" in found.stdout


def test_the_example_reader_is_found_as_a_plug_in(tmp_path):
    """Registered by an entry point of a package of its own, the format opens without being named."""
    shutil.copy(EXAMPLES / "acme_reader.py", tmp_path)
    metadata = tmp_path / "acme_reader-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-reader\nVersion: 1.0\n", encoding="utf-8")
    (section,) = blocks(DOCS / "write-a-reader.md", "toml")
    (metadata / "entry_points.txt").write_text(
        section.replace('[project.entry-points."stemstore.readers"]', "[stemstore.readers]").replace('"', ""),
        encoding="utf-8",
    )
    shape = np.array([2, 3, 4, 5], "<u2")
    header = b"ACME4D\x00\x01" + shape.tobytes() + np.array([200, 0.5], "<f4").tobytes() + bytes(8)
    (tmp_path / "scan.acme").write_bytes(header + np.arange(120, dtype="<u2").tobytes())
    code = "import stemstore; d = stemstore.open('scan.acme'); print(int(d.intensity.max()), float(d.y[1]))"
    command = [sys.executable, "-c", code]
    found = subprocess.run(
        command, env=environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.stdout.split() == ["119", "0.5"], found.stderr


def environment(folder):
    """Environment in which modules of a folder can be imported."""
    return os.environ | {"PYTHONPATH": str(folder)}
