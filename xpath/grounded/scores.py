"""How well a grounded model answers, judged as UniBiomed's evaluation judges.

Axes: N predicted, M true masks, H W pixels.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from xpath.grounded.tasks import phrase_of
from xpath.metrics.overlap import dice

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["mean_by_phrase", "names_finding", "names_region", "paired_dice"]

_SIDE = re.compile(r"\b(?:left|right) ")


def names_finding(answer: str, truth: str) -> bool:
    """Whether an answer holds the true finding, word for word but for case and a full stop."""
    wanted = phrase_of(truth)
    return bool(wanted) and wanted in answer.lower()


def names_region(answer: str, truth: str) -> bool:
    """Whether an answer such as "gland in colon pathology" names the class of a region.

    What stands before " in " must be equal, sides ("left", "right") left out, and the last word of
    the truth must be part of the last word of the answer.
    """
    given, wanted = (_SIDE.sub("", phrase_of(text)) for text in (answer, truth))
    if not given or not wanted:
        return False
    same = given.partition(" in ")[0] == wanted.partition(" in ")[0]
    return same and wanted.split()[-1] in given.split()[-1]


def paired_dice(masks: NDArray[np.bool_], truths: NDArray[np.bool_]) -> float:
    """Mean Dice of masks ``(N, H, W)`` and true masks ``(M, H, W)``, paired one to one.

    The best pair goes first, then the best of what is left. NaN without a true mask, 0 without any
    other.
    """
    if not len(truths):
        return float("nan")
    if not len(masks):
        return 0.0
    table = np.array([[dice(mask, truth) for truth in truths] for mask in masks])
    pairs = []
    for _ in range(min(table.shape)):
        row, column = np.unravel_index(table.argmax(), table.shape)
        pairs.append(table[row, column])
        table[row], table[:, column] = -1, -1
    return float(np.mean(pairs))


def mean_by_phrase(samples: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Phrase to the mean of its values. Their mean weighs every phrase alike."""
    values: dict[str, list[float]] = {}
    for phrase, value in samples:
        values.setdefault(phrase, []).append(value)
    return {phrase: float(np.mean(known)) for phrase, known in values.items()}
