"""Permutation tests of importances over patients.

Slides of one patient are not independent, so patients are exchanged, never slides. All p are exact
where every pattern is tried, and never 0 where patterns are drawn.
Axes: S slides, K classes, L objects, P patients, R assignments.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from xpath.errors import DataError, ShapeError
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "Adjustment",
    "LabelTest",
    "adjusted_p",
    "label_exchange_test",
]

Adjustment = Literal["max_t", "bh", "by"]
"""``max_t``: for the chance that any object is called wrongly, whatever their dependence. For the
share of wrong ones among those called, ``bh``: Benjamini and Hochberg, if tests are independent or
rise together; ``by``: Benjamini and Yekutieli, for any dependence."""

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
    q: NDArray[np.float64]
    """``(L,)`` how often the largest of all objects is as large, each in units of its own spread:
    p adjusted for the family whatever the dependence (single-step max-T, Westfall and Young 1993,
    section 2.3)."""
    least: float
    """The smallest p and q that so many patients, or so many exchanges, can reach."""


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
        resamples: Assignments that are drawn; where there are fewer, all are tried.

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
    means, truth = _by_patient(values, labels, owner)
    observed = _benefit(means, truth[None])[0]
    drawn = _benefits(means, truth, rng, resamples)
    tolerance = SAME * np.abs(means).sum(axis=(0, 1))
    p = (drawn >= observed - tolerance).mean(axis=0)
    # centre and spread do not depend on which assignment is the true one, so p stays exact
    centre, spread = drawn.mean(axis=0), drawn.std(axis=0)
    spread = np.where(spread > tolerance, spread, np.inf)
    largest = ((drawn - centre) / spread).max(axis=1)
    q = (largest[:, None] >= (observed - centre) / spread - SAME).mean(axis=0)
    return LabelTest(observed, p, q, 1 / len(drawn))


def adjusted_p(p: Sequence[float], method: Literal["bh", "by"] = "bh") -> NDArray[np.float64]:
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


def _benefits(
    means: NDArray[np.float64],
    truth: NDArray[np.integer],
    rng: np.random.Generator,
    resamples: int,
) -> NDArray[np.float64]:
    """Benefits ``(R, L)`` of all assignments, or of the true one and as many as were asked for."""
    if _number_of_assignments(truth) <= resamples:
        return _benefit(means, np.array(list(_assignments(sorted(truth.tolist())))))
    drawn = [_benefit(means, truth[None])]
    for count in _blocks(resamples, means[:, 0].size):
        shuffled = rng.permuted(np.broadcast_to(truth, (count, len(truth))), axis=1)
        drawn.append(_benefit(means, shuffled))
    return np.concatenate(drawn)


def _number_of_assignments(truth: NDArray[np.integer]) -> int:
    """Different orders of the classes: a multinomial coefficient."""
    counts = np.unique(truth, return_counts=True)[1].tolist()
    return math.factorial(sum(counts)) // math.prod(math.factorial(count) for count in counts)


def _assignments(labels: list[int]) -> Iterator[list[int]]:
    """Every different order of the classes."""
    if not labels:
        yield []
    for first in dict.fromkeys(labels):
        rest = labels.copy()
        rest.remove(first)
        for others in _assignments(rest):
            yield [first, *others]


def _by_patient(
    values: NDArray[np.float64], labels: NDArray[np.integer], owner: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    """Mean ``(P, K, L)`` of the slides of each patient and class, and that class."""
    names = [f"{name}\n{label}" for name, label in zip(owner, labels, strict=True)]
    _, first, group = np.unique(names, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), *values.shape[1:]))
    np.add.at(sums, group, values)
    return sums / np.bincount(group)[:, None, None], np.asarray(labels)[first]
