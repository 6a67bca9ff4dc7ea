"""The text encoder of PathSegmentor: PubMedBERT behind a projection.

Axes: P prompts, T tokens, D features of the joint space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from xpath.segment.model.text_encoder import TextEncoder, TextFeatures, check_length, last_real

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BertTextEncoder"]

POSITIONS = 512
"""Rows of BERT's position table, whatever the longest prompt."""


class BertTextEncoder(TextEncoder):
    """Prompts as tokens and as one vector each, through transformers' ``BertModel``.

    The sentence is the last real token, which is [SEP] (Chen et al. 2025, section 4.1: "the last
    token"; the published training code does the same). To train everything but BERT, as that
    code does, call ``encoder.bert.requires_grad_(False)``.

    Args:
        vocabulary: Number of token ids.
        context: Longest prompt in tokens; at most 512.
        width: Features inside.
        depth: Layers.
        heads: Attention heads.
        dim: Features of the joint space.
    """

    def __init__(
        self, *, vocabulary: int, context: int, width: int, depth: int, heads: int, dim: int
    ) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=POSITIONS,
        )
        self.context = context
        # The pooler serves BERT's own sentence task only.
        self.bert = BertModel(config, add_pooling_layer=False)
        self.projection = nn.Parameter(torch.randn(width, dim) * width**-0.5)

    def forward(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Features of token ids ``(P, T)``, whose ``mask`` is True on real tokens.

        Raises:
            DataError: A prompt longer than the context.
        """
        check_length(ids, self.context)
        if not ids.numel():
            tokens = self.projection.new_zeros(*ids.shape, self.projection.shape[1])
            return TextFeatures(tokens, mask, tokens.sum(dim=1))
        hidden = self.bert(
            input_ids=ids,
            attention_mask=mask.long(),
            # Given, because BERT's own are buffers that no checkpoint fills.
            token_type_ids=torch.zeros_like(ids),
            position_ids=torch.arange(ids.shape[1], device=ids.device)[None],
        ).last_hidden_state
        tokens = hidden @ self.projection
        return TextFeatures(tokens, mask, last_real(tokens, mask))
