"""Sizes of the grounded model, and what transformers is to build from them.

The defaults are those of UniBiomed: InternViT-300M and Qwen2.5-0.5B as InternVL2.5-1B joins them,
and SAM2 with hiera-large.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import InternVLConfig, Sam2Config

__all__ = [
    "GroundedConfig",
    "GroundingSizes",
    "LanguageSizes",
    "VisionSizes",
    "internvl_config",
    "sam2_config",
]

NORM_EPS = 1e-6
ROPE_THETA = 1e6
SHUFFLE = 0.5
"""Two by two patches of a tile become one image token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionSizes:
    """The vision transformer that reads tiles."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    hidden: int = 4096
    """Width inside the MLPs."""
    tile: int = 448
    """Side of a tile, pixels."""
    patch: int = 14
    """Side of a patch, pixels."""

    @property
    def tokens(self) -> int:
        """Image tokens per tile."""
        return int(self.tile // self.patch * SHUFFLE) ** 2


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageSizes:
    """The language model."""

    width: int = 896
    layers: int = 24
    heads: int = 14
    kv_heads: int = 2
    """Heads of keys and values."""
    hidden: int = 4864
    """Width inside the MLPs."""
    vocabulary: int = 151679
    """Token ids, those the model adds included."""
    positions: int = 32768
    """Longest sequence, tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundingSizes:
    """SAM2, which draws the masks."""

    image: int = 1024
    """Side to which images are resized, pixels."""
    width: int = 256
    """Features of its maps, prompts and decoder."""
    embed: int = 144
    """Width of the first stage of hiera; every further stage doubles it."""
    heads: int = 2
    """Heads of the first stage; every further stage doubles them."""
    blocks: tuple[int, int, int, int] = (2, 6, 36, 4)
    windows: tuple[int, int, int, int] = (8, 4, 16, 8)
    """Side of an attention window in each stage."""
    global_blocks: tuple[int, ...] = (23, 33, 43)
    """Blocks that attend to the whole image."""
    background: tuple[int, int] = (7, 7)
    """Size of the position table that is stretched over the image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundedConfig:
    """All numbers the grounded model is built from."""

    vision: VisionSizes = field(default_factory=VisionSizes)
    language: LanguageSizes = field(default_factory=LanguageSizes)
    grounding: GroundingSizes = field(default_factory=GroundingSizes)


def internvl_config(config: GroundedConfig, *, image_token: int) -> InternVLConfig:
    """Configuration transformers builds the language branch from.

    Args:
        config: Sizes.
        image_token: Id of ``<IMG_CONTEXT>`` in the tokenizer of the weights.
    """
    from transformers import InternVLConfig, InternVLVisionConfig, Qwen2Config

    vision, language = config.vision, config.language
    return InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=vision.width,
            num_hidden_layers=vision.layers,
            num_attention_heads=vision.heads,
            intermediate_size=vision.hidden,
            attention_bias=True,
            use_qk_norm=False,
            norm_type="layer_norm",
            layer_norm_eps=NORM_EPS,
            image_size=vision.tile,
            patch_size=vision.patch,
        ),
        text_config=Qwen2Config(
            vocab_size=language.vocabulary,
            hidden_size=language.width,
            intermediate_size=language.hidden,
            num_hidden_layers=language.layers,
            num_attention_heads=language.heads,
            num_key_value_heads=language.kv_heads,
            max_position_embeddings=language.positions,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
            rms_norm_eps=NORM_EPS,
            tie_word_embeddings=False,
        ),
        image_token_id=image_token,
        downsample_ratio=SHUFFLE,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )


def sam2_config(sizes: GroundingSizes) -> Sam2Config:
    """Configuration transformers builds the grounding branch from."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2MaskDecoderConfig,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    widths = [sizes.embed * 2**stage for stage in range(len(sizes.blocks))]
    return Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=Sam2HieraDetConfig(
                hidden_size=sizes.embed,
                num_attention_heads=sizes.heads,
                image_size=[sizes.image, sizes.image],
                blocks_per_stage=list(sizes.blocks),
                embed_dim_per_stage=widths,
                num_attention_heads_per_stage=[
                    sizes.heads * 2**stage for stage in range(len(sizes.blocks))
                ],
                window_size_per_stage=list(sizes.windows),
                global_attention_blocks=list(sizes.global_blocks),
                window_positional_embedding_background_size=list(sizes.background),
            ),
            backbone_channel_list=widths[::-1],
            backbone_feature_sizes=[[sizes.image // stride] * 2 for stride in (4, 8, 16)],
            fpn_hidden_size=sizes.width,
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(
            hidden_size=sizes.width, image_size=sizes.image
        ),
        mask_decoder_config=Sam2MaskDecoderConfig(hidden_size=sizes.width),
    )
