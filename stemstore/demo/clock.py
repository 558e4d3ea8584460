"""How long the steps of the demonstration take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stemstore.progress import Progress


@dataclass(slots=True)
class Clock:
    """Times the steps for the report."""

    progress: Progress
    facts: dict[str, str] = field(default_factory=dict)
    started: float = 0.0

    def step(self, what: str) -> None:
        """Begin a step."""
        self.progress.advance(1 if self.started else 0)
        self.started = time.perf_counter()
        self.facts[what] = ""

    def note(self, what: str, text: str) -> None:
        """Finish a step with its time and a remark."""
        self.facts[what] = f"{time.perf_counter() - self.started:.1f} s; {text}"
