import pytest
import torch

from xpath.errors import ConfigError, ShapeError
from xpath.mil.bag import Bag, pack, pack_padded
from xpath.mil.classifier import load_classifier
from xpath.mil.pooling_mil import PoolingMIL
from xpath.mil.prediction import evaluate
from xpath.mil.training import TrainConfig, train

DIM = 4


@pytest.fixture(params=["mean", "max"])
def model(request):
    torch.manual_seed(3)
    return PoolingMIL(DIM, 3, pool=request.param, proj=5).double().eval()


def test_logits_are_mean_and_largest_of_the_patches(patch_bags):
    torch.manual_seed(3)
    mean = PoolingMIL(DIM, 3).double().eval()
    largest = PoolingMIL(DIM, 3, pool="max").double().eval()
    largest.load_state_dict(mean.state_dict())

    for bag in patch_bags:
        rows = bag.features @ mean.classifier.weight.T + mean.classifier.bias
        torch.testing.assert_close(mean(pack([bag])).logits[0], rows.mean(dim=0))
        torch.testing.assert_close(largest(pack([bag])).logits[0], rows.amax(dim=0))


def test_packed_is_one_by_one(model, patch_bags):
    together = model(pack(patch_bags)).logits

    alone = torch.cat([model(pack([bag])).logits for bag in patch_bags])

    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_an_empty_bag_has_the_bias(model):
    mask = torch.tensor([[True, True], [False, False]])
    bags = pack_padded(torch.ones(2, 2, DIM, dtype=torch.float64), mask)

    logits = model(bags).logits

    assert torch.equal(logits[1], model.classifier.bias)
    logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_it_learns_and_is_saved(tmp_path):
    generator = torch.Generator().manual_seed(0)
    bags = []
    for number in range(40):
        features = torch.randn(6, DIM, generator=generator)
        features[0, 0] += 6.0 * (number % 2)
        bags.append(Bag(features, label=number % 2))
    torch.manual_seed(0)
    model = PoolingMIL(DIM, ["no", "yes"])

    train(model, bags[:30], [], TrainConfig(lr=0.05, epochs=30))
    model.save_pretrained(tmp_path / "model")
    again = load_classifier(tmp_path / "model")

    assert evaluate(model, bags[30:]).auc > 0.9
    assert torch.equal(again(pack(bags)).logits, model(pack(bags)).logits)
    assert again.config.pool == "mean"


def test_max_learns_from_one_patch_a_slide_and_class():
    model = PoolingMIL(2, 2, pool="max")
    with torch.no_grad():
        model.classifier.weight.copy_(torch.eye(2))
    bag = Bag(torch.tensor([[3.0, 0.0], [0.0, 5.0], [1.0, 1.0]]))

    model(pack([bag])).logits[0, 1].backward()

    assert model.classifier.weight.grad.tolist() == [[0, 0], [0, 5]]


def test_numbers_that_cannot_be_are_refused(object_bags):
    for wrong in ({"dim": 0}, {"classes": 1}, {"pool": "sum"}, {"dropout": 1.0}, {"proj": 0}):
        with pytest.raises(ConfigError):
            PoolingMIL(**({"dim": 4, "classes": 2} | wrong))
    with pytest.raises(ShapeError, match="patch features"):
        PoolingMIL(DIM, 2)(pack(object_bags))
