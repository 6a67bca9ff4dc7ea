import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag
from xpath.mil.baseline import below_mean_pooling, mean_features
from xpath.mil.estimator import AttentionMILClassifier


def bags(count, seed=0):
    """Bags whose mean tells the class."""
    rng = np.random.default_rng(seed)
    return [
        Bag(torch.tensor(rng.normal(index % 2, 0.3, (5, 4)), dtype=torch.float32), None, index % 2)
        for index in range(count)
    ]


class Fixed(torch.nn.Module):
    """Answers by the mean feature, or against it."""

    classes = ("a", "b")

    def __init__(self, sign):
        super().__init__()
        self.sign = torch.nn.Parameter(torch.tensor(float(sign)))
        self.inner = AttentionMIL(4, 2)

    def forward(self, packed):
        output = self.inner(packed)
        rows = packed.features.mean(dim=1)
        means = torch.zeros(packed.bags).index_add(0, packed.index, rows) / packed.sizes
        return output._replace(logits=torch.stack([-self.sign * means, self.sign * means], dim=1))


def test_means_are_over_patches_or_over_objects_that_are_there():
    patches = torch.tensor([[1.0, 2], [3, 6]])
    objects = torch.tensor([[[1.0, 2], [9, 9]], [[3, 6], [5, 4]]])
    present = torch.tensor([[True, False], [True, True]])

    np.testing.assert_allclose(mean_features(Bag(patches)), [2, 4])
    np.testing.assert_allclose(mean_features(Bag(objects, present)), [3, 4])
    assert not mean_features(Bag(objects, torch.zeros_like(present))).any()


def test_a_model_worse_than_the_mean_is_named_with_both_figures():
    assert "AUC is 0.00, below the 1.00" in below_mean_pooling(Fixed(-1), bags(12), bags(6, 1))
    assert below_mean_pooling(Fixed(1), bags(12), bags(6, 1)) == ""


def test_nothing_is_said_where_a_class_is_missing():
    assert below_mean_pooling(Fixed(-1), bags(12), bags(6, 1)[::2]) == ""
    assert below_mean_pooling(Fixed(-1), bags(12), []) == ""
    ends = [Bag(bag.features, None, 2 * bag.label) for bag in bags(12)]  # nothing between
    assert below_mean_pooling(AttentionMIL(4, 3), ends, ends) == ""


def test_an_estimator_says_so(monkeypatch):
    slides = [bag.features.numpy() for bag in bags(24)]
    labels = np.arange(24) % 2
    model = AttentionMILClassifier(epochs=1, lr=1e-9, validation=0.25)

    with pytest.warns(ConvergenceWarning) as said:
        model.fit(slides, labels)

    assert any("logistic regression on mean features" in str(one.message) for one in said)
