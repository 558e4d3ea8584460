"""Names of the array types that cross module borders."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Int64Array = NDArray[np.int64]
UInt16Array = NDArray[np.uint16]
UInt32Array = NDArray[np.uint32]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
