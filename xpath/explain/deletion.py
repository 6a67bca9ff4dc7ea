"""Predictions while patches, or objects, are taken away or brought back.

Patches are really removed, not greyed or set to zero: an attention pool of fewer patches is still
a pool, and a set of them costs no pass through the model (``xpath.explain.attention_pool``). The
last point of a deletion is the empty slide, of which the model knows only its bias.

Axes: B sets, N patches, L object classes, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from xpath.errors import ConfigError, DataError
from xpath.explain.attention_pool import deletion_curve, insertion_curve, subset_logits
from xpath.explain.head import log_odds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.explain.attention_pool import AttentionPools

__all__ = [
    "Direction",
    "RemovalAreas",
    "Scale",
    "class_curve",
    "class_subsets",
    "curve_area",
    "ranking",
    "removal_areas",
]

Scale = Literal["log_odds", "probability", "logit"]
"""``log_odds``: of the class against all others, from logits. A change of 1 means as much on a sure
slide as on an unsure one. ``probability``: as published; flat where the model is sure. ``logit``:
the class's own, which no softmax can see alone."""


Direction = Literal["deletion", "insertion"]


class RemovalAreas(NamedTuple):
    """Mean heights of curves from all patches to none, or back."""

    deletion: float
    """Most relevant patch first: low if the ranking is right."""
    least_first: float
    """Least relevant patch first: high if the ranking is right, signs included."""
    insertion: float
    """Into the empty slide, most relevant patch first: high if the ranking is right."""
    random: float
    """Deletion in random order, mean over the draws."""
    random_error: float
    """Standard deviation of one random order."""

    @property
    def gain(self) -> float:
        """How far right and reversed order lie apart: 0 for a ranking without information."""
        return self.least_first - self.deletion


def ranking(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Patches ``(N,)`` from the highest score to the lowest, equals in their own order.

    Raises:
        DataError: Not one score per patch, or NaN.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or np.isnan(scores).any():
        raise DataError(f"scores must be (N,) without NaN, got {scores.shape}")
    return np.argsort(-scores, kind="stable")


def class_subsets(
    pools: Sequence[AttentionPools],
    target: int,
    patches: NDArray[np.bool_] | None = None,
    objects: NDArray[np.bool_] | None = None,
    *,
    scale: Scale = "log_odds",
) -> NDArray[np.float64]:
    """Predictions ``(B,)`` for sets of patches and of objects, a number for one set.

    Args:
        pools: Of all classes, from ``class_pools``.
        target: Class index.
        patches: ``(B, N)`` or ``(N,)``, True is in; None for all.
        objects: ``(B, L)`` or ``(L,)``, True is in; None for all.
        scale: Of the prediction.

    Raises:
        DataError: No such class, or sets of another size.
    """
    logits = [subset_logits(pool, patches, objects) for pool in pools]
    return _scaled(np.stack(logits, axis=-1), target, scale)


def class_curve(
    pools: Sequence[AttentionPools],
    order: NDArray[np.integer],
    target: int,
    *,
    direction: Direction = "deletion",
    scale: Scale = "log_odds",
) -> NDArray[np.float64]:
    """``(..., N + 1)`` predictions while patches are deleted, or inserted, one by one.

    Args:
        pools: Of all classes, from ``class_pools``.
        order: ``(..., N)`` which patch is first, second, and so on.
        target: Class index.
        direction: From all patches to none, or from none to all.
        scale: Of the prediction.

    Raises:
        DataError: No such class, or an order that names a patch twice.
    """
    curve = {"deletion": deletion_curve, "insertion": insertion_curve}[direction]
    return _scaled(np.stack([curve(pool, order) for pool in pools], axis=-1), target, scale)


def curve_area(curve: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean height ``(...)`` of curves ``(..., N + 1)`` over the share removed, by trapezia."""
    curve = np.asarray(curve, np.float64)
    return np.asarray(((curve[..., 1:] + curve[..., :-1]) / 2).mean(axis=-1))


def removal_areas(
    pools: Sequence[AttentionPools],
    scores: NDArray[np.floating],
    target: int,
    rng: np.random.Generator,
    *,
    scale: Scale = "log_odds",
    draws: int = 20,
) -> RemovalAreas:
    """How well a ranking of patches predicts the effect of their removal.

    Every patch counts as a step of its own, ties too, so that areas of all methods compare.

    Args:
        pools: Of all classes, from ``class_pools``.
        scores: ``(N,)`` positive where a patch speaks for the class.
        target: Class index.
        rng: Random orders.
        scale: Of the prediction.
        draws: How many random orders, 2 or more.

    Raises:
        DataError: No such class, scores of other patches or with NaN, fewer than 2 draws.
    """
    if draws < 2:
        raise DataError(f"draws must be 2 or more, got {draws}")
    order = ranking(scores)

    def area(order: NDArray[np.integer], direction: Direction = "deletion") -> float:
        curve = class_curve(pools, order, target, direction=direction, scale=scale)
        return float(curve_area(curve))

    chance = [area(rng.permutation(len(order))) for _ in range(draws)]
    return RemovalAreas(
        deletion=area(order),
        least_first=area(order[::-1]),
        insertion=area(order, "insertion"),
        random=float(np.mean(chance)),
        random_error=float(np.std(chance, ddof=1)),
    )


def _scaled(logits: NDArray[np.float64], target: int, scale: Scale) -> NDArray[np.float64]:
    """``(...)`` of logits ``(..., K)``."""
    odds = log_odds(logits, target)
    if scale == "log_odds":
        return odds
    if scale == "probability":
        return np.asarray(np.exp(-np.logaddexp(0.0, -odds)))
    if scale == "logit":
        return np.asarray(logits[..., target])
    raise ConfigError(f"scale must be 'log_odds', 'probability' or 'logit', got {scale!r}")
