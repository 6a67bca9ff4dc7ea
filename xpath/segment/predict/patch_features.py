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


class SegmentorEncoder:
    """Strides 8 and 16 side by side, on the grid of stride 8.

    Fine enough for nuclei, wide enough for glands. Always float32, whatever precision the
    predictor has: features of a slide must not depend on how its masks were made.
    """

    def __init__(self, predictor: SegmentPredictor) -> None:
        self._predictor = predictor
        self.name = f"{predictor.info.name}-encoder"
        self.digest = predictor.info.digest
        channels = predictor.model.image_encoder.channels
        self.dim = channels[1] + channels[2]

    @torch.inference_mode()
    def maps(self, images: Tensor) -> Tensor:
        """Feature maps ``(B, D, H / 8, W / 8)`` of RGB images ``(B, 3, H, W)`` in 0..255."""
        model = self._predictor.model
        pixels = images.to(self._predictor.device).float()
        _, fine, coarse, _ = model.image_encoder(model.normalise(pixels))
        coarse = functional.interpolate(coarse, fine.shape[-2:], mode="nearest")
        height, width = images.shape[-2] // 8, images.shape[-1] // 8
        return torch.cat((fine, coarse), dim=1)[:, :, :height, :width].cpu()
