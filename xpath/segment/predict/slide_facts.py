"""Which labels are on a slide at all, decided when all its patches have been answered.

Axes: N patches, L labels.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.segment.predict.competition import slide_presence
from xpath.segment.predict.known_prompts import UNTAUGHT, taught_labels
from xpath.segment.predict.presence import MaskStatistics, PresenceModel
from xpath.store.label_facts import LabelFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.protocols import Segmentor
    from xpath.segment.predict.patch_answers import Answers

__all__ = ["SlideTally"]

logger = logging.getLogger(__name__)


class SlideTally:
    """Collects the answers of a slide's patches, then decides which labels are on it."""

    def __init__(self, segmentor: Segmentor, prompts: Sequence[str]) -> None:
        """Takes the segmentor and its questions.

        Args:
            segmentor: If it has a ``calibration`` of presence, that decides; otherwise a label is
                there where it has a pixel.
            prompts: L sentences.
        """
        taught = getattr(segmentor.info, "labels", ())
        self._names = taught_labels(prompts, taught)
        self._calibration = getattr(segmentor, "calibration", None)
        if isinstance(self._calibration, PresenceModel):
            logger.warning(
                "the tests of presence of %s look at the colours of an image and say nothing about"
                " slides; labels are taken as present wherever they have a pixel",
                segmentor.info.name,
            )
            self._calibration = None
        self._rows: list[tuple[NDArray[Any], ...]] = []
        self._before = np.zeros((len(prompts), len(prompts)), np.int64)
        self._after = np.zeros_like(self._before)

    def untaught(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Those of the L label ids that the weights never learnt."""
        pairs = zip(labels, self._names, strict=True)
        return tuple(label for label, name in pairs if name == UNTAUGHT)

    def add(self, answers: Answers) -> None:
        """Takes the answers of the next patches, before labels compete, on the host."""
        self._before += answers.shared.numpy().sum(axis=0)
        table = (answers.presence, answers.peak, answers.area)
        self._rows.append(tuple(column.numpy() for column in table))

    def add_resolved(self, shared: NDArray[np.int64]) -> None:
        """Takes ``(L, L)`` pixels in both of two masks as they are stored."""
        self._after += shared

    def facts(self) -> LabelFacts:
        """Facts about each label."""
        presence, peak, area = (np.concatenate(column) for column in zip(*self._rows, strict=True))
        if self._calibration is None:
            chances, threshold = presence.astype(np.float64), 0.0
        else:
            colour = np.zeros((*area.shape, 3))
            mean = presence.astype(np.float64) * (255 / 256)
            statistics = MaskStatistics(mean, colour, peak.astype(np.float64), area)
            chances = self._calibration(statistics, self._names)
            threshold = self._calibration.threshold
        probability = slide_presence(chances, area)
        there = (area.sum(axis=0) > 0) & (probability >= threshold)
        taught = np.array([name != UNTAUGHT for name in self._names], np.bool_)
        return LabelFacts(probability, there, taught, self._before, self._after)
