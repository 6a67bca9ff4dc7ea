"""Curves through points: the three forms of the paper's Table 7, with their error and band.

Axes: N points.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Points = NDArray[np.float64]

__all__ = ["FORMS", "Curve", "best_curve", "fit_curves"]

LEVEL = 0.95
STARTS = 25
"""Rates an exponential is started from, each rising and falling."""


def _line(x: Points, slope: float, start: float) -> Points:
    return slope * x + start


def _exponential(x: Points, amplitude: float, rate: float, level: float) -> Points:
    return amplitude * np.exp(np.clip(rate * x, -500, 500)) + level


def _reciprocal(x: Points, amplitude: float, level: float) -> Points:
    return amplitude / x + level


FORMS: dict[str, tuple[Callable[..., Points], str]] = {
    "linear": (_line, "y = {:.4g} x {:+.4g}"),
    "exponential": (_exponential, "y = {:.4g} exp({:.4g} x) {:+.4g}"),
    "reciprocal": (_reciprocal, "y = {:.4g} / x {:+.4g}"),
}
"""Function and equation by name."""


class Curve(NamedTuple):
    """A least-squares curve."""

    form: str
    """Key of ``FORMS``."""
    parameters: tuple[float, ...]
    """In the order of the equation."""
    covariance: Points
    """Of the parameters."""
    n: int
    """Number of points."""
    mae: float
    """Mean absolute difference of the points from the curve."""
    rmse: float
    """Root of the mean square difference."""

    @property
    def equation(self) -> str:
        """The curve in words, as in Table 7."""
        return FORMS[self.form][1].format(*self.parameters)

    def at(self, x: Points) -> Points:
        """The curve at ``(M,)`` positions."""
        return FORMS[self.form][0](x, *self.parameters)

    def band(self, x: Points) -> Points:
        """Half width of the 95 % confidence band of the curve at ``(M,)`` positions.

        By the delta method: exact for the line, to first order for the others.
        """
        from scipy.stats import t as student

        freedom = self.n - len(self.parameters)
        if freedom < 1:
            return np.full(len(x), math.nan)
        columns = []
        for index, value in enumerate(self.parameters):
            step = 1e-6 * max(1e-3, abs(value))
            moved = list(self.parameters)
            moved[index] = value + step
            columns.append((FORMS[self.form][0](x, *moved) - self.at(x)) / step)
        slopes = np.stack(columns, axis=1)
        variance = np.einsum("mi,ij,mj->m", slopes, self.covariance, slopes)
        width: Points = student.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(np.clip(variance, 0, None))
        return width


def fit_curves(x: Points, y: Points) -> tuple[Curve, ...]:
    """Least-squares curves of every form that has enough points, the line first.

    Args:
        x: ``(N,)``; with a zero or less among them there is no reciprocal.
        y: ``(N,)``.
    """
    if len(np.unique(x)) < 2:
        return ()
    curves = [_fitted("linear", x, y, [(0.0, float(y.mean()))])]
    if len(np.unique(x)) > 3 and np.ptp(y) > 0:
        curves.append(_fitted("exponential", x, y, _starts(x, y)))
    if (x > 0).all():
        curves.append(_fitted("reciprocal", x, y, [(1.0, float(y.mean()))]))
    return tuple(curve for curve in curves if curve)


def best_curve(curves: Sequence[Curve]) -> Curve | None:
    """The curve with the least Akaike criterion: a third parameter must earn its place."""

    def criterion(curve: Curve) -> float:
        return curve.n * math.log(max(curve.rmse, 1e-12) ** 2) + 2 * len(curve.parameters)

    return min(curves, key=criterion, default=None)


def _starts(x: Points, y: Points) -> list[tuple[float, float, float]]:
    """Exponentials with the best amplitude and level for rates of many sizes, best first."""
    reach = float(np.ptp(x))
    tried = []
    for size in np.geomspace(0.1, 1000, STARTS) / reach:
        for rate in (-size, size):
            shape = np.exp(np.clip(rate * (x - x.min()), -500, 50))
            columns = np.stack((shape, np.ones_like(x)), axis=1)
            solution, _, rank, _ = np.linalg.lstsq(columns, y, rcond=None)
            left = float(((columns @ solution - y) ** 2).sum())
            amplitude = float(solution[0] * np.exp(-np.clip(rate * x.min(), -500, 500)))
            if rank == 2:
                tried.append((left, (amplitude, float(rate), float(solution[1]))))
    return [start for _, start in sorted(tried)[:3]]


def _fitted(form: str, x: Points, y: Points, starts: Sequence[tuple[float, ...]]) -> Curve | None:
    """The best curve of a form from several starts, or None where none converges."""
    import warnings

    from scipy.optimize import OptimizeWarning, curve_fit

    best: Curve | None = None
    for start in starts:
        try:
            with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
                warnings.simplefilter("ignore", OptimizeWarning)  # two points tell a line no error
                values, covariance = curve_fit(FORMS[form][0], x, y, p0=start, maxfev=20_000)
        except RuntimeError:
            continue
        left = FORMS[form][0](x, *values) - y
        rmse = float(np.sqrt(np.mean(left**2)))
        if best is None or rmse < best.rmse:
            parameters = tuple(float(value) for value in values)
            mae = float(np.abs(left).mean())
            best = Curve(form, parameters, covariance, len(x), mae, rmse)
    return best
