"""DeLong's intervals and test against the definition, summed pair by pair."""

import math

import numpy as np
import pytest

from xpath.errors import DataError, ShapeError
from xpath.metrics.roc import auc_interval, compare_auc, score_interval


def placements(score, truth):
    """Share of the other side each slide wins against, one pair after another."""
    own = {}
    for i in range(len(score)):
        wins = [
            float(score[i] > score[j]) + 0.5 * float(score[i] == score[j])
            for j in range(len(score))
            if truth[j] != truth[i]
        ]
        own[i] = np.mean(wins)
    positive = np.array([own[i] for i in range(len(score)) if truth[i]])
    negative = 1 - np.array([own[i] for i in range(len(score)) if not truth[i]])
    return positive, negative


def slow_covariance(scores, truth):
    """DeLong et al. 1988, Eq. 5: sample covariances of the placements of both sides."""
    pairs = [placements(score, truth) for score in scores]
    one, two = (np.stack([pair[side] for pair in pairs]) for side in (0, 1))
    return np.cov(one) / one.shape[1] + np.cov(two) / two.shape[1]


@pytest.fixture
def cohort(rng):
    """Two scores with ties of 37 slides."""
    truth = np.arange(37) % 3 == 0
    first = np.round(rng.normal(size=37) + truth, 1)
    second = np.round(0.5 * first + rng.normal(size=37) + 0.4 * truth, 1)
    return first, second, truth


def test_interval_is_that_of_the_definition(cohort):
    from sklearn.metrics import roc_auc_score

    first, second, truth = cohort
    covariance = slow_covariance([first, second], truth)

    found = auc_interval(first, truth)

    assert found.auc == pytest.approx(roc_auc_score(truth, first), abs=1e-12)
    assert found.standard_error == pytest.approx(math.sqrt(covariance[0, 0]), abs=1e-12)
    assert (found.low, found.high) == score_interval(found.auc, truth.sum(), (~truth).sum())
    wide = auc_interval(first, truth, level=0.99)
    assert wide.low < found.low


def test_comparison_is_that_of_the_definition(cohort):
    first, second, truth = cohort
    covariance = slow_covariance([first, second], truth)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]

    found = compare_auc(first, second, truth)
    back = compare_auc(second, first, truth)

    assert found.z == pytest.approx(found.difference / math.sqrt(variance), rel=1e-10)
    assert found.p == pytest.approx(math.erfc(abs(found.z) / math.sqrt(2)), rel=1e-10)
    assert back.z == pytest.approx(-found.z)
    assert back.p == pytest.approx(found.p)


def test_four_slides_by_hand():
    """Scores 3, 1 against 2, 0: three of four pairs won; placements 1, 1/2 and 1/2, 1."""
    found = auc_interval([3, 1, 2, 0], [1, 1, 0, 0])

    assert found.auc == 0.75
    assert found.standard_error == pytest.approx(math.sqrt(0.125 / 2 + 0.125 / 2))


def test_newcombe_s_interval_by_hand():
    """Of 7 and 7 in perfect order; at the bound the observed 1 is 1.96 standard errors away."""
    low, high = score_interval(1.0, 7, 7)

    assert high == 1.0
    assert low == pytest.approx(0.73, abs=0.005)
    variance = low * (1 - low) * (1 + 6 * (1 - low) / (2 - low) + 6 * low / (1 + low)) / 49
    assert (1 - low) / math.sqrt(variance) == pytest.approx(1.959964, rel=1e-5)
    mirrored = score_interval(0.2, 5, 9)
    assert score_interval(0.8, 9, 5) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))
    lower = [score_interval(1.0, n, n)[0] for n in (3, 5, 10, 20)]
    assert lower == pytest.approx([0.50, 0.64, 0.80, 0.90], abs=0.01)


def test_few_slides_are_covered_about_as_often_as_they_say(rng):
    """Area 0.9 of 8 and 8: DeLong's own interval covers 85 %."""
    truth, shift = np.arange(16) % 2 == 0, 1.28155 * math.sqrt(2)
    covered = []
    for _ in range(300):
        found = auc_interval(rng.normal(size=16) + shift * truth, truth)
        covered.append(found.low <= 0.9 <= found.high)

    assert 0.92 < np.mean(covered) < 0.98


def test_any_rising_change_of_the_scores_changes_nothing(cohort):
    first, second, truth = cohort

    assert compare_auc(np.exp(first), second**3, truth) == pytest.approx(
        compare_auc(first, second, truth)
    )


def test_a_score_is_no_better_than_itself(cohort):
    first, _, truth = cohort

    assert compare_auc(first, first, truth)[2:] == (0.0, 0.0, 0.0, 1.0)


def test_without_overlap_the_sample_says_nothing_of_the_spread():
    perfect, wrong = [1, 2, 3, 4], [4, 3, 2, 1]

    found = auc_interval(perfect, [0, 0, 1, 1])

    assert found.standard_error == 0.0
    assert (found.auc, found.high) == (1.0, 1.0)
    assert 0.2 < found.low < 0.5
    assert auc_interval(wrong, [0, 0, 1, 1])[2:] == pytest.approx((0.0, 1 - found.low))
    assert compare_auc(perfect, wrong, [0, 0, 1, 1])[2:] == (1.0, 0.0, math.inf, 0.0)


def test_slides_counted_twice_make_nothing_surer_if_patients_are_named(cohort):
    """The naive interval would shrink by the square root of two."""
    first, second, truth = cohort
    once = compare_auc(first, second, truth)
    doubled = [np.concatenate([part, part]) for part in cohort]
    names = [str(i) for i in range(len(truth))] * 2

    assert compare_auc(*doubled, groups=names) == pytest.approx(once)
    assert compare_auc(*doubled).standard_error < 0.75 * once.standard_error


def test_patients_on_both_sides_follow_obuchowski(rng):
    """Obuchowski 1997, Eq. 4 to 6, patient by patient."""
    truth = rng.random(40) < 0.5
    score = rng.normal(size=40) + truth
    names = [f"p{number // 4}" for number in range(40)]
    positive, negative = placements(score, truth)
    area = positive.mean()
    tens, ones = [], []
    for name in dict.fromkeys(names):
        own = np.array([other == name for other in names])
        tens.append((positive - area)[own[truth]].sum() / truth.sum())
        ones.append((negative - area)[own[~truth]].sum() / (~truth).sum())
    with_positive = len({name for name, side in zip(names, truth, strict=True) if side})
    with_negative = len({name for name, side in zip(names, truth, strict=True) if not side})
    variance = sum(
        factor * n / (n - 1) * (np.array(one) @ np.array(two))
        for factor, n, one, two in (
            (1, with_positive, tens, tens),
            (1, with_negative, ones, ones),
            (2, 10, tens, ones),
        )
    )

    found = auc_interval(score, truth, groups=names)

    assert found.standard_error == pytest.approx(math.sqrt(variance), rel=1e-10)


def test_intervals_cover_as_often_as_they_say(rng):
    """Normal scores a standard deviation apart have an area of Phi(1 / sqrt 2) = 0.7602."""
    truth = np.arange(80) % 2 == 0
    covered = 0
    for _ in range(300):
        found = auc_interval(rng.normal(size=80) + truth, truth)
        covered += found.low < 0.76025 < found.high

    assert 0.91 < covered / 300 < 0.98


def test_what_has_no_interval_is_refused():
    with pytest.raises(DataError, match=r"two patients of the class.*got 1"):
        auc_interval([1, 2, 3], [1, 0, 0])
    with pytest.raises(DataError, match=r"two patients of the rest.*got 1"):
        auc_interval([1, 2, 3, 4], [1, 1, 0, 0], groups=["a", "b", "c", "c"])
    with pytest.raises(DataError, match="finite"):
        auc_interval([1, math.nan, 3, 4], [1, 1, 0, 0])
    with pytest.raises(ShapeError, match="one length"):
        compare_auc([1, 2, 3, 4], [1, 2, 3], [1, 1, 0, 0])
    with pytest.raises(ShapeError, match="3 groups"):
        auc_interval([1, 2, 3, 4], [1, 1, 0, 0], groups=["a", "b", "c"])
