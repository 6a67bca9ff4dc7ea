"""The sizes a PathSegmentor comes in, and the one place that puts its parts together."""

from __future__ import annotations

from dataclasses import dataclass

from xpath.segment.model.decoder import JointDecoder
from xpath.segment.model.image_encoder import ImageEncoder
from xpath.segment.model.pixel_decoder import PixelDecoder
from xpath.segment.model.segmentor import PathSegmentor
from xpath.segment.model.text_encoder import CausalTextEncoder

__all__ = ["SegmentorConfig", "build_segmentor", "mini_config", "small_config", "tiny_config"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentorConfig:
    """Every number of the architecture; travels with the weights."""

    width: int
    """Channels of the image encoder's finest map."""
    depths: tuple[int, int, int, int]
    """Blocks of the image encoder's four stages."""
    focal_levels: int
    """Context levels of each focal modulation."""
    dim: int
    """Features of pixel decoder, joint decoder and joint text space; a multiple of 32."""
    heads: int
    """Attention heads of pixel and joint decoder."""
    hidden: int
    """Width inside their feed-forward layers."""
    pixel_depth: int
    """Transformer layers on the coarsest map."""
    queries: int
    """Learnable queries."""
    decoder_depth: int
    """Layers of the joint decoder."""
    vocabulary: int
    """Token ids of the text encoder."""
    context: int
    """Longest prompt in tokens."""
    text_width: int
    """Features inside the text encoder."""
    text_depth: int
    """Layers of the text encoder."""
    text_heads: int
    """Attention heads of the text encoder."""


def build_segmentor(
    config: SegmentorConfig, *, drop_path: float = 0.0, layer_scale: float = 1e-4
) -> PathSegmentor:
    """A PathSegmentor with fresh weights; see ``ImageEncoder`` for the two training settings."""
    image_encoder = ImageEncoder(
        width=config.width,
        depths=config.depths,
        focal_levels=config.focal_levels,
        drop_path=drop_path,
        layer_scale=layer_scale,
    )
    return PathSegmentor(
        image_encoder=image_encoder,
        pixel_decoder=PixelDecoder(
            image_encoder.channels,
            dim=config.dim,
            depth=config.pixel_depth,
            heads=config.heads,
            hidden=config.hidden,
        ),
        text_encoder=CausalTextEncoder(
            vocabulary=config.vocabulary,
            context=config.context,
            width=config.text_width,
            depth=config.text_depth,
            heads=config.text_heads,
            dim=config.dim,
        ),
        decoder=JointDecoder(
            dim=config.dim,
            queries=config.queries,
            depth=config.decoder_depth,
            heads=config.heads,
            hidden=config.hidden,
        ),
    )


def mini_config(vocabulary: int) -> SegmentorConfig:
    """Sixteen million parameters: a third of a second for 512 px on two CPU cores."""
    return SegmentorConfig(
        width=64,
        depths=(2, 2, 6, 2),
        focal_levels=3,
        dim=128,
        heads=4,
        hidden=512,
        pixel_depth=3,
        queries=16,
        decoder_depth=6,
        vocabulary=vocabulary,
        context=48,
        text_width=128,
        text_depth=3,
        text_heads=4,
    )


def small_config(vocabulary: int) -> SegmentorConfig:
    """About three million parameters: two CPU cores train it in minutes."""
    return SegmentorConfig(
        width=32,
        depths=(2, 2, 4, 1),
        focal_levels=3,
        dim=96,
        heads=4,
        hidden=256,
        pixel_depth=1,
        queries=16,
        decoder_depth=3,
        vocabulary=vocabulary,
        context=32,
        text_width=96,
        text_depth=2,
        text_heads=4,
    )


def tiny_config(vocabulary: int) -> SegmentorConfig:
    """The smallest that has every part, for tests."""
    return SegmentorConfig(
        width=8,
        depths=(1, 1, 1, 1),
        focal_levels=2,
        dim=32,
        heads=2,
        hidden=32,
        pixel_depth=1,
        queries=4,
        decoder_depth=3,
        vocabulary=vocabulary,
        context=32,
        text_width=16,
        text_depth=1,
        text_heads=2,
    )
