"""Recognition of all objects of an image at once, judged as BiomedParse does (its Fig. 4).

Every image is asked for all labels its data set annotates in its region, structure by structure,
because labels of one structure exclude each other. Axes: H W pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.metrics.bootstrap import bootstrap_mean
from xpath.metrics.overlap import dice
from xpath.pathseg.reading import read_image
from xpath.segment.evaluation.questions import read_mask
from xpath.segment.predict.recognition import CODE, recognise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.labels import Label
    from xpath.segment.evaluation.questions import Question
    from xpath.segment.predict.predictor import SegmentPredictor
    from xpath.segment.predict.recognition import RecognitionRules

__all__ = ["RECOGNITION_COLUMNS", "RecognisedImage", "recognise_images", "recognition_table"]

RECOGNITION_COLUMNS = (
    "objects", "images", "precision", "recall", "f1", "f1_low", "f1_high", "f1_median", "dice",
    "dice_low", "dice_high",
)  # fmt: skip
OVERALL = "overall"


class RecognisedImage(NamedTuple):
    """Labels recognised in an image, against those that are there."""

    image: Path
    group: str
    """Patient or slide where known, else the image."""
    there: tuple[str, ...]
    """Label ids that have a mask with a pixel."""
    recognised: tuple[str, ...]
    """Label ids that were kept."""
    dice: float
    """Mean Dice over the objects there, weighted by their areas; 0 for one that was missed."""

    @property
    def scores(self) -> tuple[float, float, float]:
        """Precision, recall and F1 of the labels, precision NaN where nothing was kept."""
        right = len(set(self.there) & set(self.recognised))
        precision = right / len(self.recognised) if self.recognised else math.nan
        total = len(self.there) + len(self.recognised)
        return precision, right / len(self.there), 2 * right / total


def recognise_images(
    predictor: SegmentPredictor,
    questions: Mapping[Path, Sequence[Question]],
    *,
    rules: RecognitionRules = CODE,
    on_image: Callable[[], object] | None = None,
) -> list[RecognisedImage]:
    """Recognises everything in every image. Images without an object or a label are left out.

    Args:
        predictor: The segmentor.
        questions: From ``questions_of``; the labels asked are those of the image's data set and
            region.
        rules: What counts as recognised.
        on_image: Called after each image.

    Raises:
        DataError: An image or mask that cannot be read.
    """
    asked: dict[tuple[str, str], dict[str, Label]] = {}
    for each in questions.values():
        for question in each:
            if question.label and question.mask:
                key = (question.source, question.label.region)
                asked.setdefault(key, {})[question.label.id] = question.label
    results = []
    for image, each in questions.items():
        one = _recognised(predictor, image, each, asked, rules)
        if one is not None:
            results.append(one)
        if on_image:
            on_image()
    return results


def recognition_table(
    images: Sequence[RecognisedImage], *, seed: int = 0
) -> list[dict[str, object]]:
    """Scores by the number of objects in the image, then over all.

    Means of images, with 95 % bootstrap intervals, images (or patients) drawn whole.
    """
    groups: dict[object, list[RecognisedImage]] = {}
    for image in sorted(images, key=lambda one: len(one.there)):
        groups.setdefault(len(image.there), []).append(image)
    groups[OVERALL] = list(images)
    return [{"objects": count, **_row(group, seed)} for count, group in groups.items() if group]


def _row(images: Sequence[RecognisedImage], seed: int) -> dict[str, object]:
    precision, recall, f1 = (
        np.array(values) for values in zip(*(i.scores for i in images), strict=True)
    )
    owners = [image.group for image in images]
    of_f1 = bootstrap_mean(f1, np.random.default_rng(seed), groups=owners)
    of_dice = bootstrap_mean([i.dice for i in images], np.random.default_rng(seed), groups=owners)
    known = precision[np.isfinite(precision)]
    return {
        "images": len(images),
        "precision": float(known.mean()) if len(known) else math.nan,
        "recall": float(recall.mean()),
        "f1": of_f1.mean,
        "f1_low": of_f1.low,
        "f1_high": of_f1.high,
        "f1_median": float(np.median(f1)),
        "dice": of_dice.mean,
        "dice_low": of_dice.low,
        "dice_high": of_dice.high,
    }


def _recognised(
    predictor: SegmentPredictor,
    image: Path,
    questions: Sequence[Question],
    asked: Mapping[tuple[str, str], Mapping[str, Label]],
    rules: RecognitionRules,
) -> RecognisedImage | None:
    truths = _truths(questions)
    first = next((one for one in questions if one.label and one.label.id in truths), None)
    if first is None or first.label is None:
        return None
    labels = asked[first.source, first.label.region]
    pixels, masks = read_image(image), dict[str, "NDArray[np.bool_]"]()
    for structure in dict.fromkeys(label.structure for label in labels.values()):
        some = [label for label in labels.values() if label.structure == structure]
        found = recognise(predictor, pixels, labels=some, mpp=first.mpp, rules=rules)
        masks |= dict(zip(found.names, found.masks, strict=True))
    areas = np.array([truth.sum() for truth in truths.values()], np.float64)
    scores = [dice(masks[name], truth) if name in masks else 0.0 for name, truth in truths.items()]
    weighted = float(np.average(scores, weights=areas))
    return RecognisedImage(image, first.group, tuple(truths), tuple(masks), weighted)


def _truths(questions: Sequence[Question]) -> dict[str, NDArray[np.bool_]]:
    """Masks with a pixel, by label, several of a label united."""
    truths: dict[str, NDArray[np.bool_]] = {}
    for question in questions:
        if question.mask is None or question.label is None:
            continue
        mask, _ = read_mask(question.mask, ignore=question.ignore, unknown=question.unknown)
        before = truths.get(question.label.id)
        if mask.any():
            truths[question.label.id] = mask if before is None else before | mask
    return truths
