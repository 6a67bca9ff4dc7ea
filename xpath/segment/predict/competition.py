"""One pixel, one name: labels that exclude each other compete for what they were both found on.

Prompts are answered independently, so one piece of tissue may be called necrosis, fat and vessel at
once. Siblings, the labels of one structure (tissue, cell, nuclei) of one region, exclude each
other, and so do those of any region and one whose region is unspecified.
What is compared is the claim of a label on a pixel,

    claim = P(the label is on this slide at all) * P(the pixel is its own | it is there),

the first from the calibration of presence, pooled over the slide (``slide_presence``), the second
the pixel's probability. Labels that are not on the slide claim nothing. Of tissue each pixel is
decided on its own. Nuclei and cells are decided whole: the union of the siblings' masks is taken
apart into nuclei, and each goes to the label with the highest mean claim over it. Equal claims go
to the label that was asked first. Structures stay nested: a nucleus lies in tissue as before.

Axes: N patches, B of them, L labels, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from xpath.device import side_by_side
from xpath.objects.rule import ObjectConfig
from xpath.objects.separate import separated_ids
from xpath.pathseg.parents import ANYWHERE
from xpath.protocols import STRIDE
from xpath.segment.kernels.finalisation import enlarged, measured
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.labels import Label
    from xpath.segment.predict.patch_answers import StoredPatch

__all__ = [
    "COMPETITION",
    "Contest",
    "Resolved",
    "Siblings",
    "compete",
    "siblings",
    "slide_presence",
]

COMPETITION = ("exclusive", "independent")
"""Whether siblings compete, or each keeps its own mask as in the paper."""
RULE = ObjectConfig(min_area_um2=0.0)


class Siblings(NamedTuple):
    """Labels that exclude each other."""

    indices: tuple[int, ...]
    """Two or more, in the order asked."""
    whole: bool
    """Whether they compete for whole objects (nuclei, cells), not for pixels."""


def siblings(labels: Sequence[Label]) -> tuple[Siblings, ...]:
    """The labels of one structure of one region, together.

    One of an unspecified region may be of any: beside it all labels of its structure are siblings.
    A label that names the structure itself (``nuclei-nuclei``) contains the others and competes
    with none.
    """
    rivals = [it for it in enumerate(labels) if it[1].object_type != it[1].structure]
    anywhere = {label.structure for _, label in rivals if label.region == ANYWHERE}
    groups: dict[tuple[str, str], list[int]] = {}
    for index, label in rivals:
        region = ANYWHERE if label.structure in anywhere else label.region
        groups.setdefault((region, label.structure), []).append(index)
    return tuple(
        Siblings(tuple(indices), structure != "tissue")
        for (_, structure), indices in groups.items()
        if len(indices) > 1
    )


class Resolved(NamedTuple):
    """The masks of patches after their labels competed."""

    packed: NDArray[np.uint8]
    """``(B, L, H, W / 8)`` bits."""
    presence: NDArray[np.float32]
    """``(B, L)`` mean probability in each mask, 0 where it is empty."""


class Contest(NamedTuple):
    """All that decides between the labels of a slide."""

    groups: tuple[Siblings, ...]
    presence: NDArray[np.float32]
    """``(L,)`` P(the label is on the slide); one of 0 has an empty mask."""
    mpp: float
    """Microns per pixel, by which nuclei that touch are separated."""
    pixels: int
    """Side of a patch."""
    margin: int
    """Positions of a field around its patch, so that nuclei across its border are seen whole."""

    def resolved(self, patches: Sequence[StoredPatch]) -> Resolved:
        """Masks of patches after their labels competed. Who met no sibling keeps what it had."""
        shape = (len(patches), len(self.presence))
        answer = Resolved(
            np.zeros((*shape, self.pixels, -(-self.pixels // 8)), np.uint8),
            np.zeros(shape, np.float32),
        )
        side_by_side(
            lambda n: self._resolve(patches[n], answer.packed[n], answer.presence[n]),
            range(len(patches)),
        )
        return answer

    @torch.inference_mode()
    def _resolve(
        self, patch: StoredPatch, packed: NDArray[np.uint8], presence: NDArray[np.float32]
    ) -> None:
        """Puts the masks of a patch, and how sure they are, where they go."""
        there = np.flatnonzero(self.presence[patch.labels] > 0)
        kept = np.asarray(patch.labels, np.int64)[there]
        packed[kept], presence[kept] = patch.packed[there], patch.presence[there]
        for group in self.groups:
            self._decide(patch.fields, group, packed, presence)

    def _decide(
        self,
        fields: Mapping[int, Tensor],
        group: Siblings,
        packed: NDArray[np.uint8],
        presence: NDArray[np.float32],
    ) -> None:
        """Replaces the masks of siblings that meet in a patch."""
        rivals = [label for label in group.indices if label in fields and self.presence[label] > 0]
        if len(rivals) < 2:
            return
        margin = self.margin if group.whole else 0  # tissue is decided pixel by pixel
        edge, side = STRIDE * margin, self.pixels + 2 * STRIDE * margin
        stacked = torch.stack([fields[label] for label in rivals])
        logits = enlarged(stacked, (side, side), 1 + self.margin - margin)
        those = Siblings(tuple(range(len(rivals))), group.whole)
        masks = compete(logits, (those,), self.presence[rivals], mpp=self.mpp)
        inner = (slice(edge, edge + self.pixels), slice(edge, edge + self.pixels))
        for label, plane, mask in zip(rivals, logits, masks, strict=True):
            bits, area, _, total, _ = measured(plane[inner], mask[inner])
            packed[label], presence[label] = bits.numpy(), total / area.clamp(min=1)


def slide_presence(
    chances: NDArray[np.floating], areas: NDArray[np.integer]
) -> NDArray[np.float64]:
    """P(the label is on the slide) ``(L,)``, 0 of a label without a pixel.

    It is the mean over the pixels of its masks of the calibrated probability that it is in their
    patch: the share of what is called by this name that is believed. Other than the best patch it
    does not rise with the number of patches, and other than the mean over patches it is not
    decided by specks.

    Args:
        chances: ``(N, L)`` calibrated P(present) in each patch.
        areas: ``(N, L)`` pixels of each mask.
    """
    check_shape("chances", chances, "N L")
    weights = areas / areas.sum(axis=0).clip(min=1)
    return np.asarray((weights * chances).sum(axis=0), np.float64)


def compete(
    logits: Tensor, groups: Sequence[Siblings], presence: NDArray[np.floating], *, mpp: float
) -> Tensor:
    """Masks ``(L, H, W)`` in which no pixel belongs to two siblings.

    Args:
        logits: ``(L, H, W)``, above 0 where a label was found.
        groups: From ``siblings``.
        presence: ``(L,)`` P(the label is on the slide); one of 0 has an empty mask.
        mpp: Microns per pixel, by which nuclei that touch are separated.
    """
    prior = torch.as_tensor(np.asarray(presence, np.float32), device=logits.device)
    masks = (logits > 0) & (prior > 0)[:, None, None]
    filled = masks.flatten(1).any(dim=1).tolist()
    for group in groups:
        here = [index for index in group.indices if filled[index]]
        if len(here) < 2:
            continue
        claims = logits[here].sigmoid() * prior[here, None, None]
        owner = _pixel_owner(masks[here], claims)
        if group.whole:
            owner = _object_owner(masks[here], claims, owner, mpp)
        numbers = torch.arange(len(here), device=logits.device)[:, None, None]
        masks[here] = owner == numbers
    return masks


def _pixel_owner(masks: Tensor, claims: Tensor) -> Tensor:
    """``(H, W)`` index of the mask with the highest claim, -1 outside all. The first of equals."""
    best = torch.zeros_like(claims[0])
    owner = torch.full(best.shape, -1, dtype=torch.int64, device=best.device)
    for index, (mask, claim) in enumerate(zip(masks, claims, strict=True)):
        ahead = mask & (claim > best)
        best = torch.where(ahead, claim, best)
        owner = torch.where(ahead, index, owner)
    return owner


def _object_owner(masks: Tensor, claims: Tensor, owner: Tensor, mpp: float) -> Tensor:
    """The same with every nucleus whole. Only where labels disagree is anything taken apart."""
    import cv2

    asked, values, pixel = (each.cpu().numpy() for each in (masks, claims, owner))
    count, parts = cv2.connectedComponents((pixel >= 0).view(np.uint8), connectivity=4)
    # Where one label has the highest claim on each pixel, it has it on each nucleus as well.
    doubtful = pixel != values.argmax(axis=0)
    lowest, highest = np.full(count, len(asked)), np.full(count, -1)
    flat, owners = parts.ravel(), pixel.ravel()
    for index in range(len(asked)):
        here = np.bincount(flat[owners == index], minlength=count) > 0
        lowest[here] = np.minimum(lowest[here], index)
        highest[here] = index
    open_ = (lowest < highest) | (np.bincount(flat[doubtful.ravel()], minlength=count) > 0)
    members = sum(np.bincount(parts[mask], minlength=count) > 0 for mask in asked)
    open_ &= members > 1
    open_[0] = False
    if not open_.any():
        return owner
    ids = separated_ids(open_[parts], mpp, RULE)
    best = _winners(asked, values, ids)
    whole = np.where(ids > 0, best[ids], pixel)
    return torch.from_numpy(whole).to(owner)


def _winners(
    masks: NDArray[np.bool_], claims: NDArray[np.float32], ids: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Of each object, the index of the label with the highest mean claim of those that touch it."""
    count, inside = int(ids.max()) + 1, ids > 0
    numbers = ids[inside]
    sums = [np.bincount(numbers, claim[inside], count) for claim in claims]
    touched = [np.bincount(numbers, mask[inside], count) > 0 for mask in masks]
    return np.asarray(np.where(np.stack(touched), np.stack(sums), -1.0).argmax(axis=0))
