"""The command as a whole: help, verbs, logging, start-up."""

import logging
import subprocess
import sys
import time

import pytest

from stemstore import __version__
from stemstore.cli.main import VERBS

# without pydantic and rich, which some releases of typer import themselves
HEAVY = ("numpy", "zarr", "xarray", "dask", "numba", "scipy", "h5py", "fsspec", "stemstore_schemas")


def started(*args, **more):
    """Run the installed command as a process of its own."""
    call = "from stemstore.cli.main import main; main()"
    return subprocess.run([sys.executable, "-c", call, *args], capture_output=True, text=True, check=False, **more)


def test_help_lists_every_verb(call):
    """Help names all verbs and the exit codes."""
    text = call("--help").stdout
    verbs = (
        "readers",
        "inspect",
        "convert",
        "series",
        "plan",
        "partition",
        "finalise",
        "repair",
        "export",
        "info",
        "validate",
        "verify",
        "copy",
        "rechunk",
        "pack",
        "edit",
        "crate",
        "virtual",
        "disks",
        "demo",
        "doctor",
    )
    assert all(f"  {name}  " in text for name in verbs)
    assert "4 output exists" in " ".join(text.split())


@pytest.mark.parametrize("verb", [module.__name__.rpartition(".")[2] for module in VERBS])
def test_every_verb_has_help_with_an_example(call, verb):
    """Help of a verb ends in a command that starts with the verb itself."""
    result = call(verb, "--help")
    assert result.exit_code == 0
    assert f"Example: stemstore {verb}" in " ".join(result.stdout.split())
    assert "Options:" in result.stdout


def test_example_options_exist(call):
    """Every option that an example uses is one of its verb."""
    for module in VERBS:
        words = module.EXAMPLE.split()
        text = call(words[1], "--help").stdout
        assert all(word in text for word in words if word.startswith("--")), module.EXAMPLE


def test_help_starts_quickly():
    """Help appears well before a person wonders; the limit is generous for busy machines."""
    times = []
    for _ in range(3):
        before = time.perf_counter()
        assert started("--help").returncode == 0
        times.append(time.perf_counter() - before)
    assert min(times) < 1.5


def test_help_imports_nothing_heavy():
    """No array library is loaded to show help."""
    code = (
        "import sys\nfrom stemstore.cli.main import app\n"
        "try: app(['convert', '--help'])\nexcept SystemExit: pass\n"
        f"sys.stderr.write(' '.join(n for n in {HEAVY!r} if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_version(call):
    """The version is that of the package."""
    assert call("--version").stdout == f"stemstore {__version__}\n"


def test_unknown_verb_suggests(call):
    """A misspelt verb is a usage error that names the right one."""
    result = call("convrt")
    assert result.exit_code == 2
    assert "Did you mean 'convert'?" in result.stderr


def test_without_verb_help_is_shown(call):
    """The bare command shows its help and is a usage error."""
    result = call()
    assert result.exit_code == 2
    assert "Commands:" in result.output


@pytest.mark.parametrize(("flags", "level"), [((), 30), (("-v",), 20), (("-vv",), 10), (("-q",), 40), (("-qq",), 51)])
def test_verbosity_sets_the_log_level_of_one_call(call, monkeypatch, flags, level):
    """Each -v or -q moves the level of the package's logger, which is put back afterwards."""
    seen = []
    logger, before = logging.getLogger("stemstore"), list(logging.getLogger("stemstore").handlers)
    monkeypatch.setattr("stemstore.sources.registry.readers", lambda: seen.append(logger.level) or {})
    assert call(*flags, "readers").exit_code == 0
    assert seen == [level]
    assert logger.handlers == before
    assert logger.level == logging.NOTSET


def test_log_lines_go_to_standard_error(call, raw, tmp_path):
    """With -v the summary of a conversion is logged beside the result."""
    result = call("-v", "convert", raw, tmp_path / "a.zarr", "--progress", "none")
    assert result.stderr.startswith("info: wrote ")
    assert "info:" not in result.stdout
