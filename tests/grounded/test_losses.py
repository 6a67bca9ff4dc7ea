import math

import pytest
import torch
from torch import nn

from xpath.grounded.losses import (
    IGNORED,
    GroundedLoss,
    answer_loss,
    mask_loss,
    object_choice,
    uncertain_points,
)

CENTRES = torch.tensor([[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]])
"""Of the four pixels of a mask of 2 x 2: x, y."""


def test_mask_losses_by_hand():
    """Probabilities 0.8, 0.5, 0.5, 0.5; the object is the first pixel and the second row."""
    logits = torch.tensor([[[math.log(4.0), 0.0], [0.0, 0.0]]])
    truth = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])

    found = mask_loss(logits, truth, CENTRES)

    bce = -math.log(0.8) - 3 * math.log(0.5)
    dice = 1 - (2 * 1.8 + 1) / (2.3 + 3 + 1)
    assert float(found.bce) == pytest.approx(2.0 * bce / 4.0001, abs=1e-6)
    assert float(found.dice) == pytest.approx(0.5 * dice / 1.0001, abs=1e-6)


def test_truth_is_brought_to_the_size_of_the_logits_by_its_nearest_values():
    logits = torch.tensor([[[3.0, -1.0], [2.0, 0.5]]])
    small = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    large = small.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)

    assert mask_loss(logits, large, CENTRES) == mask_loss(logits, small, CENTRES)


def test_answers_alone_count():
    """Logits are the states themselves; the state before a token predicts it."""
    states = torch.zeros(1, 4, 3)
    states[0, 1] = torch.tensor([0.0, math.log(2.0), 0.0])
    states[0, 0] = 100.0  # predicts the prompt, which does not count
    labels = torch.tensor([[IGNORED, IGNORED, 1, 2]])

    loss = answer_loss(states, labels, nn.Identity())

    assert float(loss) == pytest.approx((math.log(2) + math.log(3)) / 2)


def test_the_total_is_the_sum():
    assert GroundedLoss(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0)).total == 7


def test_points_lie_where_the_mask_is_uncertain():
    logits = torch.full((2, 16, 16), 9.0)
    logits[:, :, 8:] = -9.0  # uncertain only between the centres of two pixels around x = 0.5

    points = uncertain_points(logits, torch.Generator().manual_seed(0), count=400)

    near = (points[..., 0] - 0.5).abs() < 1 / 32
    assert points.shape == (2, 400, 2)
    assert points.min() >= 0
    assert points.max() <= 1
    # of 1200 points drawn uniformly about 75 lie there and all of them are kept, of 400 about 25
    assert (near[:, :300].sum(dim=1) > 50).all()
    assert (near[:, 300:].sum(dim=1) < 20).all()  # the last quarter lies anywhere
    again = uncertain_points(logits, torch.Generator().manual_seed(0), count=400)
    assert torch.equal(points, again)


def test_five_objects_of_every_sample():
    generator = torch.Generator().manual_seed(0)

    chosen = object_choice([0, 0, 3, *[4] * 9], generator)

    assert chosen[:10] == [0, 1, 0, 1, 0, 2, 2, 2, 2, 2]
    many = chosen[10:]
    assert len(set(many)) == 5
    assert set(many) <= set(range(3, 12))
    assert object_choice([], generator) == []
