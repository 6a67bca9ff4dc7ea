"""Masks for images and words: the practical side of the segmentor.

Axes: B images, P prompts, H W pixels, D features, h w places of a feature map.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from xpath.errors import CheckpointError, DataError
from xpath.segment.checkpoint import DEFAULT_WEIGHTS, SegmentorInfo, load_segmentor
from xpath.segment.model.text_encoder import TextFeatures
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from xpath.segment.model.decoder import ImageMemory
    from xpath.segment.model.segmentor import PathSegmentor
    from xpath.segment.tokenizer import PromptTokenizer

__all__ = ["Embedding", "SegmentPredictor", "Segmentation", "SegmentorEncoder"]


class Embedding(NamedTuple):
    """Images, encoded once, ready for any number of prompts."""

    memory: ImageMemory
    size: tuple[int, int]
    """Height and width of the images."""


class Segmentation(NamedTuple):
    """Masks of B images for P prompts."""

    masks: NDArray[np.bool_]
    """``(B, P, H, W)``; all False where the object is absent."""
    presence: NDArray[np.float32]
    """``(B, P)`` mean probability inside the mask, 0.5 to 1; 0 where the mask is empty."""
    probability: NDArray[np.float32]
    """``(B, P, H, W)`` per pixel."""


class SegmentPredictor:
    """Segments images with words; an image is encoded once and answers any number of prompts.

    Example::

        predictor = SegmentPredictor.from_pretrained()
        embedding = predictor.encode(image)  # (H, W, 3) uint8 at predictor.info.mpp
        found = predictor.masks(embedding, ["nuclei-level lymphocyte in breast pathology."])
    """

    def __init__(
        self,
        model: PathSegmentor,
        tokenizer: PromptTokenizer,
        info: SegmentorInfo,
        *,
        device: str = "cpu",
    ) -> None:
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.info = info
        self.device = torch.device(device)
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(
        cls, path: str | Path | None = None, *, device: str = "cpu"
    ) -> SegmentPredictor:
        """A predictor from a checkpoint folder or hub id; without one, the weights that ship.

        Raises:
            CheckpointError: The checkpoint is missing or does not fit.
        """
        model, tokenizer, info = load_segmentor(_located(path))
        return cls(model, tokenizer, info, device=device)

    @torch.inference_mode()
    def encode(self, images: NDArray[np.uint8]) -> Embedding:
        """Everything about images that does not depend on a prompt.

        Args:
            images: RGB ``(H, W, 3)`` or ``(B, H, W, 3)``, uint8, at ``info.mpp``; any size.

        Raises:
            DataError: Not uint8, or of another shape.
        """
        if images.dtype != np.uint8:
            raise DataError(
                f"images must be uint8 RGB in 0..255, got {images.dtype}; "
                "convert float images with (image * 255).round().astype(np.uint8)"
            )
        batch = images[None] if images.ndim == 3 else images
        sizes = check_shape("images", batch, "B H W 3")
        pixels = torch.from_numpy(np.ascontiguousarray(batch)).to(self.device)
        memory = self.model.encode_image(pixels.permute(0, 3, 1, 2).float())
        return Embedding(memory, (sizes["H"], sizes["W"]))

    @torch.inference_mode()
    def masks(
        self, embedding: Embedding, prompts: Sequence[str], *, chunk: int = 32
    ) -> Segmentation:
        """Masks of the encoded images, each prompt on its own.

        Args:
            embedding: From ``encode``.
            prompts: Sentences; the paper's template is ``Label.prompt``.
            chunk: Prompts decoded at once; bounds the memory, never changes a mask.
        """
        images = len(embedding.memory.mask_features)
        if not prompts:
            empty = np.zeros((images, 0, *embedding.size), np.float32)
            return Segmentation(empty.astype(bool), np.zeros((images, 0), np.float32), empty)
        parts = [
            self._probability(embedding, prompts[start : start + chunk])
            for start in range(0, len(prompts), chunk)
        ]
        probability = torch.cat(parts, dim=1)
        inside = probability > 0.5
        area = inside.sum(dim=(2, 3))
        presence = (probability * inside).sum(dim=(2, 3)) / area.clamp(min=1)
        return Segmentation(inside.cpu().numpy(), presence.cpu().numpy(), probability.cpu().numpy())

    def _probability(self, embedding: Embedding, prompts: Sequence[str]) -> Tensor:
        height, width = embedding.size
        logits = self.model.decode(embedding.memory, self.text(prompts)).logits
        logits = functional.interpolate(logits.float(), scale_factor=4, mode="bilinear")
        return logits[:, :, :height, :width].sigmoid()

    @torch.inference_mode()
    def text(self, prompts: Sequence[str]) -> TextFeatures:
        """Features of prompts; each prompt is encoded once in the life of the predictor."""
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._texts:
                tokens = self.tokenizer([prompt])
                encoded = self.model.encode_text(
                    tokens.ids.to(self.device), tokens.mask.to(self.device)
                )
                self._texts[prompt] = encoded.tokens[0]
        rows = [self._texts[prompt] for prompt in prompts]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask = torch.arange(padded.shape[1], device=self.device) < lengths[:, None]
        return TextFeatures(padded, mask, torch.stack([row[-1] for row in rows]))


class SegmentorEncoder:
    """The segmentor's image encoder as a patch encoder: features without any download.

    Strides 8 and 16 side by side, on the grid of stride 8: fine enough for nuclei, wide enough for
    glands.
    """

    def __init__(self, predictor: SegmentPredictor) -> None:
        self._predictor = predictor
        self.name = f"{predictor.info.name}-encoder"
        self.digest = predictor.info.digest
        channels = predictor.model.image_encoder.channels
        self.dim = channels[1] + channels[2]

    @torch.inference_mode()
    def maps(self, images: Tensor) -> Tensor:
        """Feature maps ``(B, D, H / 8, W / 8)`` of RGB images ``(B, 3, H, W)`` in 0..255."""
        model = self._predictor.model
        pixels = images.to(self._predictor.device).float()
        _, fine, coarse, _ = model.image_encoder(model.normalise(pixels))
        coarse = functional.interpolate(coarse, fine.shape[-2:], mode="nearest")
        height, width = images.shape[-2] // 8, images.shape[-1] // 8
        return torch.cat((fine, coarse), dim=1)[:, :, :height, :width].cpu()


def _located(path: str | Path | None) -> Path:
    """The folder of a checkpoint; hub ids are looked up through huggingface_hub."""
    if path is None:
        return DEFAULT_WEIGHTS
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or str(path).count("/") != 1:
        raise CheckpointError(
            f"{path} is no folder; pass a checkpoint folder or a hub id owner/name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(path)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{path} is no folder here and could not be fetched from the hub: {error}"
        ) from error
