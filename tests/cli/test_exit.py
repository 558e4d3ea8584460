"""Exit codes: the table, and the way from an error to the shell."""

import errno
import json
import subprocess
import sys

import pytest

import stemstore.errors as e
from stemstore.cli.exit import SERIES, exit_code, hint

EXPECTED = {
    e.StemStoreError: 1,
    e.InputError: 2,
    e.UnknownFormatError: 3,
    e.AmbiguousFormatError: 3,
    e.CalibrationMissingError: 2,
    e.ChunkingError: 2,
    e.NotFoundError: 3,
    e.DestinationExistsError: 4,
    e.StorageError: 1,
    e.CorruptDataError: 3,
    e.TruncatedFileError: 3,
    e.ChecksumError: 5,
    e.SectorMismatchError: 3,
    e.FormatVersionError: 3,
    e.ConversionIncompleteError: 3,
    e.SeriesIncompleteError: 1,
    e.StaleStoreError: 1,
    e.MemoryBudgetError: 6,
    e.ReaderError: 3,
    e.OptionalDependencyError: 1,
    MemoryError: 6,
    RuntimeError: 1,
    KeyboardInterrupt: 130,
}


def errors_of_the_package():
    """All error classes that exist."""
    classes = [e.StemStoreError]
    for cls in classes:
        classes.extend(cls.__subclasses__())
    return {cls for cls in classes if cls.__module__ == "stemstore.errors"}


def failing(monkeypatch, error):
    """Let the verb ``readers`` fail with `error`."""

    def fail():
        raise error

    monkeypatch.setattr("stemstore.sources.registry.readers", fail)


def test_every_error_has_an_expected_code():
    """A new error class must be given a code on purpose."""
    assert errors_of_the_package() <= set(EXPECTED)


@pytest.mark.parametrize(("cls", "code"), EXPECTED.items())
def test_verbs_end_with_the_code_of_their_error(call, monkeypatch, cls, code):
    """An error inside a verb becomes its exit code and one message on standard error."""
    failing(monkeypatch, cls("the cause"))
    result = call("readers")
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert "the cause" in result.stderr or cls is KeyboardInterrupt


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 6), (errno.EDQUOT, 6), (errno.EACCES, 1)])
def test_full_devices_are_out_of_budget(number, code):
    """No space and no quota are told apart from other refusals, for our errors and for the system's."""
    refused = e.StorageError("cannot write")
    refused.errno = number
    assert exit_code(refused) == exit_code(OSError(number, "refused")) == code


def test_traceback_only_when_asked_for(call, monkeypatch):
    """Two -v show where an error comes from."""
    failing(monkeypatch, ValueError("odd"))
    assert "Traceback" not in call("-v", "readers").stderr
    assert "Traceback" in call("-vv", "readers").stderr


def test_unforeseen_errors_say_how_to_see_more(call, monkeypatch):
    """An error that is not ours names its type and the way to its traceback."""
    failing(monkeypatch, ValueError("odd"))
    assert call("readers").stderr == "error: unforeseen ValueError: odd; run 'stemstore -vv …' for the traceback\n"


def test_errors_as_json(call, monkeypatch):
    """With --json an error is one document on standard error, its context included."""
    failing(monkeypatch, e.DestinationExistsError("is there; pass overwrite=True", url="x.zarr", size=float("nan")))
    result = call("readers", "--json")
    found = json.loads(result.stderr)
    assert (result.stdout, found["schema_version"], found["verb"]) == ("", 1, "readers")
    assert found["error"] == {
        "kind": "destination-exists",
        "message": "is there; pass overwrite=True",
        "hint": "--overwrite replaces it",
        "exit_code": 4,
        "context": {"url": "x.zarr", "size": "NaN"},
    }


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (e.DestinationExistsError("it is a series of scans, so it is not overwritten; remove it yourself"), None),
        (e.UnknownFormatError("it is a series", found=SERIES), "'stemstore info' lists its scans"),
        (e.UnknownFormatError("it has no zarr.json, so it is not a stemstore store"), None),
        (
            e.UnknownFormatError("no reader", readers=["npy"]),
            "'stemstore readers' lists the formats; name one with --reader",
        ),
    ],
)
def test_hints_do_not_contradict_the_message(error, expected):
    """What cannot be overwritten is not offered to be, and a series needs no reader."""
    assert hint(error) == expected


def test_notes_of_an_error_are_shown(call, monkeypatch):
    """What was added to an error on its way is printed below it."""
    error = e.InputError("wrong")
    error.add_note("in line 3")
    failing(monkeypatch, error)
    assert call("readers").stderr.splitlines() == ["error: wrong", "  in line 3"]


def shell(command):
    """Run a shell line in which ``STEM`` is the command."""
    line = command.replace("STEM", f"{sys.executable} -c 'from stemstore.cli.main import main; main()'")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a Unix shell")
@pytest.mark.parametrize("verb", ["readers", "readers --json"])
def test_closed_pipe_is_quiet(verb):
    """A reader of the output that goes away early ends the command without a word."""
    done = shell(f"STEM {verb} | true; echo ${{PIPESTATUS[0]}}")
    assert done.stderr == ""
    assert done.stdout == "141\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a Unix shell")
@pytest.mark.parametrize("verb", ["readers", "readers --json"])
def test_closed_output_is_quiet(verb):
    """Without standard output the work is done all the same."""
    done = shell(f"STEM {verb} >&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /dev/full")
def test_full_output_is_told():
    """Output that cannot be written is an error, not silence."""
    done = shell("STEM readers > /dev/full")
    assert done.returncode == 6
    assert "No space left" in done.stderr
