import math

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, spearmanr

from xpath.errors import DataError, ShapeError
from xpath.explain.attention_pool import attention_pools, class_pools, leave_out_patches
from xpath.explain.attribution import METHODS
from xpath.explain.deletion import removal_areas
from xpath.explain.faithfulness import (
    evidence,
    planted_truth,
    rank_correlation,
    rank_stability,
    weight_sanity,
)
from xpath.explain.methods import attribute
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag, pack
from xpath.mil.object_aware import ObjectAwareMIL

PATCHES, DIM = 30, 6


def planted(seed, *, aware=False, count=3):
    """Class 1 has some patches that class 0 has not, in the second of the objects."""
    rng = torch.Generator().manual_seed(seed)
    label = seed % 2
    shape = (PATCHES, 3, DIM) if aware else (PATCHES, DIM)
    features = torch.randn(shape, generator=rng)
    truth = torch.zeros(PATCHES, dtype=torch.bool)
    if label:
        truth[torch.randperm(PATCHES, generator=rng)[:count]] = True
        (features[:, 1] if aware else features)[truth, 0] += 5
    present = torch.ones(PATCHES, 3, dtype=torch.bool) if aware else None
    return Bag(features, present, label), truth.numpy()


def trained(model, *, aware=False):
    """Plain gradient descent: an optimiser takes longer to import than this to run."""
    slides = [planted(seed, aware=aware, count=1 + seed // 2 % 3)[0] for seed in range(60)]
    bags = pack(slides)
    for _ in range(300):
        loss = torch.nn.functional.cross_entropy(model(bags).logits, bags.labels)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.5 * parameter.grad
    return model.eval()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return trained(AttentionMIL(DIM, 2, hidden=8))


@pytest.fixture(scope="module")
def aware_model():
    torch.manual_seed(0)
    return trained(ObjectAwareMIL(DIM, ["a", "decisive", "c"], 2, hidden=8), aware=True)


def by_hand():
    """Equal attention, so that the log-odds of class 1 are the mean feature."""
    model = AttentionMIL(1, 2).double()
    with torch.no_grad():
        model.attention.score_weight.zero_()
        model.classifier.weight.copy_(torch.tensor([[0.0], [1.0]]))
        model.classifier.bias.zero_()
    bag = Bag(torch.tensor([[-1.0], [5.0], [-2.0], [-1.0], [3.0], [-2.0]]))
    return class_pools(model, bag), bag.features[:, 0].numpy()


def test_evidence_by_hand():
    pools, scores = by_hand()

    result = evidence(pools, scores, 1, share=0.3)

    assert result.whole == pytest.approx(2 / 6)
    assert result.alone == pytest.approx(4)  # 5 and 3
    assert result.without == pytest.approx(-6 / 4)
    assert result.sufficiency_gap == pytest.approx(2 / 6 - 4)
    assert result.necessity == pytest.approx(2 / 6 + 6 / 4)
    assert (result.to_keep, result.to_flip) == (1, 1)  # without the 5: -3 / 5
    assert evidence(pools, scores, 1, share=1).alone == pytest.approx(result.whole)


def test_evidence_for_a_class_that_never_was():
    pools, scores = by_hand()

    result = evidence(pools, -scores, 0)  # class 0 is held up by what is below zero

    assert result.whole == pytest.approx(-2 / 6)
    assert result.to_flip == 0
    assert result.to_keep == 1


def test_evidence_in_the_wrong_order_never_suffices():
    pools, scores = by_hand()

    # what speaks most against class 0 comes first: -5, -4, -7 / 3, -6 / 4, -4 / 5, -2 / 6
    assert evidence(pools, scores, 0).to_keep is None
    assert evidence(pools, scores - 100, 0).to_keep is None  # the order alone counts


def test_evidence_that_is_never_lost():
    model = AttentionMIL(1, 2).double()
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 1.0]))
    pools = class_pools(model, Bag(torch.randn(4, 1)))

    assert evidence(pools, np.arange(4.0), 1).to_flip is None
    assert evidence(pools, np.arange(4.0), 0).to_keep is None


def found_by(model, method, **planting):
    """AUROC of three slides, and how many of the removal's verdicts are right."""
    areas_under, right = [], []
    for seed in (101, 103, 105):
        bag, truth = planted(seed, **planting)
        pools = class_pools(model, bag)
        scores = attribute(model, bag, method, 1, contrast="runner_up").patches
        areas_under.append(planted_truth(scores, truth).auroc)
        areas = removal_areas(pools, scores, 1, np.random.default_rng(0))
        worth = evidence(pools, scores, 1)
        right.append(areas.deletion < areas.random < areas.least_first)
        right.append(worth.alone > worth.whole > worth.without)
    return min(areas_under), all(right)


@pytest.mark.parametrize("method", sorted({*METHODS} - {"random", "attention", "gradient_x_input"}))
def test_a_patch_that_decides_alone_is_found_by_every_method(model, method):
    auroc, right = found_by(model, method, count=1)

    assert auroc == 1
    assert right


@pytest.mark.parametrize("method", ["activation", "integrated_gradients", "lrp", "shapley"])
def test_patches_that_say_the_same_are_found_by_those_that_share(model, method):
    auroc, right = found_by(model, method, count=3)

    assert auroc == 1
    assert right


@pytest.mark.parametrize("method", ["leave_one_out", "centred"])
def test_patches_that_say_the_same_hide_each_other_from_removal(model, method):
    """Without one, attention moves to the others: a limit of the question, not of the answer."""
    auroc, _ = found_by(model, method, count=3)

    assert auroc < 0.8


@pytest.mark.parametrize("method", ["activation", "integrated_gradients", "leave_one_out", "lrp"])
def test_a_planted_object_ranks_first_of_all_objects(aware_model, method):
    for seed in (101, 103, 105):
        bag, truth = planted(seed, aware=True, count=1)
        result = attribute(aware_model, bag, method, 1, contrast="runner_up")
        assert result.objects.argmax() == 1
        assert planted_truth(result.patch_objects[:, 1], truth).auroc == 1


def test_random_scores_find_nothing():
    rng = np.random.default_rng(0)
    truth = rng.random(5000) < 0.1

    result = planted_truth(rng.normal(size=5000), truth)

    assert result.auroc == pytest.approx(0.5, abs=0.04)
    assert result.average_precision == pytest.approx(result.prevalence, abs=0.03)


def test_truth_by_hand():
    scores = np.array([3.0, 2.0, 1.0, 0.0])

    result = planted_truth(scores, np.array([True, False, True, False]))

    assert result.auroc == pytest.approx(3 / 4)
    assert result.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert result.prevalence == 0.5
    assert planted_truth(np.zeros(4), np.array([True, False, True, False])).auroc == 0.5


def test_what_looks_at_the_weights_passes_what_does_not_fails(model):
    """Attention does not know the classifier: shuffled, it stays as it was."""
    bag, _ = planted(101)
    seed = torch.Generator().manual_seed

    attention = weight_sanity(model, bag, "attention", generator=seed(0), repeats=4)
    removal = weight_sanity(model, bag, "leave_one_out", generator=seed(0), repeats=4)

    assert attention.layers == removal.layers == ("classifier", "attention")
    assert attention.correlation[0] == pytest.approx(1)
    assert attention.correlation[1] < 0.95
    assert (removal.correlation < 0.95).all()
    again = weight_sanity(model, bag, "leave_one_out", generator=seed(0), repeats=4)
    np.testing.assert_array_equal(removal.correlation, again.correlation)
    other = weight_sanity(model, bag, "leave_one_out", generator=seed(1), repeats=4)
    assert (other.correlation != removal.correlation).any()


def test_shuffling_leaves_the_model_alone_and_reaches_the_projection():
    torch.manual_seed(0)
    model = ObjectAwareMIL(DIM, 3, 2, hidden=8, proj=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    result = weight_sanity(
        model, planted(1, aware=True)[0], "activation", generator=torch.Generator(), repeats=2
    )

    assert result.layers == ("classifier", "attention", "projection")
    assert result.correlation.shape == result.spread.shape == (3,)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_over_many_shuffles_nothing_is_left():
    torch.manual_seed(0)
    model, bag = AttentionMIL(20, 2, hidden=8, proj=20), Bag(torch.randn(80, 20))

    result = weight_sanity(model, bag, "leave_one_out", generator=torch.Generator(), repeats=40)

    assert (np.abs(result.correlation) < 4 * result.spread / math.sqrt(40)).all()
    assert (result.spread > 0.05).all()


def test_stability_by_hand():
    runs = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0], [4.0, 3.0, 2.0, 1.0]])

    result = rank_stability(runs, top=2)

    assert result.kendall == pytest.approx((4 / 6 - 1 - 4 / 6) / 3)
    assert result.spearman == pytest.approx((0.8 - 1 - 0.8) / 3)
    assert result.lowest == pytest.approx(-1)
    assert result.overlap == pytest.approx((1 + 0 + 0) / 3)


def test_stability_equals_scipy(rng):
    runs = rng.normal(size=(2, 40)).round(1)  # with ties

    result = rank_stability(runs)

    assert result.kendall == pytest.approx(kendalltau(*runs).statistic)
    assert result.spearman == pytest.approx(spearmanr(*runs).statistic)


def test_training_again_finds_the_same(model):
    torch.manual_seed(5)
    other = trained(AttentionMIL(DIM, 2, hidden=8))
    bag, _ = planted(101)

    runs = [attribute(each, bag, "shapley", 1).patches for each in (model, other)]

    result = rank_stability(np.stack(runs), top=3)
    assert result.kendall > 0.4
    assert result.overlap == 1


def test_equal_values_have_no_rank():
    assert math.isnan(rank_correlation(np.zeros(4), np.arange(4.0)))
    assert math.isnan(rank_stability(np.zeros((2, 4))).kendall)


def test_first_order_foretells_removal_better_than_the_activation(model):
    bag, _ = planted(101)
    removal = leave_out_patches(attention_pools(model, bag, 1))

    near, far = (
        rank_correlation(attribute(model, bag, method, 1).patches, removal)
        for method in ("centred", "activation")
    )

    assert near > 0.999
    assert far < near


def test_nonsense_is_refused(model, rng):
    pools, scores = by_hand()
    bag, _ = planted(1)

    for share in (0, 1.5, math.nan):
        with pytest.raises(DataError, match="share"):
            evidence(pools, scores, 1, share=share)
    with pytest.raises(DataError, match="6 patches"):
        evidence(pools, scores[:3], 1)
    with pytest.raises(DataError, match="30 and 0"):
        weight_sanity(model, bag, "activation", generator=torch.Generator(), repeats=0)
    with pytest.raises(ShapeError, match="truth"):
        planted_truth(scores, np.array([True, False]))
    for truth in (np.ones(6, bool), np.zeros(6, bool), np.arange(6)):
        with pytest.raises(DataError, match="some True"):
            planted_truth(scores, truth)
    with pytest.raises(DataError, match="some True"):
        planted_truth(scores * np.nan, np.arange(6) > 2)
    for runs, top in ((np.zeros((1, 4)), 1), (np.zeros((2, 4)), 5), (np.full((2, 4), np.nan), 1)):
        with pytest.raises(DataError, match="runs must be"):
            rank_stability(runs, top=top)


def test_shuffled_weights_are_not_held_to_the_baseline_that_was_learnt():
    """A trained model keeps the mean of its contributions, which shuffled weights do not have."""
    torch.manual_seed(0)
    model = ObjectAwareMIL(DIM, 3, 2).eval()
    bag = planted(1, aware=True)[0]
    model.fit_baseline([bag])

    shuffled = weight_sanity(
        model, bag, "activation", generator=torch.Generator().manual_seed(0), repeats=2
    )

    assert np.isfinite(shuffled.correlation).all()
    assert "baseline" in model.metadata
