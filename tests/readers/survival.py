"""What every reader owes a damaged file: an error of stemstore or frames, and nothing else."""

import math

from stemstore.errors import StemStoreError

READ_AT_MOST = 2**22
"""Pixels of a frame that is read; damage may have made larger ones of it, all of them blank."""


def check_damaged(reader, path, content):
    """Open and read what is left of a file."""
    path.write_bytes(content)
    assert 0 <= reader.matches(str(path), content[:4096]) <= 1
    try:
        source = reader(str(path))
        if math.prod(source.frame_shape) < READ_AT_MOST:
            source.read_frames(0, min(2, math.prod(source.scan_shape)))
    except StemStoreError:
        pass
