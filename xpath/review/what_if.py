"""The object-aware model's answer without an object: exact, and without running the model.

The logit is a sum of what each object class adds in each patch, weighted by attention (see
``xpath.explain.activation``). If a class is absent from some patches, the attention on its other
patches is spread over the rest, by 1 over what is left of it; if it is absent from all, it adds
nothing. Nothing else changes, because classes do not see each other.
Axes: N patches, L object classes (indices j), K slide classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.explain.activation import object_activation
from xpath.explain.head import forward, log_odds
from xpath.metrics.calibration import scaled_probability

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.mil.bag import Bag
    from xpath.mil.object_aware import ObjectAwareMIL

__all__ = ["WhatIf", "Without", "what_if_of"]

LEFT = 1e-9
"""Attention below this is rounding; how it would be spread is unknown."""


class Without(NamedTuple):
    """The answer without an object."""

    log_odds: float
    """Change of the class's log-odds; below 0: the object spoke for it."""
    probability: float
    """Of the class, calibrated."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class WhatIf:
    """The terms of one slide's logits, from which every answer follows."""

    attention: NDArray[np.float64]
    """``(N, L)``; sums to one for every object class that is present."""
    terms: NDArray[np.float64]
    """``(N, L, K)`` what each object class adds in each patch to each logit."""
    bias: NDArray[np.float64]
    """``(K,)``."""
    present_only: bool
    """Whether the mean is over the object classes that are present."""
    temperature: float = 1.0
    """By which logits are divided before they are made probabilities."""

    def logits(self) -> NDArray[np.float64]:
        """``(K,)`` as it is."""
        return np.asarray(self.terms.sum(axis=0).sum(axis=0) + self.bias)

    def without(self, target: int, j: int, patches: NDArray[np.int64] | None) -> Without | None:
        """The answer if an object class were absent from some patches, or from all (None).

        None where nearly all attention is on those patches: then rounding decides.
        """
        terms = self.terms.sum(axis=0)  # (L, K)
        held = self.attention[:, j] > 0
        gone = held.copy() if patches is None else np.zeros(len(held), np.bool_)
        gone[slice(None) if patches is None else patches] = True
        rest = held & ~gone
        left = float(self.attention[rest, j].sum())
        if rest.any() and left < LEFT:
            return None
        terms[j] = self.terms[rest, j].sum(axis=0) / left if rest.any() else 0.0
        if self.present_only and held.any() and not rest.any():
            count = int((self.attention.sum(axis=0) > 0).sum())
            terms *= count / max(1, count - 1)
        after = terms.sum(axis=0) + self.bias
        change = float(log_odds(after, target) - log_odds(self.logits(), target))
        return Without(change, float(scaled_probability(after, self.temperature)[target]))


def what_if_of(model: ObjectAwareMIL, bag: Bag, temperature: float = 1.0) -> WhatIf:
    """The terms of the model's logits on a slide, by patch, object class and slide class.

    Raises:
        DataError: The model's logit is no such sum.
    """
    terms = [object_activation(model, bag, target) for target in range(len(model.classes))]
    return WhatIf(
        attention=forward(model, bag).attention.numpy(),
        terms=np.stack([term.patch_contribution for term in terms], axis=-1),
        bias=np.array([term.bias for term in terms]),
        present_only=model.config.average == "present",
        temperature=temperature,
    )
