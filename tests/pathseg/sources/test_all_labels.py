"""All sources together: exactly the 160 labels, and the numbers of the paper's tables 1 to 5."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from xpath.errors import DataError
from xpath.labels import load_labels
from xpath.pathseg.sources import SOURCES, load_source

TABLE_1 = """
    BCSS            40  19    2914   9192   7322  1870
    CoCaHis         40   2      82     82     58    24
    CoNIC2022       20   7    4841  19332  15387  3945
    CRAG            20   2    1750   1750   1429   321
    DigestPath2019  40   2   13391  13391  10725  2666
    GlaS            20   2     165    165     85    80
    Janowczyk       40   2     500    500    400   100
    MIDOG           40   3    1482   1802   1448   354
    MoNuSAC         40   5     359    642    454   188
    NuCLS           40  13    1612   4443   3538   905
    PanNuke         40  86    7558  16223  13017  3206
    RINGS          100   3   38227  43739  29451 14288
    SegPath         40   9  133645 133645 122536 11109
    SICAPv2         20   2   23924  23924  19140  4784
    TNBC            40  12      66    167    134    33
    WSSS4LUAD       10   4    2863   5735   4590  1145
    CoNSeP          40   7      40    121      0   121
"""
"""Source, magnification, labels with background, images, masks, masks to train and to test."""
WITHOUT_BACKGROUND = {"PanNuke"}
"""Here the paper counts no background: 86 of the 105 nuclei labels are in no other source but
CoNIC's connective and epithelial, and these two alone have more masks than CoNIC can give."""
TABLE_2 = {"breast": (47, 19640), "lung": (7, 6182), "colon": (17, 37507), "prostate": (7, 67991)}
TABLE_3 = {"nuclei": (105, 42300), "cell": (26, 78867), "tissue": (29, 153686)}
TABLE_4 = {"endothelial": 8118, "epithelial": 31551, "lymphocyte": 15267, "tumor": 3731}
REGIONS, OBJECT_TYPES, MASKS = 20, 61, 274853

ROWS = [line.split() for line in TABLE_1.strip().splitlines()]


def test_the_sources_are_those_of_the_paper_in_its_order():
    assert list(SOURCES) == [row[0] for row in ROWS]
    assert len(SOURCES) == 17


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_source_tells_what_table_1_tells(row):
    info = SOURCES[row[0]].info
    magnification, labels, images, masks, train, test = map(int, row[1:])

    assert info.name == row[0]
    assert info.magnification == magnification
    assert len(info.labels) == len(set(info.labels))
    assert len(info.labels) == labels - (info.name not in WITHOUT_BACKGROUND)
    assert (info.images, info.masks) == (images, masks)
    assert (info.train_masks, info.test_masks) == (train, test)
    assert train + test == masks
    assert info.external == (train == 0)


@pytest.mark.parametrize("name", [row[0] for row in ROWS])
def test_a_source_says_where_it_comes_from(name):
    info = SOURCES[name].info

    assert re.match(r"https?://", info.url)
    assert info.licence
    assert info.citation
    assert info.layout
    assert set(info.regions) == {load_labels()[label].region for label in info.labels}


def test_together_they_give_exactly_the_160_labels():
    found = {label for source in SOURCES.values() for label in source.info.labels}

    assert found == {label.id for label in load_labels()}
    assert len(found) == 160


def test_sources_and_labels_that_belong_together_have_as_many_masks():
    """Table 1 against Table 5: sources that share no label with others must agree on their own."""
    families = []
    for source in SOURCES.values():
        names, labels = {source.info.name}, set(source.info.labels)
        for family in [family for family in families if family[1] & labels]:
            families.remove(family)
            names, labels = names | family[0], labels | family[1]
        families.append((names, labels))

    assert len(families) >= 9
    tree = load_labels()
    for names, labels in families:
        masks = sum(SOURCES[name].info.masks for name in names)
        assert masks == sum(tree[label].masks for label in labels), names
    assert sum(source.info.masks for source in SOURCES.values()) == MASKS


def test_sums_over_the_tree_are_those_of_tables_2_to_4():
    counts = {level: defaultdict(list) for level in ("region", "structure", "object_type")}
    tree = load_labels()
    for label_id in {label for source in SOURCES.values() for label in source.info.labels}:
        for level, found in counts.items():
            found[getattr(tree[label_id], level)].append(tree[label_id].masks)

    assert len(counts["region"]) == REGIONS
    assert len(counts["object_type"]) == OBJECT_TYPES
    for region, (labels, masks) in TABLE_2.items():
        assert (len(counts["region"][region]), sum(counts["region"][region])) == (labels, masks)
    for structure, (labels, masks) in TABLE_3.items():
        found = counts["structure"][structure]
        assert (len(found), sum(found)) == (labels, masks)
    for kind, masks in TABLE_4.items():
        assert sum(counts["object_type"][kind]) == masks


@pytest.mark.parametrize("name", [row[0] for row in ROWS])
def test_an_empty_folder_is_missing_something_and_nothing_breaks(tmp_path, name):
    assert SOURCES[name].missing(tmp_path)
    assert SOURCES[name].missing(tmp_path / "gone")


def test_a_source_is_found_in_any_case_and_a_typo_is_helped():
    assert load_source("glas") is SOURCES["GlaS"]
    with pytest.raises(DataError, match="no source 'Glass'; did you mean GlaS"):
        load_source("Glass")
    with pytest.raises(DataError, match="known are BCSS, CoCaHis"):
        load_source("xyzzy")


def test_the_reference_table_agrees(shared):
    path = Path(shared) / "reference" / "pathseg_sources.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]

    assert [[row[0], row[1], *row[3:8]] for row in rows] == ROWS
