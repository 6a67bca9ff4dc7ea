import numpy as np
import pytest

from xpath.errors import DataError
from xpath.mil.splits import (
    group_folds,
    hold_out,
    patient_of,
    stratified_split,
    tcga_patient,
    tcga_site,
)

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


def cohort(rng, patients=60):
    """One to four slides each, a quarter of the patients of class 1."""
    names = [f"p{n}" for n in range(patients) for _ in range(rng.integers(1, 5))]
    labels = [int(int(name[1:]) % 4 == 0) for name in names]
    return labels, names


def members(part, names):
    return {names[place] for place in part}


@pytest.mark.parametrize("folds", [2, 5])
def test_patients_are_whole_and_tested_once(rng, folds):
    labels, names = cohort(rng)

    splits = group_folds(labels, names, folds=folds)

    assert len(splits) == folds
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(len(labels)))
    for split in splits:
        assert sorted(np.concatenate(split)) == list(range(len(labels)))
        one, two, three = (members(part, names) for part in split)
        assert not (one & two or one & three or two & three)
        assert all(len(part) and (np.diff(part) > 0).all() for part in split)


def test_classes_are_alike_in_all_folds(rng):
    labels, names = cohort(rng)
    splits = group_folds(labels, names, folds=5)

    share = np.mean(labels)
    for split in splits:
        found = np.array(labels)[split.test]
        assert len(found) == pytest.approx(len(labels) / 5, abs=3)
        assert found.mean() == pytest.approx(share, abs=0.05)
        assert len(split.validation) == pytest.approx((len(labels) - len(found)) / 8, abs=4)


def test_sites_of_uneven_size_are_shared_out(rng):
    """One site has 40 % of the slides; the folds still balance the classes as well as they can."""
    sites = ["big"] * 80 + [f"s{n % 12}" for n in range(120)]
    labels = rng.integers(0, 2, 200).tolist()

    splits = group_folds(labels, sites, folds=3)

    tested = [members(split.test, sites) for split in splits]
    assert sum("big" in names for names in tested) == 1
    assert all(not (a & b) for i, a in enumerate(tested) for b in tested[:i])
    others = [len(split.test) for split in splits if "big" not in members(split.test, sites)]
    assert max(others) - min(others) <= 25


def test_the_seed_decides_the_folds(rng):
    labels, names = cohort(rng)

    first, again, other = (group_folds(labels, names, seed=seed) for seed in (1, 1, 2))

    assert all((a.test == b.test).all() for a, b in zip(first, again, strict=True))
    assert any(a.test.tolist() != b.test.tolist() for a, b in zip(first, other, strict=True))


def test_without_validation_there_is_none(rng):
    labels, names = cohort(rng)

    splits = group_folds(labels, names, validation=0)

    assert all(len(split.validation) == 0 for split in splits)


def test_class_names_serve_as_labels(rng):
    labels, names = cohort(rng)
    words = ["ILC" if label else "IDC" for label in labels]

    assert all(
        (a.test == b.test).all()
        for a, b in zip(group_folds(labels, names), group_folds(words, names), strict=True)
    )


def test_a_class_of_one_group_is_told():
    labels, names = [0] * 20 + [1] * 3, [f"p{n}" for n in range(20)] + ["only"] * 3

    with pytest.raises(DataError, match=r"class 1 would be missing.*only in 1 groups.*only"):
        group_folds(labels, names, folds=4, validation=0)


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(DataError, match="3 groups cannot fill 5"):
        group_folds([0, 1, 0], ["a", "b", "c"])
    with pytest.raises(DataError, match="2 groups for 3 labels"):
        group_folds([0, 1, 0], ["a", "b"])
    with pytest.raises(DataError, match="2 folds"):
        group_folds([0, 1], ["a", "b"], folds=1)
    with pytest.raises(DataError, match="validation"):
        group_folds([0, 1], ["a", "b"], folds=2, validation=1.0)


def test_barcodes():
    assert tcga_site("TCGA-A2-A0T2-01Z-00-DX1.29A5C4D6") == "A2"
    assert tcga_patient("TCGA-A2-A0T2-01Z-00-DX1.29A5C4D6") == "TCGA-A2-A0T2"
    assert tcga_patient("tcga-e9-a1nf") == "TCGA-E9-A1NF"
    for wrong in ("slide-7", "TCGA-A2", "TCGA-A2-A0T2X", "xTCGA-A2-A0T2"):
        with pytest.raises(DataError, match="no TCGA barcode"):
            tcga_site(wrong)


def test_whose_slide_it_is():
    assert patient_of("TCGA-A2-A0T2-01Z-00-DX1") == "TCGA-A2-A0T2"
    assert patient_of("tcga-a2-a0t2-01Z-00-DX2") == "TCGA-A2-A0T2"
    assert patient_of("TCGA-A2-A0T2-01Z-00-DX1", "somebody") == "somebody"
    assert patient_of("slide-7") == "slide-7"


def test_holding_out_keeps_groups_whole_and_classes_in_training(rng):
    labels, names = cohort(rng)

    train, held = hold_out(labels, names, 0.2, seed=3)

    assert sorted([*train, *held]) == list(range(len(labels)))
    assert not members(train, names) & members(held, names)
    assert len(held) == pytest.approx(0.2 * len(labels), abs=4)
    rare = hold_out([0] * 9 + [1], [str(n) for n in range(10)], 0.3)
    assert 9 in rare.train
    assert len(rare.held) == 3


def test_holding_out_nothing():
    train, held = hold_out([0, 1, 1], ["a", "b", "c"], 0)

    assert train.tolist() == [0, 1, 2]
    assert held.tolist() == []


def test_nothing_can_be_held_out_of_single_groups():
    with pytest.raises(DataError, match=r"'a', 'b'\] lie in one group each"):
        hold_out(["a", "b", "a"], ["p", "p", "p"], 0.2)
