"""Segmentation by boxes: MedSAM, through transformers' ``SamModel``.

The published protocol (PathSegmentor, section 2.3 and Table 11): boxes come from the truth, without
margin. Axes: N boxes, H W pixels.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch.nn import functional

from xpath.device import device_of
from xpath.errors import CheckpointError
from xpath.metrics.boxes import boxes_of
from xpath.segment.baselines.sam_names import is_original, rename_sam
from xpath.segment.evaluation.evaluate import READERS, Evaluation, Sample, sample_of
from xpath.segment.evaluation.questions import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import SamModel

    from xpath.segment.evaluation.questions import Asked, EvaluationConfig, Problem, Question

__all__ = ["BoxEmbedding", "BoxPrompted", "BoxSegmenter", "score_boxes"]

BOXES_AT_ONCE = 16
"""The decoder needs tens of megabytes for each."""


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
    """MedSAM (Ma et al. 2024), or any Segment Anything of ViT type, prepared and read as MedSAM is.

    Images are stretched to the model's square by cubic splines and scaled from their least to
    their largest value, without mean and deviation. The single mask of each box is enlarged as a
    probability and cut at 0.5.

    Args:
        model: transformers' module; moved to the device.
        device: ``cpu``, ``cuda``, ``cuda:1`` ...
    """

    def __init__(self, model: SamModel, *, device: str = "cpu") -> None:
        self.device = device_of(device)
        self._model = cast("Any", model)  # transformers' own types do not fit its modules
        self._model.to(self.device).eval()
        self._side = int(self._model.config.vision_config.image_size)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str = "cpu") -> BoxSegmenter:
        """Reads a folder or hub id in transformers' layout, or MedSAM's own ``.pth`` (ViT-B).

        Raises:
            CheckpointError: Neither, or weights that do not fit; differences are named.
        """
        from transformers import SamConfig, SamModel

        file = Path(path)
        if file.is_file():
            model = SamModel(SamConfig())
            _load(model, file)
            return cls(model, device=device)
        try:
            return cls(SamModel.from_pretrained(str(path)), device=device)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} is neither a file of weights nor a SamModel that can be fetched: {error}"
            ) from error

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8]) -> BoxEmbedding:
        """The features of an image ``(H, W, 3)``, uint8 RGB."""
        from skimage.transform import resize

        square = (self._side, self._side)
        shown = resize(image, square, order=3, preserve_range=True, anti_aliasing=True)
        shown = np.clip(shown, 0, 255).astype(np.uint8).astype(np.float32)
        low, high = shown.min(), shown.max()
        shown = (shown - low) / max(float(high - low), 1e-8)
        pixels = torch.from_numpy(shown).permute(2, 0, 1)[None].to(self.device)
        features = self._model.get_image_embeddings(pixels)
        return BoxEmbedding(features, (image.shape[0], image.shape[1]))

    @torch.inference_mode()
    def masks(self, embedding: BoxEmbedding, boxes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Masks ``(N, H, W)`` for boxes ``(N, 4)`` in pixels, right and bottom just outside."""
        height, width = embedding.size
        found = np.zeros((len(boxes), height, width), np.bool_)
        inside = boxes - np.array([0, 0, 1, 1])  # Segment Anything's end on the last pixel
        scaled = inside * (self._side / np.array([width, height, width, height]))
        for start in range(0, len(boxes), BOXES_AT_ONCE):
            some = torch.from_numpy(scaled[None, start : start + BOXES_AT_ONCE]).float()
            answer = self._model(
                image_embeddings=embedding.features,
                input_boxes=some.to(self.device),
                multimask_output=False,
            )
            chances = answer.pred_masks[0].sigmoid()
            large = functional.interpolate(chances, size=(height, width), mode="bilinear")
            found[start : start + BOXES_AT_ONCE] = (large[:, 0] > 0.5).cpu().numpy()
        return found


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


def _load(model: SamModel, path: Path) -> None:
    """Fills a model from a file of tensors, if all of them fit."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever a damaged file leads to
        raise CheckpointError(f"{path} cannot be read as a file of tensors: {error}") from error
    state = state.get("model", state) if isinstance(state, dict) else {}
    state = rename_sam(state) if is_original(state) else state
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    differing = sorted(
        f"{name} is {given.get(name, 'missing')}, wanted {wanted.get(name, 'no such')}"
        for name in wanted.keys() | given.keys()
        if wanted.get(name) != given.get(name)
    )
    if differing:
        raise CheckpointError(
            f"{path} is no Segment Anything of ViT-B: {'; '.join(differing[:5])}"
            f" ({len(differing)} differences)"
        )
    model.load_state_dict(state)
