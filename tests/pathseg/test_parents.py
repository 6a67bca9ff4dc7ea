"""The "is a" table: every published word, and the classes that answer for it."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from xpath.labels import load_labels
from xpath.pathseg.parents import (
    Word,
    _table,
    classes_of,
    in_words,
    nearest_taught,
    with_unions,
    words_for,
)
from xpath.pathseg.record import Annotated, LabelMask, SourceImage

KINDS = ("neoplastic", "epithelial", "inflammatory", "connective", "dead", "nuclei")
TAUGHT = (*(f"unspecified-nuclei-{kind}" for kind in KINDS), "breast-nuclei-inflammatory")


def test_every_object_type_of_the_tree_has_a_row():
    assert {(label.structure, label.object_type.lower()) for label in load_labels()} == set(
        _table()
    )


@pytest.mark.parametrize(
    ("label", "answers"),
    [
        ("breast-nuclei-lymphocyte", ("breast-nuclei-inflammatory",)),
        ("colon-nuclei-lymphocyte", ("unspecified-nuclei-inflammatory",)),
        ("breast-nuclei-inflammatory", ("breast-nuclei-inflammatory",)),
        ("kidney-nuclei-neoplastic", ("unspecified-nuclei-neoplastic",)),
        ("unspecified-cell-epithelial",
         ("unspecified-nuclei-neoplastic", "unspecified-nuclei-epithelial")),
        ("breast-tissue-fat", ()),
        ("breast-nuclei-mitotic figure", ()),
        ("breast-nuclei-something new", ()),
    ],
)  # fmt: skip
def test_the_nearest_taught_label(label, answers):
    assert nearest_taught(label, TAUGHT) == answers


def test_a_union_needs_all_of_its_classes():
    assert nearest_taught("unspecified-cell-epithelial", TAUGHT[:1]) == ()


def test_a_union_that_was_taught_itself_answers():
    taught = (*TAUGHT, "unspecified-cell-epithelial")
    assert nearest_taught("breast-cell-epithelial", taught) == ("unspecified-cell-epithelial",)


def test_tissue_that_looks_the_same_everywhere_answers_for_all_organs():
    taught = ("breast-tissue-fat", "colon-tissue-gland", "foreign")
    assert nearest_taught("skin-tissue-fat", taught) == ("breast-tissue-fat",)
    assert nearest_taught("skin-tissue-gland", taught) == ()
    assert nearest_taught("skin-cell-fat", taught) == ()


def test_words_of_a_class_are_those_it_answers_alone():
    found = words_for("nuclei", "neoplastic")

    assert ("cell", "malignant epithelial") in found
    assert ("nuclei", "neoplastic") not in found
    assert ("cell", "epithelial") not in found  # a union
    for word in found:
        assert classes_of(*word) == (("nuclei", "neoplastic"),)
    assert ("nuclei", "mitotic figure") not in found
    assert words_for("tissue", "gland") == ()


@pytest.fixture
def image():
    """Makes an image with some masks, a row each, and some labels that are absent."""

    def make(present, absent, change=with_unions):
        masks = [np.zeros((4, 4), bool) for _ in present]
        for row, mask in enumerate(masks):
            mask[row] = True
        found = Annotated(
            np.zeros((4, 4, 3), np.uint8),
            tuple(map(LabelMask, present, masks)),
            None,
            tuple(absent),
        )
        return change(
            SourceImage(
                source="s", name="a", group="a", split=None, mpp=0.25, region="",
                path=Path("a"), read=lambda: found,
            )
        ).read()  # fmt: skip

    return make


def test_every_epithelial_cell_is_neoplastic_or_epithelial(image):
    both = image(["lung-nuclei-neoplastic", "lung-nuclei-epithelial", "lung-nuclei-dead"], [])
    masks = dict(both.masks)
    assert np.flatnonzero(masks["lung-cell-epithelial"].any(axis=1)).tolist() == [0, 1]

    one = dict(image(["lung-nuclei-neoplastic"], ["lung-nuclei-epithelial"]).masks)
    assert np.flatnonzero(one["lung-cell-epithelial"].any(axis=1)).tolist() == [0]

    none = image([], ["lung-nuclei-neoplastic", "lung-nuclei-epithelial"])
    assert none.absent[-1] == "lung-cell-epithelial"


@pytest.mark.parametrize(
    ("present", "absent"),
    [
        (["lung-nuclei-neoplastic"], []),
        (["lung-nuclei-neoplastic"], ["colon-nuclei-epithelial"]),
        ([], ["lung-nuclei-epithelial"]),
    ],
)
def test_no_union_where_a_class_is_unknown(image, present, absent):
    found = image(present, absent)

    assert [label for label, _ in found.masks] == present
    assert list(found.absent) == absent


def test_published_words_are_examined_where_their_classes_are_known(image):
    words = (Word("cell", "epithelial"), Word("nuclei", "lymphocyte"), Word("cell", "glial"))
    found = image(
        ["lung-nuclei-neoplastic", "lung-nuclei-nuclei", "liver-nuclei-inflammatory"],
        ["lung-nuclei-epithelial", "lung-nuclei-inflammatory"],
        lambda one: in_words(one, words),
    )

    rows = {label: np.flatnonzero(mask.any(axis=1)).tolist() for label, mask in found.masks}
    assert rows == {"lung-cell-epithelial": [0], "liver-nuclei-lymphocyte": [2]}
    assert found.absent == ("lung-nuclei-lymphocyte",)


def test_the_table_is_in_the_package():
    assert files("xpath.pathseg").joinpath("parents.toml").is_file()
