"""The sizes a PathSegmentor comes in, and the one place that puts its parts together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from xpath.errors import ConfigError
from xpath.segment.model.bert_encoder import BertTextEncoder
from xpath.segment.model.decoder import JointDecoder
from xpath.segment.model.image_encoder import ImageEncoder
from xpath.segment.model.pixel_decoder import MaskFeatures, PixelDecoder
from xpath.segment.model.segmentor import PIXEL_MEAN, PIXEL_STD, PathSegmentor
from xpath.segment.model.text_encoder import CausalTextEncoder
from xpath.segment.model.timm_image_encoder import TimmImageEncoder

__all__ = [
    "SegmentorConfig",
    "build_segmentor",
    "empty_segmentor",
    "large_config",
    "mini_config",
    "pathsegmentor_large",
    "pathsegmentor_mini",
    "pathsegmentor_tiny",
    "tiny_config",
]

FOCALNET = "focalnet"
TEXT_ENCODERS: dict[str, type[CausalTextEncoder | BertTextEncoder]] = {
    "causal": CausalTextEncoder,
    "bert": BertTextEncoder,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentorConfig:
    """Every number of the architecture, stored with the weights."""

    dim: int
    """Features of joint decoder and joint text space."""
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
    encoder: str = FOCALNET
    """Image encoder: ``focalnet``, which the next five numbers describe, or the name of a timm
    model (see ``TimmImageEncoder``), which needs none of them."""
    width: int = 0
    """Channels of FocalNet's finest map."""
    depths: tuple[int, ...] = ()
    """Blocks of its four stages."""
    focal_levels: int | tuple[int, ...] = 0
    """Context levels of each focal modulation; one number, or one per stage."""
    focal_windows: int | tuple[int, ...] = 3
    """Kernel of the first context level, pixels; one number, or one per stage."""
    mlp_ratio: float = 4.0
    """Width inside the image encoder's feed-forward layers, in channels of the block."""
    text_encoder: Literal["causal", "bert"] = "causal"
    """BiomedParse's causal transformer, or a BERT such as PubMedBERT."""
    pixel_dim: int | None = None
    """Features of the pixel decoder, a multiple of 32, if each of its maps has a projection to
    ``dim``; None if it has ``dim`` features and there are no projections, as published."""
    mask_dim: int | None = None
    """Features whose dot product is a mask; None for ``dim``."""
    fine: Literal["full", "separable"] = "full"
    """The 3 x 3 convolutions of the pixel decoder at stride 4: full, or depth-wise and then one
    over the features."""
    detail: int | None = None
    """Features of a map at stride 2, at which masks are drawn then; None for masks at stride 4."""
    pixel_mean: tuple[float, ...] = PIXEL_MEAN
    """Subtracted from R, G, B in 0..255."""
    pixel_std: tuple[float, ...] = PIXEL_STD
    """R, G, B are divided by these after that."""

    def __post_init__(self) -> None:
        for name in ("pixel_mean", "pixel_std"):
            _check_length(name, getattr(self, name), 3)
        if self.encoder == FOCALNET:
            self._check_focalnet()
        if (self.pixel_dim or self.dim) % 32:
            raise ConfigError(
                "the pixel decoder's features (pixel_dim, or dim) must be a multiple of 32 for its"
                f" group norms, got {self.pixel_dim or self.dim}"
            )
        if self.fine not in ("full", "separable"):
            raise ConfigError(f"fine must be full or separable, got {self.fine!r}")
        if self.detail is not None and (self.encoder == FOCALNET or self.detail % 32):
            raise ConfigError(
                "detail must be a multiple of 32, and needs an encoder of timm for its map at"
                f" stride 2; got {self.detail} and {self.encoder}"
            )
        if self.text_encoder not in TEXT_ENCODERS:
            raise ConfigError(
                f"text_encoder must be one of {sorted(TEXT_ENCODERS)}, got {self.text_encoder!r}"
            )

    def _check_focalnet(self) -> None:
        _check_length("depths", self.depths, 4)
        for name in ("focal_levels", "focal_windows"):
            if not isinstance(getattr(self, name), int):
                _check_length(name, getattr(self, name), 4)
        if not self.width or not self.focal_levels:
            raise ConfigError(
                f"focalnet needs width and focal_levels, got {self.width} and {self.focal_levels};"
                " for another image encoder set encoder"
            )


def _check_length(name: str, values: tuple[float, ...], length: int) -> None:
    if len(values) != length:
        raise ConfigError(f"{name} must have {length} numbers, got {values}")


def build_segmentor(
    config: SegmentorConfig, *, drop_path: float = 0.0, layer_scale: float = 1e-4
) -> PathSegmentor:
    """A PathSegmentor with fresh weights. See ``ImageEncoder`` for the two training settings."""
    image_encoder = _image_encoder(config, drop_path, layer_scale)
    return PathSegmentor(
        image_encoder=image_encoder,
        pixel_decoder=PixelDecoder(
            image_encoder.channels,
            dim=config.pixel_dim or config.dim,
            depth=config.pixel_depth,
            heads=config.heads,
            hidden=config.hidden,
            masks=MaskFeatures(
                config.mask_dim or config.dim, config.fine == "separable", config.detail
            ),
        ),
        text_encoder=TEXT_ENCODERS[config.text_encoder](
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
            pixel_dim=config.pixel_dim,
            mask_dim=config.mask_dim,
        ),
        pixel_mean=config.pixel_mean,
        pixel_std=config.pixel_std,
    )


def _image_encoder(
    config: SegmentorConfig, drop_path: float, layer_scale: float
) -> ImageEncoder | TimmImageEncoder:
    if config.encoder != FOCALNET:
        return TimmImageEncoder(
            config.encoder, drop_path=drop_path, detail=config.detail is not None
        )
    return ImageEncoder(
        width=config.width,
        depths=config.depths,
        focal_levels=config.focal_levels,
        focal_windows=config.focal_windows,
        mlp_ratio=config.mlp_ratio,
        drop_path=drop_path,
        layer_scale=layer_scale,
    )


def empty_segmentor(config: SegmentorConfig) -> PathSegmentor:
    """A PathSegmentor whose weights are still to be loaded, all of them.

    Nothing is drawn, which for the large model saves half a minute and leaves the random numbers
    of the caller alone.
    """
    with torch.device("meta"):
        model = build_segmentor(config)
    model = model.to_empty(device="cpu")
    model.set_normalisation(config.pixel_mean, config.pixel_std)
    return model


def pathsegmentor_large(*, text: Literal["pubmedbert", "clip"] = "pubmedbert") -> PathSegmentor:
    """The paper's model with fresh weights: 386 M parameters, or 340 M with ``text="clip"``.

    The paper's 0.45 B is the sum over BiomedParse's modules (450,663,417), where both text encoders
    and the point prompts are present whichever of them is used.
    """
    return build_segmentor(large_config(text=text))


def pathsegmentor_mini(vocabulary: int) -> PathSegmentor:
    """The model for CPUs with fresh weights, see ``mini_config``."""
    return build_segmentor(mini_config(vocabulary))


def pathsegmentor_tiny(vocabulary: int) -> PathSegmentor:
    """The model for tests with fresh weights, see ``tiny_config``."""
    return build_segmentor(tiny_config(vocabulary))


def large_config(*, text: Literal["pubmedbert", "clip"] = "pubmedbert") -> SegmentorConfig:
    """The paper's sizes (section 4.1): FocalNet-L and PubMedBERT.

    Args:
        text: "clip" for BiomedParse's causal text encoder, the one its published weights need.

    Raises:
        ConfigError: Another text encoder.
    """
    clip = SegmentorConfig(
        width=192,
        depths=(2, 2, 18, 2),
        focal_levels=4,
        dim=512,
        heads=8,
        hidden=2048,
        pixel_depth=6,
        queries=101,
        decoder_depth=9,
        vocabulary=49408,
        context=77,
        text_width=512,
        text_depth=12,
        text_heads=8,
    )
    if text == "clip":
        return clip
    if text == "pubmedbert":
        return replace(
            clip,
            text_encoder="bert",
            vocabulary=30522,
            context=256,
            text_width=768,
            text_heads=12,
        )
    raise ConfigError(f'text must be "pubmedbert" or "clip", got {text!r}')


def mini_config(vocabulary: int) -> SegmentorConfig:
    """Five and a half million parameters, of an encoder that can start from ImageNet weights."""
    return SegmentorConfig(
        encoder="tf_efficientnet_lite0",
        pixel_mean=(127.5,) * 3,
        pixel_std=(127.5,) * 3,
        dim=128,
        heads=4,
        hidden=512,
        pixel_depth=2,
        queries=16,
        decoder_depth=3,
        vocabulary=vocabulary,
        context=48,
        text_width=128,
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
