"""Removal in feature space, objects hidden together, and numbers at large margins."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from xpath.errors import DataError
from xpath.explain.hiding import SegmentedSlide
from xpath.explain.importance import object_importance
from xpath.explain.perturbation import (
    Blur,
    Fill,
    InsideBlur,
    PerturbationConfig,
    Removal,
    SurroundFill,
)

SIDE = 16


class Redness:
    """How red every fourth of the patch's sides is."""

    def maps(self, images):
        return functional.avg_pool2d(images[:, :1].float() / 255, 4)


def linear(scale):
    """Margin of the second class: the mean red of all patches times a scale, single precision."""

    def predict(features):
        mean = features.mean(dim=0)[0]
        return torch.stack([torch.zeros_like(mean), scale * mean]).float()

    return predict


def segmented_slide(slide, masks):
    images = torch.from_numpy(slide.patches).permute(0, 3, 1, 2)
    features = Redness().maps(images).mean(dim=(2, 3)).numpy()
    return SegmentedSlide(slide_id="a", slide=slide, masks=masks, features=features)


def ask(segmented, objects, perturbation, predict=None, **config):
    return object_importance(
        predict or linear(8.0),
        Redness(),
        segmented,
        objects=objects,
        target=1,
        perturbation=perturbation,
        config=PerturbationConfig(**{"feather_um": 0.0, "null_draws": 3} | config),
    )


@pytest.fixture
def red(make_slide):
    """Two patches, of which only the left half of the first is red."""
    patches = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    masks = np.zeros((2, 3, SIDE, SIDE), bool)
    patches[0, :, :8, 0] = 255
    masks[0, 0, :, :8] = True
    masks[1, 1] = True
    return segmented_slide(*make_slide(patches, ["red", "black", "absent"], masks))


# removal


def test_removal_by_hand(red):
    result = ask(red, ["red", "black", "absent"], Removal())

    # red is half of one patch of two: a margin of 2, of 0 without it
    assert result.effect[0] == pytest.approx(2.0)
    assert result.probability == pytest.approx(1 / (1 + math.exp(-2)))
    # black is a whole patch: without it the bag is the first patch alone, with a margin of 4
    assert result.effect[1] == pytest.approx(-2.0)
    # it fills its patch, so the other one is hidden instead: the second patch alone has no margin
    assert result.null[1] == pytest.approx(2.0)
    assert (result.effect[2], result.null[2], result.imp[2]) == (0, 0, 1)
    assert result.patches.tolist() == [1, 1, 0]


def test_the_rest_of_the_patch_is_the_null_and_the_object_is_no_part_of_it(red):
    result = ask(red, ["red"], Removal())

    # without its black half, the first patch is red all over: a margin of 4 for 2
    np.testing.assert_allclose(result.random[1, 0], -2.0, rtol=1e-6)
    assert result.excess[0] == pytest.approx(4.0)


def test_shifted_masks_say_on_average_what_the_patch_says(red):
    result = ask(red, ["red"], Removal(), null="shifted", null_draws=200)

    assert result.null[0] == pytest.approx(0, abs=0.4)
    assert result.excess[0] > 1.5


def test_where_nothing_of_a_slide_is_left_there_is_no_number(make_slide):
    patches = np.full((2, SIDE, SIDE, 3), 200, np.uint8)
    segmented = segmented_slide(*make_slide(patches, ["all"], np.ones((2, 1, SIDE, SIDE), bool)))

    result = ask(segmented, ["all"], Removal())

    assert np.isnan([result.effect[0], result.null[0], result.imp[0], result.excess[0]]).all()
    assert np.isnan(result.p[0])  # not the smallest there is
    assert np.isfinite(result.probability)


def test_removal_encodes_a_patch_once(red):
    class Counting(Redness):
        encoded = 0

        def maps(self, images):
            Counting.encoded += len(images)
            return super().maps(images)

    object_importance(
        linear(1.0), Counting(), red, objects=["red", "black"], target=1, perturbation=Removal()
    )

    assert Counting.encoded == 2


# together


@pytest.fixture
def nested(make_slide):
    """A red square that two names share."""
    patches = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    masks = np.zeros((1, 3, SIDE, SIDE), bool)
    masks[0, 0, :8, :8] = masks[0, 1, 4:12, :8] = masks[0, 2, 12:, 12:] = True
    patches[0, :12, :8, 0] = 255
    return segmented_slide(*make_slide(patches, ["tumour", "neoplastic", "fat"], masks))


def test_objects_are_hidden_together(nested):
    result = ask(nested, ["tumour", "neoplastic", ("tumour", "neoplastic")], Removal())

    assert result.objects == ("tumour", "neoplastic", "tumour + neoplastic")
    np.testing.assert_allclose(result.area, np.array([64, 64, 96]) / 256)
    assert result.patches.tolist() == [1, 1, 1]
    # 96 of 256 px are red, 32 of 192 without one of the two, none without both
    np.testing.assert_allclose(result.effect, [8 * (96 / 256 - 32 / 192)] * 2 + [3.0], rtol=1e-5)


def test_groups_that_overlap_are_asked_as_one(nested):
    result = ask(nested, [("tumour", "neoplastic"), ("fat",)], Fill())

    assert result.objects == ("tumour + neoplastic", "fat")
    assert result.effect[0] > 0 > result.effect[1] - 1e-9


def test_a_group_of_one_is_the_object_itself(nested):
    alone, group = (ask(nested, [one], Blur(2.0)) for one in ("tumour", ("tumour",)))

    np.testing.assert_array_equal(alone.effect, group.effect)
    np.testing.assert_array_equal(alone.null, group.null)
    with pytest.raises(DataError, match="not segmented"):
        ask(nested, [()], Fill())


# fills that look at the mask


def test_fills_that_look_at_the_mask_hide_the_object(red):
    around, inside = (ask(red, ["red"], hide) for hide in (SurroundFill(), InsideBlur(2.0)))

    assert around.effect[0] == pytest.approx(2.0, rel=1e-6)  # all around is black
    assert inside.effect[0] == pytest.approx(0.0, abs=1e-6)  # an even object stays as it is
    assert ask(red, ["red"], Blur(2.0)).effect[0] > 0.05  # for into this the black has leaked


# numbers


@pytest.mark.parametrize("sign", [1, -1])
def test_importances_are_finite_and_monotone_up_to_a_margin_of_50(red, sign):
    """In single precision the loss itself is 0 from a margin of 17 on, and its ratio undefined."""
    margins = np.arange(1.0, 51.0)

    # the margin is a quarter of the scale
    result = [ask(red, ["red"], Removal(), linear(sign * 4 * margin)) for margin in margins]

    effect = np.array([one.effect[0] for one in result])
    imp = np.array([one.imp[0] for one in result])
    for values in (effect, imp, [one.null[0] for one in result]):
        assert np.isfinite(values).all()
    np.testing.assert_allclose(effect, sign * margins, rtol=1e-5)
    assert (sign * np.diff(effect) > 0).all()
    assert (sign * np.diff(imp) > 0).all()
    wanted = np.log(2) / np.log1p(np.exp(-sign * margins))
    np.testing.assert_allclose(imp, wanted, rtol=1e-4)


def test_planted_red_is_first_at_every_width(make_slide):
    rng = np.random.default_rng(0)
    patches = rng.integers(80, 120, (6, 32, 32, 3), dtype=np.uint8)
    masks = np.zeros((6, 3, 32, 32), bool)
    for i in range(6):
        for j, (y, x) in enumerate(rng.permutation([(2, 2), (2, 18), (18, 2)])):
            masks[i, j, y : y + 10, x : x + 10] = True
    patches[masks[:, 1]] += np.array([100, 0, 0], np.uint8)
    segmented = segmented_slide(*make_slide(patches, ["a", "red", "b"], masks, mpp=1.0))

    for hide in (*(Blur(sigma) for sigma in (2.0, 4.0, 8.0)), Fill(), SurroundFill(), Removal()):
        result = ask(segmented, ["a", "red", "b"], hide, linear(30.0))
        assert result.effect.argmax() == result.excess.argmax() == 1
        assert result.excess[1] > 0.1
