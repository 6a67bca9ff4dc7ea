"""What the segmentor is trained to do.

For every prompt one query is matched, and only its mask is judged; the class loss teaches the
prompt to pick that query. Axes: B images, P prompts, Q queries, D features, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from xpath.segment.model.decoder import mask_logits
from xpath.segment.model.segmentor import similarity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from xpath.segment.model.decoder import Heads

__all__ = ["SegmentLoss", "segment_loss", "soft_dice_loss"]


class SegmentLoss(NamedTuple):
    """Parts of the loss, averaged over prompts and heads; scalars."""

    bce: Tensor
    dice: Tensor
    match: Tensor

    @property
    def total(self) -> Tensor:
        """Sum of the parts, equally weighted (paper, Eq. 8)."""
        return self.bce + self.dice + self.match


def soft_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """One minus Dice over the last two axes; two empty masks cost nothing.

    Args:
        logits: ``(..., H, W)``.
        target: ``(..., H, W)`` in 0..1.
    """
    probability = logits.sigmoid()
    overlap = (probability * target).sum(dim=(-2, -1))
    size = probability.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))
    return 1 - (2 * overlap + 1) / (size + 1)


def segment_loss(
    heads: Sequence[Heads], features: Tensor, sentence: Tensor, target: Tensor, scale: Tensor
) -> SegmentLoss:
    """Loss of all heads (deep supervision).

    Args:
        heads: From the joint decoder.
        features: ``(B, D, H / 4, W / 4)`` mask features.
        sentence: ``(B, P, D)`` sentence embeddings.
        target: ``(B, P, H, W)`` masks in 0..1; all zero where the object is absent.
        scale: Logarithm of the inverse temperature of the class loss.
    """
    small = functional.interpolate(target, features.shape[-2:], mode="area")
    parts = [_head_loss(head, features, sentence, (target, small), scale) for head in heads]
    return SegmentLoss(*(torch.stack(part).mean() for part in zip(*parts, strict=True)))


def _head_loss(
    head: Heads,
    features: Tensor,
    sentence: Tensor,
    targets: tuple[Tensor, Tensor],
    scale: Tensor,
) -> SegmentLoss:
    target, small = targets
    shape = (*small.shape[:2], -1, -1)
    masks, classes = head.masks.expand(shape), head.classes.expand(shape)
    scores = similarity(classes, sentence) * scale.exp().clamp(max=100)  # (B, P, Q)
    with torch.no_grad():
        query = _matched(mask_logits(masks, features), scores, small)
    chosen = masks.take_along_dim(query[..., None, None], dim=2)
    logits = mask_logits(chosen, features)[:, :, 0]
    logits = functional.interpolate(logits, target.shape[-2:], mode="bilinear")
    # Only a present object teaches which query to pick: were absence taught as well, rare objects
    # would get a query of their own that always answers "nothing".
    present = small.flatten(2).any(dim=-1)
    match = functional.cross_entropy(scores.transpose(1, 2), query, reduction="none") * present
    return SegmentLoss(
        functional.binary_cross_entropy_with_logits(logits, target),
        soft_dice_loss(logits, target).mean(),
        match.sum() / present.sum().clamp(min=1),
    )


def _matched(logits: Tensor, scores: Tensor, target: Tensor) -> Tensor:
    """Query ``(B, P)`` that is to answer each prompt.

    With one target per prompt, Hungarian matching is an argmin over queries (weights 2, 5, 5 of
    BiomedParse). An absent object has no mask to compare with: the query that would be picked
    anyway is made to answer with an empty mask.
    """
    pixels = logits.shape[-2] * logits.shape[-1]
    flat, wanted = logits.flatten(3), target.flatten(2)[:, :, None]  # (B, P, Q, S), (B, P, 1, S)
    bce = (functional.softplus(flat) - flat * wanted).sum(dim=-1) / pixels
    dice = soft_dice_loss(logits, target[:, :, None])
    cost = 5 * bce + 5 * dice - 2 * scores.softmax(dim=-1)
    present = target.flatten(2).any(dim=-1, keepdim=True)
    return torch.where(present, cost, -scores).argmin(dim=-1)
