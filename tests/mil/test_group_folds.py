import numpy as np
import pytest

from xpath.errors import DataError
from xpath.mil.group_folds import group_folds, hold_out, patient_of, tcga_patient, tcga_site


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


def test_the_seed_decides(rng):
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
