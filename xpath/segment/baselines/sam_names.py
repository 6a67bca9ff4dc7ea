"""Segment Anything's published parameter names in those of transformers' ``SamModel``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["has_adapters", "is_original", "rename_sam"]

_RULES: tuple[tuple[str, str], ...] = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.blocks\.", ".layers."),
    (r"\.norm([1-4])\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.neck\.0\.", ".neck.conv1."),
    (r"\.neck\.1\.", ".neck.layer_norm1."),
    (r"\.neck\.2\.", ".neck.conv2."),
    (r"\.neck\.3\.", ".neck.layer_norm2."),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"(_mlps\.\d+|prediction_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(_mlps\.\d+|prediction_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(_mlps\.\d+|prediction_head)\.layers\.2\.", r"\1.proj_out."),
)
_ADAPTED: tuple[tuple[str, str], ...] = (
    (r"^(vision_encoder\.layers\.\d+)\.mlp\.", r"\1.mlp.mlp."),
    (r"^(vision_encoder\.layers\.\d+)\.Adapter\.", r"\1.mlp.adapter."),
)
"""Of SAM-Med2D, whose adapters wrap the MLPs here."""
_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_SHARED = (
    "prompt_encoder.shared_embedding.positional_embedding",
    "shared_image_embedding.positional_embedding",
)
"""One matrix there, two names here."""


def is_original(names: Mapping[str, object]) -> bool:
    """Whether a state dict has Segment Anything's own names."""
    return any(name.startswith("image_encoder.") for name in names)


def has_adapters(names: Mapping[str, object]) -> bool:
    """Whether a state dict with original names is one of SAM-Med2D, with adapters."""
    return any(".Adapter." in name for name in names)


def rename_sam(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of Segment Anything, MedSAM or SAM-Med2D under transformers' names."""
    rules = _RULES + (_ADAPTED if has_adapters(state) else ())
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == _POSITIONS:
            renamed |= dict.fromkeys(_SHARED, value)
            continue
        for pattern, ours in rules:
            name = re.sub(pattern, ours, name)
        renamed[name] = value
    return renamed
