"""A tiny segmentor with random weights, and its tokenizer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xpath.segment.checkpoints.checkpoint import SegmentorInfo
from xpath.segment.model.tokenizer import fit_tokenizer
from xpath.segment.model.variants import build_segmentor, tiny_config
from xpath.segment.predict.predictor import SegmentPredictor

PROMPTS = [
    "nuclei-level lymphocyte in breast pathology.",
    "tissue-level tumor in breast pathology.",
    "tissue-level necrosis or debris in breast pathology.",
]


@pytest.fixture(scope="session")
def tokenizer():
    return fit_tokenizer(PROMPTS, vocabulary=300)


@pytest.fixture(scope="session")
def config(tokenizer):
    return tiny_config(tokenizer.vocabulary)


@pytest.fixture
def model(config):
    torch.manual_seed(3)
    model = build_segmentor(config, layer_scale=1.0).eval()
    with torch.no_grad():  # large mask embeddings: masks of random weights are then not all empty
        for parameter in model.decoder.mask_projector.parameters():
            parameter.mul_(3)
    return model


@pytest.fixture
def info():
    return SegmentorInfo(
        name="tiny",
        mpp=0.5,
        image_size=64,
        labels=("breast-tissue-tumor",),
        licence="Apache-2.0",
        synthetic_only=True,
    )


@pytest.fixture
def predictor(model, tokenizer, info):
    return SegmentPredictor(model, tokenizer, info)


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
