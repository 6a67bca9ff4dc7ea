"""Masks drawn at stride 2: finer for images, means of two by two for slides."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from xpath.segment.model.variants import build_segmentor, mini_config
from xpath.segment.predict.memory import working_set
from xpath.segment.predict.predictor import SegmentPredictor

WORDS = ["nuclei-level lymphocyte in breast pathology.", "tissue-level tumor in breast pathology."]


@pytest.fixture
def segmentor(tokenizer, info):
    torch.manual_seed(0)
    config = replace(mini_config(tokenizer.vocabulary), mask_dim=32, detail=32)
    return SegmentPredictor(build_segmentor(config), tokenizer, info)


def test_masks_are_those_of_the_finer_logits(segmentor, rng):
    image = rng.integers(0, 256, (70, 100, 3), dtype=np.uint8)
    embedding = segmentor.encode(image)
    text = segmentor.text(WORDS)
    with torch.inference_mode():
        fine = segmentor.model.decode(embedding.memory, text).logits
    large = torch.nn.functional.interpolate(fine, scale_factor=2, mode="bilinear")

    found = segmentor.masks(embedding, WORDS, probability=True)
    logits = segmentor.logits(embedding, WORDS)

    wanted = large[:, :, :70, :100].sigmoid().numpy()
    np.testing.assert_allclose(found.probability, wanted, atol=1e-5)
    assert embedding.positions == logits.shape[-2:] == (24, 32)
    torch.testing.assert_close(logits, torch.nn.functional.avg_pool2d(fine, 2))


def test_finer_masks_are_known_to_need_more_memory(segmentor, tokenizer):
    plain = build_segmentor(mini_config(tokenizer.vocabulary))
    fine, coarse = (working_set(model, (512, 512), 4) for model in (segmentor.model, plain))

    assert fine.image > coarse.image
    assert fine.prompt > 1.5 * coarse.prompt
