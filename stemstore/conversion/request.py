"""What a conversion was asked for, kept beside its work: so that any process can take part in it, or finish it."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from stemstore.errors import CorruptDataError, InputError, NotFoundError
from stemstore.places.address import local_path
from stemstore.store.journal import JOURNAL
from stemstore.store.urls import is_local

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stemstore._types import Array
    from stemstore.store.urls import Storage

REQUEST = f"{JOURNAL}/request.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Request:
    """Source and options of a conversion.

    Attributes
    ----------
    source
        Absolute paths or URLs.
    options
        Keyword arguments of `stemstore.convert`, as JSON values.
    arrays
        Those that are arrays, by name.
    tasks
        Into how many jobs the partitions are divided; None for one each.
    operation
        Which function was called: ``"convert"`` or ``"rechunk"``.
    """

    source: list[str]
    options: dict[str, Any]
    arrays: dict[str, Array] = field(default_factory=dict)
    tasks: int | None = None
    operation: str = "convert"

    @classmethod
    def of(
        cls, source: Any, options: Mapping[str, Any], tasks: int | None = None, operation: str = "convert"
    ) -> Self | None:
        """Take down a request; None where an option is neither a JSON value nor an array."""
        paths = [source] if isinstance(source, (str, os.PathLike)) else list(source)
        plain, arrays = {}, {}
        for name, value in options.items():
            if isinstance(value, np.ndarray) or (hasattr(value, "dims") and hasattr(value, "values")):
                arrays[name] = np.asarray(value)
            elif value is not None:
                plain[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
        try:
            json.dumps(plain)
        except (TypeError, ValueError):
            return None
        return cls([_absolute(os.fspath(path)) for path in paths], plain, arrays, tasks, operation)

    def write(self, storage: Storage) -> None:
        """Keep it in the journal of a conversion."""
        for name, values in self.arrays.items():
            body = io.BytesIO()
            np.save(body, values, allow_pickle=False)
            storage.put(f"{JOURNAL}/{name}.npy", [body.getbuffer()])
        document = {
            "version": VERSION,
            "source": self.source,
            "options": self.options,
            "arrays": sorted(self.arrays),
            "tasks": self.tasks,
            "operation": self.operation,
        }
        storage.put(REQUEST, [json.dumps(document).encode()])

    @classmethod
    def read(cls, storage: Storage) -> Self:
        """Read it from the journal of a conversion.

        Raises
        ------
        InputError
            It was not kept there.
        CorruptDataError
            It is damaged.
        """
        try:
            document = json.loads(storage.get(REQUEST))
            arrays = {
                name: np.load(io.BytesIO(storage.get(f"{JOURNAL}/{name}.npy")), allow_pickle=False)
                for name in document["arrays"]
            }
            operation = document.get("operation", "convert")  # those of earlier releases know no other
            return cls(document["source"], _tuples(document["options"]), arrays, document["tasks"], operation)
        except NotFoundError as error:
            msg = (
                f"'{storage.root}' does not tell what it is made from; repeat the call that began it, with resume=True"
            )
            raise InputError(msg, url=storage.root, key=REQUEST) from error
        except (ValueError, KeyError, TypeError) as error:
            msg = f"'{storage.root}/{REQUEST}' is damaged ({error!r}); repeat the call that began it, with resume=True"
            raise CorruptDataError(msg, url=storage.root, key=REQUEST) from error

    @property
    def given(self) -> dict[str, Any]:
        """All options, arrays included."""
        return self.options | self.arrays

    @property
    def origin(self) -> Any:
        """The source as `stemstore.convert` takes it."""
        return self.source[0] if len(self.source) == 1 else self.source


def _absolute(path: str) -> str:
    return os.path.abspath(local_path(path)) if is_local(path) else path  # noqa: PTH100  # links stay as they were given


def _tuples(value: Any) -> Any:
    """Turn lists into tuples, as they were given."""
    if isinstance(value, list):
        return tuple(_tuples(part) for part in value)
    return {name: _tuples(part) for name, part in value.items()} if isinstance(value, dict) else value
