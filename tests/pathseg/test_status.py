"""Counts on this disk beside the published ones."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from xpath.errors import DataError
from xpath.labels import load_labels
from xpath.pathseg.build import BuildConfig, build_source
from xpath.pathseg.record import Annotated, LabelMask, SourceImage, SourceInfo
from xpath.pathseg.status import count_built, count_source, look_at, status_lines, table_lines
from xpath.pathseg.tally import Tally, published_table, table_of, total

TUMOR, PLASMA = "breast-tissue-tumor", "breast-tissue-plasma cells"
QUIET = BuildConfig(progress=False)


class Fake:
    """Three images in memory, listed if the folder is there."""

    info = SourceInfo(
        name="Fake",
        magnification=40,
        mpp=0.25,
        licence="CC0",
        citation="c",
        url="http://fake.example",
        layout="images/*.png",
        regions=("breast",),
        labels=(TUMOR, PLASMA),
        images=2914,
        masks=9192,
        train_masks=7322,
        test_masks=1870,
    )

    def __init__(self, lacking=(), listed=3):
        self.lacking, self.listed = list(lacking), listed

    def images(self, root):
        for number in range(self.listed):
            yield SourceImage(
                source="Fake",
                name=f"i{number}",
                group=f"i{number}",
                split="test" if number == 2 else "train",
                mpp=0.25,
                region="breast",
                path=Path(f"i{number}.png"),
                read=lambda number=number: read(number),
            )

    def missing(self, root):
        return self.lacking


def read(number):
    if number == 1:
        raise DataError("i1.png is truncated; download it again")
    left = np.zeros((2048, 100), bool)  # cut into two windows, the tumor is in the upper one
    left[:10] = True
    masks = (LabelMask(TUMOR, left), LabelMask(PLASMA, ~left))
    return Annotated(np.zeros((2048, 100, 3), np.uint8), masks, None)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "Fake").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("lacking", "listed", "state"),
    [
        ((), 3, "present"),
        (("masks/",), 3, "incomplete"),
        (("all",), 0, "missing"),
        ((), 0, "missing"),
    ],
)
def test_states(root, lacking, listed, state):
    found = look_at(Fake(lacking, listed), root)

    assert (found.state, found.files) == (state, listed)
    assert bool(found.missing) == (state != "present")


def test_a_source_that_cannot_be_listed_is_incomplete_with_the_reason(root):
    class Broken(Fake):
        def images(self, root):
            yield from super().images(root)
            raise DataError("split.csv is damaged")

        def missing(self, root):
            raise DataError("split.csv is damaged")

    found = look_at(Broken(), root)

    assert found.missing == ("split.csv is damaged",)
    assert look_at(Fake(["nothing"]), root / "elsewhere").state == "missing"


def test_counts_are_of_windows_and_equal_what_is_built(root, tmp_path):
    tally, failed = count_source(Fake(), root, QUIET)
    report = build_source(Fake(), root, tmp_path / "out", QUIET)

    assert failed == {"i1": "i1.png is truncated; download it again"}
    assert (tally.images, tally.masks) == (4, 6)
    assert dict(tally.by_split) == {"train": 3, "test": 3}
    assert dict(tally.by_label) == {TUMOR: 2, PLASMA: 4}
    assert tally.images_by["region", "breast"] == 4
    assert tally.images_by["object_type", "tumor"] == 2
    assert report.tally == count_built(tmp_path / "out", "Fake") == tally
    assert count_built(tmp_path / "nowhere", "Fake") == Tally()


def test_the_table_shows_both_sides_and_the_way_out(root):
    tally, failed = count_source(Fake(), root, QUIET)
    there = look_at(Fake(), root)
    counted = type(there)(info=there.info, files=3, missing=(), tally=tally, failed=failed)
    lines = list(status_lines([there, counted, look_at(Fake(["masks/"], 0), root)]))

    cells = [re.split(r"\s{2,}", line) for line in lines]
    assert cells[1] == [
        *("Fake", "present", "3", "-", "2,914", "-", "9,192", "-", "7,322/1,870", "2", "CC0")
    ]
    assert cells[2][3:9] == ["4", "2,914", "6", "9,192", "3/3", "7,322/1,870"]
    assert cells[2][9] == "2/2"
    assert cells[4][:4] == ["total", "2 of 3", "6", "4"]
    rest = "\n".join(lines[5:])
    assert "missing: masks/" in rest
    assert "get it:  http://fake.example  (CC0)" in rest
    assert "layout:  images/*.png" in rest
    assert "broken:  i1.png is truncated" in rest


def test_tables_add_up_and_put_new_labels_last():
    tally = Tally()
    tally.add([TUMOR, "breast-nuclei-tumor", "moon-tissue-cheese"], "train")
    tally.add([TUMOR], "test")
    tally.add([], "test")
    regions = {row.name: row for row in table_of(tally, "region")}

    assert (tally.images, tally.masks) == (2, 4)
    assert list(regions)[-1] == "moon"
    assert regions["breast"] == ("breast", 2, 47, 2, 7411, 3, 19640)
    assert regions["moon"] == ("moon", 1, 0, 1, 0, 1, 0)
    rows = {row.name: row for row in table_of(tally, "object_type")}
    assert rows["tumor"] == ("tumor", 2, 2, 2, 3731, 3, 3731)
    assert total(regions.values()).masks == 4
    text = "\n".join(table_lines(tally))
    assert "by anatomical region (paper, Table 2); 1 not published" in text
    assert text.count("\ntotal ") == 4


def test_published_sides_are_those_of_the_paper():
    sizes = {"region": 20, "structure": 3, "object_type": 61, "label": 160}
    for level, size in sizes.items():
        table = published_table(level)
        assert len(table) == size
        assert total(table).published_labels == len(load_labels())
        assert total(table).published_masks == 274853
    assert total(published_table("region")).published_images == 233419


def test_published_sides_equal_the_paper_s_text(shared):
    text = (shared / "reference" / "paper_pathsegmentor.txt").read_text()
    number = r"([\d,]+)"
    for level, start, end in (("region", 2, 3), ("structure", 3, 4), ("object_type", 4, 5)):
        part = text.partition(f"\nTable {start}: ")[2].partition(f"\nTable {end}: ")[0]
        for row in published_table(level):
            pattern = rf"^{row.name} {number} {number} {number} {number}(?: {number})?$"
            found = re.search(pattern, part, re.MULTILINE | re.IGNORECASE)
            values = [int(value.replace(",", "")) for value in found.groups() if value]
            wanted = [row.published_labels, row.published_images, row.published_masks]
            assert values[2:] == (wanted if level != "object_type" else [wanted[0], wanted[2]]), row


def test_every_source_states_what_table_1_states(shared):
    from xpath.pathseg.sources import SOURCES

    with (shared / "reference" / "pathseg_sources.csv").open(newline="") as file:
        published = {row["source"]: row for row in csv.DictReader(file)}
    for name, source in SOURCES.items():
        row, info = published[name], source.info
        assert info.name == name
        assert info.magnification == float(row["native_magnification"])
        numbers = (info.images, info.masks, info.train_masks, info.test_masks)
        assert numbers == tuple(
            int(row[key]) for key in ("images", "masks", "train_masks", "test_masks")
        )
        assert info.external == (row["role"] == "external")
