"""Evaluation of a segmentor on images with masks: one sample per image and prompt.

An image is encoded once and asked all its prompts. A label the weights were never taught is asked
as it is, and once more as the trained label of the same object type. What is broken is named and
left out.

Axes: B images, P prompts, H W pixels.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError, XPathError
from xpath.metrics.boundary import edge_distances, hausdorff, surface_dice
from xpath.metrics.boxes import BoxCost, box_cost
from xpath.metrics.overlap import dice, iou
from xpath.metrics.shape import ShapeTraits, shape_traits
from xpath.pathseg.tiling import windows
from xpath.segment.evaluation.questions import Problem, Question, batches, prompts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.protocols import ImageSegmentor
    from xpath.segment.evaluation.questions import Asked, EvaluationConfig

__all__ = ["Answers", "Evaluation", "Sample", "ask", "evaluate_segmentor", "sample_of"]

READERS = 4
"""Threads that decode and score beside the model."""


class Sample(NamedTuple):
    """One question, answered."""

    question: Question
    present: bool
    """Whether the true mask has a pixel."""
    found: bool
    """Whether the model answers "present", with a pixel of its mask in the known part."""
    dice: float
    """1 where nothing is and nothing was found."""
    iou: float
    hausdorff95: float
    """Pixels; infinite if one of the masks is empty."""
    surface_dice: float
    presence: float
    """The model's own confidence that the object is there."""
    dice_nearest: float
    """Dice when asked as the nearest trained label; NaN where that was not needed."""
    traits: ShapeTraits
    """Of the true mask."""
    cost: BoxCost
    """Of boxes around the true mask."""


class Evaluation(NamedTuple):
    """Scores of all questions, and what could not be scored."""

    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...]


class Answers(NamedTuple):
    """Masks of B images, joined over the windows of large ones."""

    masks: NDArray[np.bool_]
    """``(B, P, H, W)``."""
    presence: NDArray[np.float32]
    """``(B, P)``."""
    present: NDArray[np.bool_]
    """``(B, P)``; True where a window of the image says that the object is there."""


def evaluate_segmentor(
    segmentor: ImageSegmentor,
    questions: Mapping[Path, Sequence[Question]],
    config: EvaluationConfig,
    *,
    on_images: Callable[[int], object] | None = None,
) -> Evaluation:
    """Asks all questions and scores the answers.

    Args:
        segmentor: ``SegmentPredictor`` or one of one's own.
        questions: From ``questions_of``.
        config: How to evaluate.
        on_images: Called with the number of images just done, broken ones included.
    """
    samples: list[Sample] = []
    problems: list[Problem] = []
    with ThreadPoolExecutor(READERS) as threads:
        for batch in batches(threads, questions, config.batch):
            problems += [problem for asked in batch for problem in asked.problems]
            try:
                samples += _answered(segmentor, batch, config, threads)
            except XPathError as error:
                problems += [Problem(asked.questions[0].image, str(error)) for asked in batch]
            if on_images:
                on_images(len(batch))
    return Evaluation(tuple(samples), tuple(problems))


def ask(
    segmentor: ImageSegmentor,
    images: NDArray[np.uint8],
    prompts: Sequence[str],
    *,
    mpp: float | None = None,
) -> Answers:
    """Masks of images ``(B, H, W, 3)`` for prompts. Large images are asked window by window.

    Where windows overlap, a pixel is in if half of them say so; presence is that of the surest.

    Args:
        segmentor: ``SegmentPredictor`` or one of one's own.
        images: RGB.
        prompts: Sentences.
        mpp: Resolution of the images; None takes the pixels as they are.

    Raises:
        DataError: The segmentor answers with masks of another size.
    """
    count, height, width = images.shape[:3]
    votes = np.zeros((count, len(prompts), height, width), np.int8)
    presence = np.zeros((count, len(prompts)), np.float32)
    present = np.zeros((count, len(prompts)), np.bool_)
    known = {} if mpp is None else {"mpp": mpp}
    for window in windows(height, width):
        crop = images[:, *window.slices]
        answer = segmentor.masks(segmentor.encode(crop, **known), list(prompts))
        wanted = (count, len(prompts), window.height, window.width)
        if answer.masks.shape != wanted:
            raise DataError(f"masks must be {wanted}, the segmentor gave {answer.masks.shape}")
        votes[..., *window.slices] += np.where(answer.masks, 1, -1).astype(np.int8)
        presence = np.maximum(presence, answer.presence)
        present |= answer.present
    masks = votes >= 0
    return Answers(masks, presence, present & masks.any(axis=(2, 3)))


def _answered(
    segmentor: ImageSegmentor,
    batch: Sequence[Asked],
    config: EvaluationConfig,
    threads: ThreadPoolExecutor,
) -> list[Sample]:
    prompts = prompts_of(batch)
    if not prompts:
        return []
    images = np.stack([asked.pixels for asked in batch])
    answers = ask(segmentor, images, prompts, mpp=batch[0].mpp)
    row_of = {prompt: row for row, prompt in enumerate(prompts)}
    jobs = []
    for asked, masks, presence, present in zip(batch, *answers, strict=True):
        known = zip(asked.questions, asked.truths, asked.ignored, strict=False)
        for question, truth, unknown in known:
            rows = [row_of[prompt] for prompt in question.prompts]
            asked_masks = masks[rows] if unknown is None else masks[rows] & ~unknown
            verdict = (bool(present[rows[0]]), float(presence[rows[0]]))
            jobs.append(
                threads.submit(sample_of, question, truth, asked_masks, verdict, config.tolerance)
            )
    return [job.result() for job in jobs]


def sample_of(
    question: Question,
    truth: NDArray[np.bool_],
    masks: NDArray[np.bool_],
    verdict: tuple[bool, float],
    tolerance: float,
) -> Sample:
    """Scores masks ``(1 or 2, H, W)``: as asked, and as the nearest trained label."""
    mask = masks[0]
    answered, presence = verdict
    edges = edge_distances(mask, truth)
    return Sample(
        question,
        bool(truth.any()),
        answered and bool(mask.any()),  # what lies in the ignored part does not count
        dice(mask, truth),
        iou(mask, truth),
        hausdorff(edges),
        surface_dice(edges, tolerance=tolerance),
        presence,
        dice(masks[1], truth) if len(masks) > 1 else math.nan,
        shape_traits(truth),
        box_cost(truth),
    )
