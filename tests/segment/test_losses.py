import math

import pytest
import torch

from xpath.segment.losses import segment_loss, soft_dice_loss
from xpath.segment.model.decoder import Heads


def test_soft_dice_by_hand():
    """Probabilities 1/2 on four pixels, target on two: 1 - (2*1+1) / (2+2+1)."""
    logits, target = torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [0.0, 0.0]])

    assert soft_dice_loss(logits, target).item() == pytest.approx(1 - 3 / 5)


def test_two_empty_masks_cost_nothing():
    logits = torch.full((4, 4), -100.0)

    assert soft_dice_loss(logits, torch.zeros(4, 4)).item() == pytest.approx(0, abs=1e-6)


@pytest.fixture
def scene():
    """One image of 2 x 2 places, two queries: the first is full, the second empty."""
    features = torch.full((1, 1, 2, 2), 1.0)
    masks = torch.tensor([[[[20.0], [-20.0]]]])  # (B, P, Q, D)
    classes = torch.tensor([[[[1.0], [-1.0]]]])
    return features, Heads(masks, classes), torch.ones(1, 1, 1)


def test_the_matched_query_is_the_one_that_fits(scene):
    """A full target is met by the first query; its class score is 2 ahead of the other."""
    features, head, sentence = scene
    target = torch.ones(1, 1, 8, 8, dtype=torch.uint8)

    loss = segment_loss([head], features, sentence, target, torch.tensor(0.0))

    assert loss.bce.item() == pytest.approx(0, abs=1e-6)
    assert loss.dice.item() == pytest.approx(0, abs=1e-6)
    assert loss.match.item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_an_absent_object_judges_the_query_that_would_answer(scene):
    """Nothing is there, yet the chosen query paints everything: 20 nats per pixel."""
    features, head, sentence = scene

    nothing = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)

    loss = segment_loss([head], features, sentence, nothing, torch.tensor(0.0))

    assert loss.bce.item() == pytest.approx(20.0, rel=1e-5)


def test_only_known_pixels_are_judged(scene):
    """The left half is unknown; on the right, half of the pixels are wrongly painted: 10 nats."""
    features, head, sentence = scene
    target = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    target[..., :4] = 255
    target[..., :4, 4:] = 1

    loss = segment_loss([head], features, sentence, target, torch.tensor(0.0))

    assert loss.bce.item() == pytest.approx(10.0, rel=1e-4)
    assert loss.dice.item() == pytest.approx(1 - (2 * 16 + 1) / (32 + 16 + 1), rel=1e-4)


def test_absence_teaches_no_choice(scene):
    features, head, sentence = scene
    nothing = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)

    assert segment_loss([head], features, sentence, nothing, torch.tensor(0.0)).match.item() == 0
