import numpy as np
import pytest
from scipy import stats

from xpath.errors import DataError, ShapeError
from xpath.explain.contributions import class_contrasts, cohort_contributions
from xpath.explain.grouping import redundant_groups

OBJECTS = ("planted", "offset")


def rows_of(contributions, labels, patients=None, **more):
    patients = patients or [f"p{i}" for i in range(len(labels))]
    classes = [f"c{k}" for k in range(contributions.shape[1])]
    return cohort_contributions(
        contributions,
        labels,
        patients,
        objects=OBJECTS,
        classes=classes,
        rng=np.random.default_rng(0),
        **more,
    )


def test_contrasts_by_hand():
    two = class_contrasts(np.array([[1.0], [4.0]]))
    three = class_contrasts(np.array([[1.0], [4.0], [7.0]]))

    np.testing.assert_allclose(two, [[-3], [3]])
    np.testing.assert_allclose(three, [[-4.5], [0], [4.5]])


def test_an_offset_that_every_slide_has_is_no_difference():
    rng = np.random.default_rng(0)
    labels = np.arange(14) % 2
    log_odds = np.stack([labels * rng.normal(2, 0.5, 14), np.full(14, -3.0)], axis=1)
    contributions = np.stack([-log_odds / 2, log_odds / 2], axis=1)

    planted, offset = rows_of(contributions, labels)

    assert (planted.object, planted.rank, planted.class_name) == ("planted", 1, "c1")
    wanted = stats.ttest_ind(log_odds[labels == 1, 0], log_odds[labels == 0, 0], equal_var=False)
    interval = wanted.confidence_interval()
    assert planted.difference == pytest.approx(log_odds[labels == 1, 0].mean())
    assert (planted.low, planted.high) == pytest.approx((interval.low, interval.high))
    assert planted.p == planted.q == planted.least_q == 1 / 2001
    assert planted.slides == 7
    assert (offset.difference, offset.low, offset.high, offset.p) == (0, 0, 0, 1)


def test_three_classes_have_a_row_each():
    rng, labels = np.random.default_rng(0), np.arange(12) % 3
    contributions = rng.normal(size=(12, 3, 2))
    contributions[labels == 2, 2, 0] += 9

    rows = rows_of(contributions, labels)

    assert [(row.class_name, row.rank) for row in rows[::2]] == [("c0", 1), ("c1", 1), ("c2", 1)]
    last = next(row for row in rows if row.class_name == "c2" and row.rank == 1)
    towards = class_contrasts(contributions)[:, 2, 0]
    assert last.object == "planted"
    assert last.difference == pytest.approx(
        towards[labels == 2].mean() - towards[labels != 2].mean()
    )


def test_an_object_that_no_slide_has_gets_no_row():
    labels = np.arange(14) % 2
    contributions = np.zeros((14, 2, 2))
    contributions[:, 1, 0] = labels

    (row,) = rows_of(contributions, labels)

    assert (row.object, row.rank, row.slides) == ("planted", 1, 7)


def test_slides_of_a_patient_are_one_witness():
    labels = np.repeat([0, 1], 6)
    rng = np.random.default_rng(0)
    log_odds = rng.normal(size=(12, 2)) + labels[:, None]
    contributions = np.stack([-log_odds / 2, log_odds / 2], axis=1)

    alone = rows_of(contributions, labels)[0]
    pairs = rows_of(contributions, labels, [f"p{i // 2}" for i in range(12)])[0]

    assert pairs.difference == pytest.approx(alone.difference)
    assert pairs.least_q == 1 / 20
    assert alone.least_q == 1 / 924  # 12 over 6, all of them tried


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DataError, match="two classes"):
        rows_of(np.zeros((3, 2, 2)), np.zeros(3, int))
    with pytest.raises(ShapeError, match="labels"):
        rows_of(np.zeros((3, 2, 2)), np.zeros(2, int))


# redundancy


def test_a_second_name_of_the_same_pixels_is_one_group_and_nuclei_in_a_tumour_are_not():
    shared = np.array([[100, 90, 10], [90, 120, 20], [10, 20, 20]])  # nuclei lie in both

    groups = redundant_groups(shared, np.zeros((2, 3)), ["fat", "necrosis", "nuclei"])

    assert groups == [("fat", "necrosis"), ("nuclei",)]


def test_contributions_that_go_together_are_one_group():
    rng = np.random.default_rng(0)
    one = rng.normal(size=20)
    contributions = np.stack([one, 3 * one + 0.05 * rng.normal(size=20), -one, rng.normal(size=20)])
    names = ["a", "b", "against", "else"]

    groups = redundant_groups(np.zeros((4, 4), int), contributions.T, names)

    assert groups == [("a", "b"), ("against",), ("else",)]
    few = redundant_groups(np.zeros((4, 4), int), contributions.T[:4], names)
    assert len(few) == 4  # of four slides a correlation says nothing
    constant = redundant_groups(np.zeros((2, 2), int), np.full((9, 2), 3.0), ["a", "b"])
    assert constant == [("a",), ("b",)]
