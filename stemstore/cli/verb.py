"""How every verb ends: quietly, with an exit code, and with one clear message where it failed."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand

from stemstore.cli.exit import BUDGET, MEANING, RESUMABLE, TERMINATED, exit_code, hint
from stemstore.cli.output import notify, print_json
from stemstore.errors import StemStoreError

TRACEBACK_FROM = 2  # -vv
JOBS = ("partition", "finalise")  # verbs that always go on with a conversion


class Verb(TyperCommand):
    """A verb whose errors become exit codes; its options are listed by topic."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError as error:
            _drop_output()
            raise typer.Exit(exit_code(error)) from None
        except SystemExit as error:
            kept = getattr(error, "__notes__", []) or _kept_before(ctx)
            for note in kept:
                notify(f"terminated: {note}")
            raise typer.Exit(RESUMABLE if kept else TERMINATED) from None
        except (Exception, KeyboardInterrupt) as error:
            if hasattr(error, "exit_code"):  # the parser's own errors print themselves
                raise
            _fail(error, ctx)
        return result

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options under their topics, in the order of their first appearance."""
        topics: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                argument = parameter.param_type_name == "argument"
                topic = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or "Options"
                topics.setdefault(topic, []).append(record)
        for topic, records in topics.items():
            with formatter.section(topic):
                formatter.write_dl(records)


def _kept_before(ctx: Any) -> list[str]:
    """Say of a command that was ended before its work that it would have gone on with a conversion that still can."""
    if not (ctx.params.get("resume") or ctx.info_name in JOBS):
        return []
    with contextlib.suppress(Exception):  # whatever is wrong with the destination, it was not asked for
        from stemstore.conversion.steps import unfinished

        if unfinished(ctx.params["destination"]):
            return ["what was finished before is kept; repeat the command"]
    return []


def _fail(error: BaseException, ctx: Any) -> NoReturn:
    code = exit_code(error)
    detailed = isinstance(ctx.obj, int) and ctx.obj >= TRACEBACK_FROM
    if detailed:
        traceback.print_exception(error)
    message = _message(error, detailed=detailed)
    if ctx.params.get("as_json") and sys.stderr is not None:
        facts: dict[str, Any] = {"kind": _kind(error), "message": message, "hint": hint(error), "exit_code": code}
        facts["context"] = error.context if isinstance(error, StemStoreError) else {}
        print_json(ctx.info_name or "", {"error": facts}, sys.stderr)
    else:
        notify(f"error: {message}")
        for text in (*getattr(error, "__notes__", ()), hint(error)):
            if text:
                notify(f"  {text}")
    raise typer.Exit(code) from None


def _message(error: BaseException, *, detailed: bool) -> str:
    if isinstance(error, StemStoreError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    if exit_code(error) == BUDGET:
        return f"out of memory or disk space: {str(error) or type(error).__name__}; free some and run it again"
    more = "" if detailed else "; run 'stemstore -vv …' for the traceback"
    return f"unforeseen {type(error).__name__}: {error}{more}"


def _kind(error: BaseException) -> str:
    if isinstance(error, StemStoreError):
        return error.kind
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "unforeseen"


def _drop_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter does not complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def exit_codes_text() -> str:
    """One line that lists the exit codes."""
    return "Exit codes: " + ", ".join(f"{code} {meaning}" for code, meaning in MEANING.items()) + "."
