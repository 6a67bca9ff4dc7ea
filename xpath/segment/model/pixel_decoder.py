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

__all__ = ["PixelDecoder", "PixelFeatures"]


class PixelFeatures(NamedTuple):
    """Features of an image for the joint decoder."""

    mask_features: Tensor
    """``(B, D, H / 4, W / 4)``; a mask is the dot product of these with a mask embedding."""
    scales: tuple[Tensor, Tensor, Tensor]
    """``(B, D, h, w)`` at strides 32, 16 and 8, in this order."""


class PixelDecoder(nn.Module):
    """Maps of the image encoder to features of one width.

    Args:
        channels: Channels of the four maps, finest first.
        dim: Features out; a multiple of 32 (group norm).
        depth: Transformer layers on the coarsest map.
        heads: Attention heads.
        hidden: Width inside the feed-forward layers.
        mask_dim: Features of the mask features; ``dim`` if not given.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        dim: int,
        depth: int,
        heads: int,
        hidden: int,
        mask_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.input_proj = nn.Conv2d(channels[-1], dim, 1)
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, hidden) for _ in range(depth))
        self.coarsest = NormedConv(dim, dim, kernel=3, activate=True)
        finer = list(channels[-2::-1])  # strides 16, 8, 4
        self.laterals = nn.ModuleList(NormedConv(c, dim, kernel=1, activate=False) for c in finer)
        self.outputs = nn.ModuleList(NormedConv(dim, dim, kernel=3, activate=True) for _ in finer)
        self.mask_features = nn.Conv2d(dim, mask_dim or dim, 3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> PixelFeatures:
        """Features of the four maps, finest first."""
        y = self.coarsest(self._mix(self.input_proj(maps[-1])))
        pyramid = [y]
        for lateral, output, finer in zip(self.laterals, self.outputs, maps[-2::-1], strict=True):
            y = output(lateral(finer) + functional.interpolate(y, finer.shape[-2:], mode="nearest"))
            pyramid.append(y)
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

    def __init__(self, channels: int, dim: int, *, kernel: int, activate: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, dim, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(32, dim)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, D, H, W)``."""
        x = self.norm(self.conv(x))
        return functional.relu(x) if self.activate else x
