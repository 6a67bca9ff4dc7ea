"""Multi-head attention whose keys and values can be computed once and used many times.

Axes: B batch, T query tokens, S source tokens, D features, h heads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from xpath.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Attention", "FeedForward", "KeysValues", "sine_positions"]


class KeysValues(NamedTuple):
    """Keys and values of a source of attention."""

    keys: Tensor
    """``(B, h, S, D / h)``."""
    values: Tensor
    """``(B, h, S, D / h)``."""


class Attention(nn.Module):
    """Multi-head attention with packed projections, as ``torch.nn.MultiheadAttention`` packs them.

    The two halves of the work are apart: ``project`` depends on the source only, so an image that
    is asked for many prompts is projected once.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(
                f"features must be a multiple of heads, got {dim} and {heads}; change one of them"
            )
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, keys: Tensor, values: Tensor) -> KeysValues:
        """Keys and values of a source, both given as ``(B, S, D)``."""
        _, key_weight, value_weight = self.in_proj_weight.chunk(3)
        _, key_bias, value_bias = self.in_proj_bias.chunk(3)
        return KeysValues(
            self._split(functional.linear(keys, key_weight, key_bias)),
            self._split(functional.linear(values, value_weight, value_bias)),
        )

    def forward(self, queries: Tensor, source: KeysValues, allowed: Tensor | None = None) -> Tensor:
        """Values of the source as the queries attend to them, ``(B, T, D)``.

        Args:
            queries: ``(B, T, D)``.
            source: From ``project``.
            allowed: Boolean, broadcastable to ``(B, h, T, S)``; True where attention may go. Every
                query needs at least one True.
        """
        query_weight, _, _ = self.in_proj_weight.chunk(3)
        query_bias, _, _ = self.in_proj_bias.chunk(3)
        query = self._split(functional.linear(queries, query_weight, query_bias))
        read = functional.scaled_dot_product_attention(
            query, source.keys, source.values, attn_mask=allowed
        )
        out: Tensor = self.out_proj(read.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return split  # (B, h, S, D / h)


class FeedForward(nn.Module):
    """Two linear layers around a ReLU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` in, ``(..., D)`` out."""
        out: Tensor = self.linear2(functional.relu(self.linear1(x)))
        return out


def sine_positions(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Two-dimensional sine positions ``(1, dim, height, width)`` in float32, y half first.

    Coordinates run from 1 to n, divided by n and scaled to 2 pi; temperature 10000; sine and
    cosine interleaved (DETR, Carion et al. 2020, as used by Mask2Former and BiomedParse).
    """
    features = dim // 2
    exponent = 2 * torch.div(torch.arange(features, device=device), 2, rounding_mode="floor")
    wavelength = 10000.0 ** (exponent.float() / features)

    def axis(length: int) -> Tensor:
        position = torch.arange(1, length + 1, device=device, dtype=torch.float32)
        angle = (position / (length + 1e-6) * 2 * math.pi)[:, None] / wavelength
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    y = axis(height)[:, None, :].expand(height, width, features)
    x = axis(width)[None, :, :].expand(height, width, features)
    return torch.cat((y, x), dim=2).permute(2, 0, 1)[None]
