import math

import numpy as np
import pytest
from scipy import stats

from xpath.errors import DataError, ShapeError
from xpath.metrics.bootstrap import (
    bootstrap_mean,
    difference_interval,
    mean_interval,
    paired_t_test,
)


def test_the_interval_is_that_of_the_normal_distribution(rng):
    values = rng.normal(0.6, 0.1, 400)

    found = bootstrap_mean(values, np.random.default_rng(1), draws=4000)

    reach = 1.96 * values.std() / math.sqrt(400)
    assert found.n == 400
    assert found.mean == pytest.approx(values.mean())
    assert (found.mean - found.low, found.high - found.mean) == pytest.approx(
        (reach, reach), rel=0.1
    )


def test_the_interval_is_that_of_scipy(rng):
    values = rng.beta(2, 1, 50)

    found = bootstrap_mean(values, np.random.default_rng(1), draws=20_000)

    wanted = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(wanted), abs=2e-3)


def test_the_same_numbers_give_the_same_interval(rng):
    values = rng.random(30)

    first, again = (bootstrap_mean(values, np.random.default_rng(5)) for _ in range(2))

    assert first == again
    assert bootstrap_mean(values, np.random.default_rng(6)) != first


def test_groups_are_drawn_whole():
    """Ten groups of twenty equal values tell no more than ten values."""
    each = np.random.default_rng(3).random(10)
    values, groups = np.repeat(each, 20), [f"p{i}" for i in range(10) for _ in range(20)]

    alone = bootstrap_mean(each, np.random.default_rng(0), draws=3000)
    grouped = bootstrap_mean(values, np.random.default_rng(0), groups=groups, draws=3000)
    apart = bootstrap_mean(values, np.random.default_rng(0), draws=3000)

    assert grouped[1:] == pytest.approx(alone[1:])
    assert grouped.n == 200
    assert apart.high - apart.low < 0.4 * (grouped.high - grouped.low)


def test_groups_of_unequal_size_keep_the_mean_of_samples():
    """Half of all draws take both groups, whose mean is that of four samples, not of two groups."""
    groups = ["a", "a", "a", "b"]

    wide = bootstrap_mean([1, 1, 1, 0], np.random.default_rng(0), groups=groups)
    narrow = bootstrap_mean([1, 1, 1, 0], np.random.default_rng(0), groups=groups, level=0.3)

    assert wide == (4, 0.75, 0.0, 1.0)
    assert narrow == (4, 0.75, 0.75, 0.75)


def test_many_draws_are_made_in_parts(monkeypatch, rng):
    values = rng.random(40)
    whole = bootstrap_mean(values, np.random.default_rng(1), draws=100)

    monkeypatch.setattr("xpath.metrics.bootstrap.DRAWS_AT_ONCE", 300)

    assert bootstrap_mean(values, np.random.default_rng(1), draws=100) == whole


def test_nothing_and_one():
    nothing = bootstrap_mean([], np.random.default_rng(0))
    assert nothing.n == 0
    assert all(map(math.isnan, nothing[1:]))
    for groups, values in ((None, [0.5]), (["a", "a"], [0.25, 0.75])):
        one = bootstrap_mean(values, np.random.default_rng(0), groups=groups)
        assert one[:2] == (len(values), 0.5)
        assert math.isnan(one.low) and math.isnan(one.high)  # one image says nothing of others
    with pytest.raises(DataError, match="finite"):
        bootstrap_mean([0.5, math.nan], np.random.default_rng(0))
    with pytest.raises(ShapeError, match="one per value"):
        bootstrap_mean([0.5, 1.0], np.random.default_rng(0), groups=["a"])


def test_paired_t_by_hand():
    """Differences 1, 2, 3: mean 2, deviation 1, t = 2 sqrt 3 with 2 degrees of freedom."""
    found = paired_t_test([2, 4, 6], [1, 2, 3])

    assert (found.n, found.difference) == (3, 2)
    assert found.t == pytest.approx(2 * math.sqrt(3))
    assert found.p == pytest.approx(0.5 - math.sqrt(12 / 14) / 2)  # closed form for 2 degrees


def test_paired_t_is_that_of_scipy(rng):
    first, second = rng.random(40), rng.random(40)

    found = paired_t_test(first, second)

    wanted = stats.ttest_rel(first, second, alternative="greater")
    assert (found.t, found.p) == pytest.approx((wanted.statistic, wanted.pvalue))
    assert paired_t_test(second, first).p == pytest.approx(1 - found.p)


def test_paired_t_without_spread():
    assert paired_t_test([1, 1], [1, 1])[2:] == (0.0, 0.5)
    assert paired_t_test([2, 2], [1, 1])[2:] == (math.inf, 0.0)
    assert paired_t_test([1, 1], [2, 2])[2:] == (-math.inf, 1.0)


def test_unfit_pairs_are_refused():
    with pytest.raises(ShapeError, match="one length"):
        paired_t_test([1, 2], [1, 2, 3])
    with pytest.raises(DataError, match="2 pairs"):
        paired_t_test([1], [2])
    with pytest.raises(DataError, match="finite"):
        paired_t_test([1, math.nan], [2, 1])


# Student's intervals


def test_a_mean_s_interval_agrees_with_scipy():
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(0).normal(size=9)

    result = mean_interval(values, level=0.9)

    wanted = ttest_1samp(values, 0).confidence_interval(0.9)
    assert result.n == 9
    assert (result.low, result.high) == pytest.approx((wanted.low, wanted.high))
    repeated = mean_interval(np.repeat(values, 3), np.repeat([str(i) for i in range(9)], 3))
    assert repeated[1:] == pytest.approx(mean_interval(values)[1:])


def test_groups_of_different_size_by_hand():
    # mean 3; sums 2 and 10 of 2 and 2 samples: residuals -4 and 4
    result = mean_interval([1.0, 1.0, 5.0, 5.0], ["a", "a", "b", "b"])

    reach = 12.7062 * (2 * (16 + 16) / 16) ** 0.5
    assert result == pytest.approx((4, 3.0, 3 - reach, 3 + reach), rel=1e-5)
    uneven = mean_interval([0.0, 3.0, 3.0], ["a", "b", "b"])  # residuals -2 and 2
    assert uneven.high - uneven.mean == pytest.approx(12.7062 * (2 * 8 / 9) ** 0.5, rel=1e-5)


def test_a_difference_agrees_with_welch_s_test():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(0)
    first, second = rng.normal(1, 1, 6), rng.normal(0, 3, 11)

    result = difference_interval(first, second)

    wanted = ttest_ind(first, second, equal_var=False).confidence_interval()
    assert result.mean == pytest.approx(first.mean() - second.mean())
    assert (result.low, result.high) == pytest.approx((wanted.low, wanted.high))
    twice = difference_interval(
        first.repeat(2), second, ([str(i // 2) for i in range(12)], [str(i) for i in range(11)])
    )
    assert (twice.low, twice.high) == pytest.approx((wanted.low, wanted.high))


def test_one_group_has_no_interval():
    assert math.isnan(mean_interval([]).mean)
    assert math.isnan(mean_interval([1.0, 2.0], ["a", "a"]).low)
    one = difference_interval([1.0], [2.0, 3.0])
    assert one.mean == -1.5
    assert math.isnan(one.low)
    assert difference_interval([1.0, 1.0], [0.0, 0.0]) == (4, 1.0, 1.0, 1.0)


def test_values_whose_squared_variance_is_no_number_have_an_interval():
    """What attention leaves of a far patch is e-90, and its variance squared 0."""
    large, tiny = (difference_interval([scale, 2 * scale], [0.0, 0.0]) for scale in (1.0, 1e-90))

    assert tiny.low == pytest.approx(large.low * 1e-90, rel=1e-9, abs=0)
    assert tiny.high == pytest.approx(large.high * 1e-90, rel=1e-9, abs=0)
    with pytest.raises(DataError, match="finite"):
        mean_interval([math.nan])
    with pytest.raises(ShapeError, match="one per value"):
        mean_interval([1.0], ["a", "b"])
