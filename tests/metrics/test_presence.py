import math

import numpy as np
import pytest

from xpath.errors import DataError, ShapeError
from xpath.metrics.presence import presence_scores


def test_by_hand():
    """Found 3 of 4 present; 2 of 6 absent are claimed."""
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], bool)
    found = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0], bool)

    scores = presence_scores(found, truth)

    assert scores == pytest.approx((4, 6, 3 / 5, 3 / 4, 4 / 5, 4 / 6))


def test_what_does_not_occur_has_no_score():
    scores = presence_scores(np.array([True]), np.array([True]))

    assert scores[:4] == (1, 0, 1, 1)
    assert math.isnan(scores.absent_precision)
    assert math.isnan(scores.absent_recall)


def test_unfit_answers_are_refused():
    with pytest.raises(ShapeError, match="answers and truth"):
        presence_scores(np.ones(2, bool), np.ones(3, bool))
    with pytest.raises(DataError, match="boolean"):
        presence_scores(np.ones(2), np.ones(2, bool))
