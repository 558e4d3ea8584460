"""Damage that headers must survive: words replaced by the numbers that overflow, vanish or never end."""

from __future__ import annotations

from hypothesis import strategies as st

EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


@st.composite
def changed_words(draw, content, head=None):
    """Bytes of which one to three words among the first `head` are extreme numbers, in either byte order."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        width = draw(st.sampled_from((1, 2, 4, 8)))
        place = draw(st.integers(0, min(head or len(data), len(data)) - 1))
        number = draw(st.sampled_from(EXTREMES)) % 2 ** (8 * width)
        data[place : place + width] = number.to_bytes(width, draw(st.sampled_from(("little", "big"))))
    return bytes(data)
