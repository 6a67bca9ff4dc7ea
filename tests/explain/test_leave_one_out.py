"""A classifier of one's own: it trains, is scored, and is explained by leaving patches out."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from xpath.errors import DataError
from xpath.explain.leave_one_out import leave_one_out
from xpath.explain.methods import attribute
from xpath.metrics.classification import classification_metrics
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.cross_validation import out_of_fold
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.mil.pool import segment_max, segment_sum
from xpath.mil.pooling_mil import PoolingMIL
from xpath.mil.prediction import evaluate, predict
from xpath.mil.splits import group_folds
from xpath.mil.training import TrainConfig, train

DIM = 3


class Output(NamedTuple):
    logits: torch.Tensor


class MaxMeanMIL(nn.Module):
    """Largest and mean features of the patches, and a head of two layers."""

    classes = ("IDC", "ILC")

    def __init__(self):
        super().__init__()
        self.metadata = {}
        self.head = nn.Sequential(nn.Linear(2 * DIM, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, bags):
        largest = segment_max(bags.features, bags.index, bags.bags)
        mean = segment_sum(bags.features, bags.index, bags.bags) / bags.sizes[:, None]
        return Output(self.head(torch.cat([largest, mean], dim=1)))


@pytest.fixture(scope="module")
def bags():
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(24):
        features = torch.randn(3 + number % 4, DIM, generator=generator)
        features[0, 0] += 4.0 * (number % 2)  # one patch decides
        made.append(Bag(features, label=number % 2, slide_id=f"s{number}"))
    return made


@pytest.fixture(scope="module")
def model(bags):
    torch.manual_seed(0)
    made = MaxMeanMIL()
    train(made, bags[:16], bags[16:20], TrainConfig(lr=0.02, epochs=40, patience=40))
    return made


def test_a_classifier_of_ones_own_trains_and_is_scored(model, bags):
    assert evaluate(model, bags[20:]).auc == 1.0
    assert evaluate(model, bags[:16]).accuracy > 0.9
    assert model.metadata["training"]["train_slides"] == [bag.slide_id for bag in bags[:16]]
    assert not model.training


def test_a_classifier_of_ones_own_is_predicted_out_of_fold(bags):
    splits = group_folds([bag.label for bag in bags], [bag.slide_id for bag in bags], folds=3)

    pooled = out_of_fold(MaxMeanMIL, bags, splits, TrainConfig(lr=0.02, epochs=30), calibrate=True)

    assert pooled.predictions.slide_ids == tuple(bag.slide_id for bag in bags)
    scores = classification_metrics(pooled.predictions.probability, pooled.predictions.label)
    assert scores.auc > 0.9


def test_the_effect_of_a_patch_is_that_of_a_slide_without_it(model, bags):
    bag = bags[1]
    wide = MaxMeanMIL().double()
    wide.load_state_dict(model.state_dict())
    whole = wide(pack([Bag(bag.features.double())])).logits[0]

    found = attribute(model, bag, "leave_one_out", 1, contrast="runner_up")

    rest = [torch.cat([bag.features[:i], bag.features[i + 1 :]]) for i in range(len(bag.features))]
    logits = torch.stack([wide(pack([Bag(rows.double())])).logits[0] for rows in rest])
    margin = (whole[1] - whole[0]).item()
    wanted = margin - (logits[:, 1] - logits[:, 0]).detach().numpy()
    np.testing.assert_allclose(found.patches, wanted, atol=1e-12)
    assert found.logit == pytest.approx(margin)
    assert found.patches.argmax() == 0
    assert found.target == 1
    assert next(model.parameters()).dtype == torch.float32


def test_where_additivity_is_missing_the_error_says_so(model, bags):
    for method in ("activation", "shapley", "lrp", "attention"):
        with pytest.raises(DataError, match=r"sum over patches.*MaxMeanMIL ask leave_one_out"):
            attribute(model, bags[0], method)


@pytest.mark.parametrize("contrast", ["none", "mean", 1])
def test_it_equals_what_the_pools_say(contrast):
    """Of attention models, in chunks of any size; and of the mean, by hand."""
    torch.manual_seed(1)
    patches = Bag(torch.randn(6, DIM))
    objects = Bag(torch.randn(6, 2, DIM), torch.rand(6, 2) < 0.7)
    for model, bag in (
        (AttentionMIL(DIM, 2, hidden=4), patches),
        (ObjectAwareMIL(DIM, 2, 2, hidden=4), objects),
    ):
        found = leave_one_out(model, bag, 0, contrast=contrast)
        wanted = attribute(model, bag, "leave_one_out", 0, contrast=contrast)
        np.testing.assert_allclose(found.patches, wanted.patches, atol=1e-10)
        assert found.logit == pytest.approx(wanted.logit)


def test_the_mean_of_patches_by_hand(monkeypatch):
    monkeypatch.setattr("xpath.explain.leave_one_out.AT_ONCE", 20)
    model = PoolingMIL(DIM, 2, pool="mean")
    bag = Bag(torch.randn(5, DIM))
    scores = model.classifier(bag.features).detach().double().numpy()[:, 0]

    found = attribute(model, bag, "leave_one_out", 0)

    wanted = scores.mean() - (scores.sum() - scores) / 4
    np.testing.assert_allclose(found.patches, wanted, atol=1e-6)


def test_a_model_of_a_single_patch_and_packed_bags_are_refused(model, bags):
    with pytest.raises(DataError, match="one patch"):
        leave_one_out(model, Bag(torch.zeros(1, DIM)))
    with pytest.raises(DataError, match="PackedBags"):
        leave_one_out(model, pack(bags))


def test_a_model_without_tensors_is_refused(bags):
    class Empty(nn.Module):
        classes = ("a", "b")

    with pytest.raises(DataError, match="Empty has neither parameters nor buffers"):
        predict(Empty(), bags)
