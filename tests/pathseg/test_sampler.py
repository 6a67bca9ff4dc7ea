import numpy as np
import pytest

from xpath.errors import ConfigError
from xpath.pathseg.sampler import batch_keys, draw, exponent_at, probabilities, with_shares


def test_probabilities_by_hand():
    np.testing.assert_allclose(probabilities(np.array([100, 25]), 0.5), [2 / 3, 1 / 3])
    np.testing.assert_allclose(probabilities(np.array([100, 25]), 1.0), [0.8, 0.2])
    np.testing.assert_allclose(probabilities(np.array([100, 25]), 0.0), [0.5, 0.5])


def test_drawing_follows_the_probabilities(rng):
    found = np.bincount([draw(np.array([1, 3]), 1.0, rng) for _ in range(4000)])

    assert found[1] / 4000 == pytest.approx(0.75, abs=0.03)


def test_the_schedule_is_five_ten_five_epochs_of_twenty():
    assert [exponent_at(epoch / 20) for epoch in (0, 4, 5, 14, 15, 19)] == [
        0.5,
        0.5,
        1,
        1,
        0.5,
        0.5,
    ]


@pytest.mark.parametrize("sizes", [[], [3, 0]])
def test_sources_without_images_are_refused(sizes):
    with pytest.raises(ConfigError, match="positive"):
        probabilities(np.array(sizes), 0.5)


def test_machines_take_turns_and_miss_nothing():
    shapes = ((8, 256), (4, 384))
    for step in range(10):
        whole = batch_keys(step, shapes, seed=3)
        parts = [batch_keys(step, shapes, seed=3, part=(rank, 4)) for rank in range(4)]
        assert sorted(key for part in parts for key in part) == whole
        assert len(whole) * whole[0][1] ** 2 in (8 * 256**2, 4 * 384**2)


def test_no_number_comes_twice():
    numbers = [n for step in range(50) for n, _ in batch_keys(step, ((8, 64), (4, 96)), seed=0)]

    assert len(set(numbers)) == len(numbers)


def test_a_batch_that_cannot_be_split_is_refused():
    with pytest.raises(ConfigError, match="evenly"):
        batch_keys(0, ((9, 256),), seed=0, part=(0, 2))


def test_a_fixed_share_leaves_the_others_their_proportions():
    chances = with_shares(np.array([0.5, 0.3, 0.2]), {1: 0.1})

    np.testing.assert_allclose(chances, [0.9 * 5 / 7, 0.1, 0.9 * 2 / 7])


@pytest.mark.parametrize("shares", [{0: 0.5, 1: 0.6}, {0: 1.1}, {0: 0.5, 1: 0.4, 2: 0.05}])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ConfigError, match="shares must leave"):
        with_shares(np.array([0.5, 0.3, 0.2]), shares)


def test_shares_of_all_sources_are_taken_as_they_are():
    np.testing.assert_allclose(with_shares(np.array([0.5, 0.5]), {0: 0.25, 1: 0.75}), [0.25, 0.75])
