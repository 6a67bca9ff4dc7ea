"""Words that were never taught are answered as the nearest class that was, and that is said."""

import logging
from dataclasses import replace

import torch

from xpath.segment.predict.known_prompts import UNTAUGHT, nearest_labels
from xpath.segment.predict.predictor import PredictorConfig, SegmentPredictor

KINDS = ("neoplastic", "epithelial", "inflammatory", "connective", "dead", "nuclei")
TAUGHT = (*(f"unspecified-nuclei-{kind}" for kind in KINDS), "breast-nuclei-inflammatory")


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
