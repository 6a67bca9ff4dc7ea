"""Attribution by any method: what each patch, and each object in it, adds to the logit.

Every method gives the same arrays, so that they can be painted, compared and tested alike
(``xpath.explain.faithfulness``). Axes: N patches, L object classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ConfigError, DataError
from xpath.explain.activation import object_activation, patch_activation
from xpath.explain.attention_pool import (
    attention_pools,
    centred_activation,
    leave_out_patch_objects,
    leave_out_patches,
)
from xpath.explain.attribution import METHODS, Attribution
from xpath.explain.captum_bridge import (
    gradient_x_input,
    integrated_gradients,
    layerwise_relevance,
)
from xpath.explain.leave_one_out import leave_one_out
from xpath.explain.shapley import shapley_patches
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.object_aware import ObjectAwareMIL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.explain.attention_pool import AttentionPools
    from xpath.explain.attribution import Method
    from xpath.explain.head import AttentionClassifier, Contrast
    from xpath.mil.bag import Bag
    from xpath.protocols import SlideClassifier

__all__ = ["attribute"]

GRADIENTS = {
    "gradient_x_input": gradient_x_input,
    "integrated_gradients": integrated_gradients,
    "lrp": layerwise_relevance,
}


def attribute(
    model: AttentionClassifier | SlideClassifier,
    bag: Bag,
    method: Method = "activation",
    target: int | None = None,
    *,
    contrast: Contrast = "none",
    rng: np.random.Generator | None = None,
) -> Attribution:
    """Attributes the logit of a class to patches, and to objects in them, by a method of choice.

    Example::

        scores = attribute(model, bag, "leave_one_out", contrast="runner_up").patches

    Args:
        model: The standard or the object-aware classifier; for ``leave_one_out`` any other too.
        bag: The slide.
        method: See ``Method``.
        target: Class index; by default the predicted class.
        contrast: What the class is held against; without, values are not identifiable.
        rng: For ``shapley`` and ``random``; by default that of seed 0.

    Raises:
        ConfigError: No such method or contrast.
        DataError: No such class, or a method that a model without additive logits does not have.
    """
    if method not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if not isinstance(model, AttentionMIL | ObjectAwareMIL):
        if method == "leave_one_out":
            return leave_one_out(model, bag, target, contrast=contrast)
        raise DataError(
            f"{method} needs a logit that is a sum over patches, as AttentionMIL's and"
            f" ObjectAwareMIL's; of {type(model).__name__} ask leave_one_out"
        )
    if method in GRADIENTS:
        return GRADIENTS[method](model, bag, target, contrast=contrast)
    if method == "activation":
        return _activation(model, bag, target, contrast)
    pools = attention_pools(model, bag, target, contrast=contrast)
    rng = np.random.default_rng(0) if rng is None else rng
    patches, patch_objects = _pooled(pools, method, rng)
    return Attribution(
        method=method,
        target=pools.target,
        patches=patches,
        patch_objects=patch_objects if isinstance(model, ObjectAwareMIL) else None,
        logit=pools.logit,
        reference=pools.bias if method == "shapley" else np.nan,
    )


def _activation(
    model: AttentionClassifier, bag: Bag, target: int | None, contrast: Contrast
) -> Attribution:
    if isinstance(model, ObjectAwareMIL):
        by_object = object_activation(model, bag, target, contrast=contrast)
        values, logit, bias = by_object.patch_contribution, by_object.logit, by_object.bias
        target = by_object.target
    else:
        by_patch = patch_activation(model, bag, target, contrast=contrast)
        values, logit, bias = by_patch.scores, by_patch.logit, by_patch.bias
        target = by_patch.target
    return Attribution.of_values("activation", target, values, logit=logit, reference=bias)


def _pooled(
    pools: AttentionPools, method: Method, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Values ``(N,)`` of patches and, where the method has them, ``(N, L)`` of objects in them."""
    if method == "attention":
        present = max(1, int((pools.weight > 0).any(axis=0).sum()))
        return pools.attention.sum(axis=1) / present, pools.attention / present
    if method == "centred":
        return centred_activation(pools), None
    if method == "leave_one_out":
        return leave_out_patches(pools), leave_out_patch_objects(pools)
    if method == "shapley":
        return shapley_patches(pools, rng).values, None
    return rng.normal(size=len(pools.weight)), None
