"""The first screen of a slide's page: the prediction and its doubts, and three reasons for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from xpath.export.colour import hex_colour, object_colour
from xpath.export.overlay import short_name
from xpath.export.report.words import in_words, percent, printed, signed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xpath.export.report.records import CohortReport, ObjectRow, PatchPicture, SlideReport

__all__ = ["CohortReason", "Reason", "cohort_reasons", "doubts", "prediction_doubt", "reasons"]

MOST = 3
SURE, UNSURE = 0.9, 0.7
"""Probabilities from which on a prediction is called sure, and below which it is called unsure."""
ORDER = ("supported", "suggestive", "not distinguishable")
"""The best verdict first."""
WORDS = {
    "supported": "in this cohort the evidence supports it",
    "suggestive": "in this cohort the evidence is suggestive, not proof",
    "not distinguishable": "in this cohort it cannot be told from chance",
}


class Reason(NamedTuple):
    """An object class that speaks for or against the prediction, and how far to believe it."""

    name: str
    colour: str
    """``#rrggbb``."""
    value: float
    """Added to the log-odds of the explained class, beyond the average training slide."""
    words: str
    """The direction, and how much of the slide it is."""
    verdict: str
    """One of the cohort's verdicts, ``not tested`` where there is none."""
    because: str
    """The verdict in words, with the checks that speak for it."""
    picture: PatchPicture | None
    """The patch in which it counts most, None where there is none to show."""
    here: bool = True
    """False where the slide has no such object."""


class CohortReason(NamedTuple):
    """An object class that the evidence of a cohort speaks for as a reason of its classifiers."""

    name: str
    colour: str
    """``#rrggbb``."""
    verdict: str
    words: str
    """The effect of hiding it, for the class that needs it most."""
    because: str
    """The checks that speak for it."""


def reasons(report: SlideReport, most: int = MOST) -> tuple[Reason, ...]:
    """The object classes to name first: those of the best verdict, then the largest of them.

    Labels that the weights never learnt come last, and what adds nothing is no reason.
    """
    speaking = [row for row in report.rows if printed(row.value)]
    speaking.sort(key=lambda row: (row.guess, _rank(row), -abs(row.value)))
    return tuple(_reason(row, report) for row in speaking[:most])


def cohort_reasons(report: CohortReport) -> tuple[CohortReason, ...]:
    """The objects with a verdict better than "not distinguishable", the best first."""
    held = [row for row in report.evidence if row.verdict in ORDER[:2]]
    held.sort(key=lambda row: ORDER.index(row.verdict))
    return tuple(
        CohortReason(
            name=short_name(row.object),
            colour=hex_colour(object_colour(row.object)),
            verdict=row.verdict,
            words=_hidden_in_cohort(row.object, report),
            because=f"for it: {row.speaking}",
        )
        for row in held
    )


def prediction_doubt(chances: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Doubt in a prediction, 0 to 1.

    1 minus the mean probability that both models give to the class the first of them predicts.

    Args:
        chances: Class to probability, of the model that predicts.
        other: The same of the other model, empty if there is none.
    """
    predicted = max(chances, key=lambda name: chances[name])
    second = other.get(predicted, chances[predicted])
    return 1 - (chances[predicted] + second) / 2


def doubts(report: SlideReport) -> Iterator[str]:
    """Sentences on how far the prediction can be believed."""
    (_, chances), *others = report.probability.items()
    chance = chances.get(report.predicted, 0.0)
    yield f"The model is {_how_sure(chance)}."
    for name, values in others:
        choice = max(values, key=lambda one: values[one])
        if choice == report.predicted:
            yield f"The {name} model agrees ({percent(values[choice])})."
        else:
            yield f"The {name} model disagrees: {choice} ({percent(values[choice])})."
    if report.label and report.label != report.predicted:
        yield f"Wrong: the slide is labelled {report.label}."
    if report.split in ("train", "validation"):
        yield "The models have learnt from this slide, so they are surer than they should be."
    if not report.calibration:
        yield "The probability is not calibrated: read it as a score."


def _how_sure(chance: float) -> str:
    if chance >= SURE:
        return "sure"
    return "unsure" if chance < UNSURE else "fairly sure"


def _hidden_in_cohort(label: str, report: CohortReport) -> str:
    rows = [row for row in report.importance if row["object"] == label]
    if not rows:
        return "not hidden on any slide"
    row = max(rows, key=lambda one: float(one["excess"]))
    verb = "lowers" if row["effect"] > 0 else "raises"
    words = f"hiding it {verb} the log-odds of {row['class_name']} by {abs(row['effect']):.3g}"
    low, high = float(row["excess_low"]), float(row["excess_high"])
    if math.isnan(low):
        return f"{words} (one patient: no interval)"
    fall = f"{signed(row['excess'])} [{signed(low)}, {signed(high)}]"
    return f"{words}; less the fall for as much of the rest of its patches {fall}"


def _rank(row: ObjectRow) -> int:
    verdict = row.evidence.verdict if row.evidence else ""
    return ORDER.index(verdict) if verdict in ORDER else len(ORDER)


def _reason(row: ObjectRow, report: SlideReport) -> Reason:
    checks = row.evidence.speaking if row.evidence else ""
    verdict = row.evidence.verdict if row.evidence else "not tested"
    because = WORDS.get(verdict, "the cohort's tables say nothing of it")
    return Reason(
        name=row.title,
        colour=row.colour,
        value=row.value,
        words=f"{in_words(row, report)} ({signed(row.value)})"
        + (f", on {percent(row.area)} of the area looked at" if row.area > 0 else ""),
        verdict=verdict,
        because=because + (f" (for it: {checks})" if checks else ""),
        picture=_picture(row, report),
        here=row.area > 0,
    )


def _picture(row: ObjectRow, report: SlideReport) -> PatchPicture | None:
    pictures = [
        picture
        for strip in report.strips
        if strip.name == row.name
        for picture in (*strip.top, *strip.bottom)
    ]
    sign = 1 if row.value > 0 else -1
    return max(pictures, key=lambda picture: sign * picture.value, default=None)
