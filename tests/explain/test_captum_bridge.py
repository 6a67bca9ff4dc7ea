import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from xpath.errors import DataError
from xpath.explain.activation import object_activation, patch_activation
from xpath.explain.captum_bridge import (
    attribute_objects,
    coalition_logits,
    gradient_x_input,
    integrated_gradients,
    layerwise_relevance,
)
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.object_aware import ObjectAwareMIL


def additive(shown):
    return torch.stack([shown @ torch.tensor([1.0, -2.0, 0.5]).double(), 0 * shown[:, 0]], dim=1)


def synergy(shown):
    """Three for the first object, two more if the second is there as well."""
    return (3 * shown[:, 0] + 2 * shown[:, 0] * shown[:, 1])[:, None]


@pytest.mark.parametrize("method", ["ablation", "shapley"])
def test_an_additive_model_is_explained_exactly(method):
    result = attribute_objects(additive, 3, target=0, method=method)

    np.testing.assert_allclose(result, [1, -2, 0.5])


def test_ablation_gives_a_shared_effect_twice_shapley_divides_it():
    np.testing.assert_allclose(attribute_objects(synergy, 2, 0), [5, 2])
    np.testing.assert_allclose(
        attribute_objects(synergy, 2, 0, method="shapley", samples=400), [4, 1], atol=0.2
    )


def test_the_seed_decides_and_the_random_state_stays():
    state = torch.random.get_rng_state()

    first, second = (
        attribute_objects(synergy, 2, 0, method="shapley", samples=3, seed=5) for _ in range(2)
    )

    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.fixture
def bag():
    generator = torch.Generator().manual_seed(0)
    present = torch.rand(9, 4, generator=generator) > 0.3
    return Bag(torch.randn(9, 4, 5, generator=generator), present)


@pytest.mark.parametrize("average", ["all", "present"])
def test_it_equals_leaving_out_one_object_after_the_other(bag, average):
    torch.manual_seed(0)
    model = ObjectAwareMIL(5, 4, 2, average=average)

    result = attribute_objects(coalition_logits(model, bag), 4, target=1)

    for j in range(4):
        present = bag.present.clone()
        present[:, j] = False
        with torch.inference_mode():
            whole, left = model(pack([bag, Bag(bag.features, present)])).logits[:, 1]
        assert result[j] == pytest.approx(float(whole - left), abs=1e-5)


@pytest.mark.parametrize("method", ["ablation", "shapley"])
def test_with_a_fixed_divisor_it_equals_the_contributions(bag, method):
    torch.manual_seed(0)
    model = ObjectAwareMIL(5, 4, 2)

    result = attribute_objects(coalition_logits(model, bag), 4, target=1, method=method)

    np.testing.assert_allclose(result, object_activation(model, bag, 1).contribution, atol=1e-7)


def test_nonsense_is_refused():
    with pytest.raises(DataError, match="0 objects"):
        attribute_objects(additive, 0, 0)
    with pytest.raises(DataError, match="no objects"):
        coalition_logits(ObjectAwareMIL(5, 4, 2), Bag(torch.zeros(3, 5)))


def classifier(*, aware=False, proj=None, classes=3):
    torch.manual_seed(0)
    if aware:
        model = ObjectAwareMIL(5, 4, classes, hidden=8, proj=proj)
    else:
        model = AttentionMIL(5, classes, hidden=8, proj=proj)
    model.scaler.fit([Bag(torch.randn(50, 5) * 3 + 7)])
    with torch.no_grad():
        model.attention.score_weight *= 4
    return model.double()


def slide(*, aware=False):
    generator = torch.Generator().manual_seed(0)
    if not aware:
        return Bag(torch.randn(9, 5, generator=generator) * 3 + 7)
    present = torch.rand(9, 4, generator=generator) > 0.3
    return Bag(torch.randn(9, 4, 5, generator=generator) * 3 + 7, present)


def values_of(attribution):
    by_object = attribution.patch_objects
    return attribution.patches if by_object is None else by_object


def scaled(model, bag):
    return model.scaler(bag.features.double())


@pytest.mark.parametrize("proj", [None, 6])
@pytest.mark.parametrize("aware", [False, True])
def test_gradient_x_input_equals_differences(aware, proj):
    model, bag = classifier(aware=aware, proj=proj), slide(aware=aware)

    result = gradient_x_input(model, bag, 1)

    inputs, step = scaled(model, bag), 1e-6
    for index in np.ndindex(values_of(result).shape):
        logits = []
        for sign in (1, -1):
            moved = bag.features.double().clone()
            moved[index] += sign * step * inputs[index] * model.scaler.std  # along the input
            with torch.inference_mode():
                logits.append(model.eval()(pack([Bag(moved, bag.present)])).logits[0, 1].item())
        difference = (logits[0] - logits[1]) / 2 / step
        assert values_of(result)[index] == pytest.approx(difference, abs=1e-6)
    # attention is differentiated as well: no sum is promised
    assert abs(result.patches.sum() - result.logit) > 1e-3
    assert np.isnan(result.delta)


@pytest.mark.parametrize("contrast", ["none", "mean", "runner_up", 2])
@pytest.mark.parametrize("aware", [False, True])
def test_integrated_gradients_sum_to_the_difference(aware, contrast):
    model, bag = classifier(aware=aware), slide(aware=aware)

    result = integrated_gradients(model, bag, 1, contrast=contrast)

    assert abs(result.delta) < 1e-6
    mean = Bag(model.scaler.mean.expand_as(bag.features).clone(), bag.present)
    with torch.inference_mode():
        whole, start = model.eval()(pack([bag, mean])).logits
    against = {"none": 0 * whole, "mean": whole * 0 + 1 / 3, 2: torch.tensor([0, 0, 1.0]).double()}
    if contrast in against:
        assert result.logit == pytest.approx(float(whole[1] - whole @ against[contrast]))
        assert result.reference == pytest.approx(float(start[1] - start @ against[contrast]))


def test_integrated_gradients_equal_captum_by_hand():
    """Captum asked directly, on raw features and the scaler's mean as the baseline."""
    model, bag = classifier(), slide()

    def logits(features):
        return model.eval()(pack([Bag(each) for each in features])).logits

    wanted = IntegratedGradients(logits).attribute(
        bag.features[None].double(),
        baselines=model.scaler.mean.expand_as(bag.features)[None],
        target=1,
        n_steps=64,
    )
    result = integrated_gradients(model, bag, 1)

    np.testing.assert_allclose(values_of(result), wanted[0].sum(dim=-1).detach(), atol=1e-10)


def test_more_steps_resolve_the_kinks_of_a_projection():
    model, bag = classifier(proj=16), slide()

    coarse, fine = (integrated_gradients(model, bag, 1, steps=steps) for steps in (8, 512))

    assert abs(fine.delta) < 1e-3
    assert abs(fine.delta) < abs(coarse.delta)


def test_memory_is_limited_and_changes_nothing(monkeypatch):
    model, bag = classifier(aware=True), slide(aware=True)
    whole = integrated_gradients(model, bag, 1)
    monkeypatch.setattr("xpath.explain.captum_bridge.NUMBERS_AT_ONCE", 400)

    parts = integrated_gradients(model, bag, 1)

    np.testing.assert_allclose(values_of(parts), values_of(whole), atol=1e-12)


@pytest.mark.parametrize("aware", [False, True])
def test_relevance_without_a_projection_is_the_activation(aware):
    model, bag = classifier(aware=aware), slide(aware=aware)

    result = layerwise_relevance(model, bag, 1)

    if aware:
        wanted = object_activation(model, bag, 1).patch_contribution
    else:
        wanted = patch_activation(model, bag, 1).scores
    np.testing.assert_allclose(values_of(result), wanted, atol=1e-6)
    assert abs(result.delta) < 1e-6


@pytest.mark.parametrize("epsilon", [1e-9, 0.25])
@pytest.mark.parametrize("aware", [False, True])
def test_relevance_equals_the_epsilon_rule_by_hand(aware, epsilon):
    model, bag = classifier(aware=aware, proj=6), slide(aware=aware)

    result = layerwise_relevance(model, bag, 1, epsilon=epsilon)

    def damped(values):
        return values + epsilon * torch.where(values >= 0, 1.0, -1.0)

    with torch.no_grad():
        inputs, linear = scaled(model, bag), model.projection[0]
        hidden = linear(inputs)
        weight = model.classifier.weight[1]
        evidence = hidden.relu() @ weight
        # pool -> hidden features: R_h = h w_h / (h·w ± ε) · (what the pool handed down)
        top = hidden.relu() * weight * (evidence / damped(evidence))[..., None]
        # hidden -> input: R_d = x_d Σ_h W_hd R_h / (z_h ± ε)
        rows = inputs * ((top / damped(hidden)) @ linear.weight)
        output = model.eval()(pack([bag]))
        share = output.attention / (4 if aware else 1)
        wanted = share * rows.sum(dim=-1)
    np.testing.assert_allclose(values_of(result), wanted, atol=1e-7)


def test_without_bias_relevance_is_conserved_through_a_projection():
    model, bag = classifier(proj=6), slide()
    with torch.no_grad():
        model.projection[0].bias.zero_()

    assert abs(layerwise_relevance(model, bag, 1).delta) < 1e-6
    with torch.no_grad():
        model.projection[0].bias += 1
    assert abs(layerwise_relevance(model, bag, 1).delta) > 1e-3


@pytest.mark.parametrize("explain", [gradient_x_input, integrated_gradients, layerwise_relevance])
def test_objects_that_are_not_there_get_exactly_nothing(explain):
    model, bag = classifier(aware=True, proj=6), slide(aware=True)
    bag.features[~bag.present] = 1e6

    result = explain(model, bag, 1)

    assert (values_of(result)[~bag.present.numpy()] == 0).all()
    assert np.isfinite(values_of(result)).all()


@pytest.mark.parametrize("explain", [gradient_x_input, integrated_gradients, layerwise_relevance])
def test_the_model_and_the_bag_are_left_as_they_were(explain):
    model, bag = classifier(proj=6).float().train(), slide()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    explain(model, bag, 1)

    assert model.training
    assert not bag.features.requires_grad
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == torch.float32


def test_a_head_of_several_layers_has_gradients_but_no_relevance():
    model, bag = classifier(), slide()
    model.classifier = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    assert abs(integrated_gradients(model, bag, 1).delta) < 1e-5
    assert np.isfinite(gradient_x_input(model, bag, 1).patches).all()
    with pytest.raises(DataError, match="one linear layer"):
        layerwise_relevance(model, bag, 1)


def test_relevance_of_a_logit_that_is_no_sum_is_refused():
    class Squashed(AttentionMIL):
        def forward(self, bags):
            output = super().forward(bags)
            return output._replace(logits=torch.tanh(output.logits))

    torch.manual_seed(0)
    with pytest.raises(DataError, match="parts sum to"):
        layerwise_relevance(Squashed(5, 3), slide())


def test_no_steps_and_no_class_are_refused():
    with pytest.raises(DataError, match="steps"):
        integrated_gradients(classifier(), slide(), 1, steps=0)
    with pytest.raises(DataError, match="0 to 2"):
        gradient_x_input(classifier(), slide(), 3)
