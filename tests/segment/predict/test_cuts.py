"""Answers of a class are cut where that is best, not always at one half."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from xpath.segment.checkpoints.checkpoint import load_segmentor, save_segmentor
from xpath.segment.predict.cuts import cut_of, shift_of
from xpath.segment.predict.predictor import PredictorConfig, SegmentPredictor

CUTS = {"nuclei-epithelial": 0.2, "cell-epithelial": 0.35, "nuclei-inflammatory": 0.4}


@pytest.mark.parametrize(
    ("sentence", "cut"),
    [
        ("nuclei-level epithelial in colon pathology.", 0.2),
        ("cell-level healthy epithelial in colon pathology.", 0.2),  # one annotated class
        ("cell-level epithelial in colon pathology.", 0.35),
        ("nuclei-level lymphocyte in breast pathology.", 0.4),
        ("nuclei-level nuclei in breast pathology.", 0.5),
        ("all epithelial nuclei", 0.5),
    ],
)
def test_the_cut_of_a_sentence_is_that_of_its_class(sentence, cut):
    assert cut_of(sentence, CUTS) == cut
    assert cut_of(sentence, {}) == 0.5


def test_a_union_without_a_cut_of_its_own_has_none():
    assert cut_of("cell-level epithelial in lung pathology.", {"nuclei-neoplastic": 0.3}) == 0.5


def test_masks_grow_to_the_cut(model, tokenizer, info, image):
    words = [
        "nuclei-level epithelial in breast pathology.",
        "nuclei-level nuclei in breast pathology.",
    ]
    plain = SegmentPredictor(model, tokenizer, info)
    cut = SegmentPredictor(model, tokenizer, replace(info, cuts=CUTS))
    embedding = plain.encode(image)
    wanted = plain.masks(embedding, words, threshold=0.2).masks[:, :1]

    found = cut.masks(embedding, words, chunk=1)

    # the shift is made before enlarging, which is linear
    np.testing.assert_array_equal(found.masks[:, :1], wanted)
    np.testing.assert_array_equal(found.masks[:, 1:], plain.masks(embedding, words).masks[:, 1:])
    shift = shift_of(words[0], CUTS)
    assert shift == pytest.approx(math.log(0.25))
    torch.testing.assert_close(
        cut.logits(embedding, words)[:, 0], plain.logits(embedding, words)[:, 0] - shift
    )


def test_of_classes_that_answer_together_each_has_its_cut(model, tokenizer, info, image):
    taught = ("breast-nuclei-neoplastic", "breast-nuclei-epithelial")
    info = replace(info, labels=taught, cuts={"nuclei-epithelial": 0.2})
    near = SegmentPredictor(model, tokenizer, info, config=PredictorConfig(parents=True))
    words = [
        "nuclei-level neoplastic in breast pathology.",
        "nuclei-level epithelial in breast pathology.",
        "cell-level epithelial in breast pathology.",
    ]

    logits = near.logits(near.encode(image), words)

    torch.testing.assert_close(logits[:, 2], logits[:, :2].amax(dim=1), atol=1e-4, rtol=0)


def test_cuts_are_kept_with_the_weights(tmp_path, model, config, tokenizer, info):
    known = replace(info, cuts=CUTS, taught={"a-nuclei-b": 3})
    save_segmentor(tmp_path / "w", model, config, tokenizer, known, card="# w")

    again = load_segmentor(tmp_path / "w")[2]

    assert again.cuts == CUTS
    assert again.taught == {"a-nuclei-b": 3}
