"""The pixel decoder: a transformer on the coarsest map, then a feature pyramid.

Axes: B images, C channels, D features, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import nn
from torch.nn import functional

from xpath.segment.model.attention import Attention, FeedForward, sine_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["MaskFeatures", "PixelDecoder", "PixelFeatures"]


class PixelFeatures(NamedTuple):
    """Features of an image for the joint decoder."""

    mask_features: Tensor
    """``(B, D, H / 4, W / 4)``, or at stride 2; their dot product with an embedding is a mask."""
    scales: tuple[Tensor, Tensor, Tensor]
    """``(B, D, h, w)`` at strides 32, 16 and 8, in this order."""


class MaskFeatures(NamedTuple):
    """How the features are made whose dot product is a mask."""

    dim: int
    """Their number."""
    separable: bool = False
    """Whether the 3 x 3 convolutions at stride 4 and finer are depth-wise, each followed by one
    over the features of a position: a tenth of the products."""
    detail: int | None = None
    """Features of one more map, at stride 2, from which they are made then."""


class PixelDecoder(nn.Module):
    """Maps of the image encoder to features of one width.

    Args:
        channels: Channels of the maps at strides 4 to 32, finest first; with ``detail`` that at
            stride 2 goes before them.
        dim: Features out; a multiple of 32 (group norm).
        depth: Transformer layers on the coarsest map.
        heads: Attention heads.
        hidden: Width inside the feed-forward layers.
        masks: How the mask features are made; ``dim`` of them at stride 4 if not given.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        dim: int,
        depth: int,
        heads: int,
        hidden: int,
        masks: MaskFeatures | None = None,
    ) -> None:
        super().__init__()
        masks = masks or MaskFeatures(dim)
        self.input_proj = nn.Conv2d(channels[-1], dim, 1)
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, hidden) for _ in range(depth))
        self.coarsest = NormedConv(dim, dim, kernel=3, activate=True)
        finer = list(channels[-2:-5:-1])  # strides 16, 8, 4
        self.laterals = nn.ModuleList(NormedConv(c, dim, kernel=1, activate=False) for c in finer)
        self.outputs = nn.ModuleList(
            NormedConv(dim, dim, kernel=3, activate=True, separable=masks.separable and stride == 4)
            for stride in (16, 8, 4)
        )
        self.detail = DetailBranch(channels[0], dim, masks.detail) if masks.detail else None
        self.mask_features = _convolution(
            masks.detail or dim, masks.dim, 3, separable=masks.separable, bias=True
        )

    def forward(self, maps: Sequence[Tensor]) -> PixelFeatures:
        """Features of the maps, finest first."""
        y = self.coarsest(self._mix(self.input_proj(maps[-1])))
        pyramid = [y]
        finer_maps = maps[-2:-5:-1]
        for lateral, output, finer in zip(self.laterals, self.outputs, finer_maps, strict=True):
            y = output(lateral(finer) + functional.interpolate(y, finer.shape[-2:], mode="nearest"))
            pyramid.append(y)
        if self.detail is not None:
            y = self.detail(maps[0], y)
        return PixelFeatures(self.mask_features(y), (pyramid[0], pyramid[1], pyramid[2]))

    def _mix(self, x: Tensor) -> Tensor:
        """Lets every position of the coarsest map see every other."""
        height, width = x.shape[-2:]
        position = sine_positions(height, width, x.shape[1], x.device).to(x.dtype)
        position = position.flatten(2).transpose(1, 2)
        tokens = x.flatten(2).transpose(1, 2)  # (B, H W, D)
        for layer in self.layers:
            tokens = layer(tokens, position)
        mixed: Tensor = tokens.transpose(1, 2).unflatten(2, (height, width))
        return mixed


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a norm behind (DETR's post-norm encoder)."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = Attention(dim, heads)
        self.ffn = FeedForward(dim, hidden)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """``x`` is ``(B, S, D)``. ``position`` is added to queries and keys, not to values."""
        source = self.attention.project(x + position, x)
        x = self.norm1(x + self.attention(x + position, source))
        out: Tensor = self.norm2(x + self.ffn(x))
        return out


class NormedConv(nn.Module):
    """Convolution without bias, group norm of 32 groups, and a ReLU if asked."""

    def __init__(
        self, channels: int, dim: int, *, kernel: int, activate: bool, separable: bool = False
    ) -> None:
        super().__init__()
        self.conv = _convolution(channels, dim, kernel, separable=separable, bias=False)
        self.norm = nn.GroupNorm(32, dim)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, D, H, W)``."""
        x = self.norm(self.conv(x))
        return functional.relu(x) if self.activate else x


class DetailBranch(nn.Module):
    """The step of the pyramid from stride 4 to stride 2, with fewer features.

    Small nuclei are a few positions wide at stride 4, where their outline cannot be drawn.

    Args:
        channels: Channels of the encoder's map at stride 2.
        dim: Features at stride 4.
        detail: Features out; a multiple of 32.
    """

    def __init__(self, channels: int, dim: int, detail: int) -> None:
        super().__init__()
        self.dim = detail
        self.lateral = NormedConv(channels, detail, kernel=1, activate=False)
        self.narrow = NormedConv(dim, detail, kernel=1, activate=False)
        self.output = NormedConv(detail, detail, kernel=3, activate=True, separable=True)

    def forward(self, finer: Tensor, coarser: Tensor) -> Tensor:
        """``(B, C, H / 2, W / 2)`` and ``(B, D, H / 4, W / 4)`` to features at stride 2."""
        above = functional.interpolate(self.narrow(coarser), finer.shape[-2:], mode="bilinear")
        out: Tensor = self.output(self.lateral(finer) + above)
        return out


def _convolution(channels: int, dim: int, kernel: int, *, separable: bool, bias: bool) -> nn.Module:
    padding = kernel // 2
    if not separable:
        return nn.Conv2d(channels, dim, kernel, padding=padding, bias=bias)
    return nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels, bias=False),
        nn.Conv2d(channels, dim, 1, bias=bias),
    )
