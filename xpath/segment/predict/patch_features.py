"""The segmentor's own image encoder as a patch encoder: features without any download.

Axes: B images, D features, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from xpath.segment.predict.predictor import SegmentPredictor

__all__ = ["SegmentorEncoder"]

PIXELS_ON_CPU = 2**17
"""Pixels encoded at once on a CPU: the maps of more leave its caches and take up to twice as
long."""


class SegmentorEncoder:
    """Strides 8 and 16 side by side, on the grid of stride 8.

    Fine enough for nuclei, wide enough for glands. Always float32, whatever precision the
    predictor has: features of a slide must not depend on how its masks were made.
    """

    def __init__(self, predictor: SegmentPredictor) -> None:
        self._predictor = predictor
        self.name = f"{predictor.info.name}-encoder"
        self.digest = predictor.info.digest
        encoder = predictor.model.image_encoder
        self._read = encoder.reader((8, 16))
        self.dim = encoder.channels[1] + encoder.channels[2]

    @torch.inference_mode()
    def maps(self, images: Tensor) -> Tensor:
        """Feature maps ``(B, D, H / 8, W / 8)`` of RGB images ``(B, 3, H, W)`` in 0..255."""
        size = images.shape[-2] * images.shape[-1]
        fits = max(1, PIXELS_ON_CPU // size)
        step = fits if self._predictor.device.type == "cpu" else max(1, len(images))
        return torch.cat([self._maps(some) for some in images.split(step)])

    def _maps(self, images: Tensor) -> Tensor:
        pixels = images.to(self._predictor.device).float()
        fine, coarse = self._read(self._predictor.model.normalise(pixels))
        coarse = functional.interpolate(coarse, fine.shape[-2:], mode="nearest")
        height, width = images.shape[-2] // 8, images.shape[-1] // 8
        return torch.cat((fine, coarse), dim=1)[:, :, :height, :width].cpu()
