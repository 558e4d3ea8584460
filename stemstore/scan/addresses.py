"""Paths and URLs as a user gives them, of stores or raw files; and whether what is read and what is written overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stemstore.errors import InputError

if TYPE_CHECKING:
    import os


def addresses(url: object) -> list[str]:
    """List what a user gave as a path or URL, or as several; of URLs the secrets stay with them and out of the text.

    Raises
    ------
    InputError
        It is neither a path nor a list of paths.
    """
    from stemstore.sources.files import path_texts
    from stemstore.store.address import StoreUrl
    from stemstore.store.urls import is_local

    return [text if is_local(text) else StoreUrl(text) for text in path_texts(url)]


def check_apart(source: object, destination: str | os.PathLike[str]) -> None:
    """Refuse a destination that is the store to be read, lies in it, or holds it; raw data may lie anywhere.

    Raises
    ------
    InputError
        Writing there would change what is read, or put foreign files into a store.
    """
    from stemstore.places.address import local_path
    from stemstore.store.open import is_store
    from stemstore.store.urls import is_local, open_storage

    paths, target = addresses(source), addresses(destination)[0]
    if len(paths) != 1 or is_local(paths[0]) != is_local(target) or not is_store(paths[0]):
        return
    if is_local(target):
        here, there = (local_path(url).resolve() for url in (paths[0], target))
        overlap = here.is_relative_to(there) or there.is_relative_to(here)
    else:
        one, other = (f"{open_storage(url).root}/" for url in (paths[0], target))
        overlap = one.startswith(other) or other.startswith(one)
    if overlap:
        msg = f"the destination {target!r} and the store {paths[0]!r} that is read overlap; choose another place"
        raise InputError(msg, url=target, source=paths[0])
