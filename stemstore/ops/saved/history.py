"""The history of a result, as attribute and as document: one line, or one entry, per operation."""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import TYPE_CHECKING, Any

from stemstore_schemas import HistoryEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

_LINE = re.compile(r"(?P<call>.*?)(?:\s*\[stemstore (?P<version>[^\]]+)\])?", re.DOTALL)


def history_lines(attributes: Iterable[dict[str, Any]]) -> list[str]:
    """Lines of the attribute ``history`` of several arrays, each line once, oldest first."""
    texts = (str(attrs.get("history", "")) for attrs in attributes)
    return list(dict.fromkeys(line for text in texts for line in text.splitlines() if line.strip()))


def history_entries(lines: Iterable[str], time: str) -> list[HistoryEntry]:
    """Turn lines as `stemstore.ops.labels.parameters_text` writes them into entries.

    Parameters
    ----------
    lines
        ``operation(key=value, …) [stemstore version]``; of any other line the whole text is the operation.
    time
        When the operations ran.

    Returns
    -------
    entries
        Parameters are the values that the line spells out, else the text of the value.
    """
    return [_entry(line.strip(), time) for line in lines]


def _entry(line: str, time: str) -> HistoryEntry:
    found = _LINE.fullmatch(line)
    version = found["version"] if found else None
    call = _call(found["call"] if found else line)
    operation, parameters = call if call is not None else (line, {})
    software = {"stemstore": version} if version else {}
    return HistoryEntry(operation=operation, parameters=parameters, software=software, time=time)


def _call(text: str) -> tuple[str, dict[str, Any]] | None:
    """Take a call apart; None for what is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's opinion about the text is of no interest
            node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(node, ast.Call):
        return None
    numbered = {str(number): _value(value) for number, value in enumerate(node.args)}
    return ast.unparse(node.func), numbered | {word.arg or "**": _value(word.value) for word in node.keywords}


def _value(node: ast.expr) -> Any:
    try:
        return json.loads(json.dumps(ast.literal_eval(node)))
    except (ValueError, TypeError, RecursionError, MemoryError):
        return ast.unparse(node)
