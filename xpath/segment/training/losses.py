"""Losses of the segmentor.

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

__all__ = ["SegmentLoss", "contrast_loss", "segment_loss", "soft_dice_loss"]


UNKNOWN = 255
"""In a target: nothing is known here, and nothing is learnt."""
MEET = 0.2
"""Share of the smaller object up to which two objects count as apart: where they touch, a position
of stride 4 belongs to both."""


class SegmentLoss(NamedTuple):
    """Scalar parts of the loss, averaged over prompts and heads."""

    bce: Tensor
    dice: Tensor
    match: Tensor
    contrast: Tensor
    """Weighted already; zero in the paper's loss."""

    @property
    def total(self) -> Tensor:
        """Sum of the parts, those of the paper equally weighted (Eq. 8)."""
        return self.bce + self.dice + self.match + self.contrast


def soft_dice_loss(logits: Tensor, target: Tensor, known: Tensor | None = None) -> Tensor:
    """One minus Dice over the last two axes. Two empty masks cost nothing.

    Args:
        logits: ``(..., H, W)``.
        target: ``(..., H, W)`` in 0..1.
        known: ``(..., H, W)`` in 0..1, the weight of each pixel; all count if None.
    """
    probability = logits.sigmoid()
    if known is not None:
        probability, target = probability * known, target * known
    overlap = (probability * target).sum(dim=(-2, -1))
    size = probability.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))
    return 1 - (2 * overlap + 1) / (size + 1)


class _Maps(NamedTuple):
    """Mask features as they answer, and at stride 4, where queries are matched."""

    fine: Tensor
    coarse: Tensor

    @classmethod
    def of(cls, features: Tensor, width: int) -> _Maps:
        """Those of images so many pixels wide."""
        factor = 4 * features.shape[-1] // width
        return cls(features, functional.avg_pool2d(features, factor) if factor > 1 else features)


class _Target(NamedTuple):
    """Target masks at the resolution of the image and at stride 4."""

    mask: Tensor
    """``(B, P, H, W)`` in 0..1."""
    known: Tensor
    """``(B, P, H, W)`` in 0..1, 0 where nothing is known."""
    small_mask: Tensor
    """``(B, P, H / 4, W / 4)``, share of the known pixels that belong to the object."""
    small_known: Tensor
    """``(B, P, H / 4, W / 4)``, share of the pixels that are known."""
    present: Tensor
    """``(B, P)``, True where the object is anywhere."""

    def coarse(self) -> _Target:
        """The same with the small masks in place of the large ones."""
        return self._replace(mask=self.small_mask, known=self.small_known)


def segment_loss(
    heads: Sequence[Heads],
    features: Tensor,
    sentence: Tensor,
    target: Tensor,
    scale: Tensor,
    *,
    contrast: float = 0.0,
    full_heads: int = 0,
) -> SegmentLoss:
    """Loss of all heads (deep supervision), in float32 whatever the precision of the model.

    Args:
        heads: From the joint decoder.
        features: ``(B, D, H / 4, W / 4)`` mask features, or at stride 2.
        sentence: ``(B, P, D)`` sentence embeddings.
        target: ``(B, P, H, W)`` uint8: 1 the object, 0 not, 255 unknown; all zero where the object
            is absent.
        scale: Logarithm of the inverse temperature of the class loss.
        contrast: Weight of ``contrast_loss``.
        full_heads: So many last heads are judged at the size of the image, those before at stride
            4; 0 for all.
    """
    maps = _Maps.of(features.float(), target.shape[-1])
    wanted = _target(target, (maps.coarse.shape[-2], maps.coarse.shape[-1]))
    small, small_maps = wanted.coarse(), _Maps(maps.coarse, maps.coarse)
    first = len(heads) - (full_heads or len(heads))
    parts = [
        _head_loss(
            head,
            maps if number >= first else small_maps,
            sentence.float(),
            wanted if number >= first else small,
            scale,
            contrast=contrast,
        )
        for number, head in enumerate(heads)
    ]
    return SegmentLoss(*(torch.stack(part).mean() for part in zip(*parts, strict=True)))


def _target(target: Tensor, small: tuple[int, int]) -> _Target:
    known = (target != UNKNOWN).float()
    mask = (target == 1).float()
    small_known = functional.interpolate(known, small, mode="area")
    small_mask = functional.interpolate(mask, small, mode="area") / small_known.clamp(min=1e-6)
    return _Target(mask, known, small_mask, small_known, mask.flatten(2).any(dim=-1))


def _head_loss(
    head: Heads,
    maps: _Maps,
    sentence: Tensor,
    target: _Target,
    scale: Tensor,
    *,
    contrast: float,
) -> SegmentLoss:
    shape = (*target.mask.shape[:2], -1, -1)
    masks, classes = head.masks.float().expand(shape), head.classes.float().expand(shape)
    scores = similarity(classes, sentence) * scale.exp().clamp(max=100)  # (B, P, Q)
    with torch.no_grad():
        query = _matched(mask_logits(masks, maps.coarse), scores, target)
    chosen = masks.take_along_dim(query[..., None, None], dim=2)
    small = mask_logits(chosen, maps.coarse)[:, :, 0]
    fine = small if maps.fine is maps.coarse else mask_logits(chosen, maps.fine)[:, :, 0]
    size = target.mask.shape[-2:]
    full = fine.shape[-2:] == size
    logits = fine if full else functional.interpolate(fine, size, mode="bilinear")
    bce = functional.binary_cross_entropy_with_logits(
        logits, target.mask, weight=target.known, reduction="none"
    )
    # Only a present object teaches which query to pick: were absence taught as well, rare objects
    # would get a query of their own that always answers "nothing".
    match = functional.cross_entropy(scores.transpose(1, 2), query, reduction="none")
    confused = scores.new_zeros(())
    if contrast:  # it needs P times the memory of the other parts
        share = target.small_mask * target.small_known
        confused = contrast * contrast_loss(small, share, target.small_known)
    return SegmentLoss(
        (bce.sum(dim=(2, 3)) / target.known.sum(dim=(2, 3)).clamp(min=1)).mean(),
        soft_dice_loss(logits, target.mask, target.known).mean(),
        (match * target.present).mean(),
        confused,
    )


def contrast_loss(logits: Tensor, share: Tensor, known: Tensor | None = None) -> Tensor:
    """How far prompts that exclude each other are confused, 0 and up.

    Inside an object its own prompt must answer more strongly than any prompt whose object does not
    overlap it: the cross-entropy over these prompts, averaged over the object and then over the
    objects of the batch. It is what tells types of nuclei apart: for the other parts of the loss a
    few lymphocytes in the mask of the tumour cells weigh as little as a rough edge.

    Args:
        logits: ``(B, P, h, w)``.
        share: ``(B, P, h, w)`` in 0..1, how much of a position belongs to the object.
        known: ``(B, P, h, w)`` in 0..1, how much of it is known of a prompt, which is no rival
            where that is less than half; all is if None.
    """
    flat, weight = logits.flatten(2), share.flatten(2)  # (B, P, S)
    inside = weight.sum(dim=-1)
    overlap = torch.einsum("bps,bqs->bpq", weight, weight)
    apart = overlap <= MEET * torch.minimum(inside[:, :, None], inside[:, None])
    rivals = apart[..., None]
    if known is not None:
        rivals = rivals & (known.flatten(2) >= 0.5)[:, None]
    rival = flat[:, None].masked_fill(~rivals, float("-inf"))  # (B, P, Q, S)
    everyone = torch.cat((flat[:, :, None], rival), dim=2).logsumexp(dim=2)
    loss = ((everyone - flat) * weight).sum(dim=-1) / inside.clamp(min=1e-6)
    return (loss * (inside > 0)).mean()


def _matched(logits: Tensor, scores: Tensor, target: _Target) -> Tensor:
    """Query ``(B, P)`` that is to answer each prompt.

    With one target per prompt, Hungarian matching is an argmin over queries (weights 2, 5, 5 of
    BiomedParse). An absent object has no mask to compare with: the query that would be picked
    anyway is made to answer with an empty mask.
    """
    known = target.small_known.flatten(2)[:, :, None]  # (B, P, 1, S)
    wanted = target.small_mask.flatten(2)[:, :, None]
    flat = logits.flatten(3)  # (B, P, Q, S)
    bce = ((functional.softplus(flat) - flat * wanted) * known).sum(dim=-1)
    bce = bce / known.sum(dim=-1).clamp(min=1)
    dice = soft_dice_loss(logits, target.small_mask[:, :, None], target.small_known[:, :, None])
    cost = 5 * bce + 5 * dice - 2 * scores.softmax(dim=-1)
    return torch.where(target.present[..., None], cost, -scores).argmin(dim=-1)
