"""Words that were never taught are answered as the nearest class that was, and that is said."""

import logging
from dataclasses import replace
from importlib.resources import files

import pytest
import torch

from xpath.labels import load_labels
from xpath.segment.predict.known_prompts import UNTAUGHT, nearest_labels
from xpath.segment.predict.parents import _table, nearest_taught
from xpath.segment.predict.predictor import PredictorConfig, SegmentPredictor

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


def test_only_sentences_of_labels_are_answered_for():
    prompts = ("cell-level lymphocyte in colon pathology.", "the little blue ones")
    assert nearest_labels(prompts, TAUGHT) == (("unspecified-nuclei-inflammatory",), ())
    assert nearest_labels(prompts, ()) == ((), ())


def test_the_answer_is_that_of_the_class_and_says_so(model, tokenizer, info, image, caplog):
    taught = ("breast-nuclei-neoplastic", "breast-nuclei-epithelial")
    info = replace(info, labels=taught)
    asked = SegmentPredictor(model, tokenizer, info)
    near = SegmentPredictor(model, tokenizer, info, config=PredictorConfig(parents=True))
    words = [
        "nuclei-level neoplastic in breast pathology.",
        "nuclei-level epithelial in breast pathology.",
        "cell-level epithelial in breast pathology.",
        "tissue-level fat in breast pathology.",
    ]
    embedding = asked.encode(image)
    plain = asked.logits(embedding, words)

    with caplog.at_level(logging.WARNING):
        logits, found = near.logits(embedding, words, chunk=2), near.masks(embedding, words)

    torch.testing.assert_close(logits[:, 2], plain[:, :2].amax(dim=1), atol=1e-4, rtol=0)
    rest = [0, 1, 3]
    torch.testing.assert_close(logits[:, rest], plain[:, rest], atol=1e-4, rtol=0)
    assert found.answered_as == ((), (), taught, ())
    assert asked.masks(embedding, words).answered_as == ((),) * 4
    assert near.labels_of(words) == (*taught, taught[0], UNTAUGHT)
    assert "is answered as breast-nuclei-neoplastic or breast-nuclei-epithelial" in (caplog.text)
    assert "not trained on 1 of the prompts" in caplog.text


def test_the_table_is_in_the_package():
    assert files("xpath.segment.predict").joinpath("parents.toml").is_file()
