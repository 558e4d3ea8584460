"""Words of a Medipix3 readout become pixels in their places."""

from __future__ import annotations

import numpy as np
import pytest

from stemstore.errors import InputError
from stemstore.kernels.merlin_raw import PIXELS, packed_bytes, unpack


@pytest.mark.parametrize(
    ("depth", "byte", "first"),
    [(1, 7, [1, 0, 1, 0, 0, 0, 0, 1]), (6, 7, [0x85, 0, 0, 0, 0, 0, 0, 0]), (12, 7, [0x0085, 0, 0, 0, 0, 0, 0, 0])],
)
def test_low_bits_of_the_last_byte_come_first(depth, byte, first):
    """The last byte of each eight holds the first pixels, its lowest bit the very first."""
    packed = np.zeros((1, packed_bytes(256, depth)), np.uint8)
    packed[0, byte] = 0x85
    out = unpack(packed, depth, np.empty((1, 1, 256), PIXELS[depth][0]))
    assert out[0, 0, :8].tolist() == first
    assert not out[0, 0, 8:].any()


def test_high_halves_come_first():
    """Of 24 bits the twelve high ones of all pixels come before the low ones."""
    packed = np.zeros((1, 1024), np.uint8)
    packed[0, 6:8], packed[0, 518:520] = (0x0A, 0xBC), (0x0D, 0xEF)
    out = unpack(packed, 24, np.empty((1, 1, 256), np.uint32))
    assert out[0, 0, 0] == 0xABCDEF


def test_lower_chips_stand_upside_down():
    """The first strip of a row is the last chip, turned by half a turn into the lower right corner."""
    packed = np.zeros((1, 512 * 512), np.uint8)
    packed[0, 7], packed[0, 256 + 7], packed[0, 512 + 7], packed[0, 768 + 7] = 4, 3, 2, 1
    out = unpack(packed, 6, np.empty((1, 512, 512), np.uint8))[0]
    assert [out[0, 0], out[0, 256], out[511, 255], out[511, 511]] == [1, 2, 3, 4]
    assert out.sum() == 10


def test_frames_that_do_not_fit():
    """Frames of another length or type are refused."""
    with pytest.raises(InputError, match="do not fit uint16 frames"):
        unpack(np.zeros((1, 512), np.uint8), 6, np.empty((1, 1, 256), np.uint16))
    with pytest.raises(InputError, match="6 bits a pixel"):
        unpack(np.zeros((1, 255), np.uint8), 6, np.empty((1, 1, 256), np.uint8))
