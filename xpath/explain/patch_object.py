"""One question, many answers: what does each patch, and each object in it, add to the logit?

Every method gives the same arrays, so that they can be painted, compared and tested alike
(``xpath.explain.faithfulness``). Each states what its values sum to; where they should add up,
``delta`` is what is missing. Axes: N patches, L object kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from xpath.errors import ConfigError
from xpath.explain.activation import object_activation, patch_activation
from xpath.explain.attention_pool import (
    attention_pools,
    centred_activation,
    leave_out_cells,
    leave_out_patches,
)
from xpath.explain.captum_bridge import (
    gradient_x_input,
    integrated_gradients,
    layerwise_relevance,
)
from xpath.explain.shapley import shapley_patches
from xpath.mil.object_aware import ObjectAwareMIL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.explain.attention_pool import AttentionPools
    from xpath.explain.head import AttentionClassifier, Contrast
    from xpath.mil.bag import Bag

__all__ = ["METHODS", "Attribution", "Method", "attribute"]

Method = Literal[
    "activation",
    "attention",
    "centred",
    "gradient_x_input",
    "integrated_gradients",
    "leave_one_out",
    "lrp",
    "random",
    "shapley",
]
"""``activation``: class activation (paper, Eq. 14 and 16). ``attention``: the weight alone, of no
sign and no class. ``centred``: the first-order effect of removal. ``leave_one_out``: the effect of
removal. ``shapley``: fair shares. ``gradient_x_input``, ``integrated_gradients``, ``lrp``: see
``xpath.explain.captum_bridge``. ``random``: what any method must beat."""

METHODS: tuple[Method, ...] = get_args(Method)
"""All of them."""

GRADIENTS = {
    "gradient_x_input": gradient_x_input,
    "integrated_gradients": integrated_gradients,
    "lrp": layerwise_relevance,
}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class Attribution:
    """What one method says of one slide."""

    method: Method
    target: int
    """The class explained."""
    patches: NDArray[np.float64]
    """``(N,)``; positive where a patch speaks for the class."""
    cells: NDArray[np.float64] | None
    """``(N, L)`` of each object in each patch, 0 where it is not; None for the standard model and
    for methods that only know patches."""
    logit: float
    """The model's own, less what the class is held against."""
    reference: float
    """What the values are counted from: they should sum to ``logit - reference``. NaN for methods
    that promise no sum."""

    @property
    def objects(self) -> NDArray[np.float64] | None:
        """``(L,)`` sums over patches of what each object does in them."""
        return None if self.cells is None else self.cells.sum(axis=0)

    @property
    def delta(self) -> float:
        """Sum of the patches' values minus what it should be; NaN if nothing is promised."""
        return float(self.patches.sum()) - (self.logit - self.reference)


def attribute(
    model: AttentionClassifier,
    bag: Bag,
    method: Method = "activation",
    target: int | None = None,
    *,
    contrast: Contrast = "none",
    rng: np.random.Generator | None = None,
) -> Attribution:
    """What each patch adds to the logit of a class, by a method of choice.

    Example::

        scores = attribute(model, bag, "leave_one_out", contrast="runner_up").patches

    Args:
        model: The standard or the object-aware classifier.
        bag: What it is asked about.
        method: See ``Method``.
        target: Class index; by default the predicted class.
        contrast: What the class is held against; without, values are not identifiable.
        rng: For ``shapley`` and ``random``; by default that of seed 0.

    Raises:
        ConfigError: No such method or contrast.
        DataError: No such class, or a model that is not additive.
    """
    if method not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method in GRADIENTS:
        found = GRADIENTS[method](model, bag, target, contrast=contrast)
        reference = np.nan if method == "gradient_x_input" else found.reference
        return _told(method, found.target, found.values, found.logit, reference)
    if method == "activation":
        return _activation(model, bag, target, contrast)
    pools = attention_pools(model, bag, target, contrast=contrast)
    rng = np.random.default_rng(0) if rng is None else rng
    patches, cells = _pooled(pools, method, rng)
    aware = isinstance(model, ObjectAwareMIL)
    return Attribution(
        method=method,
        target=pools.target,
        patches=patches,
        cells=cells if aware else None,
        logit=pools.logit,
        reference=pools.bias if method == "shapley" else np.nan,
    )


def _activation(
    model: AttentionClassifier, bag: Bag, target: int | None, contrast: Contrast
) -> Attribution:
    if isinstance(model, ObjectAwareMIL):
        aware = object_activation(model, bag, target, contrast=contrast)
        values = aware.patch_contribution
        return _told("activation", aware.target, values, aware.logit, aware.bias)
    plain = patch_activation(model, bag, target, contrast=contrast)
    return _told("activation", plain.target, plain.scores, plain.logit, plain.bias)


def _pooled(
    pools: AttentionPools, method: Method, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Values of patches, and of objects in them, from the two numbers of each."""
    if method == "attention":
        kinds = max(1, int((pools.weight > 0).any(axis=0).sum()))
        return pools.attention.sum(axis=1) / kinds, pools.attention / kinds
    if method == "centred":
        return centred_activation(pools), None
    if method == "leave_one_out":
        return leave_out_patches(pools), leave_out_cells(pools)
    if method == "shapley":
        return shapley_patches(pools, rng).values, None
    return rng.normal(size=len(pools.weight)), None


def _told(
    method: Method, target: int, values: NDArray[np.float64], logit: float, reference: float
) -> Attribution:
    """Of values ``(N,)``, or ``(N, L)`` of objects, which patches sum up."""
    cells = values if values.ndim == 2 else None
    return Attribution(
        method=method,
        target=target,
        patches=values if cells is None else cells.sum(axis=1),
        cells=cells,
        logit=logit,
        reference=reference,
    )
