"""How Dice changes with what makes an object hard: the paper's Fig. 5 and Tables 7 to 10.

Only present objects count. Axes: N samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from xpath.segment.evaluation.evaluate import Sample

__all__ = ["TRAITS", "Trait", "Trend", "TrendBin", "TrendFit", "bins_of", "fit_trend", "trends"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trait:
    """One property of the true mask, and how the paper cuts and fits it."""

    name: str
    title: str
    """For the axis of a figure."""
    edges: tuple[float, ...]
    """Borders of the intervals; the last one takes all that is larger."""
    saturating: bool = False
    """Fitted with ``a exp(-b x) + c`` (Table 7: instance size) instead of a line."""


def _steps(start: float, stop: float, step: float) -> tuple[float, ...]:
    return tuple(round(start + step * i, 6) for i in range(round((stop - start) / step) + 1))


TRAITS = (
    Trait(name="irregularity", title="irregularity", edges=_steps(0, 1, 0.05)),
    Trait(
        name="instance_ratio",
        title="instance size / image size",
        edges=_steps(0, 1, 0.05),
        saturating=True,
    ),
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


class TrendFit(NamedTuple):
    """Rank correlation and best-fit curve."""

    n: int
    spearman: float
    """NaN with fewer than three samples, or if one side is constant."""
    p: float
    """Two-sided, of the rank correlation."""
    curve: str
    """The equation, as in Table 7."""
    error: float
    """Root mean square of what the curve leaves."""
    at: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    """The curve."""


class Trend(NamedTuple):
    """One trait against Dice."""

    trait: Trait
    values: NDArray[np.float64]
    """``(N,)`` of samples where the trait is defined."""
    dice: NDArray[np.float64]
    """``(N,)``."""
    bins: tuple[TrendBin, ...]
    """Intervals that hold samples."""
    fit: TrendFit


def trends(samples: Sequence[Sample]) -> tuple[Trend, ...]:
    """Every trait against Dice, over samples whose object is there."""
    present = [sample for sample in samples if sample.present]
    dice = np.array([sample.dice for sample in present], np.float64)
    fitted = []
    for trait in TRAITS:
        values = np.array([getattr(s.traits, trait.name) for s in present], np.float64)
        defined = np.isfinite(values)
        if trait.name == "instance_count":
            defined &= values >= 1  # only specks: no instance to count
        x, y = values[defined], dice[defined]
        bins = bins_of(x, y, trait.edges)
        fitted.append(Trend(trait, x, y, bins, fit_trend(x, y, saturating=trait.saturating)))
    return tuple(fitted)


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


def fit_trend(
    values: NDArray[np.float64], dice: NDArray[np.float64], *, saturating: bool = False
) -> TrendFit:
    """Spearman's rank correlation, and a curve through the samples.

    Args:
        values: ``(N,)`` the trait.
        dice: ``(N,)``.
        saturating: Fit an exponential that levels off; a line where that does not converge.
    """
    from scipy.stats import spearmanr

    rho = p = math.nan
    varied = len(values) >= 3 and np.ptp(values) > 0
    if varied and np.ptp(dice) > 0:
        rho, p = (float(number) for number in spearmanr(values, dice))
    exponential = _exponential(values, dice) if saturating and varied else None
    curve, at = exponential or _line(values, dice)
    error = float(np.sqrt(np.mean((at(values) - dice) ** 2))) if len(values) else math.nan
    return TrendFit(len(values), rho, p, curve, error, at)


Curve = tuple[str, "Callable[[NDArray[np.float64]], NDArray[np.float64]]"]


def _line(values: NDArray[np.float64], dice: NDArray[np.float64]) -> Curve:
    """Least squares, level if all values are the same."""
    centre = float(values.mean()) if len(values) else 0.0
    level = float(dice.mean()) if len(dice) else math.nan
    spread = float(((values - centre) ** 2).sum())
    slope = float(((values - centre) * (dice - level)).sum()) / spread if spread else 0.0
    start = level - slope * centre
    return f"y = {slope:.4g} x {start:+.4g}", lambda x: slope * x + start


def _exponential(values: NDArray[np.float64], dice: NDArray[np.float64]) -> Curve | None:
    """Least squares of ``a exp(-b x) + c``: linear for a given decay b, which is searched."""
    best: tuple[float, float, NDArray[np.float64]] | None = None
    for decay in np.geomspace(0.1, 1000, 81) / float(np.abs(values).max()):
        columns = np.stack((np.exp(-decay * values), np.ones_like(values)), axis=1)
        solution, _, rank, _ = np.linalg.lstsq(columns, dice, rcond=None)
        left = float(((columns @ solution - dice) ** 2).sum())
        if rank == 2 and (best is None or left < best[0]):
            best = (left, float(decay), solution)
    if best is None:
        return None
    _, decay, (amplitude, level) = best
    return (
        f"y = {amplitude:.4g} exp(-{decay:.4g} x) {level:+.4g}",
        lambda x: amplitude * np.exp(-decay * x) + level,
    )


def _density(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian kernel density at every value, 1 where there is nothing to estimate."""
    from scipy.stats import gaussian_kde

    if len(values) < 3 or not np.ptp(values) > 0:
        return np.ones_like(values)
    grid = np.linspace(values.min(), values.max(), 1024)  # exact enough, and linear in N
    return np.asarray(np.interp(values, grid, gaussian_kde(values)(grid)), np.float64)
