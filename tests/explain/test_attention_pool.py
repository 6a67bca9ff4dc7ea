import itertools
import time

import numpy as np
import pytest
import torch
from torch import nn

from xpath.errors import DataError, ShapeError
from xpath.explain.activation import object_activation, patch_activation
from xpath.explain.attention_pool import (
    attention_pools,
    centred_activation,
    deletion_curve,
    insertion_curve,
    leave_out_objects,
    leave_out_patch_objects,
    leave_out_patches,
    merged,
    subset_logits,
)
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.object_aware import ObjectAwareMIL

PATCHES = 50


def standard(**changes):
    torch.manual_seed(0)
    model = AttentionMIL(6, 3, hidden=8, **changes).double()
    with torch.no_grad():
        model.attention.score_weight *= 4  # attention that differs from patch to patch
    return model, Bag(torch.randn(PATCHES, 6).double() * 2)


def aware(average="all", **changes):
    """The third object is nowhere, the last in one patch only."""
    torch.manual_seed(0)
    model = ObjectAwareMIL(6, 4, 3, hidden=8, average=average, **changes).double()
    present = torch.rand(PATCHES, 4) > 0.5
    present[:, 2:] = False
    present[7, 3] = True
    return model, Bag(torch.randn(PATCHES, 4, 6).double() * 2, present)


CASES = {
    "gated": standard,
    "plain, projected": lambda: standard(gated=False, proj=5),
    "objects": aware,
    "objects, projected": lambda: aware(proj=5),
    "objects that are there": lambda: aware("present"),
}


@pytest.fixture(params=CASES, name="case")
def a_case(request):
    return CASES[request.param]()


def ask(model, bag, *, keep=None, target=1):
    """The model's own logit of a bag with these patches, of none the bias."""
    keep = np.arange(len(bag.features)) if keep is None else np.asarray(keep)
    if not len(keep):
        return model.classifier.bias[target].item()
    present = None if bag.present is None else bag.present[keep]
    with torch.inference_mode():
        return float(model.eval()(pack([Bag(bag.features[keep], present)])).logits[0, target])


def test_by_hand():
    model = AttentionMIL(1, 2).double()
    with torch.no_grad():
        model.attention.score_weight.zero_()
        model.classifier.weight.copy_(torch.tensor([[0.0], [2.0]]))
        model.classifier.bias.copy_(torch.tensor([0.0, 5.0]))
    pools = attention_pools(model, Bag(torch.tensor([[1.0], [3.0], [8.0]])), 1)

    np.testing.assert_allclose(pools.weight[:, 0], 1)
    assert pools.logit == pytest.approx(8 + 5)
    np.testing.assert_allclose(leave_out_patches(pools), [8 - 11, 8 - 9, 8 - 4])
    np.testing.assert_allclose(deletion_curve(pools, np.array([2, 0, 1])), [13, 9, 11, 5])
    np.testing.assert_allclose(insertion_curve(pools, np.array([2, 0, 1])), [5, 21, 14, 13])
    np.testing.assert_allclose(subset_logits(pools, np.eye(3)), [7, 11, 21])


def test_any_set_of_patches_equals_the_model_itself(case):
    model, bag = case
    rng = np.random.default_rng(0)
    sets = rng.random((6, PATCHES)) > np.array([[0.1], [0.3], [0.5], [0.9], [0.97], [1.0]])

    result = subset_logits(attention_pools(model, bag, 1), sets)

    wanted = [ask(model, bag, keep=np.flatnonzero(chosen)) for chosen in sets]
    np.testing.assert_allclose(result, wanted, atol=1e-9)


def test_leaving_out_each_patch_equals_brute_force(case):
    model, bag = case

    result = leave_out_patches(attention_pools(model, bag, 1))

    wanted = [
        ask(model, bag) - ask(model, bag, keep=np.delete(np.arange(PATCHES), i))
        for i in range(PATCHES)
    ]
    np.testing.assert_allclose(result, wanted, atol=1e-6)
    np.testing.assert_allclose(result, wanted, atol=1e-12)


@pytest.mark.parametrize("average", ["all", "present"])
def test_leaving_out_objects_equals_brute_force(average):
    model, bag = aware(average)
    pools, whole = attention_pools(model, bag, 1), ask(model, bag)

    for j, effect in enumerate(leave_out_objects(pools)):
        present = bag.present.clone()
        present[:, j] = False
        assert effect == pytest.approx(whole - ask(model, Bag(bag.features, present)), abs=1e-12)
    assert leave_out_objects(pools)[2] == 0

    patch_objects = leave_out_patch_objects(pools)
    for i, j in [(0, 0), (7, 3), (7, 1), (11, 0), (4, 1)]:
        present = bag.present.clone()
        present[i, j] = False
        wanted = whole - ask(model, Bag(bag.features, present))
        assert patch_objects[i, j] == pytest.approx(wanted, abs=1e-12)
    assert (patch_objects[~bag.present.numpy()] == 0).all()
    assert patch_objects[7, 3] == pytest.approx(leave_out_objects(pools)[3])  # its only patch


def test_curves_equal_brute_force(case):
    model, bag = case
    order = np.random.default_rng(0).permutation(PATCHES)

    pools = attention_pools(model, bag, 1)

    wanted = [ask(model, bag, keep=order[k:]) for k in range(PATCHES + 1)]
    np.testing.assert_allclose(deletion_curve(pools, order), wanted, atol=1e-6)
    wanted = [ask(model, bag, keep=order[:k]) for k in range(PATCHES + 1)]
    np.testing.assert_allclose(insertion_curve(pools, order), wanted, atol=1e-6)


def test_single_patches_equal_brute_force(case):
    """xMIL's ``perturbation_keep`` (its ``perturbation_drop`` is leave-one-out)."""
    model, bag = case

    result = subset_logits(attention_pools(model, bag, 1), np.eye(PATCHES, dtype=bool))

    np.testing.assert_allclose(result, [ask(model, bag, keep=[i]) for i in range(PATCHES)])


def test_first_order_is_the_derivative(case):
    """Of the logit by the weight of a patch, all its objects together."""
    model, bag = case
    pools = attention_pools(model, bag, 1)
    divisor = int(pools.weight.any(axis=0).sum()) if pools.average == "present" else None

    result = centred_activation(pools)

    wanted, step = [], 1e-6
    for i in range(PATCHES):
        weight = pools.weight.copy()
        weight[i] *= 1 - step
        means = (weight * pools.evidence).sum(0) / np.maximum(weight.sum(0), 1e-300)
        wanted.append(
            (pools.logit - means.sum() / (divisor or weight.shape[1]) - pools.bias) / step
        )
    np.testing.assert_allclose(result, wanted, atol=1e-5)
    assert abs(result.sum()) < 1e-12


def test_activation_and_removal_disagree_in_sign():
    """Why the class activation is not what happens without a patch."""
    model, bag = standard()
    removal = leave_out_patches(attention_pools(model, bag, 1))
    centred = centred_activation(attention_pools(model, bag, 1))
    plain = patch_activation(model, bag, 1).scores

    assert (np.sign(plain) != np.sign(removal)).mean() > 0.1
    assert (np.sign(centred) == np.sign(removal)).all()


def test_the_sums_are_those_of_the_activations():
    model, bag = aware()
    pools, result = attention_pools(model, bag, 1), object_activation(model, bag, 1)

    np.testing.assert_allclose(
        pools.attention * pools.evidence / 4, result.patch_contribution, atol=1e-12
    )
    np.testing.assert_allclose(leave_out_objects(pools), result.contribution, atol=1e-12)


@pytest.mark.parametrize("contrast", ["mean", "runner_up", 2])
def test_a_contrast_sees_only_what_a_softmax_sees(case, contrast):
    model, bag = case
    before = leave_out_patches(attention_pools(model, bag, 1, contrast=contrast))
    plain = leave_out_patches(attention_pools(model, bag, 1))
    with torch.no_grad():
        model.classifier.weight += 10 * torch.randn(model.classifier.in_features)

    after = leave_out_patches(attention_pools(model, bag, 1, contrast=contrast))

    np.testing.assert_allclose(after, before, atol=1e-10)
    assert np.abs(leave_out_patches(attention_pools(model, bag, 1)) - plain).max() > 0.1


def test_one_patch_with_nearly_all_attention_can_be_left_out():
    """1 - attention would be rounding, sums of the others are not."""
    model, _ = standard()
    with torch.no_grad():
        model.attention.score_weight *= 300
    bag = Bag(torch.randn(PATCHES, 6, generator=torch.Generator().manual_seed(1)).double() * 3)
    pools = attention_pools(model, bag, 1)
    best = int(pools.weight.argmax())
    assert 1 - pools.attention[best, 0] < 1e-9

    result = leave_out_patches(pools)[best]

    rest = np.delete(np.arange(PATCHES), best)
    assert result == pytest.approx(ask(model, bag) - ask(model, bag, keep=rest), rel=1e-9)


def test_groups_are_patches_of_a_coarser_slide(case):
    model, bag = case
    groups = np.random.default_rng(0).integers(0, 5, PATCHES)
    groups[:5] = range(5)

    coarse = merged(attention_pools(model, bag, 1), groups)

    for group, effect in enumerate(leave_out_patches(coarse)):
        rest = np.flatnonzero(groups != group)
        assert effect == pytest.approx(ask(model, bag) - ask(model, bag, keep=rest), abs=1e-9)


def test_a_slide_of_one_patch_and_one_coalition_logits():
    model, bag = standard()
    one = attention_pools(model, Bag(bag.features[:1]), 1)
    assert leave_out_patches(one)[0] == pytest.approx(one.logit - one.bias)

    for average in ("all", "present"):
        model, bag = aware(average)
        none = attention_pools(model, Bag(bag.features, torch.zeros_like(bag.present)), 1)
        assert none.logit == pytest.approx(none.bias)
        for result in (
            leave_out_patches(none),
            leave_out_objects(none),
            leave_out_patch_objects(none),
        ):
            assert (result == 0).all()


def test_a_kind_nobody_has_changes_nothing_among_those_present():
    model, bag = aware("present")
    more = ObjectAwareMIL(6, 5, 3, hidden=8, average="present").double()
    weights = model.state_dict()
    for name, value in more.state_dict().items():
        if value.shape != weights[name].shape:
            weights[name] = torch.cat((weights[name], value[4:]))
    more.load_state_dict(weights)
    wide = Bag(
        torch.cat((bag.features, torch.randn(PATCHES, 1, 6).double()), dim=1),
        torch.cat((bag.present, torch.zeros(PATCHES, 1, dtype=torch.bool)), dim=1),
    )

    result, wanted = attention_pools(more, wide, 1), attention_pools(model, bag, 1)

    assert result.logit == pytest.approx(wanted.logit, abs=1e-12)
    np.testing.assert_allclose(leave_out_objects(result)[:4], leave_out_objects(wanted))
    assert leave_out_objects(result)[4] == 0


def test_five_thousand_patches_take_milliseconds():
    torch.manual_seed(0)
    model, bag = AttentionMIL(64, 2), Bag(torch.randn(5000, 64))
    pools = attention_pools(model, bag)

    times = []
    for _ in range(5):
        started = time.perf_counter()
        leave_out_patches(pools)
        times.append(time.perf_counter() - started)

    assert min(times) < 0.05


def test_what_does_not_fit_is_refused():
    model, bag = standard()
    pools = attention_pools(model, bag, 1)

    with pytest.raises(DataError, match="each of 50 patches once"):
        deletion_curve(pools, np.zeros(PATCHES, np.int64))
    with pytest.raises(DataError, match="sets must be"):
        subset_logits(pools, np.ones(3, bool))
    with pytest.raises(ShapeError, match="groups"):
        merged(pools, np.zeros(3, np.int64))
    with pytest.raises(DataError, match="0, 1"):
        merged(pools, np.full(PATCHES, -1))
    model.classifier = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    with pytest.raises(DataError, match="one linear layer"):
        attention_pools(model.double(), bag)


def test_sets_of_objects_are_coalitions():
    model, bag = aware("present")
    pools = attention_pools(model, bag, 1)
    sets = np.array(list(itertools.product([False, True], repeat=4)))

    result = subset_logits(pools, None, sets)

    for chosen, logit in zip(sets, result, strict=True):
        shown = bag.present & torch.from_numpy(chosen)
        assert logit == pytest.approx(ask(model, Bag(bag.features, shown)), abs=1e-12)
