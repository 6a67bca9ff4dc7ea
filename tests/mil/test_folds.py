import numpy as np
import pytest

from xpath.errors import DataError
from xpath.mil.folds import stratified_split

PAPER = [0] * 787 + [1] * 198


def counts(split, labels):
    return [np.bincount(np.array(labels)[part], minlength=2).tolist() for part in split]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_papers_cohort_gives_the_papers_numbers(seed):
    split = stratified_split(PAPER, seed=seed)

    assert [len(part) for part in split] == [689, 99, 197]
    assert counts(split, PAPER) == [[551, 138], [79, 20], [157, 40]]


def test_every_slide_is_in_one_part():
    split = stratified_split(PAPER)

    assert sorted(np.concatenate(split).tolist()) == list(range(985))


def test_the_seed_decides():
    first, again, other = (stratified_split(PAPER, seed=seed) for seed in (3, 3, 4))

    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert first.test.tolist() != other.test.tolist()


def test_round_numbers_stay_round():
    """0.1 / (0.7 + 0.1) * 80 is 10.000000000000002, which is not 11."""
    assert [len(part) for part in stratified_split([0, 1] * 50)] == [70, 10, 20]
    assert [len(part) for part in stratified_split([0, 1] * 50, (0.5, 0.25, 0.25))] == [50, 25, 25]


def test_patients_are_never_divided():
    labels = [number // 3 % 2 for number in range(120)]
    patients = [f"p{number // 3}" for number in range(120)]

    split = stratified_split(labels, groups=patients)

    members = [{patients[place] for place in part} for part in split]
    assert [len(names) for names in members] == [28, 4, 8]
    assert not (members[0] & members[1] or members[0] & members[2] or members[1] & members[2])
    assert counts(split, labels) == [[42, 42], [6, 6], [12, 12]]


def test_a_patient_counts_with_the_first_slide():
    labels = [0, 1] + [0] * 8 + [1] * 9
    patients = ["both", "both"] + [f"p{number}" for number in range(17)]

    split = stratified_split(labels, groups=patients)

    assert sum({0, 1} <= set(part.tolist()) for part in split) == 1


@pytest.mark.parametrize("rare", [3, 4, 7])
@pytest.mark.parametrize("common", [3, 50, 97])
def test_rare_classes_are_in_every_part(rare, common):
    labels = [0] * common + [1] * rare

    split = stratified_split(labels)

    assert np.array(counts(split, labels)).min() >= 1
    if common > 3:
        total = common + rare
        assert len(split.test) == -(-total // 5)
        assert abs(len(split.validation) - total / 10) < 1


@pytest.mark.parametrize("fractions", [(0.1, 0.1, 0.8), (0.1, 0.8, 0.1), (0.8, 0.1, 0.1)])
def test_no_part_takes_the_last_patient_of_a_class(fractions):
    labels = [0] * 3 + [1] * 4 + [2] * 30

    split = stratified_split(labels, fractions)

    assert all({labels[place] for place in part} == {0, 1, 2} for part in split)


def test_classes_may_be_names():
    labels = ["IDC"] * 10 + ["ILC"] * 5

    split = stratified_split(labels)

    assert {labels[place] for place in split.validation} == {"IDC", "ILC"}


def test_too_few_patients_are_refused_with_counts():
    with pytest.raises(DataError, match=r"\{0: 9, 1: 2\}"):
        stratified_split([0] * 9 + [1] * 2)
    with pytest.raises(DataError, match=r"\{0: 3, 1: 1\}"):
        stratified_split([0, 0, 0, 1, 1, 1], groups=["a", "b", "c", "d", "d", "d"])
    with pytest.raises(DataError, match="3 patients"):
        stratified_split([])


@pytest.mark.parametrize("fractions", [(0.7, 0.1, 0.1), (0.8, 0.0, 0.2), (0.5, 0.5)])
def test_other_fractions_are_refused(fractions):
    with pytest.raises(DataError, match="fractions"):
        stratified_split(PAPER, fractions)


def test_one_group_per_label():
    with pytest.raises(DataError, match="2 groups for 3 labels"):
        stratified_split([0, 1, 0], groups=["a", "b"])
