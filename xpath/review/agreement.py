"""Where the two models of a run disagree about a slide, in sentences.

Both speak of the same class, and numbers above 0 speak for it: the object-aware model by what an
object class adds beyond the average training slide, the standard model by the fall of its log-odds
when the objects are blurred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.export.overlay import short_name
from xpath.export.report.words import percent, signed

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
    """The effect of blurring on the standard model's score, in words that hold for its sign.

    Args:
        effect: Fall of the log-odds when the objects are blurred.
        random: The same for as much of other tissue.
        class_name: The class.
    """
    verb = "lowers" if effect > 0 else "raises" if effect < 0 else "does not change"
    how = f" by {signed(abs(effect)).removeprefix('+')}" if effect else ""
    other = "lowers" if random > 0 else "raises" if random < 0 else "does not change"
    by = f" by {signed(abs(random)).removeprefix('+')}" if random else ""
    return (
        f"Blurring it {verb} the standard model's score for {class_name}{how}; blurring as much"
        f" other tissue {other} it{by}."
    )


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
        if bars[j] * effect > 0 and bars[j] * excess > 0:
            continue
        side = "for" if bars[j] > 0 else "against"
        sentence = hiding_in_a_sentence(effect, effect - excess, name)
        yield (
            f"The two models disagree on {short_name(label)}: in the object-aware model it speaks"
            f" {side} {name} ({signed(float(bars[j]))}). {sentence}"
        )
