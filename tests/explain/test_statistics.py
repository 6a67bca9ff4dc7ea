import itertools

import numpy as np
import pytest
from scipy import stats

from xpath.errors import DataError, ShapeError
from xpath.explain.statistics import adjusted_p, label_exchange_test


def names(count):
    return [f"p{i:03d}" for i in range(count)]


def two_sided(values):
    """Values towards the second class ``(S, L)`` as those towards both ``(S, 2, L)``."""
    return np.stack([-values, values], axis=1)


# adjustment


def test_benjamini_and_hochberg_by_hand():
    # 4/1 * 0.01, 4/2 * 0.02, 4/3 * 0.04, 4/4 * 0.9, then the smallest from the right
    np.testing.assert_allclose(adjusted_p([0.04, 0.01, 0.9, 0.02]), [0.16 / 3, 0.04, 0.9, 0.04])
    np.testing.assert_allclose(
        adjusted_p([0.01, 0.9], "by"), np.array([0.02, 0.9]) * np.array([1.5, 1 / 0.9])
    )
    assert len(adjusted_p([])) == 0


def test_benjamini_and_hochberg_agree_with_their_definition():
    p = np.random.default_rng(0).random(20) ** 2

    q = adjusted_p(p.tolist())

    order = np.sort(p)
    for level in (0.01, 0.05, 0.2, 0.6):  # the largest k with p_(k) <= level * k / m
        passed = [k for k in range(1, 21) if order[k - 1] <= level * k / 20]
        wanted = p <= (order[passed[-1] - 1] if passed else -1)
        np.testing.assert_array_equal(q <= level, wanted)


# classes


def test_classes_by_hand():
    values = two_sided(np.array([[-1.0], [-1.0], [3.0], [3.0]]))

    result = label_exchange_test(
        values, np.array([0, 0, 1, 1]), names(4), np.random.default_rng(0), resamples=20_000
    )

    assert result.benefit[0] == 2  # 1 towards the first class, 3 towards the second
    assert result.p[0] == result.q[0] == result.least == 1 / 6  # one of six assignments is as good


def test_where_assignments_are_few_all_are_tried():
    """Against the definition, three classes, all 90 orders of two slides each."""
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(6, 3, 2)), np.array([0, 0, 1, 1, 2, 2])
    values[np.arange(6), labels, 1] += 2

    result = label_exchange_test(values, labels, names(6), rng)

    orders = set(itertools.permutations(labels.tolist()))
    benefit = np.array([values[np.arange(6), list(order)].mean(axis=0) for order in orders])
    own = values[np.arange(6), labels].mean(axis=0)
    np.testing.assert_allclose(result.p, (benefit >= own - 1e-9).mean(axis=0))
    scores = (benefit - benefit.mean(axis=0)) / benefit.std(axis=0)
    of_own = (own - benefit.mean(axis=0)) / benefit.std(axis=0)
    wanted = [(scores.max(axis=1) >= one - 1e-9).mean() for one in of_own]
    np.testing.assert_allclose(result.q, wanted)
    assert result.least == 1 / 90
    assert (result.q > result.p).any()


def test_drawn_assignments_never_give_zero():
    values = two_sided(np.repeat([[-1.0], [1.0]], 20, axis=0))

    result = label_exchange_test(
        values, np.repeat([0, 1], 20), names(40), np.random.default_rng(0), resamples=500
    )

    assert result.p[0] == result.q[0] == result.least == 1 / 501


def test_an_object_that_never_changes_spoils_nothing():
    rng, labels = np.random.default_rng(0), np.arange(20) % 2
    towards = np.stack([rng.normal(size=20) + 3 * labels, np.zeros(20), np.full(20, 5.0)], axis=1)

    result = label_exchange_test(two_sided(towards), labels, names(20), rng)

    assert result.q[0] == result.least
    assert (result.p[1:] == 1).all()
    assert (result.q[1:] > 0.5).all()


def test_the_family_is_called_wrongly_as_often_as_it_says():
    """Eight objects alike in part, skewed and of very different spread."""
    rng = np.random.default_rng(0)
    calls = []
    for _ in range(120):
        common = rng.normal(size=(14, 1))
        towards = (common + rng.normal(size=(14, 8))) ** 3 * 10.0 ** np.arange(8)
        labels = rng.permutation(np.arange(14) % 2)
        result = label_exchange_test(two_sided(towards), labels, names(14), rng, resamples=300)
        calls.append(result.q.min() <= 0.2)

    assert 0.08 < np.mean(calls) < 0.32


def test_classes_agree_with_scipy():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [12, 18])
    towards = rng.normal(0, 1, 30) + 0.5 * labels

    result = label_exchange_test(
        two_sided(towards[:, None]), labels, names(30), np.random.default_rng(1), resamples=20_000
    )

    wanted = stats.permutation_test(
        (towards[labels == 1], towards[labels == 0]),
        lambda a, b: a.mean() - b.mean(),
        alternative="greater",
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    )
    assert result.p[0] == pytest.approx(wanted.pvalue, abs=0.01)
    assert result.benefit[0] == pytest.approx(2 * 0.25 * wanted.statistic)


def test_a_reason_that_is_the_same_everywhere_does_not_go_with_the_class():
    """A model that learnt nonsense needs its object too, and a test of its size would call it."""
    values = two_sided(np.full((30, 1), 2.0))
    labels = np.arange(30) % 2

    result = label_exchange_test(values, labels, names(30), np.random.default_rng(0))

    assert result.benefit[0] == 0
    assert result.p[0] == result.q[0] == 1


def test_three_classes_and_the_order_of_objects():
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    values = rng.normal(size=(30, 3, 2))
    values[np.arange(30), labels, 1] += 2

    result = label_exchange_test(values, labels, names(30), np.random.default_rng(1))

    own = values[np.arange(30), labels]
    np.testing.assert_allclose(result.benefit, own.mean(axis=0))  # as many of each class
    assert result.p[1] < 0.01 < result.p[0]


def test_slides_of_a_patient_count_once():
    values = two_sided(np.repeat([[-1.0], [-1.0], [3.0], [3.0]], 10, axis=0))
    labels, owner = np.repeat([0, 0, 1, 1], 10), np.repeat(names(4), 10).tolist()

    result = label_exchange_test(values, labels, owner, np.random.default_rng(0), resamples=20_000)

    assert result.p[0] == pytest.approx(1 / 6, abs=0.01)


def test_without_a_truth_p_is_even():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(150):
        values = two_sided(rng.normal(1, 1, (16, 1)) ** 3)  # biased and skewed, as effects are
        labels = rng.permutation(np.arange(16) % 2)
        p.append(label_exchange_test(values, labels, names(16), rng, resamples=200).p[0])

    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) < 0.1


def test_classes_that_cannot_be_exchanged_are_refused():
    rng, values = np.random.default_rng(0), np.zeros((4, 2, 1))

    with pytest.raises(DataError, match="two classes"):
        label_exchange_test(values, np.zeros(4, int), names(4), rng)
    with pytest.raises(DataError, match="two classes"):
        label_exchange_test(values, np.array([0, 1, 2, 0]), names(4), rng)
    with pytest.raises(DataError, match="finite"):
        label_exchange_test(values + np.nan, np.array([0, 1, 0, 1]), names(4), rng)
    with pytest.raises(ShapeError, match="labels"):
        label_exchange_test(values, np.array([0, 1]), names(4), rng)
