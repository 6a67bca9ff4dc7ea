import numpy as np
import pytest
import torch

from xpath.metrics.calibration import fit_temperature
from xpath.mil import cohort_training
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag
from xpath.mil.cohort_training import ENOUGH, _temperature


def slides(count):
    return [Bag(torch.zeros(2, 4), None, i % 2, f"s{i}") for i in range(count)]


def answers(count, wrong):
    """Log-odds of 2 for the true class, but for the first slides, which are as sure and wrong."""
    logits = np.zeros((count, 2))
    logits[np.arange(count), (np.arange(count) + (np.arange(count) < wrong)) % 2] = 2.0
    return logits


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize(
    ("count", "wrong", "fits"),
    [
        (ENOUGH, 0, False),  # all right: a temperature of 0.05 would make 88 % all but certain
        (ENOUGH, 6, False),  # no better than chance
        (ENOUGH, 2, True),
        (ENOUGH - 2, 2, None),
    ],
)
def test_a_temperature_is_one_that_the_slides_tell(monkeypatch, caplog, asked, count, wrong, fits):
    logits, bags = answers(count, wrong), slides(count)
    labels = np.array([bag.label for bag in bags])
    monkeypatch.setattr(
        cohort_training, "model_temperature", lambda *_: fit_temperature(logits, labels)
    )

    found = _temperature(AttentionMIL(4, 2), bags, asked)

    assert (found is not None) == (asked if fits is None else fits)
    assert ("tell no temperature" in caplog.text) == (asked and fits is False)
    if found is not None:  # the share that is right is what the model then says
        right = 1 - wrong / count
        assert 2 / found == pytest.approx(np.log(right / (1 - right)), rel=1e-3)


def test_equal_logits_have_no_temperature_to_change():
    assert fit_temperature(np.zeros((4, 2)), np.array([0, 1, 0, 1])) == 1
