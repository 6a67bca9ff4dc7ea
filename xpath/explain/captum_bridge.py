"""Captum's attribution methods on named objects.

Captum perturbs numbers, so every object is a number: 1 shown, 0 hidden. What that means for the
slide is decided by the caller, overlaps included. Axes: B coalitions, L objects, K classes.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Literal

import torch

from xpath.errors import DataError
from xpath.mil.bag import Bag, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.mil.object_aware import ObjectAwareMIL

__all__ = ["attribute_objects", "without_objects"]


def attribute_objects(
    logits: Callable[[Tensor], Tensor],
    objects: int,
    target: int,
    *,
    method: Literal["ablation", "shapley"] = "ablation",
    samples: int = 25,
    seed: int = 0,
) -> NDArray[np.float64]:
    """What each object adds to the logit of a class, ``(L,)``.

    Args:
        logits: Logits ``(B, K)`` of coalitions ``(B, L)`` of zeros and ones.
        objects: Number of objects L.
        target: Class index.
        method: ``ablation``: the logit minus the logit without the object; ``shapley``: the mean
            over random orders in which objects join (captum's ``ShapleyValueSampling``).
        samples: Orders drawn for ``shapley``.
        seed: Which orders; the global random state is left as it was.

    Raises:
        DataError: No objects, no orders, or no such method.
    """
    from captum.attr import FeatureAblation, ShapleyValueSampling

    if objects < 1 or samples < 1 or method not in ("ablation", "shapley"):
        raise DataError(f"nothing to do for {objects} objects, {samples} orders, {method!r}")
    shown = torch.ones(1, objects, dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if method == "ablation":
            result = FeatureAblation(logits).attribute(shown, target=target)
        else:
            sampling = ShapleyValueSampling(logits)
            result = sampling.attribute(shown, target=target, n_samples=samples)
    values: NDArray[np.float64] = result[0].detach().double().numpy()
    return values


def without_objects(model: ObjectAwareMIL, bag: Bag) -> Callable[[Tensor], Tensor]:
    """Logits ``(B, K)`` of coalitions ``(B, L)``: an object at 0 is struck from the whole slide.

    Raises:
        DataError: A bag of patches, without objects.
    """
    present = bag.present
    if present is None:
        raise DataError(f"bag {bag.slide_id!r} has no objects; pass object features (N, L, D)")

    exact = copy.deepcopy(model).cpu().double().eval()
    features = bag.features.cpu().double()

    @torch.inference_mode()
    def logits(shown: Tensor) -> Tensor:
        bags = [Bag(features, present.cpu() & (row > 0.5)) for row in shown]
        found: Tensor = exact(pack(bags)).logits
        return found

    return logits
