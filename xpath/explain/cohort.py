"""Importance over many slides: effect, interval, null, significance.

Slides of one patient are no independent witnesses: patients are resampled, and patients change
sign. The intervals are percentiles of the bootstrap and are too narrow for fewer than about ten
patients; with one there is none. Axes: S slides, L objects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.explain.importance import ObjectImportance

__all__ = ["ImportanceRow", "cohort_importance"]

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportanceRow:
    """How much the slides of one class need one object."""

    class_name: str
    rank: int
    """1 is the largest excess within the class."""
    object: str
    slides: int
    """Slides of the class that hold the object; all figures are over these."""
    imp: float
    """Geometric mean of the paper's IMP (Eq. 12): the mean of a ratio is not its typical value."""
    effect: float
    """Mean fall of the log-odds of the class when the object is hidden."""
    effect_low: float
    effect_high: float
    """95 % interval of the effect, bootstrap over patients; NaN with a single patient."""
    null: float
    """Mean fall when as much of anything is hidden."""
    excess: float
    """Effect minus null."""
    excess_low: float
    excess_high: float
    """95 % interval of the excess, as that of the effect."""
    p: float
    """Two-sided test of the excess: how likely so large a mean is if patients toss its sign."""
    q: float
    """p after Benjamini-Hochberg over all rows."""
    area: float
    """Mean share of the slide's patches under its masks."""


def cohort_importance(
    slides: Sequence[ObjectImportance],
    classes: Sequence[str],
    *,
    patients: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[ImportanceRow]:
    """One row per class and object that some slide of the class holds, largest excess first.

    Args:
        slides: Importances of single slides; a slide counts for its target class.
        classes: Class names.
        patients: Slide id to patient; a slide that is not named is a patient of its own.
        resamples: Bootstrap samples, and sign flips where there are too many to try them all.
        seed: Seed of both; every row draws the same patients.
    """
    rows: list[ImportanceRow] = []
    for target, name in enumerate(classes):
        group = [slide for slide in slides if slide.target == target]
        objects = dict.fromkeys(label for slide in group for label in slide.objects)
        found = [_row(group, name, label, patients or {}, (seed, resamples)) for label in objects]
        ranked = sorted((row for row in found if row), key=lambda row: -row.excess)
        rows += [replace(row, rank=i + 1) for i, row in enumerate(ranked)]
    return _adjusted(rows)


def _row(
    group: Sequence[ObjectImportance],
    class_name: str,
    label: str,
    patients: Mapping[str, str],
    chance: tuple[int, int],
) -> ImportanceRow | None:
    held = [
        (slide, slide.objects.index(label))
        for slide in group
        if label in slide.objects and slide.patches[slide.objects.index(label)] > 0
    ]
    if not held:
        return None
    excess = np.array([slide.excess[j] for slide, j in held])
    effect = np.array([slide.effect[j] for slide, j in held])
    owner = [patients.get(slide.slide_id, slide.slide_id) for slide, _ in held]
    effect_low, effect_high = _interval(effect, owner, *chance)
    low, high = _interval(excess, owner, *chance)
    return ImportanceRow(
        class_name=class_name,
        rank=0,
        object=label,
        slides=len(held),
        imp=float(np.exp(np.mean([np.log(slide.imp[j]) for slide, j in held]))),
        effect=float(effect.mean()),
        effect_low=effect_low,
        effect_high=effect_high,
        null=float(np.mean([slide.null[j] for slide, j in held])),
        excess=float(excess.mean()),
        excess_low=low,
        excess_high=high,
        p=_sign_flip(excess, owner, *chance),
        q=1.0,
        area=float(np.mean([slide.area[j] for slide, j in held])),
    )


def _interval(
    values: NDArray[np.float64], owner: Sequence[str], seed: int, resamples: int
) -> tuple[float, float]:
    """95 % percentile interval of the mean, patients drawn with replacement."""
    sums, counts = _by_patient(values, owner)
    if len(sums) < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _sign_flip(
    values: NDArray[np.float64], owner: Sequence[str], seed: int, resamples: int
) -> float:
    """Share of sign patterns with a mean as far from 0; all patterns if that is no more work."""
    sums, _ = _by_patient(values, owner)
    every = 2 ** len(sums) <= resamples
    if every:
        bits = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
    else:
        bits = np.random.default_rng(seed).integers(2, size=(resamples, len(sums)))
    found = np.abs((2 * bits - 1) @ sums)
    # sums in another order differ in their last bits
    extreme = int((found >= np.abs(sums.sum()) * (1 - 1e-12)).sum())
    return extreme / len(bits) if every else (extreme + 1) / (len(bits) + 1)


def _by_patient(
    values: NDArray[np.float64], owner: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum of the values and number of slides of each patient."""
    names, place = np.unique(owner, return_inverse=True)
    sums = np.zeros(len(names))
    np.add.at(sums, place, values)
    return sums, np.bincount(place, minlength=len(names)).astype(np.int64)


def _adjusted(rows: list[ImportanceRow]) -> list[ImportanceRow]:
    """Rows with q by Benjamini and Hochberg over all of them."""
    from scipy.stats import false_discovery_control

    if not rows:
        return []
    adjusted = false_discovery_control([row.p for row in rows])
    return [replace(row, q=float(q)) for row, q in zip(rows, adjusted, strict=True)]
