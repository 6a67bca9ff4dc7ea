"""Captum's attribution methods on named objects.

Captum perturbs numbers, so every object is a number: 1 shown, 0 hidden. What that means for the
slide is decided by the caller, overlaps included. Axes: B coalitions, L objects, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["attribute_objects"]


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
    """
    from captum.attr import FeatureAblation, ShapleyValueSampling

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
