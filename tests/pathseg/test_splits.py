"""Splits: the paper's arithmetic, and what must never change."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from xpath.errors import ConfigError, DataError, XPathError
from xpath.pathseg.record import SourceImage
from xpath.pathseg.splits import SplitConfig, SplitRow, read_splits, split_images, write_splits


def images(count, *, per_group=1, split=None, source="S", first=0):
    return [
        SourceImage(
            source=source,
            name=f"i{number}",
            group=f"p{number // per_group}" if per_group > 1 else f"i{number}",
            split=split,
            mpp=0.25,
            region="breast",
            path=Path(f"i{number}.png"),
            read=lambda: None,
        )
        for number in range(first, first + count)
    ]


def parts(rows):
    return {row.image: row.split for row in rows}


@pytest.mark.parametrize(
    ("count", "train", "test"),
    [(23924, 19140, 4784), (500, 400, 100), (5, 4, 1), (4, 4, 0), (1, 1, 0)],
)
def test_the_paper_s_own_numbers(count, train, test):
    """SICAPv2 and Janowczyk have one mask per image and no official split (Table 1)."""
    found = Counter(row.split for row in split_images(images(count)))

    assert (found["train"], found["test"]) == (train, test)


def test_the_draw_does_not_depend_on_the_order_but_on_the_seed():
    some = images(100)

    assert parts(split_images(some)) == parts(split_images(some[::-1]))
    assert parts(split_images(some)) != parts(split_images(some, SplitConfig(seed=1)))
    assert [row.image for row in split_images(some)] == [image.name for image in some]


def test_the_draw_is_the_same_on_every_machine():
    """Worked out once. Another hash or another order would give other names."""
    tested = {row.image for row in split_images(images(20)) if row.split == "test"}

    assert tested == TESTED_OF_20


def test_patients_stay_together():
    rows = split_images(images(100, per_group=7))

    torn = {(row.group, row.split) for row in rows}
    assert len(torn) == len({row.group for row in rows})
    assert 14 <= sum(row.split == "test" for row in rows) <= 26
    assert {row.reason for row in rows} == {"drawn by group"}


def test_a_patient_too_many_is_better_than_one_too_few_if_nearer():
    for count, tested in ((80, 20), (70, 10)):  # a fifth is 16 and 14, in patients of ten images
        rows = split_images(images(count, per_group=10))
        assert sum(row.split == "test" for row in rows) == tested


def test_two_patients_make_a_test_part():
    rows = split_images(images(10, per_group=5))

    assert Counter(row.split for row in rows) == {"train": 5, "test": 5}


def test_frozen_rows_hold_when_images_are_added():
    before = split_images(images(50))
    after = split_images(images(100), frozen=before)

    assert [row for row in after if row in before] == before
    assert sum(row.split == "test" for row in after) == 20


def test_images_that_come_one_by_one_are_tested_as_well():
    rows = []
    for count in range(1, 41):
        rows = split_images(images(count), frozen=rows)

    assert sum(row.split == "test" for row in rows) == 8


def test_a_new_image_follows_its_patient():
    before = split_images(images(20, per_group=10))
    other = SplitRow("Other", "i0", "p0", "test", "official")
    after = split_images(images(30, per_group=10), frozen=[*before, other])

    split = {row.group: row.split for row in before}
    assert all(row.split == split[row.group] for row in after if row.group in split)
    more = split_images(images(19, per_group=10), frozen=before[:1])
    assert {row.reason for row in more} == {"drawn by group", "as its group"}


def test_the_official_split_goes_first_and_external_sources_are_tested():
    mixed = images(8, split="train") + images(2, split="test", first=8) + images(10, first=10)
    rows = split_images(mixed)

    assert [row.split for row in rows[:10]] == ["train"] * 8 + ["test"] * 2
    assert {row.reason for row in rows[:10]} == {"official"}
    assert Counter(row.split for row in rows[10:]) == {"train": 8, "test": 2}
    assert {row.split for row in split_images(images(5), external=True)} == {"test"}


def test_a_patient_in_both_parts_is_refused_unless_officially_so(caplog):
    torn = images(2, per_group=4, split="train") + images(2, per_group=4, split="test", first=2)
    frozen = [SplitRow("S", "i0", "p0", "train", "drawn"), SplitRow("S", "i1", "p0", "test", "x")]

    assert len(split_images(torn)) == 4
    assert "1 groups in both splits, such as p0" in caplog.text
    with pytest.raises(DataError, match=r"p0 .*train and test"):
        split_images(torn, SplitConfig(official_overlap=False))
    with pytest.raises(DataError, match="p0"):
        split_images(images(2, per_group=4), frozen=frozen)


def test_what_cannot_be_split_is_named():
    with pytest.raises(DataError, match="two images named 'i0'"):
        split_images(images(1) * 2)
    with pytest.raises(DataError, match="'validation'; wanted train"):
        split_images(images(1, split="validation"))
    with pytest.raises(DataError, match="images of S, T"):
        split_images(images(1) + images(1, source="T"))
    with pytest.raises(ConfigError, match="share"):
        SplitConfig(test=1)


def test_rows_survive_the_file(tmp_path):
    rows = [*split_images(images(10, per_group=2)), SplitRow('a,"b"', "x", "é", "test", "why")]
    write_splits(tmp_path / "splits.csv", rows)

    assert read_splits(tmp_path / "splits.csv") == rows
    assert (tmp_path / "splits.csv").read_text().startswith("source,image,group,split,reason\n")
    assert read_splits(tmp_path / "none.csv") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source,image\n", "needs the columns group, split"),
        ("source,image,group,split,reason\nS,a,a,valid,\n", "line 2: split 'valid'"),
        ("source,image,group,split,reason\nS,a,a,test,\nS,a,a,test,\n", "S a twice"),
        ("source,image,group,split,reason\nS,a,p,test,\nS,b,p,train,\n", "train and test"),
    ],
)
def test_an_edited_file_is_checked(tmp_path, text, said):
    path = tmp_path / "splits.csv"
    path.write_text(text)

    with pytest.raises(XPathError, match=said):
        read_splits(path)


TESTED_OF_20 = {"i0", "i10", "i12", "i16"}
