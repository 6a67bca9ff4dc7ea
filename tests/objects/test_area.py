import numpy as np

from xpath.objects.area import overlaps


def test_lengths_by_hand():
    lengths = overlaps(np.array([0.5, 2.0, 2.25]), 3)

    np.testing.assert_allclose(lengths, [[0.5, 1, 0], [0, 0, 0.25]])


def test_edges_outside_catch_nothing():
    lengths = overlaps(np.array([-2.0, -1.0, 1.0, 5.0]), 2)

    np.testing.assert_allclose(lengths, [[0, 0], [1, 0], [0, 1]])


def test_nothing_is_lost_between_edges():
    edges = np.sort(np.random.default_rng(0).random(9) * 20)
    edges[[0, -1]] = 0, 20

    np.testing.assert_allclose(overlaps(edges, 20).sum(axis=0), 1)
    np.testing.assert_allclose(overlaps(edges, 20).sum(axis=1), np.diff(edges))
