"""Scores of other models on the questions of an evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from xpath.segment.baselines.box_segmenter import BoxSegmenter, score_boxes
from xpath.segment.evaluation.predictions import MaskFolder, score_masks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from xpath.segment.evaluation.evaluate import Evaluation
    from xpath.segment.evaluation.questions import EvaluationConfig, Question

__all__ = ["scores_of_others"]

WAYS: tuple[Literal["union", "instance"], ...] = ("union", "instance")


def scores_of_others(
    questions: dict[Path, list[Question]],
    config: EvaluationConfig,
    *,
    masks: Mapping[str, Path],
    boxes: Mapping[str, Path],
    device: str = "cpu",
) -> Iterator[tuple[str, Evaluation]]:
    """Names and scores of masks in files, then of box-prompted models in both ways.

    Args:
        questions: By image, as for ``evaluate_segmentor``.
        config: Of the evaluation.
        masks: Folders that other tools wrote, by the name of the model.
        boxes: Weights of box-prompted models, by name.
        device: Where these run.

    Raises:
        CheckpointError: There are no such weights.
        DataError: A folder that holds no masks of these images.
    """
    for name, folder in masks.items():
        yield name, score_masks(MaskFolder(folder), questions, config)
    for name, weights in boxes.items():
        segmenter = BoxSegmenter.from_pretrained(weights, device=device)
        for way in WAYS:
            yield f"{name} {way}", score_boxes(segmenter, questions, config, way)
