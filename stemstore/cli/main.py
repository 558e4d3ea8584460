"""The command ``stemstore``: its verbs put together, and the options that come before a verb.

Nothing heavy is imported here or at the top of a verb's module, so that help appears at once.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from stemstore import __version__
from stemstore.cli import (
    convert,
    copy,
    crate,
    demo,
    disks,
    doctor,
    edit,
    export,
    finalise,
    info,
    inspect,
    pack,
    partition,
    plan,
    readers,
    rechunk,
    repair,
    series,
    validate,
    verify,
    virtual,
)
from stemstore.cli.exit import INTERRUPTED, TERMINATED
from stemstore.cli.verb import Verb, exit_codes_text

if TYPE_CHECKING:
    from types import ModuleType

VERBS: tuple[ModuleType, ...] = (
    *(readers, inspect, convert, series, plan, partition, finalise, repair, export),
    *(info, validate, verify, copy, rechunk, pack, edit, crate, virtual, disks, demo, doctor),
)

LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}  # beyond: everything, or nothing

app = typer.Typer(
    name="stemstore",
    help="Store and analyse 4D-STEM scans. Results go to standard output, everything else to standard error.",
    epilog=f"Example: stemstore inspect scan_42/. {exit_codes_text()} Settings may be given in the environment as "
    "STEMSTORE_<OPTION>. With --json an error is one JSON document on standard error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the rich form of help takes as long to import as everything else together
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stemstore {__version__}")
        raise typer.Exit


@app.callback()
def settings(
    ctx: typer.Context,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Tell more; -vv shows tracebacks.")
    ] = 0,
    quiet: Annotated[int, typer.Option("--quiet", "-q", count=True, show_default=False, help="Tell less.")] = 0,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that come before a verb."""
    level = verbose - quiet
    ctx.obj = level
    logger, handler = logging.getLogger("stemstore"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(LEVELS.get(level, logging.DEBUG if level > 0 else logging.CRITICAL + 1))

    def restore() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)

    ctx.call_on_close(restore)


class _Lines(logging.Formatter):
    """Log records as ``warning: …``, in the tone of errors."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        return f"{record.levelname.lower()}: {super().format(record)}"


for verb in VERBS:
    name = verb.__name__.rpartition(".")[2]
    app.command(name, cls=Verb, epilog=f"Example: {verb.EXAMPLE}")(verb.run)


ENDING = ("SIGTERM", "SIGUSR1")
"""Signals by which batch systems announce the end; Slurm sends the second where a job asks for an early word."""


def _terminate(*_: object) -> None:
    """End as after Ctrl-C, so that a conversion which a batch system stops tidies up, or keeps what it has finished."""
    _on_ending(signal.SIG_IGN)  # a second one would end the tidying
    raise SystemExit(TERMINATED)


def _on_ending(action: Any) -> None:
    for name in ENDING:
        if hasattr(signal, name):  # Windows has not both
            signal.signal(getattr(signal, name), action)


def main() -> None:
    """Run the command line; the entry point of the package."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # closed, or replaced by something simpler
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names that are no text
    _on_ending(_terminate)
    try:
        app()
    except KeyboardInterrupt:  # while commands are put together
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if isinstance(end.__context__, click.Abort):  # while options are read
            sys.exit(INTERRUPTED)
        raise
