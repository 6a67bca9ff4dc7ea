"""Losses of the grounded model.

The cross-entropy of the answer, and for every ``[SEG]`` BCE and Dice of its mask at points drawn
where the mask is uncertain (UniBiomed's training code; PointRend, Kirillov et al. 2020, section 3).
Axes: B samples, L tokens, W features, M masks, N objects, P points, H W h w pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = [
    "IGNORED",
    "GroundedLoss",
    "MaskLoss",
    "answer_loss",
    "mask_loss",
    "object_choice",
    "uncertain_points",
]

IGNORED = -100
"""In labels: no token of the answer."""
BCE_WEIGHT, DICE_WEIGHT = 2.0, 0.5
OBJECTS = 5
"""Masks that count per sample: fewer are repeated, of more some are drawn."""
POINTS, OVERSAMPLE, UNCERTAIN = 12_544, 3, 0.75


class MaskLoss(NamedTuple):
    """Losses of masks, weighted. Scalars."""

    bce: Tensor
    dice: Tensor


class GroundedLoss(NamedTuple):
    """Parts of the loss, weighted. Scalars."""

    language: Tensor
    bce: Tensor
    dice: Tensor

    @property
    def total(self) -> Tensor:
        """Sum of the parts."""
        return self.language + self.bce + self.dice


def answer_loss(states: Tensor, labels: Tensor, head: torch.nn.Module) -> Tensor:
    """Mean cross-entropy of the tokens of the answers.

    Only the states that predict such a token go through the head: its output is as wide as the
    vocabulary.

    Args:
        states: ``(B, L, W)`` of the language model.
        labels: ``(B, L)`` ids; ``IGNORED`` outside the answers.
        head: From states to logits.
    """
    wanted = labels[:, 1:]
    known = wanted != IGNORED
    return functional.cross_entropy(head(states[:, :-1][known]).float(), wanted[known])


def mask_loss(logits: Tensor, truth: Tensor, points: Tensor) -> MaskLoss:
    """BCE and Dice at points, in float32.

    Args:
        logits: ``(N, h, w)``.
        truth: ``(N, H, W)`` in 0..1; brought to h x w by its nearest values.
        points: ``(N, P, 2)``, x and y in 0..1 of the mask.
    """
    small = functional.interpolate(truth[:, None].float(), logits.shape[-2:], mode="nearest")[:, 0]
    predicted, target = _at(logits.float(), points), _at(small, points)
    count = len(logits)
    bce = functional.binary_cross_entropy_with_logits(predicted, target, reduction="sum")
    probability = predicted.sigmoid()
    overlap = (probability * target).sum(dim=1)
    apart = 1 - (2 * overlap + 1) / (probability.sum(dim=1) + target.sum(dim=1) + 1)
    return MaskLoss(
        BCE_WEIGHT * bce / (count * points.shape[1] + 1e-4),
        DICE_WEIGHT * apart.sum() / (count + 1e-4),
    )


@torch.no_grad()
def uncertain_points(logits: Tensor, generator: torch.Generator, *, count: int = POINTS) -> Tensor:
    """Points ``(N, P, 2)`` in 0..1: most where logits ``(N, h, w)`` are near zero, some anywhere.

    Three times too many are drawn; of them the three quarters of P with the smallest absolute logit
    are kept, and the last quarter is drawn anew.
    """
    objects, keep = len(logits), int(UNCERTAIN * count)
    many = _uniform(objects, OVERSAMPLE * count, generator).to(logits.device)
    certainty = _at(logits.float(), many).abs()
    best = certainty.topk(keep, dim=1, largest=False).indices
    kept = many.take_along_dim(best[..., None], dim=1)
    fresh = _uniform(objects, count - keep, generator).to(logits.device)
    return torch.cat((kept, fresh), dim=1)


def object_choice(owners: Sequence[int], generator: torch.Generator) -> list[int]:
    """Which masks count: five of every sample that has any.

    Fewer are repeated in order; of more, five are drawn.

    Args:
        owners: The sample of each mask, ascending.
        generator: On the CPU.
    """
    chosen: list[int] = []
    for sample in sorted(set(owners)):
        own = [index for index, owner in enumerate(owners) if owner == sample]
        order: list[int] = torch.randperm(len(own), generator=generator).tolist()
        picked = order if len(own) > OBJECTS else range(len(own))
        chosen += [own[picked[number % len(own)]] for number in range(OBJECTS)]
    return chosen


def _at(maps: Tensor, points: Tensor) -> Tensor:
    """Values ``(N, P)`` of maps ``(N, h, w)`` at points, bilinear."""
    grid = 2 * points[:, :, None] - 1
    return functional.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, :, 0]


def _uniform(objects: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(objects, count, 2, generator=generator)
