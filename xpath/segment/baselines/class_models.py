"""Models with one output per label of a data set: DeepLabV3+, U-Net and SAM-Path.

Axes: B images, K labels, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import nn

from xpath.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

__all__ = [
    "CLASS_MODELS",
    "STRIDE",
    "ClassConfig",
    "ClassModel",
    "ClassOutput",
    "LossWeights",
    "build_class_model",
]

STRIDE = 32
"""Sides of what goes in are multiples of this."""


class ClassOutput(NamedTuple):
    """Answer of a model to a batch of images."""

    logits: Tensor
    """``(B, K, H, W)``."""
    iou: Tensor | None = None
    """``(B, K)`` the model's own guess of the IoU of each mask, where it makes one."""


class LossWeights(NamedTuple):
    """How a model is trained."""

    pixel: float = 1.0
    """Of the cross-entropy of pixels."""
    dice: float = 1.0
    iou: float = 0.0
    """Of the squared error of the guessed IoU."""
    focus: float = 0.0
    """Exponent of the focal loss (Lin et al. 2017); 0 for plain cross-entropy."""


class ClassModel(Protocol):
    """A module from RGB images ``(B, 3, H, W)`` in 0..255, H and W multiples of ``STRIDE``."""

    loss: LossWeights

    def __call__(self, images: Tensor) -> ClassOutput:
        """Logits of every label."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassConfig:
    """Settings a model is built from."""

    model: str
    """One of ``CLASS_MODELS``."""
    source: str
    """The data set it was trained on."""
    labels: tuple[str, ...]
    """Label id of each output."""
    mpp_range: tuple[float, float] | None = None
    """Finest and coarsest resolution of training, microns per pixel; None for any."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Sizes, as the model's builder takes them."""


class ConvolutionalModel(nn.Module):
    """A network of segmentation-models-pytorch, with ImageNet's normalisation in front.

    Args:
        network: From images to logits of the same height and width.
    """

    loss = LossWeights()
    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        mean, deviation = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
        for name, values in {"mean": mean, "deviation": deviation}.items():
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> ClassOutput:
        """Logits ``(B, K, H, W)`` of images ``(B, 3, H, W)`` in 0..255."""
        return ClassOutput(self.network((images.float() - self.mean) / self.deviation))


def deeplab(classes: int, *, encoder: str = "resnet101", weights: str | None = None) -> nn.Module:
    """DeepLabV3+ (Chen et al. 2018) with the paper's backbone, at an output stride of 16.

    Args:
        classes: Outputs.
        encoder: A backbone of segmentation-models-pytorch, or ``tu-`` and one of timm's.
        weights: Pretrained weights of the backbone by the library's name; None for random ones.
    """
    networks = _networks()
    return ConvolutionalModel(
        networks.DeepLabV3Plus(
            encoder, encoder_weights=weights, encoder_output_stride=16, classes=classes
        )
    )


def unet(classes: int, *, encoder: str = "resnet34", weights: str | None = None) -> nn.Module:
    """U-Net (Ronneberger et al. 2015) on a backbone. Arguments are those of ``deeplab``."""
    networks = _networks()
    return ConvolutionalModel(networks.Unet(encoder, encoder_weights=weights, classes=classes))


def _sam_path(classes: int, **options: Any) -> nn.Module:
    from xpath.segment.baselines.sam_path import empty_sam_path

    return empty_sam_path(classes, **options)


CLASS_MODELS: dict[str, Callable[..., nn.Module]] = {
    "deeplabv3plus": deeplab,
    "unet": unet,
    "sam-path": _sam_path,
}
"""Name of a model to what builds it from the number of labels and its options."""


def build_class_model(config: ClassConfig, *, weights: str | None = None) -> nn.Module:
    """A module with random weights, or with a pretrained backbone.

    Args:
        config: What to build.
        weights: Of the backbone, by the library's name.

    Raises:
        ConfigError: No such model, or options it does not have.
    """
    if config.model not in CLASS_MODELS:
        raise ConfigError(f"model must be one of {list(CLASS_MODELS)}, got {config.model!r}")
    pretrained = {"weights": weights} if weights else {}
    try:
        return CLASS_MODELS[config.model](len(config.labels), **config.options, **pretrained)
    except (TypeError, KeyError, ValueError) as error:
        raise ConfigError(
            f"{config.model} cannot be built with {dict(config.options) | pretrained}: {error}"
        ) from error


def _networks() -> Any:
    """The library of networks.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise ConfigError(
            "DeepLabV3+ and U-Net need segmentation-models-pytorch:"
            " pip install 'xpath-pathology[baselines]'"
        ) from error
    return segmentation_models_pytorch
