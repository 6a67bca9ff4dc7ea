"""A grounded model of a few thousand random weights, with a tokenizer of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xpath.grounded.checkpoint import GroundedInfo
from xpath.grounded.config import GroundedConfig, GroundingSizes, LanguageSizes, VisionSizes
from xpath.grounded.inference import InterpreterConfig
from xpath.grounded.interpreter import GroundedInterpreter
from xpath.grounded.model import GroundedModel
from xpath.grounded.prompts import GroundedTokenizer

WORDS = ("<|endoftext|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")
MARKS = ("[SEG]", "<p>", "</p>", "<vp>", "</vp>")


def tiny_tokenizer() -> GroundedTokenizer:
    """Bytes as tokens, and the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE(vocab={sign: k for k, sign in enumerate(alphabet)}, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens([AddedToken(token, special=True) for token in (*WORDS, *MARKS)])
    return GroundedTokenizer(PreTrainedTokenizerFast(tokenizer_object=plain))


def tiny_config(vocabulary: int) -> GroundedConfig:
    """Four image tokens per tile, masks of 16 x 16."""
    return GroundedConfig(
        vision=VisionSizes(width=16, layers=1, heads=2, hidden=16, tile=56),
        language=LanguageSizes(
            width=32, layers=2, heads=4, kv_heads=2, hidden=48, vocabulary=vocabulary
        ),
        grounding=GroundingSizes(
            image=64, width=32, embed=8, heads=1, blocks=(1, 1, 2, 1), global_blocks=(3,)
        ),
    )


def tiny_model(tokenizer: GroundedTokenizer) -> GroundedModel:
    """Random weights, always the same; wide enough that different words give different masks."""
    model = GroundedModel(tiny_config(tokenizer.size), image_token=tokenizer.context)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            is_norm = value.ndim == 1 and name.endswith("weight")
            value.copy_(torch.randn(value.shape, generator=generator) * 0.2 + is_norm)
        shared = model.sam.shared_image_embedding.positional_embedding.mul_(5)
        model.sam.prompt_encoder.shared_embedding.positional_embedding.copy_(shared)
    return model.eval()


@pytest.fixture(scope="session")
def tokenizer() -> GroundedTokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def interpreter(tokenizer: GroundedTokenizer) -> GroundedInterpreter:
    info = GroundedInfo(name="tiny", licence="CC0-1.0", digest="0123456789abcdef")
    config = InterpreterConfig(max_tokens=12, max_tiles=4)
    return GroundedInterpreter(tiny_model(tokenizer), tokenizer, info, config=config)


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    """A disc on a noisy ground, 100 x 140."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(150, 256, (100, 140, 3)).astype(np.uint8)
    rows, columns = np.ogrid[:100, :140]
    pixels[(rows - 50) ** 2 + (columns - 60) ** 2 < 400] = (90, 30, 120)
    return pixels
