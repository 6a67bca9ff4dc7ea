"""Segmentation by boxes: MedSAM, SAM-Med2D and others, through transformers' ``SamModel``.

The published protocol (PathSegmentor, section 2.3 and Table 11): boxes come from the truth, without
margin. Axes: N boxes, H W pixels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import torch

from xpath.device import device_of
from xpath.metrics.boxes import boxes_of
from xpath.segment.baselines.sam_recipes import MedSam, PlainSam, SamMed2d
from xpath.segment.baselines.sam_weights import load_sam
from xpath.segment.evaluation.evaluate import READERS, Evaluation, Sample, sample_of
from xpath.segment.evaluation.questions import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import SamModel

    from xpath.segment.baselines.sam_recipes import SamRecipe
    from xpath.segment.evaluation.questions import Asked, EvaluationConfig, Problem, Question

__all__ = ["BoxEmbedding", "BoxPrompted", "BoxSegmenter", "score_boxes"]

BOXES_AT_ONCE = 16
"""The decoder needs tens of megabytes for each."""
PLAIN = "sam:"
"""In front of a path: Segment Anything's own preparation."""


class BoxPrompted(Protocol):
    """Anything that segments an image by boxes."""

    def encode(self, image: NDArray[np.uint8]) -> Any:
        """Everything about an image ``(H, W, 3)`` that does not depend on a box."""
        ...

    def masks(self, embedding: Any, boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Masks ``(N, H, W)`` for boxes ``(N, 4)``: left, top, right and bottom just outside."""
        ...


class BoxEmbedding(NamedTuple):
    """An encoded image."""

    features: Tensor
    """``(1, D, h, w)``."""
    size: tuple[int, int]
    """Height and width of the image."""


class BoxSegmenter:
    """MedSAM, SAM-Med2D or Segment Anything of ViT type, prompted with boxes.

    Args:
        model: transformers' module; moved to the device.
        recipe: How images go in and masks come out; MedSAM's if not given.
        device: ``cpu``, ``cuda``, ``cuda:1`` ...
    """

    def __init__(
        self, model: SamModel, recipe: SamRecipe | None = None, *, device: str = "cpu"
    ) -> None:
        self.device = device_of(device)
        self._recipe = recipe or MedSam()
        self._model = cast("Any", model)  # transformers' own types do not fit its modules
        self._model.to(self.device).eval()
        self._side = int(self._model.config.vision_config.image_size)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str = "cpu") -> BoxSegmenter:
        """Reads a folder or hub id in transformers' layout, or a published ``.pth``.

        Weights with adapters are SAM-Med2D's. Others are prepared as MedSAM's are, or, with
        ``sam:`` in front of the path, as Segment Anything's own.

        Raises:
            CheckpointError: Neither, or weights that do not fit; differences are named.
        """
        name, plain = str(path).removeprefix(PLAIN), str(path).startswith(PLAIN)
        loaded = load_sam(name)
        recipe: SamRecipe = SamMed2d() if loaded.adapted else PlainSam() if plain else MedSam()
        return cls(loaded.model, recipe, device=device)

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8]) -> BoxEmbedding:
        """The features of an image ``(H, W, 3)``, uint8 RGB."""
        shown = torch.from_numpy(self._recipe.pixels(image, self._side))
        features = self._model.get_image_embeddings(shown.permute(2, 0, 1)[None].to(self.device))
        return BoxEmbedding(features, (image.shape[0], image.shape[1]))

    @torch.inference_mode()
    def masks(self, embedding: BoxEmbedding, boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Masks ``(N, H, W)`` for boxes ``(N, 4)`` in pixels, right and bottom just outside."""
        masks = np.zeros((len(boxes), *embedding.size), np.bool_)
        inside = boxes - np.array([0, 0, 1, 1])  # Segment Anything's end on the last pixel
        scaled = inside * np.tile(self._recipe.scale(embedding.size, self._side), 2)
        for start in range(0, len(boxes), BOXES_AT_ONCE):
            some = torch.from_numpy(scaled[None, start : start + BOXES_AT_ONCE]).float()
            answer = self._model(
                image_embeddings=embedding.features,
                input_boxes=some.to(self.device),
                multimask_output=self._recipe.multimask,
            )
            best = answer.iou_scores[0].argmax(dim=-1)[:, None, None, None]
            logits = answer.pred_masks[0].take_along_dim(best, dim=1)
            large = self._recipe.masks(logits, embedding.size, self._side)
            masks[start : start + BOXES_AT_ONCE] = large[:, 0].cpu().numpy()
        return masks


def score_boxes(
    segmenter: BoxPrompted,
    questions: Mapping[Path, Sequence[Question]],
    config: EvaluationConfig,
    way: Literal["union", "instance"],
    *,
    on_images: Callable[[int], object] | None = None,
) -> Evaluation:
    """Asks with boxes around the truth, and scores the union of the masks of each question.

    Each image is encoded once. Absent objects have no box, so they are never found.

    Args:
        segmenter: ``BoxSegmenter`` or one of one's own.
        questions: From ``questions_of``.
        config: How to evaluate.
        way: One box around everything, or one around each instance.
        on_images: Called with the number of images just done.
    """
    samples: list[Sample] = []
    problems: list[Problem] = []
    with ThreadPoolExecutor(READERS) as threads:
        for (asked,) in batches(threads, questions, 1):
            problems += asked.problems
            if asked.truths:
                samples += _answered(segmenter, asked, config, way)
            if on_images:
                on_images(1)
    return Evaluation(tuple(samples), tuple(problems))


def _answered(
    segmenter: BoxPrompted,
    asked: Asked,
    config: EvaluationConfig,
    way: Literal["union", "instance"],
) -> list[Sample]:
    embedding = segmenter.encode(asked.pixels)
    samples = []
    for question, truth, unknown in zip(asked.questions, asked.truths, asked.ignored, strict=False):
        boxes = boxes_of(truth, way)
        mask = np.zeros_like(truth)
        if len(boxes):
            mask = np.asarray(segmenter.masks(embedding, boxes).any(axis=0))
        mask = mask if unknown is None else mask & ~unknown
        verdict = (bool(mask.any()), float(mask.any()))
        samples.append(sample_of(question, truth, mask[None], verdict, config.tolerance))
    return samples
