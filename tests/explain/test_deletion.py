import numpy as np
import pytest
import torch

from xpath.errors import ConfigError, DataError
from xpath.explain.attention_pool import attention_pools, class_pools, leave_out_patches
from xpath.explain.deletion import (
    class_curve,
    class_subsets,
    curve_area,
    ranking,
    removal_areas,
)
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.object_aware import ObjectAwareMIL

PATCHES = 12


def standard(patches=PATCHES):
    torch.manual_seed(0)
    model = AttentionMIL(6, 3, hidden=8).double()
    with torch.no_grad():
        model.attention.score_weight *= 4
    return model, Bag(torch.randn(patches, 6).double() * 2)


def aware(average="all"):
    torch.manual_seed(0)
    model = ObjectAwareMIL(6, 4, 3, hidden=8, average=average).double()
    present = torch.rand(PATCHES, 4) > 0.4
    present[:, 2] = False
    return model, Bag(torch.randn(PATCHES, 4, 6).double() * 2, present)


def probability(model, bag, keep, target=1):
    if not len(keep):
        return torch.softmax(model.classifier.bias, 0)[target].item()
    present = None if bag.present is None else bag.present[keep]
    with torch.inference_mode():
        logits = model.eval()(pack([Bag(bag.features[keep], present)])).logits[0]
    return torch.softmax(logits, 0)[target].item()


@pytest.mark.parametrize("case", [standard, aware, lambda: aware("present")])
def test_curves_equal_asking_the_model_again(case):
    model, bag = case()
    order = np.random.default_rng(0).permutation(PATCHES)
    pools = class_pools(model, bag)

    left = np.array([probability(model, bag, order[k:]) for k in range(PATCHES + 1)])
    came = np.array([probability(model, bag, order[:k]) for k in range(PATCHES + 1)])

    result = class_curve(pools, order, 1, scale="probability")
    np.testing.assert_allclose(result, left, atol=1e-10)
    result = class_curve(pools, order, 1, scale="probability", direction="insertion")
    np.testing.assert_allclose(result, came, atol=1e-10)
    odds = class_curve(pools, order, 1)
    np.testing.assert_allclose(odds, np.log(left / (1 - left)), atol=1e-8)


def test_class_pools_are_those_of_each_class():
    model, bag = aware()

    for target, pool in enumerate(class_pools(model, bag)):
        alone = attention_pools(model, bag, target)
        assert (pool.target, pool.logit) == (target, alone.logit)
        np.testing.assert_array_equal(pool.evidence, alone.evidence)
        np.testing.assert_array_equal(pool.weight, alone.weight)


def test_subsets_on_each_scale_fit_each_other():
    model, bag = standard()
    pools = class_pools(model, bag)
    sets = np.random.default_rng(0).random((5, PATCHES)) > 0.5

    odds = class_subsets(pools, 2, sets)
    chance = class_subsets(pools, 2, sets, scale="probability")

    np.testing.assert_allclose(chance, 1 / (1 + np.exp(-odds)))
    logit = class_subsets(pools, 2, scale="logit")
    assert float(logit) == pytest.approx(pools[2].logit)


def test_a_sure_model_keeps_its_log_odds_where_probability_is_flat():
    model, bag = standard()
    with torch.no_grad():
        model.classifier.weight *= 2000
    pools = class_pools(model, bag)
    target = int(np.argmax([pool.logit for pool in pools]))
    order = np.arange(PATCHES)

    odds = class_curve(pools, order, target)

    assert odds[0] > 50
    assert np.isfinite(odds).all()
    assert len(np.unique(odds[:-1])) == PATCHES
    assert class_curve(pools, order, target, scale="probability")[0] == 1


@pytest.mark.parametrize("average", ["all", "present"])
def test_objects_are_struck_one_after_the_other(average):
    model, bag = aware(average)
    pools, order = class_pools(model, bag), np.array([3, 2, 0, 1])

    left = np.triu(np.ones((5, 4), bool))[:, np.argsort(order)]  # (steps, L)
    result = class_subsets(pools, 1, None, left, scale="probability")

    present = bag.present.clone()
    wanted = [probability(model, Bag(bag.features, present), np.arange(PATCHES))]
    for gone in order:
        present[:, gone] = False
        wanted.append(probability(model, Bag(bag.features, present), np.arange(PATCHES)))
    np.testing.assert_allclose(result, wanted, atol=1e-12)
    assert result[1] == result[2]  # the object that is nowhere


def test_areas_by_hand():
    assert curve_area(np.array([4.0, 2.0, 0.0])) == pytest.approx(2)
    np.testing.assert_allclose(curve_area(np.array([[1.0, 1.0], [0.0, 1.0]])), [1, 0.5])


def test_ranking_breaks_ties_in_order():
    assert ranking(np.array([1.0, 3.0, 1.0, 3.0])).tolist() == [1, 3, 0, 2]


def test_removal_follows_the_right_ranking():
    """The truth beats chance, and chance beats the truth upside down."""
    model, bag = standard(60)
    pools = class_pools(model, bag)
    scores = leave_out_patches(attention_pools(model, bag, 1, contrast="mean"))

    right = removal_areas(pools, scores, 1, np.random.default_rng(0))
    wrong = removal_areas(pools, -scores, 1, np.random.default_rng(0))

    assert right.deletion < right.random - 2 * right.random_error
    assert right.least_first > right.random + 2 * right.random_error
    assert right.insertion > wrong.insertion
    assert right.gain == pytest.approx(right.least_first - right.deletion)
    assert wrong.gain == pytest.approx(-right.gain)
    # what comes in the same order as it would go, upside down, is the same curve read backwards
    assert right.insertion == pytest.approx(right.least_first)


def test_one_patch_has_a_curve_of_two_points():
    model, bag = standard(1)

    result = class_curve(class_pools(model, bag), np.array([0]), 1, scale="probability")

    np.testing.assert_allclose(
        result, [probability(model, bag, [0]), probability(model, bag, [])], atol=1e-12
    )


def test_what_does_not_fit_is_refused(rng):
    model, bag = aware()
    pools = class_pools(model, bag)
    order = np.arange(PATCHES)

    with pytest.raises(DataError, match="each of 12 patches once"):
        class_curve(pools, order[:-1], 1)
    with pytest.raises(ConfigError, match="log_odds"):
        class_curve(pools, order, 1, scale="odds")
    with pytest.raises(DataError, match="2 or more classes"):
        class_curve(pools, order, 3)
    with pytest.raises(DataError, match="without NaN"):
        ranking(np.array([1.0, np.nan]))
    with pytest.raises(DataError, match="draws"):
        removal_areas(pools, order, 1, rng, draws=1)
