"""Tables of an evaluation, as CSV: Dice by everything, presence, cost of prompts, trends.

Dice is the mean over samples whose object is there, as in the paper; absent objects are judged by
whether they were refused. Intervals are 95 % bootstrap percentiles, images (or patients, where
groups are known) drawn whole; a single one has none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from xpath.metrics.bootstrap import bootstrap_mean, paired_t_test
from xpath.metrics.presence import presence_scores
from xpath.segment.evaluation.curves import best_curve
from xpath.segment.evaluation.refusal import REFUSAL_COLUMNS, refusal_curve
from xpath.segment.evaluation.trend_lines import trends
from xpath.store.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from xpath.segment.evaluation.evaluate import Evaluation, Sample
    from xpath.segment.evaluation.trend_lines import Trend

    Row = dict[str, object]

__all__ = [
    "LEVELS",
    "OVERALL",
    "WITHOUT_LABEL",
    "dice_by",
    "examples",
    "presence_table",
    "prompt_cost",
    "sample_rows",
    "spread_table",
    "trend_rows",
    "untrained_table",
    "write_tables",
]

OVERALL = "overall"
WITHOUT_LABEL = "(no label)"
"""Stands for sentences that follow no template and no mapping."""


def write_tables(folder: Path, evaluation: Evaluation, *, seed: int = 0) -> tuple[Path, ...]:
    """Writes all tables of an evaluation and returns their paths.

    Args:
        folder: Made if it is not there; tables of earlier runs are replaced.
        evaluation: Scores of all questions.
        seed: Of the intervals.
    """
    samples = evaluation.samples
    curves = trends(samples)
    tables: dict[str, tuple[list[Row], Sequence[str]]] = {
        f"dice_by_{name}": (dice_by(samples, name, seed=seed), (name, *DICE_COLUMNS))
        for name in LEVELS
    }
    tables["untrained"] = (untrained_table(samples, seed=seed), UNTRAINED_COLUMNS)
    tables["presence"] = (presence_table(samples), PRESENCE_COLUMNS)
    tables["refusal"] = (refusal_curve(samples), REFUSAL_COLUMNS)
    tables["spread"] = (spread_table(samples), SPREAD_COLUMNS)
    tables["prompt_cost"] = (prompt_cost(samples), COST_COLUMNS)
    tables["trends"] = (trend_rows(curves), TREND_COLUMNS)
    tables["trend_fits"] = (_fit_rows(curves), FIT_COLUMNS)
    rows = sample_rows(samples)
    tables["samples"] = (rows, tuple(rows[0]) if rows else ("image", "label", "dice"))
    problems: list[Row] = [{"path": p.path, "problem": p.what} for p in evaluation.problems]
    tables["problems"] = (problems, ("path", "problem"))
    for name, (rows, columns) in tables.items():
        write_table(folder / f"{name}.csv", rows, columns)
    return tuple(folder / f"{name}.csv" for name in tables)


DICE_COLUMNS = ("n", "dice", "ci_low", "ci_high")
LEVELS: dict[str, Callable[[Sample], str]] = {
    "label": lambda sample: sample.question.name,
    "source": lambda sample: sample.question.source,
    "region": lambda sample: _part(sample, "region"),
    "structure": lambda sample: _part(sample, "structure"),
    "object_type": lambda sample: _part(sample, "object_type"),
}
"""Groups that Dice is averaged over."""


def dice_by(samples: Sequence[Sample], level: str, *, seed: int = 0) -> list[Row]:
    """Mean Dice of present objects with its interval, by a level. The last row is ``overall``.

    Args:
        samples: Answers.
        level: ``label``, ``source``, ``region``, ``structure`` or ``object_type``.
        seed: Of the intervals; a row's does not depend on the other rows.

    Returns:
        Beside mean and interval each row has the median and quartiles of Dice and the median ASSD,
        as BiomedParse reports (its Fig. 2 and Extended Data Fig. 3).
    """
    present = [sample for sample in samples if sample.present]
    parts = _grouped(present, LEVELS[level]) | {OVERALL: present}
    return [{level: name, **_interval(part, seed), **_middle(part)} for name, part in parts.items()]


def _middle(samples: Sequence[Sample]) -> Row:
    """Median and quartiles of Dice, and the median ASSD in pixels, infinite where most are."""
    dice = np.array([sample.dice for sample in samples])
    low, middle, high = np.quantile(dice, (0.25, 0.5, 0.75)) if len(dice) else [math.nan] * 3
    assd = float(np.median([sample.assd for sample in samples])) if samples else math.nan
    return {"median": float(middle), "q1": float(low), "q3": float(high), "median_assd": assd}


UNTRAINED_COLUMNS = (
    "label", "object_type", "nearest", "n", "dice", "ci_low", "ci_high",
    "dice_nearest", "ci_low_nearest", "ci_high_nearest", "p_nearest_better",
)  # fmt: skip


def untrained_table(samples: Sequence[Sample], *, seed: int = 0) -> list[Row]:
    """Labels the weights were never taught: asked as they are, and as the nearest trained one.

    ``p_nearest_better`` is of the one-sided paired t-test.
    """
    unknown = [sample for sample in samples if sample.present and not sample.question.trained]
    rows: list[Row] = []
    for name, part in _grouped(unknown, LEVELS["label"]).items():
        nearest = part[0].question.nearest
        other = _interval(part, seed, "dice_nearest") if nearest else dict.fromkeys(DICE_COLUMNS)
        better = math.nan
        if nearest and len(part) > 1:
            better = paired_t_test([s.dice_nearest for s in part], [s.dice for s in part]).p
        rows.append({
            "label": name,
            "object_type": _part(part[0], "object_type"),
            "nearest": nearest.id if nearest else "",
            **_interval(part, seed),
            **{f"{key}_nearest": other[key] for key in DICE_COLUMNS[1:]},
            "p_nearest_better": better,
        })
    return rows


PRESENCE_COLUMNS = (
    "label", "present", "absent", "precision", "recall", "absent_precision", "absent_recall"
)  # fmt: skip


def presence_table(samples: Sequence[Sample]) -> list[Row]:
    """Recall of present and refusal of absent objects, by label and overall."""
    rows: list[Row] = []
    for name, part in (_grouped(samples, LEVELS["label"]) | {OVERALL: samples}).items():
        answered = np.array([sample.found for sample in part], bool)
        truth = np.array([sample.present for sample in part], bool)
        rows.append({"label": name, **presence_scores(answered, truth)._asdict()})
    return rows


SPREAD_COLUMNS = ("label", "n", "count_mean", "count_std", "dispersion_mean", "dispersion_std")


def spread_table(samples: Sequence[Sample]) -> list[Row]:
    """Number of instances and their largest distance by label (Table 18), of true masks."""
    rows: list[Row] = []
    present = [sample for sample in samples if sample.traits.instance_count]
    for name, part in _grouped(present, LEVELS["label"]).items():
        count = np.array([sample.traits.instance_count for sample in part], np.float64)
        distance = np.array([sample.traits.dispersion for sample in part], np.float64)
        values = (count.mean(), count.std(), distance.mean(), distance.std())
        rows.append(dict(zip(SPREAD_COLUMNS, (name, len(part), *map(float, values)), strict=True)))
    return rows


COST_COLUMNS = ("structure", "n", "prompting", "prompts", "clicks", "dice")


def prompt_cost(samples: Sequence[Sample]) -> list[Row]:
    """Prompts and clicks per mask against Dice (the paper's Table 11 and Fig. 5g).

    Boxes are taken for the mask themselves; what a box-prompted model would make of them needs that
    model, but its cost is theirs.
    """
    present = [sample for sample in samples if sample.present]
    rows: list[Row] = []
    for name, part in (_grouped(present, LEVELS["structure"]) | {OVERALL: present}).items():
        costs = [sample.cost for sample in part]
        ways: dict[str, tuple[Sequence[float], ...]] = {
            "text": ([1] * len(part), [0] * len(part), [sample.dice for sample in part]),
            "union box": (
                [c.union_boxes for c in costs],
                [c.union_clicks for c in costs],
                [c.union_dice for c in costs],
            ),
            "instance boxes": (
                [c.instance_boxes for c in costs],
                [c.instance_clicks for c in costs],
                [c.instance_dice for c in costs],
            ),
        }
        for way, numbers in ways.items():
            means = dict(zip(COST_COLUMNS[3:], map(_mean, numbers), strict=True))
            rows.append({"structure": name, "n": len(part), "prompting": way, **means})
    return rows


TREND_COLUMNS = (
    "trait", "low", "high", "n", "mean_trait", "dice", "weighted_trait", "weighted_dice"
)  # fmt: skip
FIT_COLUMNS = ("trait", "n", "spearman", "p", "form", "curve", "mae", "rmse", "best")


def trend_rows(curves: Sequence[Trend]) -> list[Row]:
    """Mean Dice within intervals of every trait (Tables 8 to 10)."""
    return [
        dict(zip(TREND_COLUMNS, (curve.trait.name, *each), strict=True))
        for curve in curves
        for each in curve.bins
    ]


def _fit_rows(curves: Sequence[Trend]) -> list[Row]:
    """Curves of every form through the means of the intervals (Table 7)."""
    rows: list[Row] = []
    for trend in curves:
        head = (trend.trait.name, len(trend.values), trend.spearman, trend.p)
        best = best_curve(trend.curves)
        for curve in trend.curves:
            fit = (curve.form, curve.equation, curve.mae, curve.rmse, curve is best)
            rows.append(dict(zip(FIT_COLUMNS, (*head, *fit), strict=True)))
    return rows


def sample_rows(samples: Sequence[Sample]) -> list[Row]:
    """One row per sample, everything known about it."""
    return [
        {
            "source": sample.question.source,
            "image": sample.question.image,
            "mask": sample.question.mask or "",
            "group": sample.question.group,
            "label": sample.question.name,
            "prompt": sample.question.prompt,
            "trained": sample.question.trained,
            "nearest": sample.question.nearest.id if sample.question.nearest else "",
            **{
                name: getattr(sample, name)
                for name in sample._fields
                if name not in {"question", "traits", "cost"}
            },
            **sample.traits._asdict(),
            **sample.cost._asdict(),
        }
        for sample in samples
    ]


def examples(samples: Sequence[Sample]) -> dict[str, dict[str, Sample]]:
    """Best, median and worst sample of every label by Dice, or fewer if it has fewer."""
    present = [sample for sample in samples if sample.present]
    chosen: dict[str, dict[str, Sample]] = {}
    for name, part in _grouped(present, LEVELS["label"]).items():
        order = sorted(part, key=lambda sample: -sample.dice)
        picks = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
        shown: list[Sample] = []
        for word, sample in picks.items():
            if not any(sample is other for other in shown):
                chosen.setdefault(name, {})[word] = sample
                shown.append(sample)
    return chosen


def _grouped(
    samples: Sequence[Sample], name_of: Callable[[Sample], str]
) -> dict[str, Sequence[Sample]]:
    """Samples by name, names in alphabetical order."""
    parts: dict[str, list[Sample]] = {}
    for sample in samples:
        parts.setdefault(name_of(sample), []).append(sample)
    return {name: parts[name] for name in sorted(parts)}


def _interval(samples: Sequence[Sample], seed: int, score: str = "dice") -> Row:
    values = [float(getattr(sample, score)) for sample in samples]
    groups = [sample.question.group for sample in samples]
    interval = bootstrap_mean(values, np.random.default_rng(seed), groups=groups)
    return dict(zip(DICE_COLUMNS, interval, strict=True))


def _part(sample: Sample, part: str) -> str:
    label = sample.question.label
    return str(getattr(label, part)) if label else WITHOUT_LABEL


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
