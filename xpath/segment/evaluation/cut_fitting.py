"""Learning where to cut the answers of each class, on training images.

Axes: n questions, C candidate cuts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.segment.evaluation.validation import prompt_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from xpath.pathseg.record import SourceImage
    from xpath.segment.predict.predictor import SegmentPredictor

__all__ = ["CANDIDATES", "Cut", "CutQuestions", "ask_cuts", "cuts_of", "fit_cuts"]

CANDIDATES = np.round(np.arange(0.1, 0.95, 0.05), 2)
"""Probabilities that are tried, C of them."""
USUAL = int(np.argmin(np.abs(CANDIDATES - 0.5)))
FOLDS = 5
FEWEST = 20
"""Images of a class below which nothing is learnt."""
LEAST = 0.005
"""Gain in Dice below which 0.5 is kept."""


class CutQuestions(NamedTuple):
    """Dice of n answers at every candidate."""

    classes: tuple[str, ...]
    """The n classes, ``structure-object type``."""
    groups: tuple[str, ...]
    """The n patients."""
    dice: NDArray[np.float64]
    """``(n, C)``."""


class Cut(NamedTuple):
    """Where the answers of a class are best cut, as one row of a table."""

    object_class: str
    images: int
    best: float
    """Candidate with the highest Dice over all images."""
    gain: float
    """Dice of images cut at what the other folds think best, less that at 0.5."""
    error: float
    """Standard error of the gain."""
    taken: bool
    """Whether the gain is worth it: else the answers are cut at 0.5."""


def ask_cuts(segmentor: SegmentPredictor, images: Iterable[SourceImage]) -> CutQuestions:
    """Asks images for what they show, at their own resolution within what the weights saw.

    Args:
        segmentor: Weights without cuts.
        images: That the weights were trained on.
    """
    classes, groups, rows = [], [], []
    for item in images:
        annotated = item.read()
        if not annotated.masks:
            continue
        embedding = segmentor.encode(annotated.image, mpp=_shown(segmentor, item.mpp))
        prompts = [prompt_of(label) for label, _ in annotated.masks]
        chances = np.asarray(segmentor.masks(embedding, prompts, probability=True).probability)
        known = np.ones(annotated.image.shape[:2], bool)
        if annotated.ignore is not None:
            known = ~annotated.ignore
        for (label, mask), chance in zip(annotated.masks, chances[0], strict=True):
            if (mask & known).any():
                classes.append(label.split("-", 1)[1])
                groups.append(f"{item.source}/{item.group}")
                rows.append(dice_at(chance[known], mask[known]))
    return CutQuestions(tuple(classes), tuple(groups), np.array(rows).reshape(-1, len(CANDIDATES)))


def dice_at(chance: NDArray[np.floating], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Dice ``(C,)`` of pixels ``(m,)`` cut at each candidate."""
    edges = np.concatenate((CANDIDATES, [np.inf]))
    taken = np.histogram(chance, edges)[0][::-1].cumsum()[::-1]
    right = np.histogram(chance[truth], edges)[0][::-1].cumsum()[::-1]
    return np.asarray(2 * right / np.maximum(taken + truth.sum(), 1), np.float64)


def fit_cuts(questions: CutQuestions, *, seed: int = 0) -> list[Cut]:
    """The best cut of each class, and whether it is better than 0.5 by more than chance.

    Cross-fitting: patients are dealt to five folds, and each is cut where the others are best cut.
    A cut is taken if that gains at least 0.005, and more than two standard errors.

    Args:
        questions: Answers on training images.
        seed: Deals patients to folds.
    """
    rng = np.random.default_rng(seed)
    names, groups = np.array(questions.classes), np.array(questions.groups)
    return [
        _fit(name, groups[names == name], questions.dice[names == name], rng)
        for name in sorted(set(questions.classes))
    ]


def _fit(
    name: str, groups: NDArray[np.str_], dice: NDArray[np.float64], rng: np.random.Generator
) -> Cut:
    patients = np.unique(groups)
    fold_of = dict(zip(patients, rng.permutation(len(patients)) % FOLDS, strict=True))
    folds = np.array([fold_of[group] for group in groups])
    gains = np.zeros(len(dice))
    for fold in np.unique(folds):
        inside = folds == fold
        if not inside.all():
            best = int(dice[~inside].mean(axis=0).argmax())
            gains[inside] = dice[inside, best] - dice[inside, USUAL]
    best = int(dice.mean(axis=0).argmax())
    gain, count = float(gains.mean()), len(gains)
    error = float(gains.std(ddof=1) / count**0.5) if count > 1 else float("nan")
    taken = len(dice) >= FEWEST and gain >= LEAST and gain > 2 * error and best != USUAL
    return Cut(name, len(dice), float(CANDIDATES[best]), gain, error, taken)


def cuts_of(fitted: Sequence[Cut]) -> dict[str, float]:
    """Class to cut, of those that are taken."""
    return {cut.object_class: cut.best for cut in fitted if cut.taken}


def _shown(segmentor: SegmentPredictor, own: float) -> float | None:
    """The resolution to say of an image, so that it is shown within what the weights have seen.

    ``encode`` resamples to ``info.mpp``; an image within the range is shown as it is.
    """
    low, high = segmentor.info.mpp_range or (own, own)
    inside = min(max(own, low), high)
    return None if inside == own else segmentor.info.mpp * own / inside
