"""What becomes of a prediction while patches, or objects, are taken away or brought back.

Patches are really removed, not greyed or set to zero: an attention pool of fewer patches is still
a pool, and a set of them costs no pass through the model (``xpath.explain.attention_pool``). The
last point of a deletion is the empty slide, of which the model knows only its bias.

Axes: N patches, L object kinds, K classes.
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
    "RemovalAreas",
    "Scale",
    "class_deletion",
    "class_insertion",
    "class_subsets",
    "curve_area",
    "object_deletion",
    "ranking",
    "removal_areas",
]

Scale = Literal["log_odds", "probability", "logit"]
"""``log_odds``: of the class against all others, from logits; a change of 1 means as much on a sure
slide as on an unsure one. ``probability``: as published; flat where the model is sure. ``logit``:
the class's own, which no softmax can see alone."""


class RemovalAreas(NamedTuple):
    """Means over curves, each from all patches to none or back: higher, the longer it stays up."""

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
        """How far right and reversed order lie apart: 0 for a ranking that says nothing."""
        return self.least_first - self.deletion


def ranking(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Patches ``(N,)`` from the highest score to the lowest; equals in their own order.

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
    """What the model makes of sets of patches and of objects ``(B,)``; a number for one set.

    Args:
        pools: Of all classes, from ``class_pools``.
        target: Class index.
        patches: ``(B, N)`` or ``(N,)``, True is in; None for all.
        objects: ``(B, L)`` or ``(L,)``, True is in; None for all.
        scale: What is told.

    Raises:
        DataError: No such class, or sets of another size.
    """
    logits = [subset_logits(pool, patches, objects) for pool in pools]
    return _scaled(np.stack(logits, axis=-1), target, scale)


def class_deletion(
    pools: Sequence[AttentionPools],
    order: NDArray[np.integer],
    target: int,
    *,
    scale: Scale = "log_odds",
) -> NDArray[np.float64]:
    """``(..., N + 1)`` while patches go one by one; the first of all, the last of none.

    Args:
        pools: Of all classes, from ``class_pools``.
        order: ``(..., N)`` which patch goes first, second, and so on.
        target: Class index.
        scale: What is told.

    Raises:
        DataError: No such class, or an order that names a patch twice.
    """
    curves = [deletion_curve(pool, order) for pool in pools]
    return _scaled(np.stack(curves, axis=-1), target, scale)


def class_insertion(
    pools: Sequence[AttentionPools],
    order: NDArray[np.integer],
    target: int,
    *,
    scale: Scale = "log_odds",
) -> NDArray[np.float64]:
    """``(..., N + 1)`` while patches come one by one; arguments as for ``class_deletion``."""
    curves = [insertion_curve(pool, order) for pool in pools]
    return _scaled(np.stack(curves, axis=-1), target, scale)


def object_deletion(
    pools: Sequence[AttentionPools],
    order: NDArray[np.integer],
    target: int,
    *,
    scale: Scale = "log_odds",
) -> NDArray[np.float64]:
    """``(L + 1,)`` while objects are struck from the slide one by one.

    Args:
        pools: Of all classes, from ``class_pools``.
        order: ``(L,)`` which object goes first, second, and so on.
        target: Class index.
        scale: What is told.

    Raises:
        DataError: No such class, or an order that names an object twice.
    """
    kinds = pools[0].weight.shape[1] if pools else 0
    if not np.array_equal(np.sort(order), np.arange(kinds)):
        raise DataError(f"order must name each of {kinds} objects once, got {order}")
    step = np.empty(kinds, np.int64)
    step[order] = np.arange(kinds)
    left = step >= np.arange(kinds + 1)[:, None]  # (L + 1, L)
    return class_subsets(pools, target, None, left, scale=scale)


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
    """How well a ranking of patches foretells what their removal does.

    Every patch counts as a step of its own, ties too, so that areas of all methods compare.

    Args:
        pools: Of all classes, from ``class_pools``.
        scores: ``(N,)`` positive where a patch speaks for the class.
        target: Class index.
        rng: Random orders.
        scale: What is told.
        draws: How many random orders, 2 or more.

    Raises:
        DataError: No such class, scores of other patches or with NaN, fewer than 2 draws.
    """
    if draws < 2:
        raise DataError(f"draws must be 2 or more, got {draws}")
    order = ranking(scores)
    areas = {
        "deletion": class_deletion(pools, order, target, scale=scale),
        "least_first": class_deletion(pools, order[::-1], target, scale=scale),
        "insertion": class_insertion(pools, order, target, scale=scale),
    }
    chance = [
        float(curve_area(class_deletion(pools, rng.permutation(len(order)), target, scale=scale)))
        for _ in range(draws)
    ]
    return RemovalAreas(
        **{name: float(curve_area(curve)) for name, curve in areas.items()},
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
