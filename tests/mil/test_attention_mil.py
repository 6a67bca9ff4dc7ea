import math

import pytest
import torch

from xpath.errors import ConfigError, ShapeError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack


def by_hand(*, gated):
    """Two patches, scores ln 3 and 0: attention 3/4 and 1/4."""
    model = AttentionMIL(2, ["IDC", "ILC"], hidden=1, gated=gated)
    with torch.no_grad():
        model.attention.value_weight.copy_(torch.tensor([[[math.atanh(0.5), 0.0]]]))
        model.attention.score_weight.fill_(2 * math.log(3))
        if gated:  # sigmoid(0) halves the hidden feature
            model.attention.gate_weight.zero_()
            model.attention.score_weight.mul_(2)
        model.classifier.weight.copy_(torch.tensor([[1.0, 2.0], [-4.0, 0.0]]))
        model.classifier.bias.copy_(torch.tensor([0.5, 1.0]))
    return model, Bag(torch.eye(2))


@pytest.mark.parametrize("gated", [True, False])
def test_two_patches_by_hand(gated):
    model, bag = by_hand(gated=gated)

    output = model(pack([bag]))

    torch.testing.assert_close(output.attention, torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(output.embedding, torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(output.logits, torch.tensor([[1.75, -2.0]]))
    torch.testing.assert_close(output.instances, torch.eye(2))


def padded_logits(model, bags):
    """The usual way: pad to the longest, mask the softmax."""
    longest = max(len(bag.features) for bag in bags)
    features = torch.full((len(bags), longest, bags[0].features.shape[1]), 3.0).double()
    mask = torch.zeros(len(bags), longest, dtype=torch.bool)
    for b, bag in enumerate(bags):
        features[b, : len(bag.features)] = bag.features
        mask[b, : len(bag.features)] = True
    instances = model.projection((features - model.scaler.mean) / model.scaler.std)
    scores = model.attention(instances.flatten(0, 1)[:, None]).view(mask.shape)
    attention = scores.masked_fill(~mask, -torch.inf).softmax(dim=1)
    return model.classifier(torch.einsum("bn,bnd->bd", attention, instances))


def gradients(model, logits):
    model.zero_grad()
    (logits * torch.arange(logits.numel()).view_as(logits).sin()).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_packed_is_padded_is_one_by_one_in_logits_and_gradients(attention_mil, patch_bags):
    ways = [
        attention_mil(pack(patch_bags)).logits,
        padded_logits(attention_mil, patch_bags),
        torch.cat([attention_mil(pack([bag])).logits for bag in patch_bags]),
    ]
    wanted = gradients(attention_mil, ways[0])

    for other in ways[1:]:
        torch.testing.assert_close(other, ways[0], atol=1e-9, rtol=0)
        torch.testing.assert_close(gradients(attention_mil, other), wanted, atol=1e-9, rtol=1e-9)
    assert min(value.abs().max() for value in wanted.values()) > 1e-3  # all parameters take part


def test_order_of_patches_does_not_matter(attention_mil, patch_bags):
    bag = patch_bags[2]
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])

    shuffled = attention_mil(pack([Bag(bag.features[order])]))

    original = attention_mil(pack([bag]))
    torch.testing.assert_close(shuffled.logits, original.logits)
    torch.testing.assert_close(shuffled.attention, original.attention[order])


def test_patches_add_up_to_the_logit(attention_mil, patch_bags):
    packed = pack(patch_bags)
    output = attention_mil(packed)

    terms = output.attention[:, None] * attention_mil.classifier(output.instances)  # bias: Σα = 1

    for bag in range(3):
        total = terms[packed.index == bag].sum(dim=0)
        torch.testing.assert_close(total, output.logits[bag], atol=1e-9, rtol=0)


def test_without_projection_the_features_themselves_are_pooled(patch_bags):
    model = AttentionMIL(4, 2).double()

    assert torch.equal(model(pack(patch_bags)).instances, pack(patch_bags).features)


def test_float32_bags_add_up_to_1e_6(generator):
    torch.manual_seed(1)
    model = AttentionMIL(64, 2).eval()
    output = model(pack([Bag(torch.randn(300, 64, generator=generator))]))

    total = output.attention @ (output.instances @ model.classifier.weight.T)

    torch.testing.assert_close(total + model.classifier.bias, output.logits[0], atol=1e-6, rtol=0)


def test_other_features_are_refused():
    model = AttentionMIL(4, 2)
    with pytest.raises(ShapeError, match="patch features"):
        model(pack([Bag(torch.zeros(2, 5))]))
    with pytest.raises(ShapeError, match="patch features"):
        model(pack([Bag(torch.zeros(2, 1, 4), torch.ones(2, 1) > 0)]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"dim": 0},
        {"hidden": 0},
        {"proj": 0},
        {"dropout": 1.0},
        {"classes": 1},
        {"classes": "IDC"},
        {"classes": ["IDC", "IDC"]},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError):
        AttentionMIL(**({"dim": 4, "classes": 2} | wrong))


def test_names_or_numbers_of_classes():
    assert AttentionMIL(4, ["IDC", "ILC"]).classes == ("IDC", "ILC")
    assert AttentionMIL(4, 2).classes == ("class 0", "class 1")
