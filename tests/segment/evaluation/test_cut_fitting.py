"""Cuts are taken only where patients that did not choose them gain."""

import numpy as np
import pytest

from xpath.metrics.overlap import dice
from xpath.segment.evaluation.cut_fitting import (
    CANDIDATES,
    CutQuestions,
    cuts_of,
    dice_at,
    fit_cuts,
)

LOW = int(np.argmin(np.abs(CANDIDATES - 0.2)))


def questions(rng, count, *, gain, noise, patients=None):
    """Answers of one class, better by ``gain`` when cut at 0.2."""
    table = rng.normal(0.6, 0.05, (count, 1)) + rng.normal(0, noise, (count, len(CANDIDATES)))
    table[:, LOW] += gain
    groups = tuple(str(n % (patients or count)) for n in range(count))
    return CutQuestions(("nuclei-epithelial",) * count, groups, table)


def test_dice_at_every_candidate_is_that_of_the_masks(rng):
    chance = rng.random(500)
    chance[:4] = (0.1, 0.5, 1.0, 0.0)
    truth = chance + rng.normal(0, 0.3, 500) > 0.6

    found = dice_at(chance, truth)

    for value, cut in zip(found, CANDIDATES, strict=True):
        assert value == pytest.approx(dice(chance >= cut, truth))


def test_a_better_cut_is_found_and_taken(rng):
    (cut,) = fit_cuts(questions(rng, 60, gain=0.08, noise=0.02))

    assert (cut.best, cut.images, cut.taken) == (0.2, 60, True)
    assert cut.gain == pytest.approx(0.08, abs=0.02)
    assert cuts_of([cut]) == {"nuclei-epithelial": 0.2}


def test_what_looks_best_by_chance_is_not_taken():
    """Of seventeen cuts without a difference one always looks best."""
    taken = [
        fit_cuts(questions(np.random.default_rng(seed), 30, gain=0, noise=0.05))[0].taken
        for seed in range(40)
    ]
    assert sum(taken) <= 2


@pytest.mark.parametrize("count", [1, 19])
def test_few_images_teach_no_cut(rng, count):
    (cut,) = fit_cuts(questions(rng, count, gain=0.3, noise=0.01))

    assert not cut.taken
    assert cuts_of([cut]) == {}


def test_images_of_one_patient_choose_nothing_for_each_other(rng):
    (cut,) = fit_cuts(questions(rng, 40, gain=0.3, noise=0.01, patients=1))

    assert cut.gain == 0
    assert not cut.taken
