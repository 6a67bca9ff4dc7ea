import math

import pytest
import torch

from xpath.errors import ConfigError, ShapeError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.object_aware import ObjectAwareMIL


def by_hand(average):
    """Object 0 is in both patches, with attention 3/4 and 1/4; object 1 only in the second."""
    model = ObjectAwareMIL(2, ["tumor", "stroma", "fat"], 2, hidden=1, gated=False, average=average)
    with torch.no_grad():
        model.attention.value_weight.copy_(torch.tensor([math.atanh(0.5), 0.0]).expand(3, 1, 2))
        model.attention.score_weight.fill_(2 * math.log(3))
        model.classifier.weight.copy_(torch.tensor([[1.0, 2.0], [-4.0, 0.0]]))
        model.classifier.bias.copy_(torch.tensor([0.5, 1.0]))
    junk = [9.0, 9.0]
    features = torch.tensor([[[1.0, 0.0], junk, junk], [[0.0, 1.0], [0.0, 2.0], junk]])
    present = torch.tensor([[True, False, False], [True, True, False]])
    return model, Bag(features, present)


@pytest.mark.parametrize(
    ("average", "divisor", "logits"),
    # A = (1.25, 4, 0) for class 0 and (-3, 0, 0) for class 1
    [("all", 3, [5.25 / 3 + 0.5, -3 / 3 + 1]), ("present", 2, [5.25 / 2 + 0.5, -3 / 2 + 1])],
)
def test_two_patches_by_hand(average, divisor, logits):
    model, bag = by_hand(average)

    output = model(pack([bag]))

    torch.testing.assert_close(output.attention, torch.tensor([[0.75, 0.0, 0.0], [0.25, 1.0, 0.0]]))
    torch.testing.assert_close(
        output.embedding, torch.tensor([[[0.75, 0.25], [0.0, 2.0], [0.0, 0.0]]])
    )
    assert output.present.tolist() == [[True, True, False]]
    assert output.divisor.tolist() == [divisor]
    torch.testing.assert_close(output.logits, torch.tensor([logits]))


def padded_logits(model, bags):
    """Pad to the longest, one aggregator after the other."""
    rows = []
    for bag in bags:
        total, count = torch.zeros(model.classifier.in_features).double(), 0
        for j in range(len(model.objects)):
            features = torch.full((9, bag.features.shape[2]), 3.0).double()
            mask = torch.zeros(9, dtype=torch.bool)
            features[: len(bag.features)] = bag.features[:, j]
            mask[: len(bag.features)] = bag.present[:, j]
            if not mask.any():
                continue
            instances = (features - model.scaler.mean) / model.scaler.std
            wide = torch.zeros(9, len(model.objects), instances.shape[1]).double()
            wide[:, j] = instances
            scores = model.attention(wide)[:, j].masked_fill(~mask, -torch.inf)
            total, count = total + scores.softmax(dim=0) @ instances, count + 1
        count = max(count, 1) if model.config.average == "present" else len(model.objects)
        rows.append(model.classifier(total / count))
    return torch.stack(rows)


def gradients(model, logits):
    model.zero_grad()
    (logits * torch.arange(logits.numel()).view_as(logits).sin()).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_packed_is_padded_is_one_by_one_in_logits_and_gradients(object_aware, object_bags):
    ways = [
        object_aware(pack(object_bags)).logits,
        padded_logits(object_aware, object_bags),
        torch.cat([object_aware(pack([bag])).logits for bag in object_bags]),
    ]
    wanted = gradients(object_aware, ways[0])

    for other in ways[1:]:
        torch.testing.assert_close(other, ways[0], atol=1e-9, rtol=0)
        torch.testing.assert_close(gradients(object_aware, other), wanted, atol=1e-9, rtol=1e-9)
    assert min(value.abs().max() for value in wanted.values()) > 1e-3  # all parameters take part


def test_each_kind_is_an_attention_pool_of_its_own(object_aware, object_bags):
    """Aggregator j sees what AttentionMIL with its weights sees in the patches that have j."""
    bag = object_bags[0]
    output = object_aware(pack([bag]))

    for j in range(3):
        alone = AttentionMIL(4, 3, hidden=6).double()
        alone.scaler.load_state_dict(object_aware.scaler.state_dict())
        state = {name: v[j : j + 1] for name, v in object_aware.attention.state_dict().items()}
        alone.attention.load_state_dict(state)
        has = bag.present[:, j]
        wanted = alone(pack([Bag(bag.features[has, j])]))
        torch.testing.assert_close(output.embedding[0, j], wanted.embedding[0])
        torch.testing.assert_close(output.attention[has, j], wanted.attention)


def test_order_of_patches_does_not_matter(object_aware, object_bags):
    bag = object_bags[0]
    order = torch.tensor([3, 1, 4, 0, 2])

    shuffled = object_aware(pack([Bag(bag.features[order], bag.present[order])]))

    torch.testing.assert_close(shuffled.logits, object_aware(pack([bag])).logits)


def test_objects_and_patches_add_up_to_the_logit(object_aware, object_bags):
    packed = pack(object_bags)
    output = object_aware(packed)

    terms = output.attention[..., None] * (output.instances @ object_aware.classifier.weight.T)

    by_object = output.embedding @ object_aware.classifier.weight.T
    for bag in range(3):
        bias, wanted = object_aware.classifier.bias, output.logits[bag]
        by_patch = terms[packed.index == bag].sum(dim=(0, 1)) / output.divisor[bag] + bias
        torch.testing.assert_close(by_patch, wanted, atol=1e-9, rtol=0)
        total = by_object[bag].sum(dim=0) / output.divisor[bag] + bias
        torch.testing.assert_close(total, wanted, atol=1e-9, rtol=0)


def test_what_lies_under_an_absent_object_changes_nothing(object_aware, object_bags):
    bag = object_bags[0]
    features = bag.features.clone().requires_grad_()
    junk = torch.where(bag.present[..., None], bag.features, 1e3)

    output = object_aware(pack([Bag(features, bag.present)]))
    output.logits.sum().backward()

    assert torch.equal(object_aware(pack([Bag(junk, bag.present)])).logits, output.logits)
    assert (features.grad[~bag.present] == 0).all()
    assert (features.grad[bag.present] != 0).any(dim=1).all()


def test_a_kind_the_slide_has_not_contributes_exactly_nothing(object_aware, object_bags):
    bag = object_bags[1]

    output = object_aware(pack([bag]))
    output.logits.sum().backward()

    assert output.present[0].tolist() == [True, True, False]
    assert (output.embedding[0, 2] == 0).all()
    assert (output.attention[:, 2] == 0).all()
    for parameter in object_aware.attention.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert (parameter.grad[2] == 0).all()
        assert (parameter.grad[0] != 0).any()


def test_a_slide_without_objects_gets_the_bias(object_aware, object_bags):
    output = object_aware(pack([object_bags[2]]))
    output.logits.sum().backward()

    assert torch.equal(output.logits[0], object_aware.classifier.bias)
    assert all(torch.isfinite(parameter.grad).all() for parameter in object_aware.parameters())


def test_a_projections_bias_is_no_phantom_of_absent_objects(object_bags):
    torch.manual_seed(2)
    model = ObjectAwareMIL(4, 3, 2, proj=5).double()
    with torch.no_grad():
        model.projection[0].bias.fill_(3.0)

    output = model(pack([object_bags[2]]))

    assert torch.equal(output.logits[0], model.classifier.bias)
    assert (output.instances == 0).all()


def wider(model):
    """The same model with one more kind of object."""
    more = ObjectAwareMIL(4, 4, 3, hidden=6, average=model.config.average).double().eval()
    state = model.state_dict()
    with torch.no_grad():
        for name, value in more.state_dict().items():
            if name.startswith("attention."):
                value[:3] = state[name]
            else:
                value.copy_(state[name])
    return more


def test_a_kind_no_slide_has_changes_only_the_papers_average(object_aware, object_bags):
    before = object_aware(pack(object_bags)).logits
    extended = [
        Bag(
            torch.cat([bag.features, torch.zeros_like(bag.features[:, :1])], dim=1),
            torch.cat([bag.present, torch.zeros_like(bag.present[:, :1])], dim=1),
        )
        for bag in object_bags
    ]

    after = wider(object_aware)(pack(extended)).logits

    share = 3 / 4 if object_aware.config.average == "all" else 1
    bias = object_aware.classifier.bias
    torch.testing.assert_close(after - bias, (before - bias) * share)


def test_a_rare_object_keeps_its_size():
    """In 1 of 50 patches: without the mask its feature would shrink to about 1/50."""
    torch.manual_seed(0)
    features, present = torch.zeros(50, 1, 4), torch.zeros(50, 1, dtype=torch.bool)
    features[17], present[17] = torch.tensor([1.0, 2.0, 3.0, 4.0]), True

    output = ObjectAwareMIL(4, 1, 2)(pack([Bag(features, present)]))

    assert output.embedding.flatten().tolist() == [1, 2, 3, 4]


def test_other_features_are_refused():
    model = ObjectAwareMIL(4, 2, 2)
    for shape in [(2, 3, 4), (2, 2, 5)]:
        with pytest.raises(ShapeError, match="object features"):
            model(pack([Bag(torch.zeros(shape), torch.ones(shape[:2]) > 0)]))
    with pytest.raises(ShapeError, match="object features"):
        model(pack([Bag(torch.zeros(2, 4))]))
    packed = pack([Bag(torch.zeros(2, 2, 4), torch.ones(2, 2) > 0)])
    with pytest.raises(ShapeError, match="present"):
        model(packed._replace(present=None))
    with pytest.raises(ShapeError, match="present"):
        model(packed._replace(present=torch.ones(2, 1) > 0))


@pytest.mark.parametrize(
    "wrong", [{"objects": []}, {"objects": "tumor"}, {"average": "median"}, {"dim": 0}]
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError):
        ObjectAwareMIL(**({"dim": 4, "objects": 2, "classes": 2} | wrong))
