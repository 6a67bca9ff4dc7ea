"""Any convolutional network of timm as image encoder: the way to start from pretrained weights.

Axes: B images, C channels, H W pixels.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.layers.norm import LayerNorm2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from xpath.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

__all__ = ["TimmImageEncoder"]

STRIDES = (4, 8, 16, 32)
DETAIL = 2
"""Stride of one more map, for masks of small objects."""
FOLDED = 1e-4
"""Largest difference that folding batch norms may make, relative to the largest value of a map."""


class TimmImageEncoder(nn.Module):
    """Feature maps at strides 4, 8, 16 and 32 of a timm model, with a norm on each.

    Its batch norms never look at the batch: they normalise with the running statistics, in training
    too, and only their scales and shifts are learnt. So an image gets the same maps whatever it is
    batched with, and small batches do no harm. ``measure`` sets the statistics for new images.

    Args:
        name: Of the timm model.
        drop_path: Largest stochastic depth rate, reached in the last block.
        detail: Give the map at stride 2 as well.

    Raises:
        ConfigError: timm has no such model, or it has no maps at these strides.
    """

    def __init__(self, name: str, *, drop_path: float = 0.0, detail: bool = False) -> None:
        super().__init__()
        strides = (DETAIL, *STRIDES) if detail else STRIDES
        try:
            trunk = timm.create_model(name, features_only=True, drop_path_rate=drop_path)
            stages: Any = trunk.feature_info
            numbers = [stages.reduction().index(stride) for stride in strides]
        except (RuntimeError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{name!r} cannot be an image encoder ({error}); wanted a timm model with maps at"
                f" strides {strides}, such as tf_efficientnet_lite0; timm.list_models() names all"
            ) from error
        self.trunk = trunk.to(memory_format=torch.channels_last)
        self._stages, self._finest = numbers[-len(STRIDES) :], numbers[0]
        self.channels = tuple(stages.channels()[stage] for stage in numbers)
        coarser = self.channels[-len(STRIDES) :]
        self.norms = nn.ModuleList(LayerNorm2d(channels, eps=1e-5) for channels in coarser)
        self.detail_norm = LayerNorm2d(self.channels[0], eps=1e-5) if detail else None

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps of a normalised image ``(B, 3, H, W)``, finest first. H, W are multiples of 32."""
        image = image.contiguous(memory_format=torch.channels_last)
        # On CPUs, depth-wise convolutions are slower in bfloat16 than in float32.
        with torch.autocast("cpu", enabled=False):
            maps = self.trunk(image)
        out = [norm(maps[stage]) for norm, stage in zip(self.norms, self._stages, strict=True)]
        return out if self.detail_norm is None else [self.detail_norm(maps[self._finest]), *out]

    def reader(self, strides: Sequence[int]) -> Callable[[Tensor], list[Tensor]]:
        """A function that gives the maps at some strides only, for inference.

        It works with a copy of the weights as they are now, in which batch norms are part of the
        convolutions before them (equal but for rounding) and, of an EfficientNet, the blocks after
        the last map are left out. Half the time on a CPU.

        Args:
            strides: Of 4, 8, 16 and 32, finest first.
        """
        chosen = [(self.norms[STRIDES.index(s)], self._stages[STRIDES.index(s)]) for s in strides]
        trunk = _for_inference(self.trunk, last=chosen[-1][1])

        def read(image: Tensor) -> list[Tensor]:
            maps = trunk(image.contiguous(memory_format=torch.channels_last))
            return [norm(maps[stage]) for norm, stage in chosen]

        return read

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


def _for_inference(trunk: Any, last: int) -> nn.Module:
    """A copy without what comes after a map, batch norms folded, if that gives the same map."""
    short: Any = copy.deepcopy(trunk).eval().requires_grad_(False)
    container, _, number = trunk.feature_info.get_dicts(["module"])[last]["module"].rpartition(".")
    if container == "blocks":
        short.blocks = short.blocks[: int(number) + 1]
    folded: nn.Module = copy.deepcopy(short)
    _fold(folded)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        image = torch.randn(1, 3, 64, 64).to(next(short.parameters()))
        plain, other = short(image)[last], folded(image)[last]
    scale = float(plain.abs().max())
    same = plain.shape == other.shape and bool(((plain - other).abs() <= FOLDED * scale).all())
    return (folded if same else short).to(memory_format=torch.channels_last)


def _fold(module: nn.Module) -> None:
    """Makes every batch norm that follows a convolution of the same module part of it."""
    before: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before is not None:
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, getattr(child, "act", nn.Identity()))  # timm's act by themselves
        before = (name, child) if isinstance(child, nn.Conv2d) else None
        _fold(child)


def _batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
