"""Training the segmentor: from a batch to a step, and from a step to one that can be resumed.

Axes: B images, P prompts, T tokens, H W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from xpath.device import seeded
from xpath.errors import DataError
from xpath.segment.model.text_encoder import TextFeatures
from xpath.segment.training.losses import SegmentLoss, segment_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from xpath.segment.model.segmentor import PathSegmentor

__all__ = [
    "Batch",
    "Loss",
    "TrainBatch",
    "TrainConfig",
    "TrainStep",
    "Trainer",
    "learning_rate",
    "take_over",
]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How the segmentor is trained."""

    steps: int = 2000
    """Optimiser steps of the whole schedule."""
    lr: float = 8e-4
    """Largest learning rate of AdamW (paper, section 4.4)."""
    encoder_lr: float = 1.0
    """Learning rate of the image encoder as a share of that; below 1 where it is pretrained."""
    text_lr: float = 1.0
    """The same of the text encoder."""
    weight_decay: float = 5e-2
    """On matrices and kernels; none on norms, biases and embeddings."""
    warmup: int = 50
    """Steps over which the rate rises from zero."""
    clip: float = 5.0
    """Largest global gradient norm."""
    accumulate: int = 1
    """Parts a batch is split into, one after the other, where memory is short."""
    contrast: float = 0.0
    """Weight of the loss between prompts that exclude each other; the paper has none."""
    full_heads: int = 0
    """Of the answers after each layer, so many last ones are judged at the size of the image, those
    before at stride 4; 0 for all, as published."""
    ema: float = 0.999
    """Decay of the running average of the weights, which is what is used in the end; 0 for none."""
    precision: str = "fp32"
    """``fp32`` or ``bf16``; losses and the choice of the query are float32 always."""
    seed: int = 0
    """Seed of stochastic depth, but neither of the first weights nor of the batches."""


class Batch(Protocol):
    """Tensors that a loss takes one by one, images first along the first axis."""

    def to(self, device: torch.device) -> Any:
        """The batch on a device."""
        ...

    def parts(self, count: int) -> Iterator[Any]:
        """The batch in parts of equal size."""
        ...


class Loss(Protocol):
    """A named tuple of scalars that add up to ``total``."""

    @property
    def total(self) -> Tensor:
        """The scalar that training makes small."""
        ...

    def _asdict(self) -> dict[str, Any]: ...


class TrainBatch(NamedTuple):
    """Images with some prompts each."""

    images: Tensor
    """``(B, 3, H, W)`` uint8 RGB."""
    ids: Tensor
    """``(B, P, T)`` token ids."""
    mask: Tensor
    """``(B, P, T)``, True on real tokens."""
    target: Tensor
    """``(B, P, H, W)`` uint8: 1 the object, 0 not, 255 unknown."""

    def to(self, device: torch.device) -> TrainBatch:
        """The batch on a device."""
        return TrainBatch(*(part.to(device, non_blocking=True) for part in self))

    def parts(self, count: int) -> Iterator[TrainBatch]:
        """The batch in ``count`` parts of equal size.

        Raises:
            DataError: The batch cannot be split evenly.
        """
        if len(self.images) % count:
            raise DataError(f"{len(self.images)} images cannot be split into {count} equal parts")
        for part in zip(*(tensor.chunk(count) for tensor in self), strict=True):
            yield TrainBatch(*part)


class TrainStep(NamedTuple):
    """Measurements of a step, scalars still on the device."""

    step: int
    """Number of steps made."""
    loss: Loss
    lr: float
    gradient: Tensor
    """Global norm, before clipping."""


class Trainer:
    """A model, its optimiser and the running average of its weights.

    Step n is a function of the state and the batch alone, so a training resumed from ``state`` goes
    on exactly as one that was never stopped; on a GPU up to the order in which its sums are made.
    The global random state is left as it was.

    Args:
        model: Trained in place, but for parameters that want no gradient.
        config: How.
        device: Where; under ``torchrun`` the gradient is averaged over all processes.
        loss: Makes, of a model that is no segmentor, the module from the tensors of a batch to a
            ``Loss``.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        *,
        device: str = "cpu",
        loss: Callable[[Any, TrainConfig], nn.Module] | None = None,
    ) -> None:
        self.model = model.to(device).train()
        self.config = config
        self.device = torch.device(device)
        self.step = 0
        fused = self.device.type == "cuda"
        groups = parameter_groups(model, config)
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=fused)
        self._trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.average = {n: p.detach().clone() for n, p in self._trained.items()}
        make: Callable[[Any, TrainConfig], nn.Module] = loss or BatchLoss
        self._loss = make(model, config)
        self._rank = 0
        if torch.distributed.is_initialized():
            self._loss = DistributedDataParallel(self._loss)
            self._rank = torch.distributed.get_rank()

    def __call__(self, batch: Batch) -> TrainStep:
        """One step of the optimiser."""
        rate = learning_rate(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.optimizer.zero_grad(set_to_none=True)
        numbers = np.random.SeedSequence((self.config.seed, self.step, self._rank))
        with seeded(self.device, int(numbers.generate_state(1)[0])):
            parts = [self._backward(part) for part in batch.parts(self.config.accumulate)]
        norm = nn.utils.clip_grad_norm_(self._trained.values(), self.config.clip)
        self.optimizer.step()
        self.step += 1
        self._follow()
        sums = (torch.stack(values).sum() for values in zip(*parts, strict=True))
        loss: Loss = type(parts[0])(*sums)
        return TrainStep(self.step, loss, rate, norm)

    def _backward(self, part: Batch) -> Any:
        loss = self._loss(*part.to(self.device))
        share = 1 / self.config.accumulate
        (loss.total * share).backward()
        return type(loss)(*(value.detach() * share for value in loss))

    @torch.no_grad()
    def _follow(self) -> None:
        """Moves the average a little towards the weights, faster early on."""
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step)) if self.config.ema else 0.0
        averages = list(self.average.values())
        torch._foreach_lerp_(averages, list(self._trained.values()), 1 - decay)

    def averaged(self) -> dict[str, Tensor]:
        """State of the model with the averaged weights in place of the last ones."""
        return self.model.state_dict() | {n: v.clone() for n, v in self.average.items()}

    def state(self) -> dict[str, Any]:
        """Everything that is needed to go on, as tensors and plain values only."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes back to a state."""
        self.model.load_state_dict(state["model"])
        with torch.no_grad():
            for name, value in state["average"].items():
                self.average[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])


class BatchLoss(nn.Module):
    """From a batch to its loss: the one module whose gradient is averaged over processes."""

    def __init__(self, model: PathSegmentor, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self._dtype, self._config = DTYPES[config.precision], config

    def forward(self, images: Tensor, ids: Tensor, mask: Tensor, target: Tensor) -> SegmentLoss:
        """Loss of a batch, see ``TrainBatch``."""
        mixed = self._dtype != torch.float32
        with torch.autocast(images.device.type, self._dtype, enabled=mixed):
            memory = self.model.encode_image(images)
            flat = self.model.encode_text(ids.flatten(0, 1), mask.flatten(0, 1))
            text = TextFeatures(*(part.unflatten(0, ids.shape[:2]) for part in flat))
            heads = self.model.decoder(memory, text)
        return segment_loss(
            heads,
            memory.mask_features,
            text.sentence,
            target,
            self.model.logit_scale,
            contrast=self._config.contrast,
            full_heads=self._config.full_heads,
        )


def take_over(model: PathSegmentor, other: PathSegmentor) -> int:
    """Copies every tensor of another model of the same name and shape and returns their number."""
    mine = model.state_dict()
    fit = {k: v for k, v in other.state_dict().items() if k in mine and v.shape == mine[k].shape}
    model.load_state_dict(fit, strict=False)
    return len(fit)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    progress = min(1.0, step / config.steps)
    return config.lr * rise * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Matrices and kernels with weight decay, then norms, biases, scales, embeddings without.

    The encoders' learn at shares of the rate; groups that would be empty are left out.
    """
    shares = {"image_encoder.trunk.": config.encoder_lr, "text_encoder.": config.text_lr}
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        plain = parameter.ndim < 2 or "embedding" in name or "query_" in name
        share = next((rate for part, rate in shares.items() if name.startswith(part)), 1.0)
        groups.setdefault((share, 0.0 if plain else config.weight_decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "share": share}
        for (share, decay), parameters in groups.items()
    ]
