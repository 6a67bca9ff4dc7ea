"""The answer of every explanation method: one number per patch, and per object in it.

Axes: N patches, L object classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["METHODS", "Attribution", "Method"]

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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class Attribution:
    """Attribution of one slide's logit by one method."""

    method: Method
    target: int
    """The class explained."""
    patches: NDArray[np.float64]
    """``(N,)``, positive where a patch speaks for the class."""
    patch_objects: NDArray[np.float64] | None = None
    """``(N, L)`` of each object in each patch, 0 where it is absent. None for the standard model
    and for methods that only know patches."""
    logit: float
    """The model's own, less what the class is held against."""
    reference: float = np.nan
    """The logit the values are counted from: they should sum to ``logit - reference``. NaN for
    methods that promise no sum."""

    @property
    def objects(self) -> NDArray[np.float64] | None:
        """``(L,)`` sums over the patches."""
        return None if self.patch_objects is None else self.patch_objects.sum(axis=0)

    @property
    def delta(self) -> float:
        """Sum of the patches' values minus what it should be, NaN if no sum is promised."""
        return float(self.patches.sum()) - (self.logit - self.reference)

    @classmethod
    def of_values(
        cls,
        method: Method,
        target: int,
        values: NDArray[np.float64],
        *,
        logit: float,
        reference: float = np.nan,
    ) -> Attribution:
        """The attribution with values ``(N,)`` of patches, or ``(N, L)`` of the objects in them."""
        by_object = values.ndim == 2
        return cls(
            method=method,
            target=target,
            patches=values.sum(axis=1) if by_object else values,
            patch_objects=values if by_object else None,
            logit=logit,
            reference=reference,
        )
