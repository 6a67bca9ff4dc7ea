"""Everything in an image at once: which labels of a region are there, and which pixel is whose.

All labels are asked on one encoded image, then (Zhao et al. 2024, Methods, "object recognition")

1. empty masks and labels that score too low are dropped, and of masks that lie upon each other all
   but the best (non-maximum suppression, in the authors' code only);
2. a label is selected if it has the highest probability in enough of its own pixels;
3. a pixel goes to the selected label with the highest probability there, if that is high enough.

Probabilities are compared as logits, which order the same and never run into 1. Masks are handled
one after the other, at full resolution, so that what is worked on stays in the cache.

Axes: P labels asked, K labels kept, h w places of the logits, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from xpath.errors import ConfigError, DataError, ShapeError
from xpath.labels import load_labels
from xpath.segment.images import resized
from xpath.segment.kernels.finalise import STRIDE
from xpath.segment.presence import (
    channel_planes,
    mean_probability,
    plane_statistics,
    stacked,
)
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.labels import Label
    from xpath.segment.predictor import SegmentPredictor
    from xpath.segment.presence import PresenceScore

__all__ = ["CODE", "PAPER", "Recognition", "RecognitionRules", "recognise", "resolve"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RecognitionRules:
    """What counts as recognised; ``CODE`` and ``PAPER`` are BiomedParse's two versions."""

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
    """What is where; no pixel has two labels."""

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
        score: Presence of a mask, by which the better of two is told.

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
    return resolve(logits, image, asked, seen=embedding.seen, rules=rules, score=score)


def resolve(
    logits: Tensor,
    image: NDArray[np.uint8],
    labels: Sequence[Label],
    *,
    seen: tuple[int, int] | None = None,
    rules: RecognitionRules = CODE,
    score: PresenceScore = mean_probability,
    similarity: NDArray[np.floating] | None = None,
) -> Recognition:
    """All of recognition that comes after the model.

    Args:
        logits: ``(P, h, w)``, a place for 4 by 4 pixels of the image as the model saw it, padding
            included.
        image: ``(H, W, 3)`` uint8.
        labels: P labels.
        seen: Height and width at which the model saw the image, without padding; None if they are
            those of the image.
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
    planes = _Planes(logits, size, seen, lowest=min(level, 0.0, inside))
    found = _measured(planes, channel_planes(image), level)
    statistics = stacked([it.statistics for it in found], (len(asked),), similarity)
    scores = np.asarray(score(statistics, [label.id for label in asked]), np.float64)
    passed = _suppressed(found, scores, rules)
    winner = planes.winners(passed, level)
    chosen = _selected(passed, found, winner, rules)
    if chosen != passed or inside < level:
        winner = planes.winners(chosen, inside)
    elif inside > level:
        winner[planes.best <= inside] = 0  # who is ahead there was found above
    if not chosen:
        return _nothing(asked, scores, size)
    masks = np.stack([winner == index + 1 for index in chosen])
    label_map = winner.astype(np.int16) - 1
    return Recognition(asked, scores, np.array(chosen, np.int64), label_map, masks)


class _Plane(NamedTuple):
    """Logits of one label in the part of the image outside of which they are too low."""

    logits: NDArray[np.float32]
    """``(rows, columns)``."""
    place: tuple[slice, slice]
    """Where in the image."""


class _Measured(NamedTuple):
    """What is known of one label before labels are compared."""

    statistics: NDArray[np.float64]
    """A row for ``stacked``."""
    bits: NDArray[np.uint64]
    """Mask of the whole image."""
    own: int
    """Pixels above the candidate level."""
    mean: float
    """Their mean probability."""


class _Planes:
    """Logits at full resolution, one label at a time, cut to where they matter."""

    def __init__(
        self,
        logits: Tensor,
        size: tuple[int, int],
        seen: tuple[int, int] | None,
        *,
        lowest: float,
    ) -> None:
        """Takes logits ``(P, h, w)``, and the size of the image here and in the model."""
        self.size, self.best = size, np.empty(0, np.float32)
        self._seen = seen or size
        self._low = logits.detach().float().cpu().numpy()
        self._lowest = lowest
        reach = [STRIDE * places for places in self._low.shape[1:]]
        if any(pixels > most for pixels, most in zip(self._seen, reach, strict=True)):
            raise ShapeError(
                f"the model saw {self._seen} px, but logits {self._low.shape} reach {reach};"
                " pass height and width it saw as seen"
            )

    def __len__(self) -> int:
        """Number of labels."""
        return len(self._low)

    def __getitem__(self, index: int) -> _Plane | None:
        """Where a label may be; None if its mask is empty, which drops it in any case."""
        low = self._low[index]
        if not low.max() > 0:
            return None
        high = low > self._lowest
        if self._seen != self.size:  # resampled twice: no telling how far a place reaches
            large = _enlarged(low)[: self._seen[0], : self._seen[1]]
            plane = resized(torch.from_numpy(large)[None, None], self.size)[0, 0].numpy()
            return _Plane(plane, (slice(0, self.size[0]), slice(0, self.size[1])))
        spans = [_span(high.any(axis=axis)) for axis in (1, 0)]
        large = _enlarged(low[tuple(around for around, _ in spans)])
        place = tuple(
            slice(STRIDE * part.start, min(STRIDE * part.stop, pixels))
            for (_, part), pixels in zip(spans, self.size, strict=True)
        )
        cut = tuple(
            slice(part.start - STRIDE * around.start, part.stop - STRIDE * around.start)
            for part, (around, _) in zip(place, spans, strict=True)
        )
        return _Plane(large[cut], (place[0], place[1]))

    def winners(self, indices: Sequence[int], level: float) -> NDArray[np.unsignedinteger]:
        """``(H, W)`` one more than the label with the highest logit above a level; 0 where none.

        Labels must rise. ``best`` is then the highest logit.
        """
        kind = np.uint8 if len(self) < 256 else np.uint16
        winner = np.zeros(self.size, kind)
        self.best = np.full(self.size, level, np.float32)
        for index in indices:
            plane = self[index]
            if plane is not None:
                best, first = self.best[plane.place], winner[plane.place]
                ahead = plane.logits > best
                np.maximum(plane.logits, best, out=best)
                # a later label has the higher number: no need to write under a mask, which is slow
                np.maximum(first, ahead.view(np.uint8) * kind(index + 1), out=first)
        return winner


def _enlarged(low: NDArray[np.float32]) -> NDArray[np.float32]:
    """Four times larger; the weights of torch's interpolate, five times as fast."""
    import cv2

    size = (STRIDE * low.shape[1], STRIDE * low.shape[0])
    return np.asarray(cv2.resize(low, size, interpolation=cv2.INTER_LINEAR))


def _span(high: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Places to look at, and those of them that may hold a pixel above the level.

    A place reaches half way into its neighbours, and they lean on their own.
    """
    first, last = int(high.argmax()), len(high) - 1 - int(high[::-1].argmax())
    around = slice(max(first - 2, 0), min(last + 3, len(high)))
    return around, slice(max(first - 1, 0), min(last + 2, len(high)))


def _measured(planes: _Planes, channels: NDArray[np.uint8], level: float) -> list[_Measured]:
    """Every label on its own."""
    import cv2

    nothing = _Measured(np.zeros(6), np.zeros(0, np.uint64), 0, 0.0)
    found = []
    for index in range(len(planes)):
        plane = planes[index]
        if plane is None:
            found.append(nothing)
            continue
        probability: NDArray[np.float32] = torch.from_numpy(plane.logits).sigmoid().numpy()
        candidate = (plane.logits > level).view(np.uint8)
        own = cv2.countNonZero(candidate)
        mean = cv2.norm(probability, cv2.NORM_L1, candidate) / own if own else 0.0
        rows, columns = plane.place
        statistics = plane_statistics(probability, channels[:, rows, columns])
        found.append(_Measured(statistics, _packed(plane, planes.size), own, mean))
    return found


def _suppressed(
    found: Sequence[_Measured], scores: NDArray[np.float64], rules: RecognitionRules
) -> list[int]:
    """Labels that score enough and do not lie upon a better one, in the order asked."""
    kept: list[int] = []
    for index in sorted(range(len(found)), key=lambda it: -scores[it]):
        bits = found[index].bits
        area = _count(bits)
        if not area or scores[index] < rules.min_score:
            continue
        most = math.inf if rules.overlap is None else rules.overlap * area
        if all(_count(bits & found[other].bits) <= most for other in kept):
            kept.append(index)
    return sorted(kept)


def _selected(
    indices: list[int],
    found: Sequence[_Measured],
    winner: NDArray[np.unsignedinteger],
    rules: RecognitionRules,
) -> list[int]:
    """Labels that win enough of their own pixels."""
    won = {index: np.count_nonzero(winner == index + 1) for index in indices}
    surest = max(indices, key=lambda index: found[index].mean, default=None)
    return [
        index
        for index in indices
        if found[index].own
        and (
            won[index] >= rules.share * found[index].own or (rules.keep_surest and index == surest)
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


def _packed(plane: _Plane, size: tuple[int, int]) -> NDArray[np.uint64]:
    """The mask of the whole image as bits, in words; filled up with zeros."""
    mask = np.zeros(size, np.bool_)
    np.greater(plane.logits, 0, out=mask[plane.place])
    flat = np.packbits(mask, axis=None)
    words = np.zeros(-(-flat.size // 8) * 8, np.uint8)
    words[: flat.size] = flat
    return words.view(np.uint64)


def _count(words: NDArray[np.uint64]) -> int:
    return int(np.bitwise_count(words).sum(dtype=np.int64))
