import numpy as np
import pytest
import torch

from xpath.errors import ConfigError
from xpath.explain.activation import object_activation, patch_activation
from xpath.explain.attention_pool import attention_pools, leave_out_patch_objects, leave_out_patches
from xpath.explain.attribution import METHODS
from xpath.explain.methods import attribute
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag
from xpath.mil.object_aware import ObjectAwareMIL

COMPLETE = ("activation", "integrated_gradients", "lrp", "shapley")


def standard(**changes):
    torch.manual_seed(0)
    return AttentionMIL(6, 3, hidden=8, **changes).double(), Bag(torch.randn(15, 6).double())


def aware(average="all", **changes):
    torch.manual_seed(0)
    model = ObjectAwareMIL(6, ["a", "b", "c"], 3, hidden=8, average=average, **changes).double()
    present = torch.rand(15, 3) > 0.4
    present[:, 2] = False
    return model, Bag(torch.randn(15, 3, 6).double(), present)


@pytest.mark.parametrize("case", [standard, aware, lambda: aware("present")])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_alike(method, case):
    model, bag = case()

    result = attribute(model, bag, method, 1, contrast="mean")

    assert (result.method, result.target) == (method, 1)
    assert result.patches.shape == (15,)
    assert result.patches.dtype == np.float64
    assert np.isfinite(result.patches).all()
    assert result.logit == pytest.approx(attention_pools(model, bag, 1, contrast="mean").logit)
    if result.patch_objects is not None:
        assert result.patch_objects.shape == (15, 3)
        assert (result.patch_objects[~bag.present.numpy()] == 0).all()
        assert result.objects[2] == 0


@pytest.mark.parametrize("contrast", ["none", "mean", "runner_up", 0])
@pytest.mark.parametrize("case", [standard, aware, lambda: aware("present")])
@pytest.mark.parametrize("method", METHODS)
def test_what_promises_a_sum_keeps_it(method, case, contrast):
    result = attribute(*case(), method, 1, contrast=contrast)

    if method in COMPLETE:
        assert abs(result.delta) < 1e-6
        assert result.patches.sum() == pytest.approx(result.logit - result.reference, abs=1e-6)
    else:
        assert np.isnan(result.delta)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "attention"])
def test_a_contrast_sees_only_what_a_softmax_sees(method):
    """One vector added to every class's weights changes no probability."""
    for case in (standard, aware):
        model, bag = case()
        before = {c: attribute(model, bag, method, 1, contrast=c) for c in ("mean", 0, "none")}
        with torch.no_grad():
            model.classifier.weight += 10 * torch.randn(6)
            model.classifier.bias += 3

        for contrast in ("mean", 0):
            after = attribute(model, bag, method, 1, contrast=contrast).patches
            np.testing.assert_allclose(after, before[contrast].patches, atol=1e-8)
        if method != "random":
            plain = attribute(model, bag, method, 1).patches
            assert np.abs(plain - before["none"].patches).max() > 0.1


def test_each_name_is_its_function():
    model, bag = standard()
    pools = attention_pools(model, bag, 1)
    wanted = patch_activation(model, bag, 1)

    np.testing.assert_array_equal(attribute(model, bag, "activation", 1).patches, wanted.scores)
    np.testing.assert_allclose(
        attribute(model, bag, "attention", 1).patches, wanted.attention, atol=1e-12
    )
    result = attribute(model, bag, "leave_one_out", 1)
    np.testing.assert_array_equal(result.patches, leave_out_patches(pools))
    assert result.patch_objects is None

    model, bag = aware()
    pools = attention_pools(model, bag, 1)
    result = attribute(model, bag, "activation", 1)
    wanted = object_activation(model, bag, 1)
    np.testing.assert_allclose(result.objects, wanted.contribution, atol=1e-12)
    np.testing.assert_array_equal(result.patch_objects, wanted.patch_contribution)
    result = attribute(model, bag, "leave_one_out", 1)
    np.testing.assert_array_equal(result.patch_objects, leave_out_patch_objects(pools))
    assert attribute(model, bag, "attention", 1).patches.sum() == pytest.approx(1)


def test_without_a_projection_relevance_is_the_activation():
    for case in (standard, aware, lambda: aware("present")):
        model, bag = case()
        relevance = attribute(model, bag, "lrp", 1, contrast="mean")
        activation = attribute(model, bag, "activation", 1, contrast="mean")
        np.testing.assert_allclose(relevance.patches, activation.patches, atol=1e-7)


@pytest.mark.parametrize("case", [standard, aware])
def test_patches_in_another_order_have_the_same_values(case):
    model, bag = case()
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    turned = Bag(bag.features[order], None if bag.present is None else bag.present[order])

    for method in METHODS:
        if method in ("random", "shapley"):
            continue
        result, wanted = (attribute(model, each, method, 1).patches for each in (turned, bag))
        np.testing.assert_allclose(result, wanted[order], atol=1e-10)


def test_one_patch_takes_all():
    model, bag = standard()
    one = Bag(bag.features[:1])

    for method in ("activation", "leave_one_out", "shapley"):
        result = attribute(model, one, method, 1)
        bias = model.classifier.bias[1].item()
        assert result.patches[0] == pytest.approx(result.logit - bias)
    assert attribute(model, one, "centred", 1).patches[0] == pytest.approx(0)


def test_a_slide_without_any_object_gets_zeros():
    for average in ("all", "present"):
        model, bag = aware(average)
        none = Bag(bag.features, torch.zeros_like(bag.present))
        for method in METHODS:
            if method != "random":
                assert (attribute(model, none, method, 1).patches == 0).all()


def test_the_generator_decides():
    model, bag = standard()

    for method in ("random", "shapley"):
        first, second, other = (
            attribute(model, bag, method, 1, rng=np.random.default_rng(seed)).patches
            for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, second)
        assert (first != other).any()


def test_other_methods_are_refused():
    with pytest.raises(ConfigError, match="leave_one_out"):
        attribute(*standard(), "saliency")
