"""Electrons found by the default settings, held against those that a model of the camera was given."""

import numpy as np
import pytest

from stemstore.conversion.counting.settings import CountOptions
from stemstore.testing.scan import SyntheticScan
from stemstore.testing.scoring import matched_events
from stemstore.testing.synthetic import SyntheticFrames

SCORED = 20


def score(dose, **options):
    """Recall and precision over some frames, thresholds estimated from the scan itself."""
    scan = SyntheticScan((8, 8), dose=dose, seed=int(dose))
    counter = CountOptions(**options).counter(SyntheticFrames(scan, "camera"))
    found = counter.read_events(0, SCORED)
    pairs, n_true = 0, 0
    for number in range(SCORED):
        true, indices = scan.electrons(number), found.indices[found.indptr[number] : found.indptr[number + 1]]
        pairs += matched_events(indices, true, scan.frame_shape)
        n_true += len(true)
    return pairs / n_true, pairs / len(found.indices)


@pytest.mark.parametrize(
    ("dose", "recall", "precision"), [(20, 0.985, 0.985), (120, 0.965, 0.995), (500, 0.875, 0.995)]
)
def test_recall_and_precision(dose, recall, precision):
    """What is missed at high dose are electrons that share a pixel or its neighbours with another one."""
    found = score(dose)
    assert found[0] >= recall
    assert found[1] >= precision


def test_few_false_events_at_very_low_dose():
    """With five electrons per frame, a false event in a hundred frames leaves the precision above 0.99."""
    recall, precision = score(5, false_events_per_frame=0.01)
    assert precision >= 0.99
    assert recall >= 0.97


def test_the_other_rule_loses_ties():
    """Equal neighbours extinguish each other under the rule of stempy: two or three electrons in a hundred are lost."""
    ours, theirs = score(120), score(120, rule="stempy")
    assert np.subtract(ours, theirs)[0] == pytest.approx(0.025, abs=0.01)
