"""A scan of which every electron was kept, or not, by chance (see `stemstore.kernels.thinning`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stemstore.kernels.thinning import Chance, thin_events, thin_frames
from stemstore.scan.altered import AlteredSource, below, stored_positions

if TYPE_CHECKING:
    from stemstore._types import Array, Int64Array, UInt16Array
    from stemstore.scan.lazy import ScanSource
    from stemstore.selection import Selection


@dataclass(frozen=True, slots=True)
class Thinning:
    """Change: electrons are taken out by chance; frames are known by their place in the store or the file."""

    chance: Chance

    @property
    def token(self) -> str:
        """Text that tells changes apart."""
        return f"thinned-{self.chance.key:016x}-{self.chance.low}-{self.chance.high}"

    def numbers(self, source: ScanSource, selection: Selection) -> Int64Array:
        """Give the stored position of every selected one: a frame keeps the same electrons wherever it is picked."""
        return stored_positions(source, selection)

    def events(
        self, gap: UInt16Array, offsets: Int64Array, local: Int64Array, numbers: Int64Array, detector: tuple[int, int]
    ) -> tuple[UInt16Array, Int64Array]:
        """Make a block of the electrons that are kept."""
        return thin_events(gap, offsets, local, numbers, detector[0] * detector[1], self.chance)

    def frames(self, block: Array, local: Int64Array, numbers: Int64Array) -> Array:
        """Give dense frames of the electrons that are kept."""
        return thin_frames(block, local, numbers, self.chance)


def thinned(source: ScanSource, seed: int, begin: float, end: float) -> AlteredSource:
    """Keep the electrons of a source whose random number lies between two fractions.

    A source that was thinned before gets numbers of its own, so that what is kept twice was chosen independently.
    """
    level, under = 0, source
    while under is not None:
        level += isinstance(getattr(under, "change", None), Thinning)
        under = below(under)
    return AlteredSource(source, Thinning(Chance.of(seed, level, begin, end)))
