"""Names of our fields in other formats."""

from typing import get_args

import pytest
from pydantic import BaseModel

from stemstore_schemas import MAPPINGS, ScanDocument, foreign_fields

COLUMN = "measurement/instrument/ebeam_column"


def models_in(annotation):
    """Models that occur in an annotation such as ``Annotated[Quantity, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_in(part)]


@pytest.mark.parametrize("mapping", MAPPINGS, ids=lambda mapping: mapping.field)
def test_our_side_exists(mapping):
    """Every mapped path leads to a field of the scan document, and to at least one other format."""
    model = ScanDocument
    for name in mapping.field.split("."):
        assert name in model.model_fields
        model = next(iter(models_in(model.model_fields[name].annotation)), None)
    assert mapping.nexus or mapping.hyperspy or mapping.emd


def test_fields_are_mapped_once():
    """No field and no foreign path occurs twice."""
    assert len({mapping.field for mapping in MAPPINGS}) == len(MAPPINGS)
    for target in ("nexus", "hyperspy", "emd"):
        paths = [foreign.path for foreign in foreign_fields(target).values()]
        assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(
    ("target", "field", "path", "ours", "theirs"),
    [
        ("hyperspy", "acquisition.beam_energy", "Acquisition_instrument.TEM.beam_energy", 200.0, 200.0),
        ("hyperspy", "acquisition.semi_convergence_angle", "Acquisition_instrument.TEM.convergence_angle", 21.4, 21.4),
        ("emd", "acquisition.beam_energy", "microscope/high tension", 200.0, 200000.0),
        ("emd", "acquisition.camera_length", "microscope/camera length", 85.0, 0.085),
        ("emd", "acquisition.semi_convergence_angle", "microscope/convergence angle", 24.98, 0.02498),
        ("nexus", "acquisition.beam_energy", COLUMN + "/electron_source/voltage", 80.0, 80000.0),
    ],
)  # fmt: skip
def test_values_as_found_in_files(target, field, path, ours, theirs):
    """Path and factor reproduce values that files of the other format hold."""
    foreign = foreign_fields(target)[field]
    assert foreign.path == path
    assert ours * foreign.factor == pytest.approx(theirs)
