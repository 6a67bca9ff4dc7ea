"""PathSegmentor: an image and a prompt in, a mask out.

Axes: B images, P prompts, Q queries, T text tokens, D features, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from xpath.segment.model.decoder import Heads, ImageMemory, JointDecoder, mask_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from xpath.segment.model.image_encoder import ImageEncoder
    from xpath.segment.model.pixel_decoder import PixelDecoder
    from xpath.segment.model.text_encoder import TextEncoder, TextFeatures
    from xpath.segment.model.timm_image_encoder import TimmImageEncoder

__all__ = ["PIXEL_MEAN", "PIXEL_STD", "Decoded", "PathSegmentor", "padded", "similarity"]

STRIDE = 32
PIXEL_MEAN = (123.675, 116.280, 103.530)
"""Mean of R, G, B in 0..255 over ImageNet."""
PIXEL_STD = (58.395, 57.120, 57.375)
"""Standard deviation of R, G, B in 0..255 over ImageNet."""


class Decoded(NamedTuple):
    """The answer to each prompt on each image."""

    logits: Tensor
    """``(B, P, H / 4, W / 4)`` of the padded image, or at stride 2; above 0 lies the object."""
    query: Tensor
    """``(B, P)``, the query that answered."""
    similarity: Tensor
    """``(B, P, Q)`` cosine of every query's class embedding with the prompt."""


def similarity(classes: Tensor, sentence: Tensor) -> Tensor:
    """Cosine ``(B, P, Q)`` of class embeddings ``(B, P, Q, D)`` and sentences ``(..., P, D)``."""
    classes = classes / (classes.norm(dim=-1, keepdim=True) + 1e-7)
    sentence = sentence / (sentence.norm(dim=-1, keepdim=True) + 1e-7)
    return (classes * sentence[..., None, :]).sum(dim=-1)


def padded(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image once it is padded to whole positions of the coarsest map."""
    height, width = size
    return height + -height % STRIDE, width + -width % STRIDE


class PathSegmentor(nn.Module):
    """Text-prompted segmentation (Chen et al. 2025, section 4.1, after Zhao et al. 2024).

    The module is pure: tensors in, tensors out, gradients on. For numpy images, thresholds and
    batching use ``xpath.segment.predict.predictor.SegmentPredictor``.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        image_encoder: ImageEncoder | TimmImageEncoder,
        pixel_decoder: PixelDecoder,
        text_encoder: TextEncoder,
        decoder: JointDecoder,
        pixel_mean: Sequence[float] = PIXEL_MEAN,
        pixel_std: Sequence[float] = PIXEL_STD,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.pixel_decoder = pixel_decoder
        self.text_encoder = text_encoder
        self.decoder = decoder
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("pixel_mean", torch.empty(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.empty(3, 1, 1), persistent=False)
        self.set_normalisation(pixel_mean, pixel_std)

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Means subtracted from R, G, B in 0..255, and deviations they are then divided by."""
        self.pixel_mean.copy_(torch.tensor(mean, dtype=torch.float32).view(3, 1, 1))
        self.pixel_std.copy_(torch.tensor(std, dtype=torch.float32).view(3, 1, 1))

    def normalise(self, image: Tensor) -> Tensor:
        """RGB ``(B, 3, H, W)`` in 0..255 to what the encoder expects, padded right and below."""
        size = (image.shape[-2], image.shape[-1])
        below, right = (wide - own for wide, own in zip(padded(size), size, strict=True))
        image = (image.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        return functional.pad(image, (0, right, 0, below))

    def encode_image(self, image: Tensor) -> ImageMemory:
        """All that prompts share, of RGB images ``(B, 3, H, W)`` in 0..255."""
        maps = self.image_encoder(self.normalise(image))
        return self.decoder.prepare(self.pixel_decoder(maps))

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Prompts of token ids ``(P, T)``, whose ``mask`` is True on real tokens."""
        text: TextFeatures = self.text_encoder(ids, mask)
        return text

    def decode(self, memory: ImageMemory, text: TextFeatures, *, coupled: bool = False) -> Decoded:
        """One mask per image and prompt: that of the query most similar to the prompt.

        Args:
            memory: Of B images.
            text: Of P prompts, the same on every image or ``(B, P, ...)``.
            coupled: Decode all prompts jointly, as the published code does; for comparison only,
                see ``JointDecoder``.
        """
        heads: Heads = self.decoder(memory, text, coupled=coupled)[-1]
        scores = similarity(heads.classes.float(), text.sentence.float())
        query = scores.argmax(dim=-1)
        chosen = heads.masks.take_along_dim(query[..., None, None], dim=2)  # (B, P, 1, D)
        logits = mask_logits(chosen, memory.mask_features)[:, :, 0]
        return Decoded(logits, query, scores)

    def forward(self, image: Tensor, ids: Tensor, mask: Tensor) -> Decoded:
        """Masks of images ``(B, 3, H, W)`` for the same prompts ``(P, T)`` on each."""
        return self.decode(self.encode_image(image), self.encode_text(ids, mask))
