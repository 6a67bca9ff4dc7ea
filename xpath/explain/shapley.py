"""Fair shares of a logit (Shapley 1953), over patches and over objects.

Each share is the mean, over all orders in which the parts may join, of what a part adds when it
does. The shares sum to the logit minus the bias. Over objects the mean is known in closed form;
over patches orders are drawn, each together with its reverse, and every order costs one running
sum (``xpath.explain.attention_pool``); a few patches or regions are counted out. Axes: N patches,
L object classes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.explain.attention_pool import insertion_curve, subset_logits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.explain.attention_pool import AttentionPools

__all__ = ["ShapleyEstimate", "shapley_exact", "shapley_objects", "shapley_patches"]

MOST_PLAYERS = 16
"""They have 65,536 sets: a fraction of a second."""


NUMBERS_AT_ONCE = 1_000_000
"""Numbers of one running sum held in memory at a time: more would not stay in the cache."""


class ShapleyEstimate(NamedTuple):
    """Estimated Shapley shares, for which ``values.sum() == logit - bias`` always holds."""

    values: NDArray[np.float64]
    """``(N,)``."""
    error: NDArray[np.float64]
    """``(N,)`` standard errors."""


def shapley_patches(
    pools: AttentionPools, rng: np.random.Generator, *, orders: int = 200
) -> ShapleyEstimate:
    """Shares of patches, or of the groups of ``attention_pool.merged``.

    Args:
        pools: From ``attention_pools``.
        rng: Which orders.
        orders: How many, an even number from 4 on: half are drawn, half are their reverses.

    Raises:
        DataError: An odd number of orders, or fewer than 4.
    """
    if orders < 4 or orders % 2:
        raise DataError(f"orders must be an even number from 4 on, got {orders}")
    count, classes = pools.weight.shape
    pairs, at_once = orders // 2, max(1, NUMBERS_AT_ONCE // (count * classes))
    total, squares = np.zeros(count), np.zeros(count)
    for start in range(0, pairs, at_once):
        rows = min(at_once, pairs - start)
        order = rng.permuted(np.tile(np.arange(count), (rows, 1)), axis=1)
        share = (_added(pools, order) + _added(pools, order[:, ::-1])) / 2
        total += share.sum(axis=0)
        squares += (share**2).sum(axis=0)
    mean = total / pairs
    variance = np.maximum(squares / pairs - mean**2, 0) * pairs / (pairs - 1)
    return ShapleyEstimate(mean, np.sqrt(variance / pairs))


def shapley_exact(pools: AttentionPools) -> NDArray[np.float64]:
    """Shares ``(N,)`` of a few patches, or of the groups of ``attention_pool.merged``, exact.

    By the definition, over all sets: ``φ_i = Σ_S |S|! (N - |S| - 1)! / N! (v(S + i) - v(S))``.

    Raises:
        DataError: More than 16 of them; merge them into regions, or use ``shapley_patches``.
    """
    count = len(pools.weight)
    if count > MOST_PLAYERS:
        raise DataError(
            f"there are {count} patches, and 2 to the {count} sets: merge them into at most"
            f" {MOST_PLAYERS} groups, or estimate with shapley_patches"
        )
    sets = np.arange(2**count)[:, None] >> np.arange(count) & 1  # row k: the bits of k
    logits = subset_logits(pools, sets.astype(bool))
    sizes = sets.sum(axis=1)
    choices = np.array([math.comb(count - 1, size) for size in range(count)]) * count
    shares = np.empty(count)
    for player in range(count):
        without = np.flatnonzero(sets[:, player] == 0)
        gain = logits[without + (1 << player)] - logits[without]
        shares[player] = (gain / choices[sizes[without]]).sum()
    return shares


def shapley_objects(pools: AttentionPools) -> NDArray[np.float64]:
    """Exact shares of objects ``(L,)``, 0 for those that are absent.

    With a fixed divisor the logit is a sum over objects, and the shares are its terms. A mean over
    those present is a game in which only the number of the others counts: with n present, A their
    values and Ā the mean of all but one, ``φ_j = (A_j + (H_n - 1)(A_j - Ā)) / n``, where
    ``H_n = 1 + 1/2 + ... + 1/n``.
    """
    there = pools.weight.sum(axis=0) > 0
    values = (pools.attention * pools.evidence).sum(axis=0)
    if pools.average == "all":
        return np.where(there, values / len(there), 0.0)
    number = int(there.sum())
    if number < 2:
        return np.where(there, values, 0.0)
    others = (values[there].sum() - values) / (number - 1)
    harmonic = (1 / np.arange(1, number + 1)).sum()
    return np.where(there, (values + (harmonic - 1) * (values - others)) / number, 0.0)


def _added(pools: AttentionPools, order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Gain ``(orders, N)`` from each patch in each order."""
    added = np.empty(order.shape)
    np.put_along_axis(added, order, np.diff(insertion_curve(pools, order), axis=-1), axis=-1)
    return added
