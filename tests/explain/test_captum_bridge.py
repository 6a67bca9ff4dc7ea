import numpy as np
import pytest
import torch

from xpath.errors import DataError
from xpath.explain.activation import object_activation
from xpath.explain.captum_bridge import attribute_objects, without_objects
from xpath.mil.bag import Bag, pack
from xpath.mil.object_aware import ObjectAwareMIL


def additive(shown):
    return torch.stack([shown @ torch.tensor([1.0, -2.0, 0.5]).double(), 0 * shown[:, 0]], dim=1)


def synergy(shown):
    """Three for the first object, two more if the second is there as well."""
    return (3 * shown[:, 0] + 2 * shown[:, 0] * shown[:, 1])[:, None]


@pytest.mark.parametrize("method", ["ablation", "shapley"])
def test_an_additive_model_is_explained_exactly(method):
    found = attribute_objects(additive, 3, target=0, method=method)

    np.testing.assert_allclose(found, [1, -2, 0.5])


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

    found = attribute_objects(without_objects(model, bag), 4, target=1)

    for j in range(4):
        present = bag.present.clone()
        present[:, j] = False
        with torch.inference_mode():
            whole, left = model(pack([bag, Bag(bag.features, present)])).logits[:, 1]
        assert found[j] == pytest.approx(float(whole - left), abs=1e-5)


@pytest.mark.parametrize("method", ["ablation", "shapley"])
def test_with_a_fixed_divisor_it_equals_the_contributions(bag, method):
    torch.manual_seed(0)
    model = ObjectAwareMIL(5, 4, 2)

    found = attribute_objects(without_objects(model, bag), 4, target=1, method=method)

    np.testing.assert_allclose(found, object_activation(model, bag, 1).contribution, atol=1e-7)


def test_nonsense_is_refused():
    with pytest.raises(DataError, match="0 objects"):
        attribute_objects(additive, 0, 0)
    with pytest.raises(DataError, match="no objects"):
        without_objects(ObjectAwareMIL(5, 4, 2), Bag(torch.zeros(3, 5)))
