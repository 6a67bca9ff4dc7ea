"""Numbers of a report in words, and as they are printed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xpath.export.report.records import ObjectRow, SlideReport

__all__ = ["ScaleBar", "hiding_in_words", "in_words", "percent", "scale_bar", "signed", "summary"]

MINUS = "\N{MINUS SIGN}"
STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
MOST = 3
"""Objects named in the summary, on each side."""


class ScaleBar(NamedTuple):
    """A length on the tissue."""

    words: str
    share: float
    """Of the picture's width, 0 to 1."""


def signed(value: float) -> str:
    """A number as ``+1.250``, with a real minus sign, and no sign where it rounds to zero."""
    text = f"{abs(value):.3f}"
    if not math.isfinite(value):
        return "not known"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def percent(share: float) -> str:
    """A share as ``12.3 %``, never rounded to certainty."""
    if 0.999 < share < 1:
        return "> 99.9 %"
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def scale_bar(um_per_pixel: float | None, width: int) -> ScaleBar | None:
    """A round length of a third of the picture at most, None where the resolution is unknown."""
    if not um_per_pixel or not width:
        return None
    um = max((step for step in STEPS if step / um_per_pixel <= width / 3), default=STEPS[0])
    words = f"{um / 1000:g} mm" if um >= 1000 else f"{um} \N{GREEK SMALL LETTER MU}m"
    return ScaleBar(words, min(1.0, um / um_per_pixel / width))


def in_words(row: ObjectRow, report: SlideReport) -> str:
    """An object's contribution in words."""
    if row.contribution > 0:
        return f"speaks for {report.explained}"
    if row.contribution < 0:
        return f"speaks against {report.explained}"
    return "adds nothing" if row.area > 0 else "not found, so it adds nothing"


def hiding_in_words(row: ObjectRow, report: SlideReport) -> str:
    """The effect of hiding an object on this slide, and over patients, in words."""
    if row.effect is None or row.null is None:
        return "not asked"
    name, excess = report.hidden_class, row.effect - row.null
    if excess > 0:
        words = f"hiding it lowers the score for {name} more than hiding as much random tissue"
    elif excess < 0:
        words = f"hiding it lowers the score for {name} less than hiding as much random tissue"
    else:
        words = "hiding it does what hiding as much random tissue does"
    return f"{words}; {_over_patients(row.cohort)}"


def summary(report: SlideReport) -> str:
    """The result of a slide in a sentence or two."""
    order = sorted(report.rows, key=lambda row: -abs(row.contribution))
    speaking = [row for row in order if row.contribution > 0][:MOST]
    against = [row for row in order if row.contribution < 0][:MOST]
    if not speaking:
        first = f"No object speaks for {report.explained}."
    else:
        first = f"For {report.explained} speak most: {_listed(speaking)}."
    second = f"Against it: {_listed(against)}." if against else "Nothing speaks against it."
    return f"{first} {second}"


def _listed(rows: Sequence[ObjectRow]) -> str:
    return ", ".join(f"{row.name} ({signed(row.contribution)})" for row in rows)


def _over_patients(cohort: tuple[float, float] | None) -> str:
    if cohort is None:
        return "not measured over patients"
    low, high = cohort
    if not (math.isfinite(low) and math.isfinite(high)):
        return "one patient, no interval"
    if low > 0:
        return "over patients too"
    if high < 0:
        return "over patients it lowers it less"
    return "over patients not proven"
