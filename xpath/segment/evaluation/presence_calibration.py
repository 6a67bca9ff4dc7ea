"""Teaching a segmentor to say "not present", from images whose labels are known.

Axes: n questions, P prompts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError
from xpath.segment.evaluation.validation import prompt_of
from xpath.segment.predict.calibration import fit_calibration, mask_facts
from xpath.segment.predict.presence import MaskStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xpath.pathseg.record import SourceImage
    from xpath.protocols import Segmentor
    from xpath.segment.predict.calibration import PresenceCalibration

__all__ = ["calibrate"]


def calibrate(
    segmentor: Segmentor, images: Iterable[SourceImage], *, threshold: float = 0.5
) -> PresenceCalibration:
    """Asks for every label that is known to be present or absent, and learns from the masks.

    Args:
        segmentor: ``SegmentPredictor`` or one of one's own; a calibration it has is not looked at.
        images: At their own resolution; none of those that will judge the answers.
        threshold: Probability from which on an object is taken as present.

    Raises:
        DataError: No absent, or no present object among the questions.
    """
    facts, labels, present = [], [], []
    for item in images:
        annotated = item.read()
        there = [mask.label for mask in annotated.masks]
        asked = [*there, *annotated.absent]
        if not asked:
            continue
        answer = segmentor.masks(segmentor.encode(annotated.image), [prompt_of(it) for it in asked])
        facts.append(mask_facts(answer.masks[0], answer.presence[0], answer.peak[0]))
        labels += asked
        present += [True] * len(there) + [False] * len(annotated.absent)
    if not facts:
        raise DataError("no image has a label that is known to be present or absent")
    parts = zip(*(fact[:4] for fact in facts), strict=True)
    table = MaskStatistics(*(np.concatenate(part) for part in parts))
    return fit_calibration(table, labels, np.array(present), threshold=threshold)
