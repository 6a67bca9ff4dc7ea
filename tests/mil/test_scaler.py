import pytest
import torch

from xpath.errors import ShapeError
from xpath.mil.bag import Bag
from xpath.mil.scaler import FeatureScaler


def test_the_identity_until_fitted(generator):
    features = torch.randn(5, 3, generator=generator)

    assert torch.equal(FeatureScaler(3)(features), features)


def test_training_rows_get_mean_0_and_deviation_1(generator):
    bags = [Bag(torch.randn(n, 3, generator=generator) * 5 + n) for n in (4, 1, 9)]
    rows = torch.cat([bag.features for bag in bags])
    scaler = FeatureScaler(3)

    scaler.fit(bags)

    torch.testing.assert_close(scaler.mean, rows.mean(dim=0))
    torch.testing.assert_close(scaler.std, rows.std(dim=0))
    torch.testing.assert_close(scaler(rows), (rows - rows.mean(dim=0)) / rows.std(dim=0))


def test_only_present_objects_count():
    features = torch.full((3, 2, 1), 100.0)
    features[:2, 0, 0] = torch.tensor([1.0, 3.0])
    present = torch.tensor([[True, False], [True, False], [False, False]])
    nothing = Bag(torch.full((1, 2, 1), 7.0), torch.zeros(1, 2, dtype=torch.bool))
    scaler = FeatureScaler(1)

    scaler.fit([nothing, Bag(features, present)])

    assert scaler.mean.tolist() == [2]
    assert scaler.std.tolist() == pytest.approx([2**0.5])


def test_a_feature_that_never_changes_is_not_blown_up():
    rows = torch.tensor([[1000.0, 0.1, 1.0], [1000.0, 0.1, 3.0], [1000.0, 0.1, 5.0]])
    scaler = FeatureScaler(3)

    scaler.fit([Bag(rows)])

    assert scaler.std.tolist() == [1, 1, 2]
    assert scaler(rows + 1e-3).abs().max() < 2


def test_a_large_mean_costs_no_precision():
    rows = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64) + 1e6
    scaler = FeatureScaler(1).double()

    scaler.fit([Bag(rows[:1]), Bag(rows[1:])])

    assert scaler.std.item() == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("bags", [[], [Bag(torch.ones(1, 2))]])
def test_one_row_has_no_deviation(bags):
    scaler = FeatureScaler(2)

    scaler.fit(bags)

    assert scaler.mean.tolist() == [0, 0]
    assert scaler.std.tolist() == [1, 1]


def test_other_features_are_refused_by_name():
    with pytest.raises(ShapeError, match="slide-7"):
        FeatureScaler(2).fit([Bag(torch.ones(3, 5), slide_id="slide-7")])
