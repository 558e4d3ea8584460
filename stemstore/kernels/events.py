"""Loops over event lists in their stored coding (see `stemstore.kernels.gaps`): the operations of `frames`, on events.

Every operation gives what it would give on the densified frames, electrons in the same pixel included. Before compiled
code follows the gaps it is checked that no frame runs past its last pixel: a few percent of the time. The loops
themselves lie in `event_sums` (numbers per position), `event_patterns` (per pixel) and `event_frames` (both).
"""

from __future__ import annotations

from stemstore.kernels.event_frames import bin_detector, densify
from stemstore.kernels.event_patterns import add, add_squares, add_weighted, maximum
from stemstore.kernels.event_sums import masked_sums, moments, second_moments, weighted_sums
from stemstore.kernels.gaps import decode, encode, slot_offsets
from stemstore.kernels.tables import prepare_masks, prepare_region, prepare_weights

__all__ = [
    "add",
    "add_squares",
    "add_weighted",
    "bin_detector",
    "decode",
    "densify",
    "encode",
    "masked_sums",
    "maximum",
    "moments",
    "prepare_masks",
    "prepare_region",
    "prepare_weights",
    "second_moments",
    "slot_offsets",
    "weighted_sums",
]
