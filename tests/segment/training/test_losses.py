import math
from functools import partial

import pytest
import torch

from xpath.segment.model.decoder import Heads
from xpath.segment.training.losses import contrast_loss, segment_loss, soft_dice_loss


def test_soft_dice_by_hand():
    """Probabilities 1/2 on four pixels, target on two: 1 - (2*1+1) / (2+2+1)."""
    logits, target = torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [0.0, 0.0]])

    assert soft_dice_loss(logits, target).item() == pytest.approx(1 - 3 / 5)


def test_two_empty_masks_cost_nothing():
    logits = torch.full((4, 4), -100.0)

    assert soft_dice_loss(logits, torch.zeros(4, 4)).item() == pytest.approx(0, abs=1e-6)


@pytest.fixture
def scene():
    """One image of 2 x 2 positions, two queries: the first is full, the second empty."""
    features = torch.full((1, 1, 2, 2), 1.0)
    masks = torch.tensor([[[[20.0], [-20.0]]]])  # (B, P, Q, D)
    classes = torch.tensor([[[[1.0], [-1.0]]]])
    return features, Heads(masks, classes), torch.ones(1, 1, 1)


def test_the_matched_query_is_the_one_that_fits(scene):
    """A full target is met by the first query. Its class score is 2 ahead of the other."""
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
    """The left half is unknown. On the right, half of the pixels are wrongly painted: 10 nats."""
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


def test_contrast_by_hand():
    """Two objects, a position each: the right prompt leads by 1 on one, lags by 2 on the other."""
    logits = torch.tensor([[[[3.0, 1.0]], [[2.0, -1.0]]]])
    share = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])

    wanted = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2))) / 2
    assert contrast_loss(logits, share).item() == pytest.approx(wanted)


def test_absent_classes_are_rivals_and_count_for_nothing_themselves():
    logits, share = torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4)
    share[0, 0, 0, :2] = 1

    assert contrast_loss(logits, share).item() == pytest.approx(math.log(2) / 2)


def test_an_object_within_another_is_no_rival():
    """Lymphocytes are nuclei: both prompts may answer."""
    share = torch.zeros(1, 2, 1, 4)
    share[0, 0], share[0, 1, 0, :2] = 1, 1

    assert contrast_loss(torch.randn(1, 2, 1, 4), share).item() == pytest.approx(0, abs=1e-6)


def test_neighbours_that_share_an_edge_are_rivals():
    share = torch.zeros(1, 2, 1, 9)
    share[0, 0, 0, :4], share[0, 1, 0, 5:] = 1, 1
    share[0, :, 0, 4] = 0.5

    assert contrast_loss(torch.zeros(1, 2, 1, 9), share).item() == pytest.approx(math.log(2))


def test_contrast_has_a_gradient_and_a_weight(scene):
    features, head, sentence = scene
    masks = head.masks.clone().requires_grad_()
    heads = [Heads(masks.expand(1, 2, -1, -1), head.classes.expand(1, 2, -1, -1))]
    target = torch.zeros(1, 2, 8, 8, dtype=torch.uint8)
    target[0, 0, :, :4], target[0, 1, :, 4:] = 1, 1
    question = (heads, features, sentence.expand(1, 2, 1), target, torch.tensor(0.0))

    plain, twice = segment_loss(*question), segment_loss(*question, contrast=2.0)

    assert plain.contrast.item() == 0
    assert twice.contrast.item() == pytest.approx(2 * math.log(2))  # both give the same answer
    assert twice.total.item() == pytest.approx(plain.total.item() + 2 * math.log(2))


def test_early_heads_may_be_judged_at_stride_4():
    heads, features, sentence, target, scale = made = some_batch()
    full, last = (segment_loss(*made, full_heads=number) for number in (0, 1))
    alone = segment_loss(heads[-1:], features, sentence, target, scale)
    again = segment_loss(heads[-1:], features, sentence, target, scale, full_heads=1)

    assert float(full.total) == pytest.approx(float(segment_loss(*made, full_heads=2).total))
    assert float(full.bce) != float(last.bce)
    assert float(again.total) == float(alone.total)
    assert float(last.match) == pytest.approx(float(full.match))
    assert float(last.bce) == pytest.approx(float(full.bce), rel=0.2)


def test_features_at_stride_2_are_matched_at_stride_4_and_judged_in_full():
    heads, features, sentence, target, scale = some_batch()
    finer = features.repeat_interleave(2, 2).repeat_interleave(2, 3)

    coarse = segment_loss(heads, features, sentence, target, scale, contrast=1.0)
    fine = segment_loss(heads, finer, sentence, target, scale, contrast=1.0)

    assert float(fine.match) == pytest.approx(float(coarse.match), abs=1e-6)
    assert float(fine.contrast) == pytest.approx(float(coarse.contrast), abs=1e-6)
    assert float(fine.bce) != float(coarse.bce)  # another way to enlarge
    assert float(fine.bce) == pytest.approx(float(coarse.bce), rel=0.2)


def test_a_prompt_is_no_rival_where_it_is_unknown():
    logits = torch.zeros(1, 2, 2, 2)
    share = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]])
    known = torch.ones(1, 2, 2, 2)
    half = known.clone()
    half[0, 1, 0, 0] = 0.0  # of the second prompt half of the first one's object is unknown

    assert float(contrast_loss(logits, share, known)) == float(contrast_loss(logits, share))
    # ln 2 at one of two positions of the first object, ln 2 in the second
    assert float(contrast_loss(logits, share, half)) == pytest.approx((0.5 + 1) / 2 * math.log(2))


def some_batch():
    """Heads of two layers, features of a 32 px image, two prompts, one of them absent."""
    generator = torch.Generator().manual_seed(3)
    draw = partial(torch.randn, generator=generator)
    heads = [Heads(draw(1, 2, 3, 8), draw(1, 2, 3, 8)) for _ in range(2)]
    target = torch.zeros(1, 2, 32, 32, dtype=torch.uint8)
    target[:, 0, :16, 8:] = 1
    return heads, draw(1, 8, 8, 8), draw(1, 2, 8), target, torch.tensor(1.0)
