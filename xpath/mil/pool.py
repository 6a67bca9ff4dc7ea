"""Attention pooling over packed bags (Ilse et al. 2018).

Axes: M rows of all bags, B bags, L object kinds, D features, A attention features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AttentionScore", "segment_softmax", "segment_sum"]


def segment_sum(values: Tensor, index: Tensor, bags: int) -> Tensor:
    """Sums ``(B, ...)`` of the rows ``(M, ...)`` of each bag."""
    return values.new_zeros(bags, *values.shape[1:]).index_add(0, index, values)


def segment_softmax(scores: Tensor, index: Tensor, bags: int, mask: Tensor | None = None) -> Tensor:
    """Softmax within each bag, separately for every column.

    Args:
        scores: ``(M, ...)``.
        index: ``(M,)`` bag of each row.
        bags: Number of bags.
        mask: Like ``scores``; rows that are False get exactly 0. Where a bag has no True row, all
            of it is 0: no NaN, no gradient.
    """
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    wide = index.view(-1, *[1] * (scores.ndim - 1)).expand_as(scores)
    start = scores.new_full((bags, *scores.shape[1:]), -torch.inf)
    top = start.scatter_reduce(0, wide, scores.detach(), "amax")
    top = top.masked_fill(top.isinf(), 0)  # a column without a single true row
    weight = (scores - top[index]).exp()
    total = segment_sum(weight, index, bags)
    return weight / total.masked_fill(total == 0, 1)[index]


class AttentionScore(nn.Module):
    """A score for every row, before the softmax; L kinds side by side, each with its own weights.

    Gated: ``w · (tanh(V h) ⊙ sigmoid(U h))``; plain: ``w · tanh(V h)``.

    Args:
        dim: Features in.
        hidden: Attention features A.
        kinds: Number of independent attention networks L.
        gated: Use the gate.
        dropout: Rate on the attention features while training.
    """

    def __init__(
        self, dim: int, hidden: int, *, kinds: int = 1, gated: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.value_weight = nn.Parameter(torch.empty(kinds, hidden, dim))
        self.value_bias = nn.Parameter(torch.zeros(kinds, hidden))
        if gated:
            self.gate_weight = nn.Parameter(torch.empty(kinds, hidden, dim))
            self.gate_bias = nn.Parameter(torch.zeros(kinds, hidden))
        self.score_weight = nn.Parameter(torch.empty(kinds, hidden))
        self.gated = gated
        self.dropout = nn.Dropout(dropout)
        for kind in range(kinds):  # as a Linear layer of its own would start
            nn.init.xavier_uniform_(self.value_weight[kind])
            if gated:
                nn.init.xavier_uniform_(self.gate_weight[kind])
        nn.init.uniform_(self.score_weight, -(hidden**-0.5), hidden**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Scores ``(M, L)`` of features ``(M, L, D)``."""
        value = torch.einsum("mld,lad->mla", features, self.value_weight) + self.value_bias
        hidden = value.tanh()
        if self.gated:
            gate = torch.einsum("mld,lad->mla", features, self.gate_weight) + self.gate_bias
            hidden = hidden * gate.sigmoid()
        # No bias on the score: a constant leaves every softmax as it is.
        return (self.dropout(hidden) * self.score_weight).sum(dim=-1)
