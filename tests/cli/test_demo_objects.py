"""What the demo asks for is what the weights that ship find in drawn tissue."""

import numpy as np
import pytest

from xpath.cli.demo_run import FOUND, NEVER_FOUND, demo_config
from xpath.segment.evaluation.validation import validate
from xpath.segment.predict.predictor import SegmentPredictor
from xpath.testing.crops import drawn_images

FIELDS = range(9100, 9112)
"""Seeds of fields that neither a training nor a calibration has seen."""


@pytest.fixture(scope="module")
def dice():
    """Mean Dice of every label over the fields that show it."""
    predictor = SegmentPredictor.from_pretrained(drawn=True)
    samples = validate(predictor, drawn_images(FIELDS), mpp=predictor.info.mpp_range)
    there = [sample for sample in samples if sample.present]
    return {
        label: np.mean([sample.dice for sample in there if sample.label == label])
        for label in {sample.label for sample in there}
    }


@pytest.mark.parametrize("label", FOUND)
def test_what_is_asked_for_is_found(dice, label):
    assert dice[label] > 0.7


@pytest.mark.parametrize("label", NEVER_FOUND)
def test_what_is_left_out_would_not_be_found(dice, label):
    assert dice[label] < 0.1


def test_tissues_that_are_asked_for_are_hidden():
    config = demo_config()

    assert config.objects.labels == FOUND
    assert config.explain.labels == tuple(label for label in FOUND if "-tissue-" in label)
