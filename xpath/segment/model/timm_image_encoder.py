"""Any convolutional network of timm as image encoder: the way to start from pretrained weights.

Axes: B images, C channels, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.layers.norm import LayerNorm2d
from torch import nn

from xpath.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

__all__ = ["TimmImageEncoder"]

STRIDES = (4, 8, 16, 32)


class TimmImageEncoder(nn.Module):
    """Feature maps at strides 4, 8, 16 and 32 of a timm model, with a norm on each.

    Its batch norms never look at the batch: they normalise with the running statistics, in training
    too, and only their scales and shifts are learnt. So an image gets the same maps whatever it is
    batched with, and small batches do no harm. ``measure`` sets the statistics for new images.

    Args:
        name: Of the timm model.
        drop_path: Largest stochastic depth rate, reached in the last block.

    Raises:
        ConfigError: timm has no such model, or it has no maps at these strides.
    """

    def __init__(self, name: str, *, drop_path: float = 0.0) -> None:
        super().__init__()
        try:
            trunk = timm.create_model(name, features_only=True, drop_path_rate=drop_path)
            stages: Any = trunk.feature_info
            self._stages = [stages.reduction().index(stride) for stride in STRIDES]
        except (RuntimeError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{name!r} cannot be an image encoder ({error}); wanted a timm model with maps at"
                f" strides {STRIDES}, such as tf_efficientnet_lite0; timm.list_models() names all"
            ) from error
        self.trunk = trunk.to(memory_format=torch.channels_last)
        self.channels = tuple(stages.channels()[stage] for stage in self._stages)
        self.norms = nn.ModuleList(LayerNorm2d(channels, eps=1e-5) for channels in self.channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps of a normalised image ``(B, 3, H, W)``, finest first. H, W are multiples of 32."""
        image = image.contiguous(memory_format=torch.channels_last)
        # On CPUs, depth-wise convolutions are slower in bfloat16 than in float32.
        with torch.autocast("cpu", enabled=False):
            maps = self.trunk(image)
        return [norm(maps[stage]) for norm, stage in zip(self.norms, self._stages, strict=True)]

    def train(self, mode: bool = True) -> TimmImageEncoder:  # noqa: FBT001, FBT002 - torch's signature
        """Training mode, for all but the batch norms."""
        super().train(mode)
        for norm in _batch_norms(self):
            norm.eval()
        return self

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Sets the statistics of the batch norms to those of new images (AdaBN, Li et al. 2017).

        Args:
            batches: Normalised images ``(B, 3, H, W)``; each batch counts as much as any other.
        """
        norms = _batch_norms(self)
        before = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        for batch in batches:
            self.trunk(batch.contiguous(memory_format=torch.channels_last))
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.eval()


def _batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
