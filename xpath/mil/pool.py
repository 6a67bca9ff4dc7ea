"""Attention pooling over packed bags (Ilse et al. 2018).

Axes: M rows of all bags, B bags, L pools, D features, A attention features.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "GatedAttention",
    "PlainAttention",
    "full_precision",
    "segment_max",
    "segment_softmax",
    "segment_sum",
    "segment_weighted_sum",
]


def full_precision(tensor: Tensor) -> torch.autocast:
    """A block in which mixed precision is off: sums over thousands of patches need the digits."""
    return torch.autocast(tensor.device.type, enabled=False)


def segment_sum(values: Tensor, index: Tensor, bags: int) -> Tensor:
    """Sums ``(B, ...)`` of the rows ``(M, ...)`` of each bag. Half precision is widened first."""
    values = _widened(values)
    return values.new_zeros(bags, *values.shape[1:]).index_add(0, index, values)


def segment_weighted_sum(weights: Tensor, values: Tensor, index: Tensor, sizes: Tensor) -> Tensor:
    """``segment_sum(weights[..., None] * values, index, bags)`` without that product in memory.

    The product is as large as the features of all slides; to write and read it, forward and
    backward, takes longer than the attention network.

    Args:
        weights: ``(M, ...)``.
        values: ``(M, ..., D)``; half precision is widened first.
        index: ``(M,)`` rising.
        sizes: ``(B,)`` rows of each bag.

    Returns:
        ``(B, ..., D)``; zeros for a bag without rows.
    """
    values = _widened(values)
    pools, width = math.prod(weights.shape[1:]), values.shape[-1]
    starts = sizes.cumsum(0) - sizes
    # Rows in the order (bag, pool, patch): how far each bag reaches into it is known.
    pool = torch.arange(pools, device=index.device)
    patch = torch.arange(len(index), device=index.device)[:, None]
    first, count = starts[index][:, None], sizes[index][:, None]
    position = first * pools + pool * count + (patch - first)
    order = torch.empty(position.numel(), dtype=torch.int64, device=index.device)
    order[position.flatten()] = (patch * pools + pool).flatten()
    summed = functional.embedding_bag(
        order,
        values.reshape(-1, width),
        (starts[:, None] * pools + pool * sizes[:, None]).flatten(),
        mode="sum",
        per_sample_weights=weights.to(values.dtype).reshape(-1)[order],
    )
    return summed.view(len(sizes), *values.shape[1:])


def segment_max(values: Tensor, index: Tensor, bags: int) -> Tensor:
    """Largest ``(B, ...)`` of the rows ``(M, ...)`` of each bag. -inf for a bag without rows.

    The gradient goes to the largest row; if several are, each gets an equal part.
    """
    values = _widened(values)
    wide = index.view(-1, *[1] * (values.ndim - 1)).expand_as(values)
    start = values.new_full((bags, *values.shape[1:]), -torch.inf)
    return start.scatter_reduce(0, wide, values, "amax")


def segment_softmax(scores: Tensor, index: Tensor, bags: int, mask: Tensor | None = None) -> Tensor:
    """Softmax within each bag, separately for every column.

    On the CPU the same input gives the same bits, gradients included. On CUDA sums run in any
    order, unless ``torch.use_deterministic_algorithms`` is on.

    Args:
        scores: ``(M, ...)``.
        index: ``(M,)`` bag of each row.
        bags: Number of bags B.
        mask: Like ``scores``; rows that are False get exactly 0. Where a bag has no True row, all
            of it is 0: no NaN, no gradient.

    Returns:
        Like ``scores``, half precision widened; each column sums to one over the rows of a bag.
    """
    scores = _widened(scores)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    # A constant shift changes no softmax, so its gradient is none: detach.
    top = segment_max(scores.detach(), index, bags)
    top = top.masked_fill(top == -torch.inf, 0)  # a column without a single True row
    # index_select, not [index]: the gradient of the latter adds up in any order, also on the CPU.
    weight = (scores - top.index_select(0, index)).exp()
    total = segment_sum(weight, index, bags)
    return weight / total.masked_fill(total == 0, 1).index_select(0, index)


def _widened(values: Tensor) -> Tensor:
    """Half precision as single."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


class PlainAttention(nn.Module):
    """A score for every row, before the softmax: ``w · tanh(V h)``.

    L pools side by side, each with weights of its own. The score has no bias: a constant leaves
    every softmax as it is.

    Args:
        dim: Features in.
        hidden: Attention features A.
        dropout: Rate on the attention features while training.
        pools: Number of independent attention networks L.
    """

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0, *, pools: int = 1) -> None:
        super().__init__()
        self.value_weight = nn.Parameter(_linear_weights(pools, hidden, dim))
        self.value_bias = nn.Parameter(torch.zeros(pools, hidden))
        self.score_weight = nn.Parameter(_linear_weights(pools, 1, hidden)[:, 0])
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Scores ``(M, L)`` of features ``(M, L, D)``."""
        return self.score(_linear(features, self.value_weight, self.value_bias).tanh())

    def score(self, hidden: Tensor) -> Tensor:
        """Scores ``(M, L)`` of attention features ``(M, L, A)``."""
        weighted: Tensor = self.dropout(hidden) * self.score_weight
        return weighted.sum(dim=-1)


class GatedAttention(PlainAttention):
    """A score for every row, before the softmax: ``w · (tanh(V h) ⊙ sigmoid(U h))``."""

    def __init__(self, dim: int, hidden: int, dropout: float = 0.0, *, pools: int = 1) -> None:
        super().__init__(dim, hidden, dropout, pools=pools)
        self.gate_weight = nn.Parameter(_linear_weights(pools, hidden, dim))
        self.gate_bias = nn.Parameter(torch.zeros(pools, hidden))

    def forward(self, features: Tensor) -> Tensor:
        """Scores ``(M, L)`` of features ``(M, L, D)``."""
        value = _linear(features, self.value_weight, self.value_bias).tanh()
        gate = _linear(features, self.gate_weight, self.gate_bias).sigmoid()
        return self.score(value * gate)


def _linear(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``(M, L, A)``: every pool's features ``(M, L, D)`` through its weights ``(L, A, D)``."""
    return torch.einsum("mld,lad->mla", features, weight) + bias


def _linear_weights(pools: int, out: int, dim: int) -> Tensor:
    """``(L, out, dim)``, each pool drawn as a layer of its own (Glorot)."""
    weights = torch.empty(pools, out, dim)
    for weight in weights:
        nn.init.xavier_uniform_(weight)
    return weights
