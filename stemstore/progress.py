"""How long work tells its caller how far it is, without globals and without a display of its own."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the advance of one piece of work; anything with these two methods will do."""

    def start(self, what: str, total: int | None) -> None:
        """Begin a phase called `what` of `total` steps (None where the number is unknown)."""

    def advance(self, steps: int = 1) -> None:
        """Report that `steps` more steps are done."""


class NoProgress:
    """Progress that shows nothing; the default everywhere in the library."""

    def start(self, what: str, total: int | None) -> None:
        """Ignore the phase."""

    def advance(self, steps: int = 1) -> None:
        """Ignore the steps."""
