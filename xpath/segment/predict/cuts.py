"""Where the answers of a class are cut, if not at one half.

A class that is seldom shown is answered with caution: its pixels are best cut at less than 0.5. How
much less is learnt on training images (``segment.evaluation.cut_fitting``) and kept with the
weights.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from xpath.pathseg.parents import classes_of
from xpath.pathseg.sentences import template_label

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["cut_of", "shift_of"]

USUAL = 0.5


def shift_of(sentence: str, cuts: Mapping[str, float]) -> float:
    """Number to subtract from the logits of a sentence, so that its cut lies at 0."""
    cut = cut_of(sentence, cuts)
    return math.log(cut / (1 - cut))


def cut_of(sentence: str, cuts: Mapping[str, float]) -> float:
    """The probability at which the answer to a sentence is cut.

    That of the sentence's class, or of the one annotated class that its words belong to; 0.5 for
    sentences that are no label's.

    Args:
        sentence: Any words.
        cuts: Class, ``structure-object type``, to probability.
    """
    label = template_label(sentence) if cuts else None
    if label is None:
        return USUAL
    _, structure, object_type = label.split("-", 2)
    names = [f"{structure}-{object_type}"]
    classes = classes_of(structure, object_type)
    if len(classes) == 1:
        names.append("-".join(classes[0]))
    return next((cuts[name] for name in names if name in cuts), USUAL)
