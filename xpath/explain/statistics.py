"""Permutation tests of importances over patients.

Slides of one patient are not independent, so patients are drawn, flipped and exchanged, never
slides. All p are exact where every pattern is tried, and never 0 where patterns are drawn.
Axes: S slides, K classes, L objects, P patients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from xpath.errors import DataError, ShapeError
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "Adjustment",
    "Alternative",
    "LabelTest",
    "adjusted_p",
    "label_exchange_test",
    "mean_interval",
    "sign_flip_test",
]

Adjustment = Literal["bh", "by"]
"""``bh``: Benjamini and Hochberg, for tests that are independent or rise together. ``by``:
Benjamini and Yekutieli, for any dependence, such as objects that lie within each other."""

Alternative = Literal["two-sided", "greater"]

NUMBERS_AT_ONCE = 4_000_000
"""Numbers held in memory at a time."""

SAME = 1e-12
"""Sums in another order differ in their last bits."""


class LabelTest(NamedTuple):
    """Whether values go with the class, object by object."""

    benefit: NDArray[np.float64]
    """``(L,)`` mean value towards the slide's own class, classes counted alike."""
    p: NDArray[np.float64]
    """``(L,)`` one-sided: how often as large a benefit comes if patients swap their classes."""


def mean_interval(
    values: NDArray[np.float64],
    owner: Sequence[str],
    seed: int | Sequence[int],
    resamples: int,
) -> tuple[float, float]:
    """95 % percentile interval of the mean, patients drawn with replacement.

    Args:
        values: ``(S,)``.
        owner: Patient of each slide.
        seed: Of the draws.
        resamples: How many.

    Returns:
        NaN with fewer than two patients: one is no evidence about others.
    """
    sums, counts = _by_patient(values, owner)
    if len(sums) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def sign_flip_test(
    values: NDArray[np.float64],
    owner: Sequence[str],
    seed: int | Sequence[int],
    resamples: int,
    alternative: Alternative = "two-sided",
) -> float:
    """Share of sign patterns with a mean as far from 0 (of all patterns where they are few).

    The paired test of an effect and its null, patient by patient; ``greater`` asks only whether
    the mean is above 0.
    """
    sums, _ = _by_patient(values, owner)
    every = 2 ** len(sums) <= resamples
    if every:
        bits = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
    else:
        bits = np.random.default_rng(seed).integers(2, size=(resamples, len(sums)))
    flipped, observed = (2 * bits - 1) @ sums, sums.sum()
    if alternative == "two-sided":
        flipped, observed = np.abs(flipped), np.abs(observed)
    extreme = int((flipped >= observed - SAME * np.abs(sums).sum()).sum())
    return extreme / len(bits) if every else (extreme + 1) / (len(bits) + 1)


def label_exchange_test(
    values: NDArray[np.float64],
    labels: NDArray[np.integer],
    owner: Sequence[str],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
) -> LabelTest:
    """Tests whether objects help a model towards the *right* class on slides it did not train on.

    A trained model always has reasons; also one that learnt nothing true. It needs its objects in
    slides of every class alike. So here slides swap their classes: if the classes of the slides
    are worth nothing, every assignment is as likely, and p is exact whatever the model is. Objects
    of one slide are moved together, so that their p are alike in dependence.

    Args:
        values: ``(S, K, L)`` effect or excess towards each class; 0 where a slide lacks an object.
        labels: ``(S,)`` class of each slide.
        owner: Patient of each slide; the slides of a patient and class count as one.
        rng: Random numbers.
        resamples: Assignments that are drawn.

    Raises:
        DataError: Values that are no numbers, labels that are no class, or a single class.
        ShapeError: Other axes, or not one label and patient per slide.
    """
    axes = check_shape("values", values, "S K L")
    if len(labels) != axes["S"] or len(owner) != axes["S"]:
        raise ShapeError(f"{axes['S']} slides, {len(labels)} labels and {len(owner)} patients")
    if not np.isfinite(values).all():
        raise DataError("values must be finite; leave out slides without a value")
    if len(np.unique(labels)) < 2 or min(labels) < 0 or max(labels) >= axes["K"]:
        raise DataError(
            f"labels must be of two classes at least, all below {axes['K']}; got"
            f" {np.unique(labels).tolist()}"
        )
    names = [f"{name}\n{label}" for name, label in zip(owner, labels, strict=True)]
    _, first, group = np.unique(names, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), axes["K"], axes["L"]))
    np.add.at(sums, group, values)
    means = sums / np.bincount(group)[:, None, None]
    truth = np.asarray(labels)[first]
    observed = _benefit(means, truth[None])[0]
    extreme = np.ones(axes["L"])  # the assignment we have is one of them
    tolerance = SAME * np.abs(means).sum(axis=(0, 1))
    for count in _blocks(resamples, means[:, 0].size):
        drawn = rng.permuted(np.broadcast_to(truth, (count, len(truth))), axis=1)
        extreme += (_benefit(means, drawn) >= observed - tolerance).sum(axis=0)
    return LabelTest(observed, extreme / (resamples + 1))


def adjusted_p(p: Sequence[float], method: Adjustment = "bh") -> NDArray[np.float64]:
    """Values of p adjusted for the number of tests (an empty list stays empty)."""
    from scipy.stats import false_discovery_control

    if not len(p):
        return np.zeros(0)
    return np.asarray(false_discovery_control(p, method=method))


def _blocks(count: int, size: int) -> list[int]:
    """Numbers of draws, each of ``size`` numbers, that fit into memory and add up to ``count``."""
    most = max(1, NUMBERS_AT_ONCE // max(1, size))
    return [min(most, count - start) for start in range(0, count, most)]


def _benefit(means: NDArray[np.float64], truth: NDArray[np.integer]) -> NDArray[np.float64]:
    """Mean towards the own class ``(R, L)`` of R assignments, every class weighing the same."""
    own = means[np.arange(truth.shape[1]), truth]
    classes = np.unique(truth)
    shares = [(truth == k) / (truth == k).sum(axis=1, keepdims=True) for k in classes]
    return np.asarray(np.einsum("rs,rsl->rl", np.sum(shares, axis=0), own) / len(classes))


def _by_patient(
    values: NDArray[np.float64], owner: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum of the values and number of slides of each patient."""
    names, patient = np.unique(owner, return_inverse=True)
    sums = np.zeros(len(names))
    np.add.at(sums, patient, values)
    return sums, np.bincount(patient, minlength=len(names)).astype(np.int64)
