import copy

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient
from torch import nn

from xpath.errors import DataError
from xpath.explain.activation import object_activation, patch_activation
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.object_aware import ObjectAwareMIL


def standard(seed=0, **changes):
    torch.manual_seed(seed)
    return AttentionMIL(6, 3, hidden=8, **changes)


def aware(seed=0, **changes):
    torch.manual_seed(seed)
    return ObjectAwareMIL(6, ["tumor", "stroma", "fat", "other"], 3, hidden=8, **changes)


def patch_bag(seed=0):
    return Bag(torch.randn(7, 6, generator=torch.Generator().manual_seed(seed)))


def object_bag(seed=0):
    """Seven patches without the third object."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(7, 4, generator=generator) > 0.4
    present[0], present[:, 2] = True, False
    return Bag(torch.randn(7, 4, 6, generator=generator), present)


def logits(model, bag):
    with torch.inference_mode():
        return model.eval()(pack([bag])).logits[0].numpy()


@torch.no_grad()
def by_hand(model, weight, bias):
    """Equal attention for all, and a chosen classifier."""
    model.attention.score_weight.zero_()
    model.classifier.weight.copy_(torch.tensor(weight))
    model.classifier.bias.copy_(torch.tensor(bias))
    return model


def test_patches_by_hand():
    model = by_hand(AttentionMIL(2, 2), [[1.0, 0.0], [2.0, -1.0]], [0.5, 0.25])
    bag = Bag(torch.tensor([[4.0, 0.0], [0.0, 8.0]]))

    result = patch_activation(model, bag, target=1)

    np.testing.assert_allclose(result.attention, [0.5, 0.5])
    np.testing.assert_allclose(result.scores, [4.0, -4.0])
    assert result.bias == 0.25
    assert result.logit == pytest.approx(0.25)


def test_objects_by_hand():
    model = by_hand(ObjectAwareMIL(1, ["a", "b", "c"], 2), [[1.0], [2.0]], [0.0, 1.0])
    features = torch.tensor([[[3.0], [5.0], [7.0]], [[9.0], [5.0], [7.0]]])
    bag = Bag(features, torch.tensor([[True, False, False], [True, True, False]]))

    result = object_activation(model, bag, target=1)

    np.testing.assert_allclose(result.activation, [2 * 6, 2 * 5, 0])
    np.testing.assert_allclose(result.contribution, [4, 10 / 3, 0])
    np.testing.assert_allclose(result.patch_contribution, [[1, 0, 0], [3, 10 / 3, 0]])
    assert result.divisor == 3
    assert result.logit == pytest.approx(4 + 10 / 3 + 1)
    assert result.present.tolist() == [True, True, False]


@pytest.mark.parametrize("proj", [None, 5])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_patches_add_up_to_the_models_own_logit(seed, gated, proj):
    model, bag = standard(seed, gated=gated, proj=proj), patch_bag(seed)
    wanted = logits(model, bag)

    for target in range(3):
        result = patch_activation(model, bag, target)
        assert result.scores.sum() + result.bias == pytest.approx(wanted[target], abs=1e-5)
        assert abs(result.delta) < 1e-12


@pytest.mark.parametrize("proj", [None, 5])
@pytest.mark.parametrize("average", ["all", "present"])
@pytest.mark.parametrize("seed", range(3))
def test_objects_add_up_to_the_models_own_logit(seed, average, proj):
    model, bag = aware(seed, average=average, proj=proj), object_bag(seed)
    wanted = logits(model, bag)

    for target in range(3):
        result = object_activation(model, bag, target)
        assert result.contribution.sum() + result.bias == pytest.approx(wanted[target], abs=1e-5)
        assert result.patch_contribution.sum() + result.bias == pytest.approx(
            wanted[target], abs=1e-5
        )
        np.testing.assert_allclose(
            result.patch_contribution.sum(axis=0), result.contribution, atol=1e-12
        )
        np.testing.assert_allclose(result.activation, result.contribution * result.divisor)
        assert abs(result.delta) < 1e-12


def test_scores_of_all_classes_come_from_one_copy_of_the_model(monkeypatch):
    model, bag = standard(), patch_bag()
    alone = [patch_activation(model, bag, target) for target in range(len(model.classes))]
    copies = []
    monkeypatch.setattr(
        "xpath.explain.head.double_precision",
        lambda one: copies.append(one) or copy.deepcopy(one).double().eval(),
    )

    result = patch_activation(model, bag, 1, contrast="mean")

    assert len(copies) == 1
    np.testing.assert_array_equal(result.class_scores, [one.scores for one in alone])
    np.testing.assert_array_equal(result.logits, [one.logit for one in alone])


def test_the_scaler_is_part_of_the_sum():
    model, bag = standard(), patch_bag()
    model.scaler.fit([Bag(torch.randn(50, 6) * 3 + 7)])

    result = patch_activation(model, bag, 0)

    assert result.scores.sum() + result.bias == pytest.approx(logits(model, bag)[0], abs=1e-5)


def test_an_absent_object_adds_exactly_nothing():
    bag = object_bag()
    bag.features[:, 2] = 1e6  # whatever stands there

    result = object_activation(aware(proj=5), bag)

    assert result.contribution[2] == result.activation[2] == 0
    assert (result.patch_contribution[~bag.present.numpy()] == 0).all()


def test_the_predicted_class_is_explained_unless_told_otherwise():
    bag = patch_bag()

    result = patch_activation(standard(), bag)

    assert result.target == logits(standard(), bag).argmax()


@pytest.mark.parametrize(
    ("explain", "model", "bag", "part"),
    [
        (patch_activation, standard(), patch_bag(), "scores"),
        (object_activation, aware(), object_bag(), "contribution"),
    ],
)
def test_a_contrast_sees_only_what_a_softmax_sees(explain, model, bag, part):
    plain = explain(model, bag, 1)
    contrast = explain(model, bag, 1, contrast="mean")
    with torch.no_grad():
        model.classifier.weight += torch.randn(model.classifier.in_features)  # to every class
        model.classifier.bias += 3

    after = explain(model, bag, 1, contrast="mean")

    np.testing.assert_allclose(getattr(after, part), getattr(contrast, part), atol=1e-6)
    assert after.logit == pytest.approx(contrast.logit, abs=1e-5)
    assert np.abs(getattr(explain(model, bag, 1), part) - getattr(plain, part)).max() > 0.01
    # and it is what remains of the plain one once the mean class is taken away
    values = [getattr(explain(model, bag, target), part) for target in range(3)]
    np.testing.assert_allclose(getattr(after, part), values[1] - np.mean(values, axis=0))


@pytest.mark.parametrize("contrast", ["mean", "runner_up", 0, 2])
@pytest.mark.parametrize(
    ("explain", "model", "bag", "parts"),
    [
        (patch_activation, standard, patch_bag, ["scores"]),
        (
            object_activation,
            aware,
            object_bag,
            ["activation", "contribution", "patch_contribution"],
        ),
    ],
)
def test_contrasts_are_identifiable_and_complete(explain, model, bag, parts, contrast):
    """One vector and one number for every class: the same probabilities, the same answer."""
    model, bag = model().double(), bag()
    before = explain(model, bag, 1, contrast=contrast)
    chances = torch.from_numpy(logits(model, bag)).softmax(0)
    with torch.no_grad():
        model.classifier.weight += 20 * torch.randn(model.classifier.in_features)
        model.classifier.bias -= 7

    after = explain(model, bag, 1, contrast=contrast)

    np.testing.assert_allclose(torch.from_numpy(logits(model, bag)).softmax(0), chances, atol=1e-9)
    for part in parts:
        np.testing.assert_allclose(getattr(after, part), getattr(before, part), atol=1e-9)
    assert after.logit == pytest.approx(before.logit, abs=1e-9)
    assert after.bias == pytest.approx(before.bias, abs=1e-9)
    total = getattr(after, parts[-1]).sum() + after.bias
    assert total == pytest.approx(after.logit, abs=1e-9)


def test_against_one_other_class_is_the_difference_of_both():
    model, bag = standard(), patch_bag()
    one, other = (patch_activation(model, bag, target).scores for target in (1, 2))

    result = patch_activation(model, bag, 1, contrast=2)

    np.testing.assert_allclose(result.scores, one - other, atol=1e-12)
    back = patch_activation(model, bag, 2, contrast=1)
    np.testing.assert_allclose(back.scores, -result.scores, atol=1e-12)
    assert back.logit == pytest.approx(-result.logit)


def test_of_two_classes_the_contrast_is_the_log_odds():
    torch.manual_seed(0)
    model, bag = AttentionMIL(6, 2, hidden=8), patch_bag()

    result = patch_activation(model, bag, 1, contrast="runner_up")

    chance = torch.from_numpy(logits(model, bag)).double().softmax(0)[1]
    assert result.scores.sum() + result.bias == pytest.approx(float(torch.logit(chance)), abs=1e-6)


def test_it_is_the_class_map_of_dtfd():
    """Zhang et al. 2022: the classifier's weights on attention-weighted features, summed over D."""
    model, bag = standard(), patch_bag()
    with torch.inference_mode():
        output = model.eval()(pack([bag]))
        weighted = output.attention[:, None] * output.instances
        wanted = torch.einsum("nd,kd->kn", weighted, model.classifier.weight)

    for target in range(3):
        result = patch_activation(model, bag, target).scores
        np.testing.assert_allclose(result, wanted[target], atol=1e-6)


def test_the_pool_equals_captum_on_attention_weighted_features():
    """Captum's ``InputXGradient`` behind the attention: what Eq. 14 is term for term."""
    model, bag = standard(), patch_bag()
    with torch.no_grad():
        output = model.eval()(pack([bag]))
        weighted = (output.attention[:, None] * output.instances)[None]

    pooled = InputXGradient(lambda features: model.classifier(features.sum(dim=1)))
    wanted = pooled.attribute(weighted.requires_grad_(), target=1)[0].sum(dim=-1).detach()

    np.testing.assert_allclose(patch_activation(model, bag, 1).scores, wanted, atol=1e-6)


def test_a_kind_nobody_has_changes_no_contribution():
    model, bag = aware(average="present"), object_bag()
    more = ObjectAwareMIL(
        6, ["tumor", "stroma", "fat", "other", "new"], 3, hidden=8, average="present"
    )
    weights = model.state_dict()
    for name, value in more.state_dict().items():
        if value.shape != weights[name].shape:
            weights[name] = torch.cat((weights[name], value[4:]))
    more.load_state_dict(weights)
    wide = Bag(
        torch.cat((bag.features, torch.ones(7, 1, 6)), dim=1),
        torch.cat((bag.present, torch.zeros(7, 1, dtype=torch.bool)), dim=1),
    )

    result, wanted = object_activation(more, wide, 1), object_activation(model, bag, 1)

    np.testing.assert_allclose(result.contribution[:4], wanted.contribution, atol=1e-12)
    assert result.contribution[4] == 0
    assert result.logit == pytest.approx(wanted.logit, abs=1e-12)


def test_patches_in_another_order_have_the_same_scores():
    bag, order = patch_bag(), torch.randperm(7, generator=torch.Generator().manual_seed(0))

    turned = patch_activation(standard(), Bag(bag.features[order]), 0)

    np.testing.assert_allclose(turned.scores, patch_activation(standard(), bag, 0).scores[order])


class Squashed(AttentionMIL):
    def forward(self, bags):
        output = super().forward(bags)
        return output._replace(logits=torch.tanh(output.logits))


class SquashedObjects(ObjectAwareMIL):
    def forward(self, bags):
        output = super().forward(bags)
        return output._replace(logits=torch.tanh(output.logits))


def test_a_model_that_does_not_add_up_is_refused():
    torch.manual_seed(0)
    with pytest.raises(DataError, match="parts sum to"):
        patch_activation(Squashed(6, 3), Bag(10 * torch.randn(7, 6)))
    with pytest.raises(DataError, match="parts sum to"):
        bag = Bag(10 * torch.randn(7, 4, 6), torch.ones(7, 4, dtype=torch.bool))
        object_activation(SquashedObjects(6, 4, 3), bag)


def test_another_head_is_refused():
    model = standard()
    model.classifier = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))

    with pytest.raises(DataError, match="one linear layer"):
        patch_activation(model, patch_bag(), 0)


def test_a_class_that_is_none_is_refused():
    with pytest.raises(DataError, match="0 to 2"):
        patch_activation(standard(), patch_bag(), target=3)
    with pytest.raises(DataError, match="0 to 2"):
        object_activation(aware(), object_bag(), target=-1)


def test_the_model_is_left_as_it_was():
    model = standard(dropout=0.5).train()

    first, second = patch_activation(model, patch_bag(), 0), patch_activation(model, patch_bag(), 0)

    assert model.training
    assert model.classifier.weight.dtype == torch.float32
    np.testing.assert_array_equal(first.scores, second.scores)
