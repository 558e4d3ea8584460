"""What a Direct Electron camera knows of its pixels: ``.seq.dark.mrc``, ``.seq.gain.mrc``, and the table of bad pixels.

The references are MRC files of one or several images in the orientation of the frames. They are read when they are
asked for, and whether the camera applied them already is said by its configuration alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from stemstore.errors import StemStoreError
from stemstore.sources.files import exists
from stemstore.sources.references import KnownImage, MeanFrame
from stemstore_readers.de_seq_files import SideFiles, bad_pixels
from stemstore_readers.mrc import Mrc

if TYPE_CHECKING:
    from stemstore.sources.contract import DetectorImage, FrameSource


def side_references(side: SideFiles, frame_shape: tuple[int, int], notes: list[str]) -> dict[str, DetectorImage]:
    """List the images of the detector beside a SEQ file; what does not fit the frames is left out and reported.

    Parameters
    ----------
    side
        What lies beside the file.
    frame_shape
        Rows and columns of a frame.
    notes
        Receives what is odd.
    """
    found: dict[str, DetectorImage] = {}
    for name in ("dark", "gain"):
        path = side.root.with_name(f"{side.root.name}.{name}.mrc")
        if not exists(path):
            continue
        try:
            image = MeanFrame(cast("FrameSource", Mrc()(str(path))))  # its dtype is a property
        except StemStoreError as error:
            notes.append(f"the {name} reference {path.name!r} is left out: {error}")
            continue
        if image.shape == frame_shape:
            found[name] = image
        else:
            notes.append(f"the {name} reference {path.name!r} has shape {image.shape}, frames {frame_shape}; left out")
    boxes = bad_pixels(side.document, frame_shape, side.values)
    if boxes:
        usable = np.ones(frame_shape, np.bool_)
        for first_row, last_row, first_column, last_column in boxes:
            usable[first_row:last_row, first_column:last_column] = False
        found["mask"] = KnownImage(usable)
    return found
