import numpy as np
import pytest
import torch

from xpath.explain.object_evidence import object_evidence
from xpath.mil.bag import Bag
from xpath.mil.classifier import ClassifierConfig, FeatureSizes
from xpath.mil.cohort import Cohort, CohortConfig, CohortSlide
from xpath.mil.cohort_training import fresh_classifier
from xpath.mil.splits import Split
from xpath.mil.training import TrainConfig

SLIDES = 24
OBJECTS = ("planted", "decoy", "absent")
CONFIG = CohortConfig(
    classifier=ClassifierConfig(train=TrainConfig(lr=5e-3, epochs=40, bags_per_step=4))
)


@pytest.fixture(scope="module")
def cohort():
    """The first object looks different in the second class; the last one is nowhere."""
    rng = np.random.default_rng(0)
    labels = np.arange(SLIDES) % 2
    objects, coverage = [], []
    for label in labels.tolist():
        features = rng.normal(size=(6, 3, 4)).astype(np.float32)
        features[:, 0, 0] += 3 * label
        share = np.tile(np.float32([0.3, 0.3, 0]), (6, 1)) * rng.uniform(0.5, 1, (6, 3))
        present = torch.from_numpy(share > 0)
        whole = torch.from_numpy(features * (share > 0)[..., None])
        objects.append(Bag(whole, present, label, f"s{len(objects)}"))
        coverage.append(Bag(torch.from_numpy(share).float(), None, label, f"s{len(coverage)}"))
    slides = tuple(
        CohortSlide(bag.slide_id, None, "AB"[bag.label], bag.slide_id, "") for bag in objects
    )
    bags = {"objects": tuple(objects), "coverage": tuple(coverage)}
    return Cohort(slides, bags, ("object_aware",), FeatureSizes(4, OBJECTS, ("A", "B")), {}, ())


def folds(count):
    numbers = np.arange(SLIDES)
    return [
        Split(numbers[numbers // 2 % count != k], numbers[:0], numbers[numbers // 2 % count == k])
        for k in range(count)
    ]


def asked(cohort, splits, q, **options):
    def trained(fold, seed):
        return fresh_classifier(cohort, "object_aware", splits[fold], CONFIG, seed=seed)

    return object_evidence(cohort, splits, q, classifier=trained, **options)


def test_slides_of_all_folds_are_asked_and_what_is_nowhere_has_no_row(cohort):
    q = {"planted": 0.01, "decoy": 0.9}

    planted, decoy = asked(cohort, folds(2), q, needed={"planted"}, seeds=2)

    assert (planted.object, planted.verdict) == ("planted", "supported")
    assert planted.speaking == "hiding, left out, not its area, seeds"
    assert (decoy.object, decoy.verdict) == ("decoy", "not distinguishable")
    assert (planted.seeds_held, decoy.seeds_held, decoy.seeds) == (2, 0, 2)
    one = asked(cohort, folds(2)[:1], q, needed={"planted"}, seeds=1)
    width = [each[0].loss_high - each[0].loss_low for each in (one, [planted])]
    assert width[1] < width[0]  # over 24 patients instead of 12


def test_test_slides_of_one_class_are_no_evidence(cohort):
    split = folds(2)[0]
    alike = Split(split.train, split.validation, split.test[::2])

    assert asked(cohort, [alike], {}, needed=(), seeds=1) == []


def test_a_class_that_was_not_taught_is_no_evidence(cohort):
    """A table of splits may leave all slides of a class to the test."""
    split = folds(2)[0]
    untaught = Split(split.train[::2], split.validation, split.test)

    assert asked(cohort, [untaught], {}, needed=(), seeds=1) == []
