"""Conformance tests and synthetic scans with known truth, for stemstore and for plug-ins."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stemstore.testing.camera import Camera as Camera
    from stemstore.testing.optics import Optics as Optics
    from stemstore.testing.prediction import CentreOfMass as CentreOfMass
    from stemstore.testing.prediction import disk_limit as disk_limit
    from stemstore.testing.prediction import expected_sum as expected_sum
    from stemstore.testing.prediction import predict_centre_of_mass as predict_centre_of_mass
    from stemstore.testing.prediction import predict_image as predict_image
    from stemstore.testing.reader_tests import ReaderTests as ReaderTests
    from stemstore.testing.scan import Specimen as Specimen
    from stemstore.testing.scan import SyntheticScan as SyntheticScan
    from stemstore.testing.sectors import SectorOptions as SectorOptions
    from stemstore.testing.sectors import write_sectors as write_sectors
    from stemstore.testing.specimen import Crystal as Crystal
    from stemstore.testing.specimen import Particles as Particles
    from stemstore.testing.synthetic import SyntheticFrames as SyntheticFrames
    from stemstore.testing.synthetic import make_scan as make_scan
    from stemstore.testing.synthetic import truth_of as truth_of
    from stemstore.testing.synthetic import write_scan as write_scan
    from stemstore.testing.truth import Truth as Truth
    from stemstore.testing.truth import load_truth as load_truth

# name -> module of this package; numba and scipy are loaded with the name that needs them
_WHERE = {
    "Camera": "camera",
    "CentreOfMass": "prediction",
    "Crystal": "specimen",
    "Optics": "optics",
    "Particles": "specimen",
    "ReaderTests": "reader_tests",
    "SectorOptions": "sectors",
    "Specimen": "scan",
    "SyntheticFrames": "synthetic",
    "SyntheticScan": "scan",
    "Truth": "truth",
    "disk_limit": "prediction",
    "expected_sum": "prediction",
    "load_truth": "truth",
    "make_scan": "synthetic",
    "predict_centre_of_mass": "prediction",
    "predict_image": "prediction",
    "truth_of": "synthetic",
    "write_scan": "synthetic",
    "write_sectors": "sectors",
}

__all__ = sorted(_WHERE)  # noqa: PLE0605  the table is the list


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
