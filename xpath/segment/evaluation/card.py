"""The tables and sentences of a segmentor's model card, from its held-out scores.

Every number is computed; nothing is typed in. Axes: n questions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.metrics.bootstrap import bootstrap_mean, paired_t_test
from xpath.metrics.presence import presence_scores
from xpath.segment.evaluation.presence_calibration import (
    ask_presence,
    presence_called,
    untaught_labels,
)
from xpath.segment.evaluation.validation import mean_by_label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xpath.metrics.bootstrap import Interval
    from xpath.pathseg.record import SourceImage
    from xpath.segment.checkpoints.checkpoint import SegmentorInfo
    from xpath.segment.evaluation.validation import Sample
    from xpath.segment.predict.predictor import SegmentPredictor

__all__ = [
    "Comparison",
    "class_scores",
    "compare",
    "comparison_table",
    "differences",
    "label_table",
    "object_class_of",
    "presence_answers",
    "presence_table",
    "score_table",
]

ONE = "one patient: none"
"""Stands for an interval: one patient, or image, says nothing of others."""


class Comparison(NamedTuple):
    """Ours and another's Dice on the same questions."""

    object_class: str
    n: int
    ours: float
    other: float
    difference: Interval
    """Ours minus the other's."""
    p: float
    """One-sided: small if ours is larger."""


def object_class_of(sample: Sample) -> str:
    """``structure-object type``: organs are pooled."""
    return sample.label.split("-", 1)[1]


def _intervals(
    samples: Sequence[Sample], key: Callable[[Sample], str], seed: int
) -> dict[str, Interval]:
    """Mean Dice of the present objects, patients drawn whole."""
    present = [sample for sample in samples if sample.present]
    rng = np.random.default_rng(seed)
    return {
        name: bootstrap_mean(
            [s.dice for s in present if key(s) == name],
            rng,
            groups=[f"{s.source}/{s.group}" for s in present if key(s) == name],
        )
        for name in sorted({key(s) for s in present})
    }


def score_table(samples: Sequence[Sample], key: Callable[[Sample], str], *, seed: int = 0) -> str:
    """Dice with 95 % intervals as a Markdown table, a row per value of ``key``."""
    rows = ["| | images | Dice | 95 % interval |", "|---|---|---|---|"]
    for name, interval in _intervals(samples, key, seed).items():
        bounds = _bounds(interval, "")
        rows.append(f"| {name} | {interval.n} | {interval.mean:.3f} | {bounds} |")
    return "\n".join(rows)


def class_scores(samples: Sequence[Sample]) -> dict[str, Any]:
    """Dice of each class where it is present, and how often it is refused where it is not."""
    scores = mean_by_label(samples) if any(s.present for s in samples) else {}
    table: dict[str, Any] = {
        name: {"images": count, "dice": round(dice, 4)} for name, (count, dice) in scores.items()
    }
    for name in sorted({object_class_of(s) for s in samples if not s.present}):
        absent = [s for s in samples if object_class_of(s) == name and not s.present]
        refused = float(np.mean([not s.answered for s in absent]))
        table.setdefault(name, {}).update(absent=len(absent), refused=round(refused, 4))
    return table


def presence_table(samples: Sequence[Sample]) -> str:
    """Scores of the answer "not present", as a Markdown table.

    Only object classes that were asked for where they are absent have a row.
    """
    rows = [
        "| | present | absent | found if present | refused if absent | right if refused |",
        "|---|---|---|---|---|---|",
    ]
    asked = {object_class_of(sample) for sample in samples if not sample.present}
    for name in [*sorted(asked), "all"]:
        part = [
            s
            for s in samples
            if object_class_of(s) == name or (name == "all" and object_class_of(s) in asked)
        ]
        scores = presence_scores(
            np.array([s.answered for s in part], bool), np.array([s.present for s in part], bool)
        )
        shares = (scores.recall, scores.absent_recall, scores.absent_precision)
        cells = " | ".join("" if math.isnan(share) else f"{share:.2f}" for share in shares)
        rows.append(f"| {name} | {scores.present} | {scores.absent} | {cells} |")
    return "\n".join(rows)


def presence_answers(segmentor: SegmentPredictor, images: Sequence[SourceImage]) -> str:
    """A sentence on what is called present, of untaught labels and of taught ones.

    Args:
        segmentor: With a calibration of presence.
        images: That it was not trained or calibrated on.

    Raises:
        CheckpointError: The segmentor has no calibration.
    """
    if not images:
        return ""
    strange = untaught_labels(segmentor.info.labels)
    asked = ask_presence(segmentor, images, untaught=strange, seed=1)
    called = presence_called(segmentor, asked)
    never, there = asked.untaught, asked.present
    refused = ~called[~there & ~never]
    return (
        f"Labels that no real image taught are called present {called[never].sum()} times in"
        f" {never.sum()} on the held-out images, four drawn\nfor each; of taught ones"
        f" {called[there].sum()} of {there.sum()} are found where they are and {refused.sum()} of"
        f" {refused.size} refused where they are not\n(`benchmarks/presence.py`). All untaught"
        " labels share one offset, fitted on training images only."
    )


def label_table(info: SegmentorInfo) -> str:
    """How many real images showed each label, and whether it is answered on real slides."""
    answered = dict.fromkeys(info.labels, "yes") | dict.fromkeys(info.drawn, "a guess")
    rows = [f"| {label} | {info.taught.get(label, 0)} | {how} |" for label, how in answered.items()]
    return "\n".join(("| | real images | answer on real slides |", "|---|---|---|", *rows))


def compare(ours: Sequence[Sample], others: Sequence[Sample], *, seed: int = 0) -> list[Comparison]:
    """Both models on the questions that both were asked, per object class.

    Raises:
        DataError: They share no question.
    """
    theirs = {(s.source, s.image, s.label): s for s in others if s.present}
    pairs = [
        (s, theirs[s.source, s.image, s.label])
        for s in ours
        if s.present and (s.source, s.image, s.label) in theirs
    ]
    if not pairs:
        raise DataError("the two tables of samples share no image and label; compare equal splits")
    rng = np.random.default_rng(seed)
    comparisons = []
    for name in sorted({object_class_of(mine) for mine, _ in pairs}):
        part = [(a, b) for a, b in pairs if object_class_of(a) == name]
        first, second = np.array([a.dice for a, _ in part]), np.array([b.dice for _, b in part])
        groups = [f"{a.source}/{a.group}" for a, _ in part]
        difference = bootstrap_mean(first - second, rng, groups=groups)
        p = paired_t_test(first, second).p if len(part) > 1 else float("nan")
        comparisons.append(
            Comparison(name, len(part), float(first.mean()), float(second.mean()), difference, p)
        )
    return comparisons


def differences(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Class to number of images, the other's Dice, and the difference with its interval.

    Bounds are None where all images are of one patient.
    """
    return {
        row.object_class: {
            "images": row.n,
            "other": round(row.other, 4),
            "difference": [
                None if math.isnan(value) else round(value, 4)
                for value in (row.difference.mean, row.difference.low, row.difference.high)
            ],
        }
        for row in comparisons
    }


def comparison_table(rows: Mapping[str, Sequence[Comparison]]) -> str:
    """Comparisons with several models as one Markdown table."""
    lines = [
        "| against | | images | ours | other | difference, 95 % interval | p |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, comparisons in rows.items():
        lines += [
            f"| {name} | {row.object_class} | {row.n} | {row.ours:.3f} | {row.other:.3f} |"
            f" {row.difference.mean:+.3f} ({_bounds(row.difference)}) | {_p(row.p)} |"
            for row in comparisons
        ]
    return "\n".join(lines)


def _bounds(interval: Interval, sign: str = "+") -> str:
    """The bounds as printed, ``sign`` being that of the format."""
    if math.isnan(interval.low):
        return ONE
    return f"{interval.low:{sign}.3f} to {interval.high:{sign}.3f}"


def _p(p: float) -> str:
    return "" if math.isnan(p) else f"{p:.2g}"
