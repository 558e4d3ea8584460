"""The reader keeps the contract: every test is inherited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from acme_reader import AcmeReader

from stemstore.testing import ReaderTests

if TYPE_CHECKING:
    from pathlib import Path


class TestAcmeReader(ReaderTests):
    """ACME 4D files."""

    reader_cls = AcmeReader
    truncation = "error"

    def make_file(self, tmp_path: Path) -> tuple[str, np.ndarray, dict[str, Any]]:
        """Write a scan, following the description of the format and not the reader."""
        truth = np.random.default_rng(0).integers(0, 2**16, (2, 3, 4, 5), dtype=np.uint16)
        header = b"ACME4D\x00\x01" + np.array(truth.shape, "<u2").tobytes() + np.array([200, 0.5], "<f4").tobytes()
        path = tmp_path / "scan.acme"
        path.write_bytes(header + bytes(8) + truth.astype("<u2").tobytes())
        return str(path), truth, {}
