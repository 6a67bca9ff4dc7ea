"""The sizes of a PathSegmentor, read off its tensors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from xpath.errors import CheckpointError
from xpath.segment.model.variants import SegmentorConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["config_from_state"]

BERT_CONTEXT = 256
"""Longest prompt for BERT: its position table has 512 rows whatever it is used for."""


def config_from_state(
    state: Mapping[str, Tensor], *, heads: int = 8, text_heads: int | None = None
) -> SegmentorConfig:
    """The sizes of a model whose tensors are given under our names.

    Args:
        state: From ``rename_biomedparse``, or a state dict of ours.
        heads: Attention heads of pixel and joint decoder, which no tensor tells.
        text_heads: Those of the text encoder; one per 64 features if not given.

    Raises:
        CheckpointError: A tensor that tells a size is missing.
    """
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    try:
        sizes = _image_sizes(shapes) | _decoder_sizes(shapes) | _text_sizes(shapes)
    except KeyError as error:
        raise CheckpointError(f"missing {error}, which tells a size of the model") from error
    text_heads = text_heads or max(1, sizes["text_width"] // 64)
    return SegmentorConfig(**sizes, heads=heads, text_heads=text_heads)


def _image_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    stages = [rf"image_encoder\.trunk\.layers\.{stage}\.blocks\." for stage in range(4)]
    focal = "image_encoder.trunk.layers.{}.blocks.0.modulation.focal_layers.0.0.weight"
    hidden, width, *_ = shapes["image_encoder.trunk.layers.0.blocks.0.mlp.fc1.weight"]
    return {
        "width": width,
        "mlp_ratio": hidden / width,
        "depths": tuple(_count(shapes, stage + r"(\d+)\.") for stage in stages),
        "focal_levels": tuple(
            _count(shapes, stage + r"0\.modulation\.focal_layers\.(\d+)\.") for stage in stages
        ),
        "focal_windows": tuple(shapes[focal.format(stage)][-1] for stage in range(4)),
    }


def _decoder_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    queries, dim = shapes["decoder.query_content.weight"]
    mask_dim = shapes["pixel_decoder.mask_features.weight"][0]
    projected = "decoder.projections.0.weight" in shapes
    pixel_dim = shapes["pixel_decoder.input_proj.weight"][0]
    return {
        "dim": dim,
        "pixel_dim": pixel_dim if projected else None,
        "mask_dim": mask_dim if mask_dim != dim else None,
        "queries": queries,
        "hidden": shapes["decoder.layers.0.ffn.linear1.weight"][0],
        "pixel_depth": _count(shapes, r"pixel_decoder\.layers\.(\d+)\."),
        "decoder_depth": _count(shapes, r"decoder\.layers\.(\d+)\."),
    }


def _text_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    words = shapes.get("text_encoder.bert.embeddings.word_embeddings.weight")
    if words:
        return {
            "text_encoder": "bert",
            "vocabulary": words[0],
            "text_width": words[1],
            "context": BERT_CONTEXT,
            "text_depth": _count(shapes, r"text_encoder\.bert\.encoder\.layer\.(\d+)\."),
        }
    vocabulary, width = shapes["text_encoder.token_embedding.weight"]
    return {
        "vocabulary": vocabulary,
        "text_width": width,
        "context": shapes["text_encoder.positional_embedding"][0],
        "text_depth": _count(shapes, r"text_encoder\.blocks\.(\d+)\."),
    }


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    """How many different numbers stand where the pattern has its group."""
    return len({found[1] for name in shapes if (found := re.match(pattern, name))})
