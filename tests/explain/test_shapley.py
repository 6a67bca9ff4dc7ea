import math
from itertools import combinations

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, KernelShap, ShapleyValues

from xpath.errors import DataError
from xpath.explain.attention_pool import (
    attention_pools,
    leave_out_patches,
    merged,
    subset_logits,
)
from xpath.explain.captum_bridge import coalition_logits
from xpath.explain.shapley import shapley_exact, shapley_objects, shapley_patches
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack, pack_padded
from xpath.mil.object_aware import ObjectAwareMIL


def standard(patches):
    torch.manual_seed(0)
    model = AttentionMIL(6, 3, hidden=8).double()
    with torch.no_grad():
        model.attention.score_weight *= 4
    return model, Bag(torch.randn(patches, 6).double() * 2)


def aware(average, objects=5):
    torch.manual_seed(0)
    model = ObjectAwareMIL(6, objects, 3, hidden=8, average=average).double()
    present = torch.rand(30, objects) > 0.5
    present[:, 2] = False
    return model, Bag(torch.randn(30, objects, 6).double() * 2, present)


def slow(game, players):
    """The definition: a weighted sum over all sets."""
    values = np.zeros(players)
    for player in range(players):
        others = [p for p in range(players) if p != player]
        for size in range(players):
            share = math.factorial(size) * math.factorial(players - size - 1)
            for chosen in combinations(others, size):
                mask = np.isin(np.arange(players), chosen)
                joined = mask.copy()
                joined[player] = True
                values[player] += share * (game(joined) - game(mask))
    return values / math.factorial(players)


def test_patches_converge_to_the_definition():
    pools = attention_pools(*standard(8), 1)

    result = shapley_patches(pools, np.random.default_rng(0), orders=8000)

    wanted = shapley_exact(pools)
    assert (np.abs(result.values - wanted) < 5 * result.error + 1e-9).all()
    np.testing.assert_allclose(result.values, wanted, atol=0.05)
    assert result.error.max() < 0.02


@pytest.mark.parametrize("players", [1, 2, 8])
def test_exact_shares_equal_the_definition(players):
    pools = attention_pools(*standard(players), 1, contrast="mean")

    result = shapley_exact(pools)

    wanted = slow(lambda mask: float(subset_logits(pools, mask)), players)
    np.testing.assert_allclose(result, wanted, atol=1e-12)
    assert result.sum() == pytest.approx(pools.logit - pools.bias, abs=1e-12)


@pytest.mark.parametrize("average", ["all", "present"])
def test_groups_of_patches_share_exactly(average):
    """Regions of an object-aware slide, against the definition by asking the model itself."""
    model, bag = aware(average)
    groups = np.arange(30) % 4

    result = shapley_exact(merged(attention_pools(model, bag, 1), groups))

    def game(mask):
        left = bag.present & torch.from_numpy(mask[groups])[:, None]
        with torch.inference_mode():
            return float(model.eval()(pack([Bag(bag.features, left)])).logits[0, 1])

    np.testing.assert_allclose(result, slow(game, 4), atol=1e-10)


def test_equal_patches_have_equal_shares_and_strangers_none():
    model, bag = standard(5)
    features = torch.cat((bag.features, bag.features[:1]))
    pools = attention_pools(model, Bag(features), 1)
    pools.weight[3] = 0  # no attention at all: a dummy

    result = shapley_exact(pools)

    assert result[0] == pytest.approx(result[5], abs=1e-12)
    assert result[3] == 0


def test_patches_equal_captum():
    """Every patch a player: captum asks the model for each coalition."""
    model, bag = standard(5)
    pools = attention_pools(model, bag, 1)
    ones = torch.ones(1, 5, dtype=torch.float64)

    @torch.inference_mode()
    def logits(shown):
        mask = shown > 0.5
        padded = bag.features.expand(len(shown), 5, 6)
        return model.eval()(pack_padded(padded, mask)).logits

    exact = ShapleyValues(logits).attribute(ones, target=1, perturbations_per_eval=20)[0]
    np.testing.assert_allclose(shapley_exact(pools), exact, atol=1e-6)
    removal = FeatureAblation(logits).attribute(ones, target=1)[0]
    np.testing.assert_allclose(leave_out_patches(pools), removal, atol=1e-6)


def test_too_many_for_all_sets_is_refused():
    with pytest.raises(DataError, match="merge them into at most 16"):
        shapley_exact(attention_pools(*standard(17), 1))


@pytest.mark.parametrize("average", ["all", "present"])
def test_objects_equal_the_definition(average):
    pools = attention_pools(*aware(average), 1)

    result = shapley_objects(pools)

    wanted = slow(lambda mask: float(subset_logits(pools, None, mask)), 5)
    np.testing.assert_allclose(result, wanted, atol=1e-12)
    assert result[2] == 0


@pytest.mark.parametrize("average", ["all", "present"])
def test_objects_equal_captum(average):
    model, bag = aware(average)
    logits, ones = coalition_logits(model, bag), torch.ones(1, 5, dtype=torch.float64)

    result = shapley_objects(attention_pools(model, bag, 1))

    wanted = ShapleyValues(logits).attribute(ones, target=1, perturbations_per_eval=20)[0]
    np.testing.assert_allclose(result, wanted.numpy(), atol=1e-6)  # captum adds up in single
    if average == "all":  # additive, so a linear model fits without error
        torch.manual_seed(0)
        kernel = KernelShap(logits).attribute(
            ones, target=1, n_samples=300, perturbations_per_eval=100
        )
        kernel = kernel[0].numpy()
        np.testing.assert_allclose(result, kernel, atol=1e-3)


@pytest.mark.parametrize("case", [lambda: standard(40), lambda: aware("present")])
def test_shares_sum_to_the_logit_after_a_few_orders(case):
    pools = attention_pools(*case(), 1)

    result = shapley_patches(pools, np.random.default_rng(0), orders=4)

    assert result.values.sum() == pytest.approx(pools.logit - pools.bias, abs=1e-10)


def test_objects_sum_to_the_logit():
    pools = attention_pools(*aware("present"), 1)

    assert shapley_objects(pools).sum() == pytest.approx(pools.logit - pools.bias, abs=1e-12)


def test_the_error_is_what_it_says():
    pools = attention_pools(*standard(12), 1)
    runs = [shapley_patches(pools, np.random.default_rng(s), orders=40) for s in range(200)]

    spread = np.std([run.values for run in runs], axis=0)

    np.testing.assert_allclose(np.mean([run.error for run in runs], axis=0), spread, rtol=0.25)


def test_memory_is_limited_and_changes_nothing(monkeypatch):
    pools = attention_pools(*standard(12), 1)
    whole = shapley_patches(pools, np.random.default_rng(3), orders=20)
    monkeypatch.setattr("xpath.explain.shapley.NUMBERS_AT_ONCE", 12)

    parts = shapley_patches(pools, np.random.default_rng(3), orders=20)

    np.testing.assert_allclose(parts.values, whole.values)
    np.testing.assert_allclose(parts.error, whole.error, atol=1e-9)


def test_lone_objects_and_patches_take_all():
    model, bag = aware("present")
    only = torch.zeros_like(bag.present)
    only[3, 1] = True
    pools = attention_pools(model, Bag(bag.features, only), 1)

    np.testing.assert_allclose(
        shapley_objects(pools), [0, pools.logit - pools.bias, 0, 0, 0], atol=1e-12
    )


def test_orders_come_in_pairs():
    pools = attention_pools(*standard(3), 1)

    for orders in (0, 2, 7):
        with pytest.raises(DataError, match="even number"):
            shapley_patches(pools, np.random.default_rng(0), orders=orders)
