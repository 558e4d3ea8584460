"""The vocabulary of stemstore: what the metadata of a store mean.

Units, axis names, the models of everything persisted, their versions and their JSON Schemas. Needs pydantic and NumPy
only.
"""

from stemstore_schemas.acquisition import Acquisition
from stemstore_schemas.axis import DETECTOR_DIMS, DIMS, FRAME_DIM, SCAN_DIMS, Axis
from stemstore_schemas.calibration import CalibrationDocument, CalibrationValues, Ellipse
from stemstore_schemas.counting import CountingDescription, CountingReference, CountingRegion, EventEncoding
from stemstore_schemas.detector import Detector, Sector
from stemstore_schemas.document import (
    CommitDocument,
    DocumentError,
    FrameCounts,
    ScanDocument,
    SchemaVersionError,
    SourceMetadata,
    dump_document,
    load_calibration,
    load_commit,
    load_document,
    load_result,
    load_series,
)
from stemstore_schemas.electron import energy_from_voltage, wavelength
from stemstore_schemas.mapping import MAPPINGS, FieldMapping, ForeignField, foreign_fields
from stemstore_schemas.provenance import HistoryEntry, SourceFile
from stemstore_schemas.quantity import Quantity
from stemstore_schemas.record import ValueSource
from stemstore_schemas.result import ResultDocument
from stemstore_schemas.series import SeriesDocument, SeriesScan
from stemstore_schemas.units import (
    UNITS,
    Unit,
    UnitError,
    convert_value,
    parse_quantity,
    parse_scaled_unit,
    parse_unit,
)

__all__ = [
    "DETECTOR_DIMS",
    "DIMS",
    "FRAME_DIM",
    "MAPPINGS",
    "SCAN_DIMS",
    "UNITS",
    "Acquisition",
    "Axis",
    "CalibrationDocument",
    "CalibrationValues",
    "CommitDocument",
    "CountingDescription",
    "CountingReference",
    "CountingRegion",
    "Detector",
    "DocumentError",
    "Ellipse",
    "EventEncoding",
    "FieldMapping",
    "ForeignField",
    "FrameCounts",
    "HistoryEntry",
    "Quantity",
    "ResultDocument",
    "ScanDocument",
    "SchemaVersionError",
    "Sector",
    "SeriesDocument",
    "SeriesScan",
    "SourceFile",
    "SourceMetadata",
    "Unit",
    "UnitError",
    "ValueSource",
    "convert_value",
    "dump_document",
    "energy_from_voltage",
    "foreign_fields",
    "load_calibration",
    "load_commit",
    "load_document",
    "load_result",
    "load_series",
    "parse_quantity",
    "parse_scaled_unit",
    "parse_unit",
    "wavelength",
]
