"""Teaching a segmentor to say "not present", from images whose labels are known.

Axes: n questions, P prompts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import CheckpointError, DataError
from xpath.labels import load_labels
from xpath.segment.evaluation.validation import prompt_of
from xpath.segment.predict.calibration import fit_calibration, mask_facts, with_untaught
from xpath.segment.predict.known_prompts import UNTAUGHT
from xpath.segment.predict.presence import MaskStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from xpath.pathseg.record import SourceImage
    from xpath.protocols import Segmentor
    from xpath.segment.predict.calibration import PresenceCalibration
    from xpath.segment.predict.predictor import SegmentPredictor

__all__ = [
    "PresenceQuestions",
    "ask_presence",
    "calibrate",
    "presence_called",
    "presence_chances",
    "untaught_labels",
]

EACH = 4
"""Untaught labels each image is asked for."""


class PresenceQuestions(NamedTuple):
    """Answers of a segmentor to n questions "is it there?" whose truth is known."""

    statistics: MaskStatistics
    """Of the n masks."""
    labels: tuple[str, ...]
    """The n label ids."""
    present: NDArray[np.bool_]
    """``(n,)`` whether the object is there; never of an untaught label."""
    untaught: NDArray[np.bool_]
    """``(n,)`` whether the weights never learnt the label, so that "present" would be a guess."""
    images: NDArray[np.int64]
    """``(n,)`` index of the image asked."""


def untaught_labels(taught: Iterable[str]) -> tuple[str, ...]:
    """Published labels that are not among those the weights were taught."""
    known = set(taught)
    return tuple(label.id for label in load_labels() if label.id not in known)


def ask_presence(
    segmentor: Segmentor,
    images: Iterable[SourceImage],
    *,
    untaught: Sequence[str] = (),
    seed: int = 0,
) -> PresenceQuestions:
    """Asks every image for the labels it is known to show or to lack, and for untaught ones.

    Args:
        segmentor: ``SegmentPredictor`` or one of one's own; a calibration it has is not looked at.
        images: At their own resolution.
        untaught: Labels the weights never learnt; four are drawn for each image, and none is taken
            for present, for the weights cannot know.
        seed: Of the draw.

    Raises:
        DataError: No image has a label that is known to be present or absent.
    """
    rng = np.random.default_rng(seed)
    facts, rows = [], []
    for index, item in enumerate(images):
        annotated = item.read()
        there = [mask.label for mask in annotated.masks]
        known = [*there, *annotated.absent]
        if not known:
            continue
        others = [label for label in untaught if label not in known]
        drawn = rng.choice(others, min(EACH, len(others)), replace=False).tolist() if others else []
        asked = [*known, *drawn]
        answer = segmentor.masks(segmentor.encode(annotated.image), [prompt_of(it) for it in asked])
        facts.append(mask_facts(answer.masks[0], answer.presence[0], answer.peak[0]))
        rows += [(label, label in there, label in untaught, index) for label in asked]
    if not facts:
        raise DataError("no image has a label that is known to be present or absent")
    labels, present, strange, numbers = zip(*rows, strict=True)
    table = MaskStatistics(
        *(np.concatenate(part) for part in zip(*(f[:4] for f in facts), strict=True))
    )
    never = np.array(strange, np.bool_)
    return PresenceQuestions(table, labels, np.array(present) & ~never, never, np.array(numbers))


def presence_chances(
    calibration: PresenceCalibration, asked: PresenceQuestions
) -> NDArray[np.float64]:
    """Calibrated P(present) of each question ``(n,)``, untaught labels all alike."""
    pairs = zip(asked.labels, asked.untaught, strict=True)
    names = [UNTAUGHT if never else label for label, never in pairs]
    return calibration(asked.statistics, names)


def presence_called(segmentor: SegmentPredictor, asked: PresenceQuestions) -> NDArray[np.bool_]:
    """Which questions ``(n,)`` are answered with "present".

    Raises:
        CheckpointError: The segmentor has no calibration.
    """
    if segmentor.calibration is None:
        raise CheckpointError(
            f"{segmentor.info.name} has no presence.json; pipelines/card_segmentor.py makes it"
        )
    chances = presence_chances(segmentor.calibration, asked)
    return np.asarray(chances >= segmentor.calibration.threshold)


def calibrate(
    segmentor: Segmentor,
    images: Iterable[SourceImage],
    *,
    threshold: float = 0.5,
    untaught: Sequence[str] = (),
) -> PresenceCalibration:
    """Asks for every label that is known to be present or absent, and learns from the masks.

    Untaught labels get an offset of their own, after all else is fitted, so that few of them pass.

    Args:
        segmentor: ``SegmentPredictor`` or one of one's own; a calibration it has is not looked at.
        images: At their own resolution; none of those that will judge the answers.
        threshold: Probability from which on an object is taken as present.
        untaught: Labels the weights never learnt, see ``untaught_labels``.

    Raises:
        DataError: No absent, or no present object among the questions.
    """
    asked = ask_presence(segmentor, images, untaught=untaught)
    known = np.flatnonzero(~asked.untaught)
    names = [asked.labels[index] for index in known]
    fitted = fit_calibration(
        _some(asked.statistics, known), names, asked.present[known], threshold=threshold
    )
    if not asked.untaught.any():
        return fitted
    return with_untaught(fitted, _some(asked.statistics, np.flatnonzero(asked.untaught)))


def _some(statistics: MaskStatistics, index: NDArray[np.int64]) -> MaskStatistics:
    probability, colour, peak, area = statistics[:4]
    return MaskStatistics(probability[index], colour[index], peak[index], area[index])
