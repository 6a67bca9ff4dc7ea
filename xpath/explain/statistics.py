"""Tests that ask no more of importances than that slides, or names, could be exchanged.

Slides of one patient are no independent witnesses, so patients are drawn, flipped and exchanged,
never slides. All p are exact where every pattern is tried, and never 0 where patterns are drawn.
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
    "name_exchange_test",
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
    """Does a value go with the class?"""

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
        NaN with fewer than two patients: one says nothing of others.
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
    """Share of sign patterns with a mean as far from 0; all patterns if that is no more work.

    The paired test of an effect and its null, patient by patient; ``greater`` asks only whether
    the mean is above 0.
    """
    sums, _ = _by_patient(values, owner)
    every = 2 ** len(sums) <= resamples
    if every:
        bits = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
    else:
        bits = np.random.default_rng(seed).integers(2, size=(resamples, len(sums)))
    found, observed = (2 * bits - 1) @ sums, sums.sum()
    if alternative == "two-sided":
        found, observed = np.abs(found), np.abs(observed)
    extreme = int((found >= observed - SAME * np.abs(sums).sum()).sum())
    return extreme / len(bits) if every else (extreme + 1) / (len(bits) + 1)


def label_exchange_test(
    values: NDArray[np.float64],
    labels: NDArray[np.integer],
    owner: Sequence[str],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
) -> LabelTest:
    """Do objects help a model towards the *right* class, on slides it was not trained on?

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
    _, first, place = np.unique(names, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), axes["K"], axes["L"]))
    np.add.at(sums, place, values)
    means = sums / np.bincount(place)[:, None, None]
    truth = np.asarray(labels)[first]
    observed = _benefit(means, truth[None])[0]
    extreme = np.ones(axes["L"])  # the assignment we have is one of them
    tolerance = SAME * np.abs(means).sum(axis=(0, 1))
    for count in _blocks(resamples, means[:, 0].size):
        drawn = rng.permuted(np.broadcast_to(truth, (count, len(truth))), axis=1)
        extreme += (_benefit(means, drawn) >= observed - tolerance).sum(axis=0)
    return LabelTest(observed, extreme / (resamples + 1))


def name_exchange_test(
    values: NDArray[np.float64],
    owner: Sequence[str],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
) -> NDArray[np.float64]:
    """Is an object more important than the others there: would any name have done?

    Names are shuffled among the objects of each slide, those of one patient in the same way.

    Args:
        values: ``(S, L)`` effect or excess; NaN where a slide lacks an object.
        owner: Patient of each slide.
        rng: Random numbers.
        resamples: Shuffles.

    Returns:
        ``(L,)`` one-sided p; 1 for an object no slide has.

    Raises:
        ShapeError: Other axes.
    """
    axes = check_shape("values", values, "S L", S=len(owner))
    names, place = np.unique(owner, return_inverse=True)
    held = np.isfinite(values)
    centred = np.where(held, values, 0.0)
    mean = centred.sum(axis=1, keepdims=True) / np.maximum(held.sum(axis=1, keepdims=True), 1)
    centred = np.where(held, centred - mean, 0.0)
    sums, counts = np.zeros((len(names), axes["L"])), np.zeros((len(names), axes["L"]))
    np.add.at(sums, place, centred)
    np.add.at(counts, place, held)
    patients = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    there = counts > 0
    observed = patients.sum(axis=0)
    extreme = np.ones(axes["L"])
    # absent objects sort last, in their own order: only those there change places
    fixed = np.argsort(~there, axis=1, kind="stable")
    for count in _blocks(resamples, there.size):
        shuffled = np.where(there, rng.random((count, *there.shape)), 2.0)
        order = np.argsort(shuffled, axis=2, kind="stable")
        moved = np.zeros((count, *there.shape))
        taken = np.take_along_axis(patients[None], order, axis=2)
        np.put_along_axis(moved, np.broadcast_to(fixed, order.shape), taken, axis=2)
        found = moved.sum(axis=1)
        extreme += (found >= observed - SAME * np.abs(patients).sum()).sum(axis=0)
    return np.where(there.any(axis=0), extreme / (resamples + 1), 1.0)


def adjusted_p(p: Sequence[float], method: Adjustment = "bh") -> NDArray[np.float64]:
    """Values of p adjusted for as many tests as there are; an empty list stays empty."""
    from scipy.stats import false_discovery_control

    if not len(p):
        return np.zeros(0)
    return np.asarray(false_discovery_control(p, method=method))


def _blocks(count: int, size: int) -> list[int]:
    """So many draws of so many numbers, in parts that fit into memory."""
    most = max(1, NUMBERS_AT_ONCE // max(1, size))
    return [min(most, count - start) for start in range(0, count, most)]


def _benefit(means: NDArray[np.float64], truth: NDArray[np.integer]) -> NDArray[np.float64]:
    """Mean towards the own class ``(R, L)`` of R assignments, every class weighing the same."""
    own = means[np.arange(truth.shape[1]), truth]
    kinds = np.unique(truth)
    shares = [(truth == k) / (truth == k).sum(axis=1, keepdims=True) for k in kinds]
    return np.asarray(np.einsum("rs,rsl->rl", np.sum(shares, axis=0), own) / len(kinds))


def _by_patient(
    values: NDArray[np.float64], owner: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum of the values and number of slides of each patient."""
    names, place = np.unique(owner, return_inverse=True)
    sums = np.zeros(len(names))
    np.add.at(sums, place, values)
    return sums, np.bincount(place, minlength=len(names)).astype(np.int64)
