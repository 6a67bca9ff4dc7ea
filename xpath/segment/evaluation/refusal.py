"""Telling prompts whose object is not there from those whose object is, over the cut-off.

BiomedParse's Fig. 2f and 2g: a prompt is refused where the score of its mask is below the cut-off.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xpath.segment.evaluation.evaluate import Sample

__all__ = ["REFUSAL_COLUMNS", "refusal_curve", "refusal_scores"]

REFUSAL_COLUMNS = ("cutoff", "refused", "precision", "recall", "kept")
MOST = 200
"""Cut-offs of a curve: quantiles of the scores."""


def refusal_scores(samples: Sequence[Sample]) -> tuple[list[float], list[float]]:
    """Scores of prompts whose object is there, and of prompts whose object is not.

    A mask without a pixel scores 0; the score is the segmentor's own, else its presence.
    """
    sides: tuple[list[float], list[float]] = ([], [])
    for sample in samples:
        score = sample.presence if math.isnan(sample.score) else sample.score
        sides[0 if sample.present else 1].append(score)
    return sides


def refusal_curve(samples: Sequence[Sample]) -> list[dict[str, object]]:
    """Precision and recall of refusing invalid prompts at every cut-off.

    A row has the cut-off, how many prompts are refused, the share of these that are invalid, the
    share of invalid prompts that are refused, and the share of valid ones that are kept. No rows
    where all prompts are valid, or none.
    """
    valid, invalid = map(np.array, refusal_scores(samples))
    if not len(valid) or not len(invalid):
        return []
    scores = np.unique(np.concatenate([valid, invalid]))
    steps = np.linspace(0, 1, min(MOST, len(scores)))
    cutoffs = np.unique(np.quantile(scores, steps, method="nearest"))
    rows: list[dict[str, object]] = []
    for cutoff in [*cutoffs.tolist(), np.nextafter(cutoffs[-1], np.inf)]:
        right, wrong = int((invalid < cutoff).sum()), int((valid < cutoff).sum())
        rows.append({
            "cutoff": float(cutoff),
            "refused": right + wrong,
            "precision": right / (right + wrong) if right + wrong else math.nan,
            "recall": right / len(invalid),
            "kept": 1 - wrong / len(valid),
        })
    return rows
