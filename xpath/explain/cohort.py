"""Importance over many slides: effect, interval, null, significance.

Slides of one patient are not independent, so all is over patients: intervals are Student's, and one
patient has none.

Two questions, two tables. ``cohort_importance`` asks what *the model* needs, class by class: also
a model that learnt nothing true needs something, on every slide. ``class_benefit`` asks whether
that need goes with the *true* class, on slides the model was not trained on; only this is about
tissue, and so the verdict is its. Axes: S slides, K classes, L objects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError
from xpath.explain.statistics import Adjustment, adjusted_p, label_exchange_test
from xpath.metrics.bootstrap import mean_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xpath.explain.importance import ObjectImportance

__all__ = ["BenefitRow", "ImportanceRow", "called", "class_benefit", "cohort_importance"]

RESAMPLES = 2000
LEVEL = 0.05
"""q below which a need is taken to go with the class."""


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
    """95 % interval of the effect over patients, Student's, NaN with a single patient."""
    null: float
    """Mean fall when as much of the rest of its patches is hidden."""
    excess: float
    """Effect minus null."""
    excess_low: float
    excess_high: float
    """95 % interval of the excess, as that of the effect."""
    need: float
    """The excess, held against the size of the null (``ObjectImportance.needs``)."""
    need_low: float
    need_high: float
    """95 % interval of the need, as that of the effect."""
    area: float
    """Mean share of the slide's patches under its masks."""
    cover: float
    """Mean share of those patches that it covers which hold it. Above a half, it is compared with
    all the rest there."""
    imp_low: float
    imp_high: float
    """95 % interval of ``imp``, as that of the effect."""
    median: float
    """Median excess: far from the mean, and a few slides decide."""

    @property
    def supports(self) -> bool:
        """Whether the class needs the object: the intervals of effect and need are above 0."""
        return self.effect_low > 0 and self.need_low > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class BenefitRow:
    """Benefit of one object towards the true class, over all classes."""

    object: str
    rank: int
    """1 is the largest benefit."""
    slides: int
    """Slides that hold the object. Those without it count with 0."""
    benefit: float
    """Mean of ``ObjectImportance.needs`` towards the slide's own class, classes weighing the
    same."""
    p: float
    """One-sided: how often as large a benefit comes if patients swap their classes."""
    q: float
    """p adjusted over all objects."""
    least_q: float
    """The smallest q that an object can reach with so many patients."""


def cohort_importance(
    slides: Sequence[ObjectImportance],
    classes: Sequence[str],
    *,
    patients: Mapping[str, str] | None = None,
) -> list[ImportanceRow]:
    """One row per class and object that some slide of the class holds, largest excess first.

    Args:
        slides: Importances of single slides; a slide counts for its target class. Where hiding
            left nothing of a slide (NaN, see ``Removal``), it does not count for that object.
        classes: Class names.
        patients: Slide id to patient; a slide that is not named is a patient of its own.
    """
    rows: list[ImportanceRow] = []
    for target, name in enumerate(classes):
        group = [slide for slide in slides if slide.target == target]
        objects = dict.fromkeys(label for slide in group for label in slide.objects)
        of_class = [_row(group, name, label, patients or {}) for label in objects]
        ranked = sorted((row for row in of_class if row), key=lambda row: -row.excess)
        rows += [replace(row, rank=i + 1) for i, row in enumerate(ranked)]
    return rows


def class_benefit(
    slides: Sequence[ObjectImportance],
    labels: Mapping[str, int],
    *,
    patients: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    adjustment: Adjustment = "max_t",
) -> list[BenefitRow]:
    """One row per object, largest benefit first, tested by exchanging the slides' classes.

    Args:
        slides: Importances of slides the model was not trained on, one each, all with the same
            objects.
        labels: Slide id to its true class.
        patients: Slide id to patient; a slide that is not named is a patient of its own.
        resamples: Exchanges.
        seed: Of the exchanges.
        adjustment: How p becomes q.

    Raises:
        DataError: Fewer than two classes, a slide without a label, twice, or with other objects;
            an importance that is no number.
    """
    names = [slide.slide_id for slide in slides]
    unknown = [name for name in names if name not in labels]
    objects = slides[0].objects if slides else ()
    alike = all(slide.objects == objects for slide in slides) and len(set(names)) == len(names)
    if not slides or unknown or not alike:
        raise DataError(
            f"wanted slides with labels and the same objects, each once, got {len(slides)}; without"
            f" a label: {unknown[:5]}"
        )
    test = label_exchange_test(
        np.stack([slide.needs for slide in slides]),
        np.array([labels[name] for name in names]),
        [(patients or {}).get(name, name) for name in names],
        np.random.default_rng(seed),
        resamples=resamples,
    )
    held = np.sum([slide.patches > 0 for slide in slides], axis=0)
    q, least = test.q, test.least
    if adjustment != "max_t":
        q = adjusted_p(test.p.tolist(), adjustment)
        least = adjusted_p([test.least, *[1.0] * (len(objects) - 1)], adjustment)[0]
    return [
        BenefitRow(
            object=objects[j],
            rank=rank + 1,
            slides=int(held[j]),
            benefit=float(test.benefit[j]),
            p=float(test.p[j]),
            q=float(q[j]),
            least_q=float(least),
        )
        for rank, j in enumerate(np.argsort(-test.benefit, kind="stable"))
    ]


def called(rows: Sequence[ImportanceRow], benefit: Sequence[BenefitRow]) -> set[str]:
    """Objects that are called: needed for a class, and in keeping with the true class.

    The exchange of classes alone is exact if a slide's needs do not depend on its class in any way.
    Where only their spread does, as that of an object whose area differs threefold between the
    classes, 7 % of cohorts have a q below 0.05 instead of 5 %, and dividing by standard errors does
    not help; few of these have both intervals above 0 as well (4,000 simulations of 7 + 7 slides).

    Args:
        rows: Of ``cohort_importance``.
        benefit: Of ``class_benefit``, for the same slides.
    """
    needed = {row.object for row in rows if row.supports}
    return {row.object for row in benefit if row.q < LEVEL and row.object in needed}


def _row(
    group: Sequence[ObjectImportance],
    class_name: str,
    label: str,
    patients: Mapping[str, str],
) -> ImportanceRow | None:
    """The row of an object in a class, None where no slide holds it."""
    held = [(slide, slide.objects.index(label)) for slide in group if label in slide.objects]
    held = [(s, j) for s, j in held if s.patches[j] > 0 and np.isfinite(s.excess[j])]
    if not held:
        return None
    excess = np.array([slide.excess[j] for slide, j in held])
    effect = np.array([slide.effect[j] for slide, j in held])
    need = np.array([slide.needs[slide.target, j] for slide, j in held])
    log_imp = np.array([np.log(slide.imp[j]) for slide, j in held])
    owner = [patients.get(slide.slide_id, slide.slide_id) for slide, _ in held]
    of_effect, of_excess, of_need, of_imp = (
        mean_interval(values, owner) for values in (effect, excess, need, log_imp)
    )
    return ImportanceRow(
        class_name=class_name,
        rank=0,
        object=label,
        slides=len(held),
        imp=float(np.exp(of_imp.mean)),
        imp_low=float(np.exp(of_imp.low)),
        imp_high=float(np.exp(of_imp.high)),
        effect=of_effect.mean,
        effect_low=of_effect.low,
        effect_high=of_effect.high,
        null=float(np.mean([slide.null[j] for slide, j in held])),
        excess=of_excess.mean,
        excess_low=of_excess.low,
        excess_high=of_excess.high,
        need=of_need.mean,
        need_low=of_need.low,
        need_high=of_need.high,
        median=float(np.median(excess)),
        area=float(np.mean([slide.area[j] for slide, j in held])),
        cover=float(np.mean([slide.cover[j] for slide, j in held])),
    )
