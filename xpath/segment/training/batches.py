"""From crops to batches of tensors, made by worker processes while the model computes.

Axes: B images, P prompts, T tokens, H W pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from xpath.errors import ConfigError
from xpath.pathseg.sampler import batch_keys
from xpath.segment.training.trainer import TrainBatch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xpath.pathseg.dataset import Crop, PromptedCrops
    from xpath.segment.model.tokenizer import PromptTokenizer

__all__ = ["BatchConfig", "Batches", "batch_shapes", "stream"]

B = TypeVar("B")


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchConfig:
    """Size of a batch and who makes it."""

    shapes: tuple[tuple[int, int], ...] = ((32, 256),)
    """Possible (crops, pixels) of a batch; each step draws one."""
    seed: int = 0
    """Decides which."""
    part: tuple[int, int] = (0, 1)
    """Rank and number of processes that share every batch."""
    workers: int = 0
    """Processes that make batches ahead; 0 makes them in the training process."""


class Batches(Dataset[TrainBatch]):
    """Batch number n, for any n."""

    def __init__(
        self, crops: PromptedCrops, tokenizer: PromptTokenizer, config: BatchConfig
    ) -> None:
        self._crops, self._tokenizer, self._config = crops, tokenizer, config

    def __getitem__(self, step: int) -> TrainBatch:
        """The crops of a step, all of one size."""
        config = self._config
        keys = batch_keys(step, config.shapes, seed=config.seed, part=config.part)
        return collate([self._crops[key] for key in keys], self._tokenizer)


def batch_shapes(text: str) -> tuple[tuple[int, int], ...]:
    """``8x256,4x384`` as pairs of crops and pixels.

    Raises:
        ConfigError: Anything else.
    """
    pairs = re.findall(r"(\d+)x(\d+)", text)
    if ",".join(f"{count}x{size}" for count, size in pairs) != text or not pairs:
        raise ConfigError(f"batch shapes look like 8x256,4x384 (crops x pixels), got {text!r}")
    return tuple((int(count), int(size)) for count, size in pairs)


def collate(crops: list[Crop], tokenizer: PromptTokenizer) -> TrainBatch:
    """Crops of one size as tensors."""
    tokens = tokenizer([prompt for crop in crops for prompt in crop.prompts])
    shape = (len(crops), len(crops[0].prompts))
    images = torch.from_numpy(np.stack([crop.image for crop in crops]))
    return TrainBatch(
        images.permute(0, 3, 1, 2).contiguous(),
        tokens.ids.unflatten(0, shape),
        tokens.mask.unflatten(0, shape),
        torch.from_numpy(np.stack([crop.target for crop in crops])),
    )


def stream(batches: Dataset[B], config: BatchConfig, *, start: int, steps: int) -> Iterable[B]:
    """Batches ``start`` to ``steps``, in order."""
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, steps),
        num_workers=config.workers,
        worker_init_fn=_one_thread if config.workers else None,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if config.workers else None,
    )


def _one_thread(_: int) -> None:
    """Keeps each of many workers to one core."""
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
