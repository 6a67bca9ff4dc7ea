"""Controls for the object-aware model: is a gain due to the objects, or to more weights?

Its L branches have L times the attention weights of the standard model. Three controls, from
nearest to farthest: names shuffled (same features, same weights, no meaning of the names), no
objects (same weights, every branch sees the whole patch), and a standard model as large.
Axes: N patches, L object classes, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from xpath.errors import ShapeError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.bag import Bag

if TYPE_CHECKING:
    from torch import Generator, nn

    from xpath.mil.object_aware import ObjectAwareMIL

__all__ = ["capacity_matched", "parameter_count", "without_names", "without_objects"]


def parameter_count(model: nn.Module) -> int:
    """Numbers that are learned."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def without_names(bag: Bag, generator: Generator) -> Bag:
    """The same objects with their names shuffled, in each patch anew.

    What the patch holds stays, and how much of it; which branch sees what is chance. A model that
    does as well on these bags does not use what the names mean.

    Args:
        bag: With object features ``(N, L, D)``.
        generator: Random numbers, on the CPU.

    Raises:
        ShapeError: A bag of patch features.
    """
    if bag.present is None:
        raise ShapeError(f"bag {bag.slide_id!r} has patch features (N, D), so there are no names")
    order = torch.rand(bag.present.shape, generator=generator).argsort(dim=1)
    order = order.to(bag.present.device)
    features = bag.features.gather(1, order[..., None].expand_as(bag.features))
    return Bag(features, bag.present.gather(1, order), bag.label, bag.slide_id)


def without_objects(bag: Bag, pools: int) -> Bag:
    """Whole patches for an object-aware model: each of its branches sees all of every patch.

    The same model with the same weights, so only the objects are missing.

    Args:
        bag: With patch features ``(N, D)``.
        pools: Branches of the model L.

    Raises:
        ShapeError: A bag of object features.
    """
    if bag.features.ndim != 2:
        raise ShapeError(
            f"bag {bag.slide_id!r} has object features; pass the bag of patch features (N, D)"
        )
    features = bag.features[:, None].expand(-1, pools, -1)  # a view: no copy until bags are packed
    present = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
    return Bag(features, present, bag.label, bag.slide_id)


def capacity_matched(model: ObjectAwareMIL) -> AttentionMIL:
    """A standard model of about as many weights, its attention network made wider.

    Of the same projection, gating and dropout; untrained. The counts differ by less than half of
    what one attention feature more costs; ``parameter_count`` tells.
    """
    config = model.config
    wanted = parameter_count(model)

    def build(hidden: int) -> AttentionMIL:
        return AttentionMIL(
            config.dim,
            config.classes,
            hidden=hidden,
            gated=config.gated,
            proj=config.proj,
            dropout=config.dropout,
        )

    least = parameter_count(build(1))
    step = parameter_count(build(2)) - least  # each attention feature costs the same
    return build(1 + max(0, round((wanted - least) / step)))
