"""Everything in an image at once: which labels of a region are there, and which pixel is whose.

All labels are asked on one encoded image, then (Zhao et al. 2024, Methods, "object recognition")

1. empty masks and labels that score too low are dropped, and of masks that lie upon each other all
   but the best (non-maximum suppression, in the authors' code only);
2. a label is selected if it has the highest probability in enough of its own pixels;
3. a pixel goes to the selected label with the highest probability there, if that is high enough.

Probabilities are compared as logits, which order the same and never run into 1.

Axes: P labels asked, K labels kept, h w positions of the logits, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import ConfigError, DataError
from xpath.labels import load_labels
from xpath.segment.predict.label_planes import LabelPlanes
from xpath.segment.predict.presence import (
    channel_planes,
    mean_probability,
    stacked,
)
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.labels import Label
    from xpath.segment.predict.label_planes import Measures
    from xpath.segment.predict.predictor import SegmentPredictor
    from xpath.segment.predict.presence import PresenceScore

__all__ = ["CODE", "PAPER", "Recognition", "RecognitionRules", "recognise", "resolve"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecognitionRules:
    """Rules of recognition. ``CODE`` and ``PAPER`` are BiomedParse's two versions."""

    share: float = 0.5
    """Lambda: a label is selected if it wins at least this share of its own pixels."""
    candidate: float = 0.1
    """In the selection, a pixel is a label's own above this probability."""
    inside: float = 0.5
    """In the end, a pixel is given to a label only above this probability."""
    overlap: float | None = 0.5
    """A mask is dropped if more than this share of it lies in a better one; None drops none."""
    keep_surest: bool = True
    """Select the label with the highest mean probability in any case."""
    min_score: float = 0.0
    """A label that scores less is dropped."""

    def __post_init__(self) -> None:
        """Refuses what is no share or probability."""
        shares = (self.share, self.overlap if self.overlap is not None else 0.0)
        levels = (self.candidate, self.inside)
        if not all(0 <= it <= 1 for it in shares) or not all(0 < it < 1 for it in levels):
            raise ConfigError(
                f"shares must lie in 0..1 and probabilities between 0 and 1, got {self}"
            )


CODE = RecognitionRules()
"""As BiomedParse's code has it."""
PAPER = RecognitionRules(candidate=0.5, overlap=None, keep_surest=False)
"""As its paper has it; there, lambda is for the user to choose."""


class Recognition(NamedTuple):
    """A label map of an image: no pixel has two labels."""

    labels: tuple[Label, ...]
    """P labels that were asked."""
    scores: NDArray[np.float64]
    """``(P,)`` presence, 0 where the mask was empty."""
    kept: NDArray[np.int64]
    """``(K,)`` which of the labels were recognised, in the order asked."""
    label_map: NDArray[np.int16]
    """``(H, W)`` index into ``labels``; -1 where nothing was recognised."""
    masks: NDArray[np.bool_]
    """``(K, H, W)``, the label map taken apart; one may be empty, if others won all its pixels."""

    @property
    def names(self) -> tuple[str, ...]:
        """Ids of the labels kept."""
        return tuple(self.labels[index].id for index in self.kept)


def recognise(
    predictor: SegmentPredictor,
    image: NDArray[np.uint8],
    *,
    region: str | None = None,
    labels: Sequence[Label] | None = None,
    mpp: float | None = None,
    rules: RecognitionRules = CODE,
    score: PresenceScore = mean_probability,
) -> Recognition:
    """Recognises all labels of a region in an image.

    Args:
        predictor: The segmentor.
        image: RGB ``(H, W, 3)`` uint8.
        region: Ask for every label of this anatomical region.
        labels: Ask for these instead; they should exclude each other.
        mpp: Resolution of the image, microns per pixel; None takes it as that of the segmentor.
        rules: What counts as recognised.
        score: Presence of a mask, by which the better of two is chosen.

    Raises:
        DataError: Neither region nor labels, or both; an image that is none.
        LabelError: No such region.
    """
    if (region is None) == (labels is None):
        raise DataError("say either which region the image shows or which labels to look for")
    asked = tuple(labels) if labels is not None else load_labels().children(str(region))
    check_shape("image", image, "H W 3")
    if not asked:
        return _nothing((), np.zeros(0), image.shape[:2])
    embedding = predictor.encode(image, mpp=mpp)
    logits = predictor.logits(embedding, [label.prompt for label in asked])[0]
    predictor.check_finite(logits)
    # logits of weights that see squares are laid back on the image already
    seen = None if embedding.square else embedding.model_size
    return resolve(logits, image, asked, model_size=seen, rules=rules, score=score)


def resolve(
    logits: Tensor,
    image: NDArray[np.uint8],
    labels: Sequence[Label],
    *,
    model_size: tuple[int, int] | None = None,
    rules: RecognitionRules = CODE,
    score: PresenceScore = mean_probability,
    similarity: NDArray[np.floating] | None = None,
) -> Recognition:
    """All of recognition that comes after the model.

    Args:
        logits: ``(P, h, w)``, a position for 4 by 4 pixels of the image as the model saw it,
            padding included.
        image: ``(H, W, 3)`` uint8.
        labels: P labels.
        model_size: Height and width at which the model saw the image, without padding; None if
            they are those of the image.
        rules: What counts as recognised.
        score: Presence of a mask.
        similarity: ``(P,)`` cosine of prompt and query, for scores that ask for it.

    Raises:
        ShapeError: Sizes that do not fit each other.
    """
    asked = tuple(labels)
    check_shape("logits", logits, "P h w", P=len(asked))
    sizes = check_shape("image", image, "H W 3")
    size = (sizes["H"], sizes["W"])
    level, inside = _logit(rules.candidate), _logit(rules.inside)
    planes = LabelPlanes(logits, size, model_size, lowest=min(level, 0.0, inside))
    measures = planes.measured(channel_planes(image), level)
    statistics = stacked(measures.sums, (len(asked),), similarity)
    scores = np.asarray(score(statistics, [label.id for label in asked]), np.float64)
    passed = _suppressed(measures, scores, rules)
    winner = planes.winners(passed, level)
    chosen = _selected(passed, measures, winner, rules)
    if chosen != passed or inside < level:
        winner = planes.winners(chosen, inside)
    elif inside > level:
        winner[planes.best <= inside] = 0  # who is ahead there was decided above
    if not chosen:
        return _nothing(asked, scores, size)
    masks = np.stack([winner == index + 1 for index in chosen])
    label_map = winner.astype(np.int16) - 1
    return Recognition(asked, scores, np.array(chosen, np.int64), label_map, masks)


def _suppressed(
    measures: Measures, scores: NDArray[np.float64], rules: RecognitionRules
) -> list[int]:
    """Labels that score enough and do not lie upon a better one, in the order asked."""
    kept: list[int] = []
    areas = [_count(bits) for bits in measures.bits]
    for index in sorted(range(len(areas)), key=lambda it: -scores[it]):
        if not areas[index] or scores[index] < rules.min_score:
            continue
        most = math.inf if rules.overlap is None else rules.overlap * areas[index]
        larger = (other for other in kept if areas[other] > most)  # no other can hide so much of it
        if all(_count(measures.bits[index] & measures.bits[other]) <= most for other in larger):
            kept.append(index)
    return sorted(kept)


def _selected(
    indices: list[int],
    measures: Measures,
    winner: NDArray[np.unsignedinteger],
    rules: RecognitionRules,
) -> list[int]:
    """Labels that win enough of their own pixels."""
    won = {index: np.count_nonzero(winner == index + 1) for index in indices}
    means = measures.own_sum / measures.own.clip(min=1)
    surest = max(indices, key=means.__getitem__, default=None)
    return [
        index
        for index in indices
        if measures.own[index]
        and (
            won[index] >= rules.share * measures.own[index]
            or (rules.keep_surest and index == surest)
        )
    ]


def _nothing(
    labels: tuple[Label, ...], scores: NDArray[np.float64], size: tuple[int, ...]
) -> Recognition:
    """No label was recognised."""
    label_map = np.full(size, -1, np.int16)
    return Recognition(
        labels, scores, np.zeros(0, np.int64), label_map, np.zeros((0, *size), np.bool_)
    )


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _count(bits: NDArray[np.uint8]) -> int:
    """Bits that are set."""
    words = bits[: len(bits) // 8 * 8].view(np.uint64)
    rest = bits[len(words) * 8 :]
    return int(np.bitwise_count(words).sum(dtype=np.int64) + np.bitwise_count(rest).sum())
