"""Contributions over many slides: do they go with the class?

What an object adds to the logits of an object-aware classifier is made of an offset, which is the
same on every slide, and of what distinguishes slides. The difference between the classes is free of
the offset, whatever it is. Axes: S slides, K classes, L objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ShapeError
from xpath.explain.statistics import label_exchange_test
from xpath.metrics.bootstrap import difference_interval
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ContributionRow", "class_contrasts", "cohort_contributions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ContributionRow:
    """Difference of an object's contribution between slides of a class and the rest."""

    class_name: str
    """With two classes the second; towards the first, all numbers have the other sign."""
    rank: int
    """1 is the largest difference of the class."""
    object: str
    slides: int
    """Slides that hold the object. Those without it count with 0."""
    difference: float
    """Mean contribution on slides of the class less that on the rest, log-odds."""
    low: float
    high: float
    """95 % interval over patients, Welch's, NaN with a single patient of a side."""
    p: float
    """One-sided, of the object over all classes: how often as large a benefit for the true class
    comes if patients swap their classes."""
    q: float
    """p adjusted over all objects (max-T)."""
    least_q: float
    """The smallest q that so many patients can reach."""


def class_contrasts(contributions: NDArray[np.floating]) -> NDArray[np.float64]:
    """Contributions ``(..., K, L)`` towards each class, held against the mean of the others.

    With two classes that is the contribution to the log-odds.
    """
    values = np.asarray(contributions, np.float64)
    count = values.shape[-2]
    others = (values.sum(axis=-2, keepdims=True) - values) / (count - 1)
    return np.asarray(values - others)


def cohort_contributions(
    contributions: NDArray[np.floating],
    labels: NDArray[np.integer],
    patients: Sequence[str],
    *,
    objects: Sequence[str],
    classes: Sequence[str],
    rng: np.random.Generator,
    resamples: int = 2000,
) -> list[ContributionRow]:
    """One row per object and class (of two, the second), largest difference first.

    An object that no slide has gets no row.

    Args:
        contributions: ``(S, K, L)`` to the logit of every class, 0 where a slide lacks an object;
            of slides that the classifier was not trained on.
        labels: ``(S,)`` true classes.
        patients: Of each slide.
        objects: Names of the L objects.
        classes: Names of the K classes.
        rng: For the exchanges.
        resamples: Exchanges.

    Raises:
        DataError: Contributions that are no numbers, or slides of fewer than two classes.
        ShapeError: Other axes.
    """
    axes = check_shape("contributions", contributions, "S K L", K=len(classes), L=len(objects))
    if len(labels) != axes["S"] or len(patients) != axes["S"]:
        raise ShapeError(f"{axes['S']} slides, {len(labels)} labels and {len(patients)} patients")
    towards = class_contrasts(contributions)
    test = label_exchange_test(towards, labels, patients, rng, resamples=resamples)
    held = (contributions != 0).any(axis=1).sum(axis=0)
    owner, truth, rows = np.asarray(patients), np.asarray(labels), []
    for k in range(1 if len(classes) == 2 else 0, len(classes)):
        own, rest = truth == k, truth != k
        if not own.any():
            continue
        groups = owner[own].tolist(), owner[rest].tolist()
        found = [
            difference_interval(towards[own, k, j], towards[rest, k, j], groups)
            for j in range(len(objects))
        ]
        order = np.argsort([-one.mean for one in found], kind="stable")
        order = order[held[order] > 0]
        rows += [
            ContributionRow(
                class_name=classes[k],
                rank=rank,
                object=objects[j],
                slides=int(held[j]),
                difference=found[j].mean,
                low=found[j].low,
                high=found[j].high,
                p=float(test.p[j]),
                q=float(test.q[j]),
                least_q=test.least,
            )
            for rank, j in enumerate(order.tolist(), start=1)
        ]
    return rows
