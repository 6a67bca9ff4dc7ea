"""Calibration of probabilities, and the temperature that mends it (Guo et al. 2017).

Axes: B slides, K classes, M bins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "COOLEST",
    "HOTTEST",
    "CalibrationMetrics",
    "Reliability",
    "calibration_metrics",
    "fit_temperature",
    "reliability",
    "scaled_probability",
]

COOLEST, HOTTEST = 0.05, 20.0
"""Where the search for a temperature ends. Slides that are all right would be best at 0, and
slides no better than chance at infinity: both say that there were too few of them."""


class Reliability(NamedTuple):
    """Points of a reliability plot, without the bins that hold no slide."""

    confidence: NDArray[np.float64]
    """``(M,)`` mean probability of the predicted class."""
    accuracy: NDArray[np.float64]
    """``(M,)`` share of slides predicted right."""
    low: NDArray[np.float64]
    """``(M,)`` lower end of the accuracy's 95 % interval (Wilson)."""
    high: NDArray[np.float64]
    """``(M,)`` upper end."""
    slides: NDArray[np.int64]
    """``(M,)`` how many."""

    @property
    def ece(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy, over slides."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float((gaps * self.slides).sum() / self.slides.sum())


class CalibrationMetrics(NamedTuple):
    """Calibration of probabilities, 0 being perfect."""

    ece: float
    """Expected calibration error."""
    brier: float
    """Mean squared distance to the true class, summed over classes: 0 to 2."""
    log_loss: float
    """Mean negative log-likelihood, nats; infinite where the true class was called impossible."""


def reliability(
    probability: NDArray[np.floating],
    label: NDArray[np.integer],
    *,
    bins: int = 15,
    equal_mass: bool = False,
) -> Reliability:
    """Confidence beside accuracy, by bins of confidence.

    Args:
        probability: ``(B, K)``, rows sum to one.
        label: ``(B,)`` classes 0 to K - 1.
        bins: Number of bins over 0 to 1.
        equal_mass: Bins of equally many slides instead of equal width; with few slides the
            error is then less a matter of where the edges lie.

    Raises:
        DataError: No slides, no probabilities, a label that is no class, or no bins.
        ShapeError: Other axes.
    """
    _check(probability, label)
    if bins < 1:
        raise DataError(f"bins must be 1 or more, got {bins}")
    top = np.asarray(probability, np.float64).max(axis=1)
    right = np.asarray(probability).argmax(axis=1) == label
    index = np.minimum((top * bins).astype(np.int64), bins - 1)
    if equal_mass:
        rank = np.argsort(np.argsort(top, kind="stable"), kind="stable")
        index = rank * bins // len(top)
    count = np.bincount(index, minlength=bins)
    there = count > 0
    confidence = np.bincount(index, top, bins)[there] / count[there]
    accuracy = np.bincount(index, right, bins)[there] / count[there]
    low, high = _wilson(accuracy, count[there])
    return Reliability(confidence, accuracy, low, high, count[there])


def calibration_metrics(
    probability: NDArray[np.floating], label: NDArray[np.integer], *, bins: int = 15
) -> CalibrationMetrics:
    """Expected calibration error, Brier score and log-loss.

    Raises:
        DataError: No slides, no probabilities, or a label that is no class.
        ShapeError: Other axes.
    """
    ece = reliability(probability, label, bins=bins).ece
    chances = np.asarray(probability, np.float64)
    truth = np.eye(chances.shape[1])[label]
    with np.errstate(divide="ignore"):
        losses = -np.log(chances[np.arange(len(label)), label])
    brier = ((chances - truth) ** 2).sum(axis=1).mean()
    return CalibrationMetrics(ece, float(brier), float(losses.mean()))


def fit_temperature(logits: NDArray[np.floating], label: NDArray[np.integer]) -> float:
    """The temperature T for which ``softmax(logits / T)`` suits the labels best.

    Take slides that did not train the model, the validation slides. Above 1, it was too sure.
    Which class is predicted does not change, nor does a two-class AUC.

    Args:
        logits: ``(B, K)``, finite.
        label: ``(B,)`` classes 0 to K - 1.

    Returns:
        Between ``COOLEST`` and ``HOTTEST``; 1 where none is better, as of equal logits.

    Raises:
        DataError: No slides, logits that are not finite, or a label that is no class.
        ShapeError: Other axes.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    values = np.asarray(logits, np.float64)
    _check(scaled_probability(values, 1.0), label)
    rows = np.arange(len(label))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(values / np.exp(log_temperature), axis=1)
        return float(-scaled[rows, label].mean())

    bounds = (np.log(COOLEST), np.log(HOTTEST))
    # The loss is convex in 1/T, so it has one minimum in log T; compare the ends by hand, because
    # the bounded search never quite reaches them.
    inner = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    best = min((0.0, *bounds, float(inner.x)), key=loss)  # the first of equals
    return float(np.exp(best))


def scaled_probability(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """``softmax(logits / temperature)`` over the last axis, ``(..., K)``.

    Raises:
        DataError: A temperature that is not positive, or logits that are not finite.
    """
    from scipy.special import softmax

    if not temperature > 0:
        raise DataError(f"temperature must be positive, got {temperature}")
    values = np.asarray(logits, np.float64)
    if not np.isfinite(values).all():
        raise DataError("logits must be finite")
    probability: NDArray[np.float64] = softmax(values / temperature, axis=-1)
    return probability


def _wilson(
    share: NDArray[np.float64], count: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % interval of a share (Wilson 1927): inside 0 to 1, also for a handful of slides."""
    z = 1.959963984540054
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return centre - reach, centre + reach


def _check(probability: NDArray[np.floating], label: NDArray[np.integer]) -> None:
    sizes = check_shape("probability", probability, "B K")
    check_shape("label", label, "B", B=sizes["B"])
    if not sizes["B"]:
        raise DataError("there are no slides to calibrate on")
    if not np.allclose(np.asarray(probability).sum(axis=1), 1, atol=1e-4):  # False also for NaN
        raise DataError("the rows of probability must sum to one; apply a softmax to logits first")
    if np.min(label) < 0 or np.max(label) >= sizes["K"]:
        raise DataError(f"labels must be 0 to {sizes['K'] - 1}, got {np.unique(label).tolist()}")
