"""Importance over many slides: effect, interval, null, significance.

Slides of one patient are not independent: patients are resampled, and patients change sign. The
intervals are percentiles of the bootstrap and are too narrow for fewer than about ten patients;
with one there is none.

Two questions, two tables. ``cohort_importance`` asks what *the model* needs, class by class: also
a model that learnt nothing true needs something, on every slide. ``class_benefit`` asks whether
that need goes with the *true* class, on slides the model was not trained on; only this is about
tissue. Axes: S slides, K classes, L objects.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.explain.statistics import (
    Adjustment,
    adjusted_p,
    label_exchange_test,
    mean_interval,
    sign_flip_test,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xpath.explain.importance import ObjectImportance

__all__ = ["BenefitRow", "ImportanceRow", "class_benefit", "cohort_importance"]

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportanceRow:
    """Importance of one object over the slides of one class."""

    class_name: str
    rank: int
    """1 is the largest excess within the class."""
    object: str
    slides: int
    """Slides of the class that hold the object. All figures are over these."""
    imp: float
    """Geometric mean of the paper's IMP (Eq. 12): the mean of a ratio is not its typical value."""
    effect: float
    """Mean fall of the log-odds of the class when the object is hidden."""
    effect_low: float
    effect_high: float
    """95 % interval of the effect, bootstrap over patients, NaN with a single patient."""
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
    imp_low: float = float("nan")
    imp_high: float = float("nan")
    """95 % interval of ``imp``, as that of the effect."""
    median: float = float("nan")
    """Median excess: far from the mean, and a few slides decide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenefitRow:
    """Benefit of one object towards the true class, over all classes."""

    object: str
    rank: int
    """1 is the largest benefit."""
    slides: int
    """Slides that hold the object. Those without it count with 0."""
    benefit: float
    """Mean excess towards the slide's own class, classes weighing the same."""
    p: float
    """One-sided: how often as large a benefit comes if patients swap their classes."""
    q: float
    """p adjusted over all objects."""


class _Chance(NamedTuple):
    seed: int
    resamples: int


def cohort_importance(
    slides: Sequence[ObjectImportance],
    classes: Sequence[str],
    *,
    patients: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    adjustment: Adjustment = "bh",
) -> list[ImportanceRow]:
    """One row per class and object that some slide of the class holds, largest excess first.

    Args:
        slides: Importances of single slides; a slide counts for its target class. Where hiding
            left nothing of a slide (NaN, see ``Removal``), it does not count for that object.
        classes: Class names.
        patients: Slide id to patient; a slide that is not named is a patient of its own.
        resamples: Bootstrap samples, and sign flips where there are too many to try them all.
        seed: Seed of both; every row draws the same patients.
        adjustment: How p becomes q; ``by`` where objects lie within each other.
    """
    rows: list[ImportanceRow] = []
    chance = _Chance(seed, resamples)
    for target, name in enumerate(classes):
        group = [slide for slide in slides if slide.target == target]
        objects = dict.fromkeys(label for slide in group for label in slide.objects)
        of_class = [_row(group, name, label, patients or {}, chance) for label in objects]
        ranked = sorted((row for row in of_class if row), key=lambda row: -row.excess)
        rows += [replace(row, rank=i + 1) for i, row in enumerate(ranked)]
    adjusted = adjusted_p([row.p for row in rows], adjustment)
    return [replace(row, q=float(q)) for row, q in zip(rows, adjusted, strict=True)]


def class_benefit(
    slides: Sequence[ObjectImportance],
    labels: Mapping[str, int],
    *,
    patients: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    adjustment: Adjustment = "bh",
) -> list[BenefitRow]:
    """One row per object, largest benefit first, tested by exchanging the slides' classes.

    Args:
        slides: Importances of slides the model was not trained on, all with the same objects. With
            two classes one each is enough, whatever its target: towards the other class it has the
            other sign. With more, one per slide and class.
        labels: Slide id to its true class.
        patients: Slide id to patient; a slide that is not named is a patient of its own.
        resamples: Exchanges.
        seed: Of the exchanges.
        adjustment: How p becomes q; ``by`` where objects lie within each other.

    Raises:
        DataError: Fewer than two classes, a slide without a label, with other objects, or without
            an importance for some class; an importance that is no number.
    """
    by_slide: dict[str, dict[int, ObjectImportance]] = defaultdict(dict)
    for slide in slides:
        by_slide[slide.slide_id][slide.target] = slide
    unknown = [name for name in by_slide if name not in labels]
    objects = slides[0].objects if slides else ()
    if not slides or unknown or any(slide.objects != objects for slide in slides):
        raise DataError(
            f"wanted slides with labels and the same objects, got {len(slides)}; without a label:"
            f" {unknown[:5]}"
        )
    names = list(by_slide)
    truth = np.array([labels[name] for name in names])
    count = 1 + max(int(truth.max()), *(slide.target for slide in slides), 1)
    values = np.stack([_towards(by_slide[name], count, name) for name in names])
    owner = [(patients or {}).get(name, name) for name in names]
    test = label_exchange_test(
        values, truth, owner, np.random.default_rng(seed), resamples=resamples
    )
    held = np.sum([next(iter(by_slide[name].values())).patches > 0 for name in names], axis=0)
    q = adjusted_p(test.p.tolist(), adjustment)
    return [
        BenefitRow(
            object=objects[j],
            rank=rank + 1,
            slides=int(held[j]),
            benefit=float(test.benefit[j]),
            p=float(test.p[j]),
            q=float(q[j]),
        )
        for rank, j in enumerate(np.argsort(-test.benefit, kind="stable"))
    ]


def _towards(by_class: Mapping[int, ObjectImportance], count: int, name: str) -> np.ndarray:
    """Excess of one slide towards every class ``(K, L)``, 0 for objects it has not."""
    if count == 2 and len(by_class) == 1:
        ((target, slide),) = by_class.items()
        rows = [slide.excess if target == k else -slide.excess for k in range(2)]
    elif sorted(by_class) == list(range(count)):
        rows = [by_class[k].excess for k in range(count)]
    else:
        raise DataError(
            f"{name} has importances for classes {sorted(by_class)}, wanted all {count}"
        )
    return np.stack(rows)


def _row(
    group: Sequence[ObjectImportance],
    class_name: str,
    label: str,
    patients: Mapping[str, str],
    chance: _Chance,
) -> ImportanceRow | None:
    held = [(slide, slide.objects.index(label)) for slide in group if label in slide.objects]
    held = [(s, j) for s, j in held if s.patches[j] > 0 and np.isfinite(s.excess[j])]
    if not held:
        return None
    excess = np.array([slide.excess[j] for slide, j in held])
    effect = np.array([slide.effect[j] for slide, j in held])
    log_imp = np.array([np.log(slide.imp[j]) for slide, j in held])
    owner = [patients.get(slide.slide_id, slide.slide_id) for slide, _ in held]
    effect_low, effect_high = mean_interval(effect, owner, *chance)
    low, high = mean_interval(excess, owner, *chance)
    imp_low, imp_high = np.exp(mean_interval(log_imp, owner, *chance))
    return ImportanceRow(
        class_name=class_name,
        rank=0,
        object=label,
        slides=len(held),
        imp=float(np.exp(log_imp.mean())),
        imp_low=float(imp_low),
        imp_high=float(imp_high),
        effect=float(effect.mean()),
        effect_low=effect_low,
        effect_high=effect_high,
        null=float(np.mean([slide.null[j] for slide, j in held])),
        excess=float(excess.mean()),
        excess_low=low,
        excess_high=high,
        median=float(np.median(excess)),
        p=sign_flip_test(excess, owner, *chance),
        q=1.0,
        area=float(np.mean([slide.area[j] for slide, j in held])),
    )
