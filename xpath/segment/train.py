"""Training the segmentor: one page, from a batch to a step.

Axes: B images, P prompts, T tokens, H W pixels.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from xpath.segment.losses import segment_loss
from xpath.segment.model.text_encoder import TextFeatures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from xpath.segment.losses import SegmentLoss
    from xpath.segment.model.segmentor import PathSegmentor

__all__ = ["TrainBatch", "TrainConfig", "TrainStep", "train_segmentor"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How the segmentor is trained."""

    steps: int = 2000
    """Optimiser steps of the whole schedule."""
    minutes: float = math.inf
    """Wall time after which the schedule is cut: the rate falls to zero when it is over."""
    lr: float = 8e-4
    """Largest learning rate of AdamW (paper, section 4.4)."""
    weight_decay: float = 5e-2
    """On matrices and kernels; none on norms, biases and embeddings."""
    warmup: int = 50
    """Steps over which the rate rises from zero."""
    clip: float = 5.0
    """Largest global gradient norm."""


class TrainBatch(NamedTuple):
    """Images with some prompts each."""

    images: Tensor
    """``(B, 3, H, W)`` uint8 RGB."""
    ids: Tensor
    """``(B, P, T)`` token ids."""
    mask: Tensor
    """``(B, P, T)``, True on real tokens."""
    target: Tensor
    """``(B, P, H, W)`` boolean masks; all False where the object is absent."""


class TrainStep(NamedTuple):
    """What is known after a step."""

    step: int
    loss: SegmentLoss
    seconds: float


def train_segmentor(
    model: PathSegmentor,
    batches: Iterable[TrainBatch],
    config: TrainConfig,
    *,
    on_step: Callable[[TrainStep], None] | None = None,
) -> None:
    """Trains the module in place until steps, minutes or batches run out.

    The learning rate is a cosine over whichever runs out first, steps or minutes.
    """
    optimizer = torch.optim.AdamW(parameter_groups(model, config), lr=config.lr)
    started = time.monotonic()
    model.train()
    for step, batch in enumerate(batches):
        minutes = (time.monotonic() - started) / 60
        progress = max(step / config.steps, minutes / config.minutes)
        if progress >= 1:
            break
        rate = learning_rate(step, progress, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _step(model, batch, optimizer, config.clip)
        if on_step:
            on_step(TrainStep(step, loss, time.monotonic() - started))
    model.eval()


def learning_rate(step: int, progress: float, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to zero at ``progress`` 1."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    return config.lr * rise * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(model: PathSegmentor, config: TrainConfig) -> list[dict[str, object]]:
    """Matrices and kernels with weight decay; norms, biases, scales and embeddings without."""
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or "embedding" in name or "query_" in name
        (free if plain else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def _step(
    model: PathSegmentor, batch: TrainBatch, optimizer: torch.optim.Optimizer, clip: float
) -> SegmentLoss:
    memory = model.encode_image(batch.images)
    flat = model.encode_text(batch.ids.flatten(0, 1), batch.mask.flatten(0, 1))
    shape = batch.ids.shape[:2]
    text = TextFeatures(*(part.unflatten(0, shape) for part in flat))
    heads = model.decoder(memory, text)
    loss = segment_loss(
        heads, memory.mask_features, text.sentence, batch.target.float(), model.logit_scale
    )
    optimizer.zero_grad(set_to_none=True)
    loss.total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return type(loss)(*(part.detach() for part in loss))
