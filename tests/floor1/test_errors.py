"""Errors carry their context and can be caught by what the caller can do."""

import inspect
import pickle

import pytest

from stemstore import errors

ALL = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.StemStoreError)]


@pytest.mark.parametrize("cls", ALL, ids=lambda c: c.__name__)
def test_errors_keep_message_and_context_across_processes(cls):
    """Pickling an error keeps its type, its words and its facts."""
    error = pickle.loads(pickle.dumps(cls("file 'a' ends early", url="a", byte=7)))
    assert type(error) is cls
    assert str(error) == "file 'a' ends early"
    assert error.context == {"url": "a", "byte": 7}


def test_kinds_are_unique():
    """Every error has a name of its own for programs."""
    assert len({cls.kind for cls in ALL}) == len(ALL)


def test_errors_are_also_the_builtin_that_python_users_expect():
    """Callers who know only the standard library catch them too."""
    assert issubclass(errors.UnknownFormatError, ValueError)
    assert issubclass(errors.NotFoundError, FileNotFoundError)
    assert issubclass(errors.DestinationExistsError, FileExistsError)
    assert issubclass(errors.StorageError, OSError)
    assert issubclass(errors.OptionalDependencyError, ImportError)
