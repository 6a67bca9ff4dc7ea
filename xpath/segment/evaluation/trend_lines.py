"""How Dice changes with what makes an object hard: the paper's Fig. 5 and Tables 7 to 10.

Only present objects count. Axes: N samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import ShapeError
from xpath.segment.evaluation.curves import fit_curves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.segment.evaluation.curves import Curve
    from xpath.segment.evaluation.evaluate import Sample

__all__ = ["TRAITS", "Trait", "Trend", "TrendBin", "bins_of", "trend_of", "trends"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trait:
    """One property of the true mask, and how the paper cuts and fits it."""

    name: str
    title: str
    """For the axis of a figure."""
    edges: tuple[float, ...]
    """Borders of the intervals; the last one takes all that is larger."""


GRID = 1024
"""Positions at which the density of a trait is computed."""


def _steps(start: float, stop: float, step: float) -> tuple[float, ...]:
    return tuple(round(start + step * i, 6) for i in range(round((stop - start) / step) + 1))


TRAITS = (
    Trait(name="irregularity", title="irregularity", edges=_steps(0, 1, 0.05)),
    Trait(name="instance_ratio", title="instance size / image size", edges=_steps(0, 1, 0.05)),
    Trait(name="instance_count", title="instances per mask", edges=(1.0, *_steps(2, 74, 2))),
    Trait(name="dispersion", title="largest distance of instances [px]", edges=_steps(0, 1400, 50)),
    Trait(name="box_ratio", title="box ratio", edges=_steps(0, 1, 0.05)),
    Trait(name="convex_ratio", title="convex ratio", edges=_steps(0, 1, 0.05)),
    Trait(name="inertia_ratio", title="inverse rotational inertia", edges=_steps(0, 1, 0.05)),
)
"""The paper's four (Tables 8 to 10; dispersion in steps of our own) and BiomedParse's three."""


class TrendBin(NamedTuple):
    """Samples whose trait lies in ``[low, high)``. The last interval is closed or open-ended."""

    low: float
    high: float
    n: int
    trait: float
    """Mean trait."""
    dice: float
    """Mean Dice."""
    trait_weighted: float
    """Mean trait, samples weighted with the Gaussian kernel density of the trait (Table 8)."""
    dice_weighted: float
    """Mean Dice, weighted likewise."""


class Trend(NamedTuple):
    """One trait against Dice."""

    trait: Trait
    values: NDArray[np.float64]
    """``(N,)`` of samples where the trait is defined."""
    dice: NDArray[np.float64]
    """``(N,)``."""
    bins: tuple[TrendBin, ...]
    """Intervals that hold samples."""
    curves: tuple[Curve, ...]
    """Through the weighted means of the intervals, as in Table 7; none through a single one."""
    spearman: float
    """Rank correlation of the samples; NaN with fewer than three, or if one side is constant."""
    p: float
    """Two-sided, of the rank correlation."""


def trends(samples: Sequence[Sample]) -> tuple[Trend, ...]:
    """Every trait against Dice, over samples whose object is there."""
    present = [sample for sample in samples if sample.present]
    dice = np.array([sample.dice for sample in present], np.float64)
    return tuple(
        trend_of(trait, np.array([getattr(s.traits, trait.name) for s in present], float), dice)
        for trait in TRAITS
    )


def trend_of(trait: Trait, values: NDArray[np.float64], dice: NDArray[np.float64]) -> Trend:
    """One trait against Dice.

    Args:
        trait: Which.
        values: ``(N,)``; samples without a value are left out.
        dice: ``(N,)``.
    """
    defined = np.isfinite(values)
    if trait.name == "instance_count":
        defined &= values >= 1  # only specks: no instance to count
    x, y = values[defined], dice[defined]
    bins = bins_of(x, y, trait.edges)
    weighted = np.array([(b.trait_weighted, b.dice_weighted) for b in bins]).reshape(-1, 2)
    curves = fit_curves(weighted[:, 0], weighted[:, 1])
    return Trend(trait, x, y, bins, curves, *_spearman(x, y))


def bins_of(
    values: NDArray[np.float64], dice: NDArray[np.float64], edges: Sequence[float]
) -> tuple[TrendBin, ...]:
    """Means within intervals, without the empty ones.

    Args:
        values: ``(N,)`` the trait.
        dice: ``(N,)``.
        edges: Rising borders. What lies on or beyond the last goes into the last interval if it
            equals it, else into one more without an end.

    Raises:
        ShapeError: Unequal numbers of values.
    """
    if values.shape != dice.shape:
        raise ShapeError(f"values and dice must be (N,), got {values.shape} and {dice.shape}")
    borders = np.asarray(edges, np.float64)
    interval = np.searchsorted(borders, values, side="right") - 1
    interval[values == borders[-1]] = len(borders) - 2
    weight = _density(values)
    bins = []
    for number in np.unique(interval[interval >= 0]):
        inside = interval == number
        x, y, w = values[inside], dice[inside], weight[inside]
        high = borders[number + 1] if number + 1 < len(borders) else math.inf
        weighted = float(np.average(x, weights=w)), float(np.average(y, weights=w))
        plain = float(x.mean()), float(y.mean())
        bins.append(TrendBin(float(borders[number]), float(high), len(x), *plain, *weighted))
    return tuple(bins)


def _spearman(values: NDArray[np.float64], dice: NDArray[np.float64]) -> tuple[float, float]:
    from scipy.stats import spearmanr

    if len(values) < 3 or not np.ptp(values) > 0 or not np.ptp(dice) > 0:
        return math.nan, math.nan
    rho, p = spearmanr(values, dice)
    return float(rho), float(p)


def _density(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian kernel density at every value, 1 where there is nothing to estimate."""
    from scipy.stats import gaussian_kde

    if len(values) < 3 or not np.ptp(values) > 0:
        return np.ones_like(values)
    grid = np.linspace(values.min(), values.max(), GRID)  # exact enough, and linear in N
    points, weights = values, None
    if len(values) > GRID:  # as many as the grid has, each as heavy as the samples it stands for
        weights, edges = np.histogram(values, bins=GRID)
        points = (edges[:-1] + edges[1:]) / 2
    density = gaussian_kde(points, bw_method=len(values) ** -0.2, weights=weights)  # Scott's rule
    return np.asarray(np.interp(values, grid, density(grid)), np.float64)
