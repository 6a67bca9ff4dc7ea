"""The image encoder: FocalNet (Yang et al. 2022) with a norm on each of its four outputs.

Axes: B images, C channels, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from timm.layers.norm import LayerNorm2d
from timm.models.focalnet import FocalNet
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

__all__ = ["ImageEncoder"]

STRIDES = (4, 8, 16, 32)


class ImageEncoder(nn.Module):
    """Feature maps at strides 4, 8, 16 and 32, with twice the channels from one to the next.

    Args:
        width: Channels of the first map.
        depths: Blocks per stage.
        focal_levels: Depth-wise context levels per block, one number or one per stage.
        focal_windows: Kernel of the first level, one number or one per stage; each further level
            is two pixels wider.
        mlp_ratio: Width inside each block's feed-forward, in channels of the block.
        drop_path: Largest stochastic depth rate, reached in the last block.
        layer_scale: Initial weight of each block beside its shortcut; 1e-4 suits long training
            and deep encoders, nearly 1 a short training from scratch.
    """

    def __init__(
        self,
        *,
        width: int,
        depths: Sequence[int] = (2, 2, 18, 2),
        focal_levels: int | Sequence[int] = 4,
        focal_windows: int | Sequence[int] = 3,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        layer_scale: float = 1e-4,
    ) -> None:
        super().__init__()
        self.channels = tuple(width * 2**stage for stage in range(4))
        self.trunk = FocalNet(
            num_classes=0,
            embed_dim=width,
            depths=tuple(depths),
            mlp_ratio=mlp_ratio,
            focal_levels=_per_stage(focal_levels),
            focal_windows=_per_stage(focal_windows),
            use_overlap_down=True,
            use_post_norm=True,
            # The original divides the summed context by its number of levels; timm's default not.
            normalize_modulator=True,
            layerscale_value=layer_scale,
            drop_path_rate=drop_path,
        )
        self.trunk.norm = nn.Identity()  # replaced by the norms below, one per output
        self.norms = nn.ModuleList(LayerNorm2d(channels, eps=1e-5) for channels in self.channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Maps of a normalised image ``(B, 3, H, W)``, finest first. H, W are multiples of 32."""
        maps = self.trunk.forward_intermediates(image, intermediates_only=True)
        return [norm(x) for norm, x in zip(self.norms, maps, strict=True)]

    def reader(self, strides: Sequence[int]) -> Callable[[Tensor], list[Tensor]]:
        """A function that gives the maps at some strides only; later stages are not computed.

        Args:
            strides: Of 4, 8, 16 and 32, finest first.
        """
        stages = [STRIDES.index(stride) for stride in strides]

        def read(image: Tensor) -> list[Tensor]:
            maps = self.trunk.forward_intermediates(
                image, indices=stages, stop_early=True, intermediates_only=True
            )
            return [self.norms[stage](x) for stage, x in zip(stages, maps, strict=True)]

        return read


def _per_stage(number: int | Sequence[int]) -> tuple[int, ...]:
    return (number,) * 4 if isinstance(number, int) else tuple(number)
