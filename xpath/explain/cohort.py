"""Importance over many slides: effect, interval, null, significance.

Axes: S slides, L objects.
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
    null: float
    """Mean fall when as much of anything is hidden."""
    excess: float
    """Effect minus null."""
    excess_low: float
    excess_high: float
    """95 % interval of the excess, bootstrap over patients."""
    p: float
    """Two-sided sign-flip test of the excess."""
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
        patients: Slide id to patient; slides of one patient are resampled together.
        resamples: Bootstrap samples and sign flips.
        seed: Seed of both.
    """
    rng = np.random.default_rng(seed)
    rows: list[ImportanceRow] = []
    for target, name in enumerate(classes):
        group = [slide for slide in slides if slide.target == target]
        objects = dict.fromkeys(label for slide in group for label in slide.objects)
        found = [_row(group, name, label, patients or {}, (rng, resamples)) for label in objects]
        ranked = sorted((row for row in found if row), key=lambda row: -row.excess)
        rows += [replace(row, rank=i + 1) for i, row in enumerate(ranked)]
    return _adjusted(rows)


def _row(
    group: Sequence[ObjectImportance],
    class_name: str,
    label: str,
    patients: Mapping[str, str],
    chance: tuple[np.random.Generator, int],
) -> ImportanceRow | None:
    held = [
        (slide, slide.objects.index(label))
        for slide in group
        if label in slide.objects and slide.patches[slide.objects.index(label)] > 0
    ]
    if not held:
        return None
    excess = np.array([slide.excess[j] for slide, j in held])
    owner = [patients.get(slide.slide_id, slide.slide_id) for slide, _ in held]
    low, high = _interval(excess, owner, *chance)
    return ImportanceRow(
        class_name=class_name,
        rank=0,
        object=label,
        slides=len(held),
        imp=float(np.exp(np.mean([np.log(slide.imp[j]) for slide, j in held]))),
        effect=float(np.mean([slide.effect[j] for slide, j in held])),
        null=float(np.mean([slide.null[j] for slide, j in held])),
        excess=float(excess.mean()),
        excess_low=low,
        excess_high=high,
        p=_sign_flip(excess, *chance),
        q=1.0,
        area=float(np.mean([slide.area[j] for slide, j in held])),
    )


def _interval(
    values: NDArray[np.float64], owner: Sequence[str], rng: np.random.Generator, resamples: int
) -> tuple[float, float]:
    """95 % percentile interval of the mean, patients drawn with replacement."""
    names, place = np.unique(owner, return_inverse=True)
    sums = np.bincount(place, values, len(names))
    counts = np.bincount(place, minlength=len(names))
    drawn = rng.integers(len(names), size=(resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _sign_flip(values: NDArray[np.float64], rng: np.random.Generator, resamples: int) -> float:
    """How likely a mean this far from 0 is if signs are tossed; exact for few slides."""
    from scipy.stats import permutation_test

    if len(values) < 2:
        return 1.0
    result = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=resamples, rng=rng
    )
    return float(result.pvalue)


def _adjusted(rows: list[ImportanceRow]) -> list[ImportanceRow]:
    """Rows with q by Benjamini and Hochberg over all of them."""
    from scipy.stats import false_discovery_control

    if not rows:
        return []
    adjusted = false_discovery_control([row.p for row in rows])
    return [replace(row, q=float(q)) for row, q in zip(rows, adjusted, strict=True)]
