"""Numbers of a report in words, and as they are printed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from xpath.export.report.records import CohortNeed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.explain.activation import ObjectActivation
    from xpath.explain.verdict import Evidence
    from xpath.export.report.records import ObjectRow, SlideReport
    from xpath.geometry import PatchGrid

__all__ = [
    "SURE",
    "Need",
    "ScaleBar",
    "baseline_in_words",
    "baseline_of",
    "cohort_need",
    "doubt_in_words",
    "evidence_in_words",
    "groups_in_words",
    "hiding_in_words",
    "in_words",
    "need",
    "need_in_words",
    "percent",
    "printed",
    "scale_bar",
    "signed",
    "summary",
    "where_in_words",
]

SURE = 0.05
"""Adjusted p below which an object is proven. Above it, it only seems to matter."""

Need = Literal[
    "supports", "speaks against", "needed less", "not needed", "not distinguishable", "unknown"
]
"""Of an object over patients: ``supports``: hiding it lowers the score, and more than hiding as
much of the rest. ``speaks against``: the opposite of both. ``needed less``: it lowers the score,
but hiding the rest of its patches changes it more, whichever way. ``not needed``: it does not, and
hiding the rest changes it more."""

NEEDS: dict[Need, str] = {
    "supports": "supports {name}",
    "speaks against": "speaks against {name}",
    "needed less": "it lowers the score for {name}, the rest of its patches changes it more",
    "not needed": "not needed for {name}: the rest of its patches matters more",
    "not distinguishable": "not distinguishable from the rest of its patches",
    "unknown": "one patient: no interval",
}
"""Each in a sentence."""

MINUS = "\N{MINUS SIGN}"
STEPS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
MOST = 3
"""Objects named in the summary, on each side."""
FIELDS = (
    ("the upper left", "the upper middle", "the upper right"),
    ("the middle left", "the centre", "the middle right"),
    ("the lower left", "the lower middle", "the lower right"),
)
DIGITS = 3
"""Behind the point, of log-odds. What is 0 in print says nothing."""


class ScaleBar(NamedTuple):
    """A length on the tissue."""

    words: str
    share: float
    """Of the picture's width, 0 to 1."""


def signed(value: float) -> str:
    """A number as ``+1.250``, with a real minus sign, and no sign where it rounds to zero."""
    text = f"{abs(value):.{DIGITS}f}"
    if not math.isfinite(value):
        return "not known"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def printed(value: float) -> float:
    """A number as it is printed: what is shown as 0.000 is 0, and has no side."""
    return round(value, DIGITS)


def percent(share: float) -> str:
    """A share as ``12.3 %``, never rounded to certainty."""
    if 0.999 < share < 1:
        return "> 99.9 %"
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"


def scale_bar(um_per_pixel: float | None, width: int) -> ScaleBar | None:
    """A round length of a third of the picture where one fits.

    None where the resolution is unknown, or the picture is smaller than the shortest bar.
    """
    if not um_per_pixel or not width:
        return None
    um = max((step for step in STEPS if step / um_per_pixel <= width / 3), default=STEPS[0])
    if um / um_per_pixel > width:
        return None
    words = f"{um / 1000:g} mm" if um >= 1000 else f"{um} \N{GREEK SMALL LETTER MU}m"
    return ScaleBar(words, um / um_per_pixel / width)


def in_words(row: ObjectRow, report: SlideReport) -> str:
    """An object's contribution in words."""
    value = printed(row.value)
    side = f"{'for' if value > 0 else 'against'} {report.explained}"
    if row.area > 0 and row.enough:
        return f"speaks {side}" if value else "adds nothing"
    lacking, that = (
        ("too little to be read", "that") if row.area > 0 else ("not found", "its absence")
    )
    return f"{lacking}; {that} speaks {side}" if value else f"{lacking}, so it adds nothing"


def baseline_of(parts: ObjectActivation, classes: Sequence[str]) -> str:
    """The baseline of a slide's contributions in words, and what the class is held against.

    Args:
        parts: Of the slide.
        classes: Names of the K classes.
    """
    name = classes[parts.target]
    words = baseline_in_words(name, parts.baseline_logit)
    if len(classes) == 2:
        return words
    rival = classes[int(np.argmin(parts.share))]
    return f"Contributions are to the log-odds of {name} against {rival}, the runner-up. {words}"


def baseline_in_words(class_name: str, baseline_logit: float) -> str:
    """The baseline of contributions, in words."""
    if math.isnan(baseline_logit):
        return (
            "Contributions are not compared with anything: this classifier keeps no baseline, so"
            " objects that every slide has carry its offset. Train it again."
        )
    return (
        "Contributions are compared with the average training slide, whose log-odds for"
        f" {class_name} are {signed(baseline_logit)}."
    )


def evidence_in_words(row: Evidence) -> str:
    """The verdict on an object, the checks that speak for it, and what they found."""
    area = "predicts" if row.area_low > 0.5 else "is not shown to predict"
    found = (
        f"without it (its last layer trained again) the loss rises by {signed(row.loss_without)}"
        f" [{signed(row.loss_low)}, {signed(row.loss_high)}]; its area alone {area} the class"
        f" ({_area_under_curve(row)}); its contribution distinguishes the classes in"
        f" {row.seeds_held} of {row.seeds} trainings"
    )
    if math.isfinite(row.hiding_q):
        found = f"hiding q {row.hiding_q:.3f}; {found}"
    return f"{row.verdict} (for it: {row.speaking or 'none of the four checks'}). {found}."


def _area_under_curve(row: Evidence) -> str:
    if math.isnan(row.area_auc):
        return "AUC not defined"
    return f"AUC {row.area_auc:.2f} [{row.area_low:.2f}, {row.area_high:.2f}]"


def groups_in_words(groups: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Objects that cannot be told apart, a sentence for each group."""
    return tuple(
        f"{', '.join(group[:-1])} and {group[-1]} go together, in masks or in contributions: read"
        " them as one."
        for group in groups
        if len(group) > 1
    )


def hiding_in_words(row: ObjectRow, report: SlideReport) -> str:
    """The effect of hiding an object on this slide, and over patients, in words."""
    if row.effect is None or row.null is None:
        return "not asked"
    name = report.hidden_class
    if row.cover is not None and math.isnan(row.cover):
        words = "not on this slide, so nothing was hidden"
    elif math.isnan(row.effect) or math.isnan(row.null):
        words = "hidden, it leaves nothing of the slide to ask about"
    else:
        words = _compared(printed(row.effect), printed(row.null), name, row.cover)
        words += _on_this_slide(row)
    return f"{words}; {_over_patients(row.cohort, name)}"


def _compared(effect: float, null: float, name: str, cover: float | None) -> str:
    """The effect of hiding an object on the score, beside that of hiding the rest there."""
    other = "as much of the rest of its patches"
    if cover is not None and cover > 0.5:
        other = f"the rest (it covers {percent(cover)} of its patches, all else there is scaled)"
    if effect == null:
        return f"hiding it does what hiding {other} does"
    does = {1: "lowers", -1: "raises", 0: "does not change"}
    own, rest = does[_sign(effect)], does[_sign(null)]
    if own == rest:
        more = "more" if abs(effect) > abs(null) else "less"
        return f"hiding it {own} the score for {name} {more} than hiding {other}"
    return f"hiding it {own} the score for {name}, and hiding {other} {rest} it"


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def need(cohort: CohortNeed) -> Need:
    """Reads an object's intervals over patients.

    Evidence for or against a class takes an effect and a need on the same side: beside a decisive
    object, one that does nothing has an excess below 0; beside tissue that speaks against the
    class, above 0.
    """
    if any(map(math.isnan, cohort)):
        return "unknown"
    if cohort.effect_low > 0 and cohort.need_low > 0:
        return "supports"
    if cohort.effect_high < 0 and cohort.need_high < 0:
        return "speaks against"
    if min(cohort.excess_high, cohort.need_high) < 0:
        return "needed less" if cohort.effect_low > 0 else "not needed"
    return "not distinguishable"


def cohort_need(row: Mapping[str, Any]) -> CohortNeed:
    """The intervals of a row of ``tables/importance.csv``."""
    return CohortNeed(*(float(row[name]) for name in CohortNeed._fields))


def doubt_in_words(row: Mapping[str, Any]) -> str:
    """Words of doubt for an interval that leaves out zero but is no proof."""
    if row["q"] < SURE:
        return ""
    if math.isnan(row["least_q"]):
        return " (suggestive: without test slides of two classes nothing proves it)"
    if not row["least_q"] < SURE:
        return " (suggestive: so few patients cannot prove it)"
    return f" (suggestive, not proven: q {row['q']:.2f} that it goes with the class)"


def need_in_words(row: Mapping[str, Any]) -> str:
    """A row of ``tables/importance.csv`` in words."""
    verdict, name = need(cohort_need(row)), row["class_name"]
    words = NEEDS[verdict].format(name=name)
    if verdict in ("supports", "speaks against"):
        if math.isnan(row["least_q"]):
            words += ": suggestive, without test slides of two classes nothing proves it"
        elif not row["least_q"] < SURE:
            words += ": suggestive, so few patients cannot prove it"
        elif not row["q"] < SURE:
            words += ": suggestive, not proven"
    if row["cover"] > 0.5:
        words += (
            f"; covers {percent(row['cover'])} of its patches, compared with all the rest there"
        )
    return words


def where_in_words(pixels: NDArray[np.integer], grid: PatchGrid) -> str:
    """Where pixels lie, in ninths of the box around all patches.

    "mostly" where a ninth holds more than half of them, "throughout" where none does and half of
    the patches hold some.

    Args:
        pixels: ``(N,)`` of an object class in each patch.
        grid: The patches.
    """
    if not pixels.any():
        return ""
    corners = grid.coords
    low, high = corners.min(axis=0), corners.max(axis=0) + grid.footprint
    ninth = ((corners + grid.footprint / 2 - low) / (high - low) * 3).astype(np.int64).clip(0, 2)
    amount = np.zeros((3, 3))
    np.add.at(amount, (ninth[:, 1], ninth[:, 0]), pixels)
    row, column = np.unravel_index(int(amount.argmax()), amount.shape)
    if amount.max() > amount.sum() / 2:
        return f"mostly in {FIELDS[row][column]}"
    if np.count_nonzero(pixels) >= len(pixels) / 2:
        return "throughout"
    if np.count_nonzero(amount == amount.max()) > 1:
        return "in several places"
    return f"the largest part in {FIELDS[row][column]}"


def summary(report: SlideReport) -> str:
    """The result of a slide in a sentence or two."""
    order = sorted(report.rows, key=lambda row: -abs(row.value))
    speaking = [row for row in order if printed(row.value) > 0][:MOST]
    against = [row for row in order if printed(row.value) < 0][:MOST]
    if not speaking:
        first = f"No object speaks for {report.explained}."
    else:
        first = f"For {report.explained} speak most: {_listed(speaking)}."
    second = f"Against it: {_listed(against)}." if against else "Nothing speaks against it."
    if printed(report.absence):
        second += f" What was looked for and not found adds {signed(report.absence)}."
    return f"{first} {second}"


def _listed(rows: Sequence[ObjectRow]) -> str:
    return ", ".join(f"{_amount(row)}{row.title} ({signed(row.value)})" for row in rows)


def _amount(row: ObjectRow) -> str:
    if row.area > 0:
        return "" if row.enough else "too little "
    return "no "


def _on_this_slide(row: ObjectRow) -> str:
    """Words of a slide by itself, where there are enough random masks to say anything."""
    if row.p is None or 1 / (row.random_masks + 1) > SURE:
        return ""
    return f" (on this slide p {row.p:.2f}, of {row.random_masks} random masks)"


def _over_patients(cohort: CohortNeed | None, name: str) -> str:
    if cohort is None:
        return "not measured over patients"
    return f"over patients: {NEEDS[need(cohort)].format(name=name)}"
