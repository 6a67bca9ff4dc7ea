"""Where the two models of a run disagree about a slide, in sentences.

Both speak of the same class, and numbers above 0 speak for it: the object-aware model by what an
object class adds beyond the average training slide, the standard model by the fall of its log-odds
when the objects are hidden.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from xpath.export.overlay import short_name
from xpath.export.report.words import percent, printed, signed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xpath.explain.explanation import Explanation

__all__ = ["hiding_in_a_sentence", "objects_disagreed_on", "predictions_disagree"]

MOST = 3
"""Object classes that are named."""
DECISIVE = 0.1
"""Share of all contributions from which on one is worth a sentence."""


def predictions_disagree(probability: Mapping[str, Mapping[str, float]]) -> str:
    """A sentence if the models predict different classes, else nothing.

    Args:
        probability: Of each class, by the name of the model.
    """
    best = {model: max(of, key=lambda name: of[name]) for model, of in probability.items()}
    if len(set(best.values())) < 2:
        return ""
    said = [
        f"the {model} predicts {name} ({percent(probability[model][name])})"
        for model, name in best.items()
    ]
    return f"The two models disagree: {', '.join(said)}."


def objects_disagreed_on(explanation: Explanation, classes: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each decisive object class that the models see on different sides."""
    return tuple(_disagreements(explanation, classes[explanation.object.target]))[:MOST]


def hiding_in_a_sentence(effect: float, random: float, class_name: str) -> str:
    """The effect of hiding on the standard model's score, in words that hold for its sign.

    Args:
        effect: Fall of the log-odds when the objects are hidden.
        random: The same for as much of other tissue.
        class_name: The class.
    """
    if not (math.isfinite(effect) and math.isfinite(random)):
        return "Hidden, it leaves nothing of the slide to ask the standard model about."
    verb, how = _change(printed(effect))
    other, by = _change(printed(random))
    return (
        f"Hiding it {verb} the standard model's score for {class_name}{how}; hiding as much other"
        f" tissue {other} it{by}."
    )


def _change(fall: float) -> tuple[str, str]:
    """A verb, and by how much."""
    if not fall:
        return "does not change", ""
    return "lowers" if fall > 0 else "raises", f" by {signed(abs(fall)).removeprefix('+')}"


def _disagreements(explanation: Explanation, name: str) -> Iterator[str]:
    by_object, hiding = explanation.object, explanation.importance
    bars = by_object.bars
    total = float(np.abs(bars).sum()) or 1.0
    for j in np.argsort(-np.abs(bars), kind="stable").tolist():
        label = by_object.objects[j]
        if abs(bars[j]) < DECISIVE * total or label not in hiding.objects:
            continue
        e = hiding.objects.index(label)
        if not hiding.patches[e]:  # of what is not there, nothing can be hidden
            continue
        effect = float(hiding.effects[by_object.target, e])
        excess = float(hiding.excesses[by_object.target, e])
        if not math.isfinite(excess) or (bars[j] * effect > 0 and bars[j] * excess > 0):
            continue
        side = "for" if bars[j] > 0 else "against"
        sentence = hiding_in_a_sentence(effect, effect - excess, name)
        yield (
            f"The two models disagree on {short_name(label)}: in the object-aware model it speaks"
            f" {side} {name} ({signed(float(bars[j]))}). {sentence}"
        )
