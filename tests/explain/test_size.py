"""How often anything is called where nothing is to be found, on 7 patients of each class."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from xpath.explain.cohort import called, class_benefit, cohort_importance
from xpath.explain.importance import ObjectImportance

SLIDES, OBJECTS = 14, 7
NAMES = tuple("abcdefg")


def importance(index, effect, null, area):
    """A slide of two classes; both numbers are towards the second."""
    return ObjectImportance(
        slide_id=f"s{index}",
        target=1,
        objects=NAMES,
        probability=0.5,
        hidden_probability=np.full(OBJECTS, 0.5),
        imp=np.ones(OBJECTS),
        effects=np.stack([-effect, effect]),
        random=np.stack([-null, null]),
        patches=(area > 0).astype(np.int64),
        area=area,
        slide_patches=20,
    )


def leaning(rng, labels):
    """A classifier with reasons of its own, the same on every slide; labels mean nothing."""
    always = rng.normal(0, 2, OBJECTS)
    effect = always + rng.standard_t(3, (SLIDES, OBJECTS)) * rng.lognormal(0, 1, OBJECTS)
    null = rng.normal(0, 0.3, (SLIDES, OBJECTS, 2))
    return [importance(i, effect[i], null[i], np.full(OBJECTS, 0.1)) for i in range(SLIDES)]


def sharpness(rng, labels, lean=1.0):
    """A classifier that knows areas only, and areas that go with the class.

    Effect and null are both the area, so that there is no excess, but for where the masks fell.
    """
    lean = rng.normal(0, lean, OBJECTS)
    area = rng.lognormal(-2, 0.5, (SLIDES, OBJECTS)) * np.exp(lean * labels[:, None])
    effect = area * (1 + 0.2 * rng.normal(size=area.shape))
    null = area[..., None] * (1 + 0.2 * rng.normal(size=(*area.shape, 2)))
    return [importance(i, effect[i], null[i], area[i]) for i in range(SLIDES)]


def planted(rng, labels):
    """The first object helps slides of the second class, which alone have it, by 3 deviations."""
    effect = rng.normal(size=(SLIDES, OBJECTS)) * rng.lognormal(0, 1, OBJECTS)
    effect[:, 0] = labels * rng.normal(3, 1, SLIDES)
    null = np.zeros((SLIDES, OBJECTS, 2))
    return [importance(i, effect[i], null[i], np.full(OBJECTS, 0.1)) for i in range(SLIDES)]


def beside_the_cause(rng, labels):
    """Objects the classifier ignores, beside tissue that decides.

    The cause lies beside them in the second class, and in the first tissue that speaks for the
    second, so hiding it raises the log-odds of the slide's own class by more than it lowers those
    of the other: their excess goes with the class, though hiding them does nothing.
    """
    effect = rng.normal(0, 0.5, (SLIDES, OBJECTS))
    towards_second = rng.normal(np.where(labels, 8, 15)[:, None], 2, (SLIDES, OBJECTS))
    null = np.repeat(towards_second[..., None], 2, axis=-1)
    return [importance(i, effect[i], null[i], np.full(OBJECTS, 0.4)) for i in range(SLIDES)]


def shares(simulation, count, seed=0, **settings):
    """Share of cohorts in which each object is called, ``(L,)``, and any is."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(count):
        labels = rng.permutation(np.arange(SLIDES) % 2)
        slides = [
            replace(slide, target=int(label))
            for slide, label in zip(simulation(rng, labels, **settings), labels, strict=True)
        ]
        truth = {slide.slide_id: slide.target for slide in slides}
        hits = called(
            cohort_importance(slides, ["A", "B"]), class_benefit(slides, truth, resamples=400)
        )
        rows.append([name in hits for name in NAMES])
    return np.mean(rows, axis=0), float(np.any(rows, axis=1).mean())


def allowed(count):
    """The largest share that 5 % may give by chance in so many cohorts (99 %)."""
    return binom.ppf(0.99, count, 0.05) / count


@pytest.mark.parametrize("simulation", [leaning, sharpness, beside_the_cause])
@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_at_most_5_percent_of_cohorts_call_anything_that_is_nothing(simulation, count):
    share = shares(simulation, count)[1]

    assert share <= allowed(count), share


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_a_planted_object_is_called_and_decoys_are_not(count):
    each, _ = shares(planted, count)

    assert each[0] > 0.95
    assert each[1:].max() <= allowed(count)
