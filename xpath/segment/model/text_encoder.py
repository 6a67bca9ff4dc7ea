"""The text encoder of BiomedParse: a causal transformer in the manner of CLIP.

What every text encoder must offer is ``TextEncoder``; the other one is ``bert_encoder``.

Axes: P prompts, T tokens, D features of the joint space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from xpath.errors import DataError
from xpath.segment.model.attention import Attention

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CausalTextEncoder", "TextEncoder", "TextFeatures", "check_length", "last_real"]


class TextFeatures(NamedTuple):
    """Prompts in the joint space."""

    tokens: Tensor
    """``(P, T, D)``; rows beyond a prompt's end carry no meaning."""
    mask: Tensor
    """``(P, T)``, True on real tokens."""
    sentence: Tensor
    """``(P, D)``, the embedding of each prompt's last real token."""


class TextEncoder(nn.Module):
    """Anything that turns token ids into features of the joint space."""

    context: int
    """Longest prompt in tokens."""

    def forward(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Features of token ids ``(P, T)``, whose ``mask`` is True on real tokens."""
        raise NotImplementedError


def check_length(ids: Tensor, context: int) -> None:
    """Refuses prompts that do not fit.

    Args:
        ids: ``(P, T)`` token ids.
        context: Largest T.

    Raises:
        DataError: T is larger.
    """
    if ids.shape[1] > context:
        raise DataError(
            f"prompts may have {context} tokens, got one of {ids.shape[1]}; use a shorter prompt"
        )


def last_real(tokens: Tensor, mask: Tensor) -> Tensor:
    """The row ``(P, D)`` of each prompt's last real token.

    Args:
        tokens: ``(P, T, D)``.
        mask: ``(P, T)``, True on real tokens, which come first; every prompt has at least one.
    """
    last = mask.long().sum(dim=1) - 1
    return tokens[torch.arange(len(tokens), device=tokens.device), last]


class CausalTextEncoder(TextEncoder):
    """Prompts as tokens and as one vector each.

    Causal, so a prompt's features do not depend on how far it is padded.

    Args:
        vocabulary: Number of token ids.
        context: Longest prompt in tokens.
        width: Features inside.
        depth: Layers.
        heads: Attention heads.
        dim: Features of the joint space.
    """

    def __init__(
        self, *, vocabulary: int, context: int, width: int, depth: int, heads: int, dim: int
    ) -> None:
        super().__init__()
        self.context = context
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.randn(context, width) * 0.01)
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.projection = nn.Parameter(torch.randn(width, dim) * width**-0.5)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Features of token ids ``(P, T)``, whose ``mask`` is True on real tokens.

        Raises:
            DataError: A prompt longer than the context.
        """
        check_length(ids, self.context)
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        for block in self.blocks:
            x = block(x, causal)
        tokens = self.norm(x) @ self.projection
        return TextFeatures(tokens, mask, last_real(tokens, mask))


class TextBlock(nn.Module):
    """Self-attention and feed-forward, each with a norm in front, and CLIP's fast GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, causal: Tensor) -> Tensor:
        """``x`` is ``(P, T, width)``, and ``causal`` the lower triangle ``(T, T)``."""
        inner = self.norm1(x)
        x = x + self.attention(inner, self.attention.project(inner, inner), causal)
        hidden = self.expand(self.norm2(x))
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        return x + functional.linear(hidden, self.contract.weight, self.contract.bias)
