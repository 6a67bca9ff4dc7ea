import math

import numpy as np
import pytest

from xpath.errors import DataError, ShapeError
from xpath.metrics.classification import classification_metrics
from xpath.metrics.intervals import (
    _draws,
    _scores,
    classification_differences,
    classification_intervals,
    wilson,
)


def drawn_probability(rng, label, classes, strength=1.0):
    values = rng.normal(size=(len(label), classes))
    values[np.arange(len(label)), label] += strength
    values = np.round(values, 1)  # ties
    return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_of_a_draw_are_those_of_the_repeated_slides(rng, classes):
    label = np.arange(30) % classes
    probability = drawn_probability(rng, label, classes)
    times = _draws(label, rng, [f"p{i // 2}" for i in range(30)], 20)[0]

    found = _scores(probability, label, times)

    for row, counts in zip(found, times, strict=True):
        chosen = np.repeat(np.arange(30), counts)
        wanted = classification_metrics(probability[chosen], label[chosen])
        assert row.tolist() == pytest.approx(list(wanted), abs=1e-12)


def test_values_are_those_of_the_whole_sample(rng):
    label = np.arange(40) % 2
    probability = drawn_probability(rng, label, 2)

    found = classification_intervals(probability, label, rng, draws=200)

    assert [part.value for part in found] == list(classification_metrics(probability, label))
    assert all(part.low <= part.value <= part.high for part in found)
    assert all(part.low < part.high for part in found)


def test_patients_are_drawn_whole_and_within_their_class(rng):
    label = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    names = ["a", "a", "b", "c", "c", "d", "e", "e"]  # e has slides of both classes

    times = np.concatenate(_draws(label, rng, names, 50))

    assert (times[:, 0] == times[:, 1]).all()
    assert (times[:, 3] == times[:, 4]).all()
    assert (times[:, [0, 2]].sum(axis=1) == 2).all()
    assert (times[:, [3, 5]].sum(axis=1) == 2).all()
    assert (times[:, 6:] == 1).all()
    assert len(np.unique(times[:, 0])) == 3


def test_interval_agrees_with_scipys_bootstrap(rng):
    """Within Monte-Carlo error; scipy draws each class by itself, as we do."""
    from scipy.stats import bootstrap
    from sklearn.metrics import f1_score

    label = np.repeat([0, 1], 30)
    probability = drawn_probability(rng, label, 2)
    called = probability.argmax(axis=1)

    def macro_f1(positive, negative):
        truth = np.repeat([1, 0], [len(positive), len(negative)])
        return f1_score(truth, np.concatenate([positive, negative]), average="macro")

    wanted = bootstrap(
        (called[30:], called[:30]), macro_f1, n_resamples=500, method="percentile", vectorized=False
    ).confidence_interval

    found = classification_intervals(probability, label, rng, draws=4000).f1

    assert found.low == pytest.approx(wanted.low, abs=0.025)
    assert found.high == pytest.approx(wanted.high, abs=0.025)


def test_slides_counted_twice_make_nothing_surer_if_patients_are_named(rng):
    label = np.arange(40) % 2
    probability = drawn_probability(rng, label, 2)
    twice, names = np.repeat(probability, 2, axis=0), [str(i // 2) for i in range(80)]

    once = classification_intervals(probability, label, rng).auc
    named = classification_intervals(twice, label.repeat(2), rng, groups=names).auc
    naive = classification_intervals(twice, label.repeat(2), rng).auc

    assert named.high - named.low == pytest.approx(once.high - once.low, rel=0.1)
    assert naive.high - naive.low < 0.85 * (once.high - once.low)


def test_slides_that_are_all_right_are_no_certainty(rng):
    label = np.arange(14) % 2

    found = classification_intervals(np.eye(2)[label] * 0.8 + 0.1, label, rng, draws=50)

    assert found.accuracy == pytest.approx((1.0, 0.785, 1.0), abs=0.001)  # Wilson's of 14 of 14
    assert found.auc == pytest.approx((1.0, 0.73, 1.0), abs=0.005)  # Newcombe's of 7 and 7
    # Wilson's of 7 of 7 is 0.646; two such distances, added in squares and halved
    below = math.hypot(1 - 0.6457, 1 - 0.6457) / 2
    assert found.balanced_accuracy == pytest.approx((1.0, 1 - below, 1.0), abs=0.001)
    # with 4.52 of 7 right in a class, F1 is 9.04 / 11.52 there and 14 / 16.48 in the other
    below = math.hypot(1 - 0.8171, 1 - 0.8171)
    assert found.f1 == pytest.approx((1.0, 1 - below, 1.0), abs=0.001)
    one = classification_intervals(
        np.eye(2)[label], label, rng, groups=[f"p{i // 4}" for i in range(14)], draws=50
    )
    assert one.accuracy.low < found.accuracy.low  # of four patients


@pytest.mark.parametrize(
    ("label", "called", "value"),
    [
        ([0] * 9 + [1], [1] * 10, 1 / 11),  # F1 of 0 and of 2 / 11
        ([0] * 9 + [1], [0] * 10, 9 / 19),
        ([0] * 9 + [1], [0] * 8 + [1, 0], 8 / 18),
        ([0] * 20 + [1] + [2] * 5, [1] * 26, 2 / 27 / 3),
    ],
)
def test_a_class_of_one_slide_leaves_f1_open(rng, label, called, value):
    """Draws of one slide are all that slide, whose fate is no certainty of its class."""
    classes = max(label) + 1
    probability = np.eye(classes)[called] * 0.7 + 0.3 / classes

    f1 = classification_intervals(probability, np.array(label), rng, draws=50).f1

    assert f1.value == pytest.approx(value)
    assert 0 <= f1.low < f1.value < f1.high <= 1
    assert f1.high - f1.low > 0.2


def test_a_patient_with_right_and_wrong_slides_is_one_patient(rng):
    label, called = np.array([0] * 6 + [1, 1]), np.array([0] * 5 + [1, 1, 0])
    names = [*"abcdef", "z", "z"]

    f1 = classification_intervals(np.eye(2)[called], label, rng, groups=names, draws=50).f1

    # Wilson's of 1 of 2 slides, one patient, is 0.054 to 0.946; of 5 of 6, 0.437 to 0.970
    assert f1.low < 0.42
    assert f1.high > 0.85


def test_a_share_s_interval_agrees_with_statistics():
    from scipy.stats import binomtest

    wanted = binomtest(11, 14).proportion_ci(method="wilson")

    assert wilson(11 / 14, 14) == pytest.approx((wanted.low, wanted.high))


def test_three_classes_all_right_have_an_interval_too(rng):
    label = np.arange(30) % 3

    found = classification_intervals(np.eye(3)[label], label, rng, draws=50)

    assert all(part.low < 0.95 for part in found)
    np.testing.assert_allclose([(part.value, part.high) for part in found], 1.0)


def test_differences_cancel_what_both_share(rng):
    label = np.arange(60) % 2
    chance = rng.permutation(np.linspace(0.01, 0.99, 60))
    first = np.stack([1 - chance, chance], axis=1)
    tilted = (first + 0.5) / 2  # the same order and classes, so the same scores

    same = classification_differences(first, tilted, label, rng, draws=100)
    better = classification_differences(np.eye(2)[label], first, label, rng, draws=400)

    assert same == ((0.0, 0.0, 0.0),) * 4
    assert all(part.low > 0 for part in better)
    assert better.accuracy.value == pytest.approx(1 - classification_metrics(first, label).accuracy)


def test_the_same_random_numbers_give_the_same_interval(rng):
    label = np.arange(20) % 2
    probability = drawn_probability(rng, label, 2)

    found = [
        classification_intervals(probability, label, np.random.default_rng(3), draws=50)
        for _ in range(2)
    ]

    assert found[0] == found[1]


def test_a_class_without_slides_has_no_area_and_the_rest_has():
    probability = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1]])

    found = classification_intervals(
        probability, np.array([0, 1, 1, 1]), np.random.default_rng(0), draws=50
    )

    assert all(math.isnan(number) for number in found.auc)
    assert found.accuracy.value == 0.75
    assert found.accuracy.low < found.accuracy.high


def test_what_has_no_interval_is_refused(rng):
    probability, label = np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0, 1])
    with pytest.raises(ShapeError, match="3 for 2"):
        classification_intervals(probability, label, rng, groups=["a", "b", "c"])
    with pytest.raises(DataError, match="draws"):
        classification_intervals(probability, label, rng, draws=0)
    with pytest.raises(DataError, match="sum to one"):
        classification_intervals(2 * probability, label, rng)
    with pytest.raises(DataError, match="0 to 1"):
        classification_intervals(probability, np.array([0, 2]), rng)
