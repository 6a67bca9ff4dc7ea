"""Grounding DINO for boxes, a box-prompted model for their masks: BiomedParse's baseline.

Words find boxes (Liu et al. 2023, through transformers), boxes find masks. As in BiomedParse's
comparison (Methods), the surest box of a prompt counts; with more than one, boxes that overlap a
surer one go. Axes: B images, P prompts, Q queries, N boxes, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from xpath.device import device_of
from xpath.errors import CheckpointError
from xpath.pathseg.sentences import guess_label
from xpath.protocols import Segmentation
from xpath.segment.baselines.box_segmenter import BoxSegmenter
from xpath.segment.checkpoints.importing import BIOMEDPARSE_TEMPLATE
from xpath.segment.evaluation.mapping import label_of
from xpath.segment.predict.images import as_batch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.segment.baselines.box_segmenter import BoxPrompted

__all__ = ["DetectedBoxes", "DetectorConfig", "DetectorSegmenter"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorConfig:
    """Which boxes count."""

    threshold: float = 0.25
    """Least score of a box; without one the object is absent."""
    most: int = 1
    """Boxes of a prompt."""
    overlap: float = 0.5
    """IoU above which the less sure of two boxes goes."""


class DetectedBoxes(NamedTuple):
    """Boxes of one prompt, the surest first."""

    boxes: NDArray[np.int64]
    """``(N, 4)``: left, top, right and bottom just outside."""
    scores: NDArray[np.float32]
    """``(N,)``."""


class _Encoded(NamedTuple):
    pixels: dict[str, Tensor]
    """What the detector sees."""
    size: tuple[int, int]
    masks_of: Any
    """The box-prompted model's own embedding."""


class DetectorSegmenter:
    """Segments with words by way of boxes.

    Args:
        detector: transformers' ``GroundingDinoForObjectDetection``; moved to the device.
        processor: Its ``GroundingDinoProcessor``.
        segmenter: From boxes to masks.
        config: Which boxes count.
        device: ``cpu``, ``cuda``, ``cuda:1`` ...
    """

    def __init__(
        self,
        detector: Any,
        processor: Any,
        segmenter: BoxPrompted,
        config: DetectorConfig = DetectorConfig(),
        *,
        device: str = "cpu",
    ) -> None:
        self.device = device_of(device)
        self._detector = detector.to(self.device).eval()
        self._processor, self._segmenter, self._config = processor, segmenter, config

    @classmethod
    def from_pretrained(
        cls,
        detector: str | Path,
        segmenter: str | Path,
        config: DetectorConfig = DetectorConfig(),
        *,
        device: str = "cpu",
    ) -> DetectorSegmenter:
        """Reads both models.

        Args:
            detector: Folder or hub id in transformers' layout, such as IDEA-Research's.
            segmenter: As ``BoxSegmenter.from_pretrained`` takes it.
            config: Which boxes count.
            device: Where both run.

        Raises:
            CheckpointError: One of them cannot be read.
        """
        from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

        try:
            model = GroundingDinoForObjectDetection.from_pretrained(str(detector))
            processor = GroundingDinoProcessor.from_pretrained(str(detector))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{detector} is no Grounding DINO that can be read or fetched: {error}"
            ) from error
        boxes = BoxSegmenter.from_pretrained(segmenter, device=device)
        return cls(model, processor, boxes, config, device=device)

    def encode(self, images: NDArray[np.uint8], *, mpp: float | None = None) -> list[_Encoded]:  # noqa: ARG002
        """Everything about images ``(B, H, W, 3)`` that does not depend on a prompt.

        Args:
            images: RGB, uint8.
            mpp: Ignored: neither model knows of resolutions.
        """
        return [self._encode(image) for image in as_batch(images).cpu().numpy()]

    def masks(self, embedding: list[_Encoded], prompts: Sequence[str]) -> Segmentation:
        """Masks ``(B, P, H, W)``: the union over the boxes of each prompt."""
        found = [[self._answer(one, prompt) for prompt in prompts] for one in embedding]
        masks = np.stack([[mask for mask, _ in row] for row in found])
        scores = np.array([[score for _, score in row] for row in found], np.float32)
        return Segmentation(masks, scores, scores, np.asarray(masks.any(axis=(2, 3))))

    @torch.inference_mode()
    def boxes(self, encoded: _Encoded, prompt: str) -> DetectedBoxes:
        """Boxes of a prompt in an encoded image."""
        from torchvision.ops import box_convert, nms

        words = self._processor.tokenizer([_caption(prompt)], return_tensors="pt")
        answer = self._detector(**encoded.pixels, **words.to(self.device))
        scores = answer.logits[0].sigmoid().amax(dim=-1).float()
        height, width = encoded.size
        whole = torch.tensor([width, height, width, height], device=self.device)
        boxes = box_convert(answer.pred_boxes[0].float(), "cxcywh", "xyxy") * whole
        sure = scores > self._config.threshold
        boxes, scores = boxes[sure], scores[sure]
        kept = nms(boxes, scores, self._config.overlap)[: self._config.most]
        corners = boxes[kept].cpu().numpy().round(3)  # else 54.000001 ends at 55
        limits = np.array([width, height])
        start = np.clip(np.floor(corners[:, :2]), 0, limits - 1)
        end = np.clip(np.ceil(corners[:, 2:]), start + 1, limits)
        edges = np.concatenate((start, end), axis=1).astype(np.int64)
        return DetectedBoxes(edges, scores[kept].cpu().numpy())

    def _encode(self, image: NDArray[np.uint8]) -> _Encoded:
        pixels = self._processor.image_processor(image, return_tensors="pt").to(self.device)
        size = (image.shape[0], image.shape[1])
        return _Encoded(dict(pixels), size, self._segmenter.encode(image))

    def _answer(self, encoded: _Encoded, prompt: str) -> tuple[NDArray[np.bool_], float]:
        """The mask ``(H, W)`` and the score of the surest box, 0 without one."""
        boxes, scores = self.boxes(encoded, prompt)
        if not len(boxes):
            return np.zeros(encoded.size, np.bool_), 0.0
        masks = self._segmenter.masks(encoded.masks_of, boxes)
        return np.asarray(masks.any(axis=0)), float(scores[0])


def _caption(prompt: str) -> str:
    """The prompt in BiomedParse's words, in lower case with a final dot as the detector wants."""
    label = label_of(guess_label(prompt))
    words = label.said(BIOMEDPARSE_TEMPLATE) if label else prompt
    return words.lower().rstrip(". ") + "."
