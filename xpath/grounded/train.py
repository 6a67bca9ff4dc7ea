"""Training the grounded model: from a batch to a step, and from a step to one that can be resumed.

Axes: B samples, L tokens, T tiles, M masks, h w pixels, S side of SAM2's square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from xpath.device import device_of, seeded
from xpath.errors import CheckpointError, ConfigError
from xpath.grounded.lora import LoraSizes, add_lora, trained
from xpath.grounded.losses import (
    GroundedLoss,
    answer_loss,
    mask_loss,
    object_choice,
    uncertain_points,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from xpath.grounded.model import GroundedModel

__all__ = [
    "GroundedBatch",
    "GroundedStep",
    "GroundedTrainConfig",
    "GroundedTrainer",
    "learning_rate",
]

WARM_START = 1e-5
"""Share of the rate a training begins with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundedTrainConfig:
    """How the grounded model is fine-tuned. The defaults are UniBiomed's."""

    steps: int = 2000
    """Optimiser steps of the whole schedule."""
    lr: float = 4e-5
    """Largest learning rate of AdamW."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.05
    warmup: float = 0.05
    """Share of the schedule over which the rate rises."""
    clip: float = 1.0
    """Largest global gradient norm."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Type of matrix products; losses are float32 always."""
    seed: int = 0
    """Of dropout and of the points at which masks are judged."""

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            ConfigError: No step, a warm-up that is no share, or another precision.
        """
        if self.steps < 1 or not 0 <= self.warmup < 1:
            raise ConfigError(
                f"wanted at least 1 step and a warm-up of 0 to 1, got {self.steps}, {self.warmup}"
            )
        if self.precision not in ("fp32", "bf16"):
            raise ConfigError(f"precision must be fp32 or bf16, got {self.precision!r}")


class GroundedBatch(NamedTuple):
    """Samples of any tasks, padded on the right."""

    ids: Tensor
    """``(B, L)`` token ids of prompts and answers."""
    labels: Tensor
    """``(B, L)``: the ids of the answers, -100 elsewhere."""
    tiles: Tensor
    """``(T, 3, 448, 448)`` of all images, one after the other."""
    squares: Tensor
    """``(B, 3, S, S)``."""
    masks: Tensor
    """``(M, S / 4, S / 4)`` uint8, one for each ``[SEG]`` of the answers, in order."""

    def to(self, device: torch.device) -> GroundedBatch:
        """The batch on a device."""
        return GroundedBatch(*(part.to(device, non_blocking=True) for part in self))


class GroundedStep(NamedTuple):
    """Losses of a step, scalars still on the device."""

    step: int
    """Number of steps made."""
    loss: GroundedLoss
    lr: float
    gradient: Tensor
    """Global norm, before clipping."""


class GroundedTrainer:
    """The grounded model with adapters, and its optimiser.

    Step n is a function of the state and the batch alone, so a training resumed from ``state`` goes
    on exactly as one that was never stopped; on a GPU up to the order in which its sums are made.

    Args:
        model: Gets adapters and is trained in place.
        seg_token: Id of ``[SEG]``.
        config: How.
        lora: Sizes of the adapters; their first values follow ``config.seed``.
        device: Where.
    """

    def __init__(
        self,
        model: GroundedModel,
        seg_token: int,
        config: GroundedTrainConfig,
        *,
        lora: LoraSizes | None = None,
        device: str = "cpu",
    ) -> None:
        self.device = device_of(device)
        with seeded(torch.device("cpu"), config.seed):
            add_lora(model, lora or LoraSizes())
        self.model = model.to(self.device).train()
        self.model.internvl.model.vision_tower.eval()
        self.model.sam.vision_encoder.eval()
        self.config = config
        self.step = 0
        self._seg = seg_token
        self._trained = trained(model)
        self.optimizer = torch.optim.AdamW(
            self._trained.values(),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=self.device.type == "cuda",
        )

    def __call__(self, batch: Sequence[GroundedBatch]) -> GroundedStep:
        """One step of the optimiser, from batches whose gradients are averaged."""
        rate = learning_rate(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        numbers = np.random.SeedSequence((self.config.seed, self.step)).generate_state(2)
        points = torch.Generator().manual_seed(int(numbers[0]))
        with seeded(self.device, int(numbers[1])):
            parts = [self._backward(part, 1 / len(batch), points) for part in batch]
        norm = nn.utils.clip_grad_norm_(self._trained.values(), self.config.clip)
        self.optimizer.step()
        self.step += 1
        loss = GroundedLoss(*(torch.stack(values).sum() for values in zip(*parts, strict=True)))
        return GroundedStep(self.step, loss, rate, norm)

    def loss(self, batch: GroundedBatch, points: torch.Generator) -> GroundedLoss:
        """Loss of a batch on the device.

        Args:
            batch: On the device.
            points: On the CPU; draws the points at which masks are judged.
        """
        model, mixed = self.model, self.config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            embeds = model.embed(batch.ids, model.image_tokens(batch.tiles))
            states = model.states(embeds).last_hidden_state
            language = answer_loss(states, batch.labels, model.internvl.lm_head)
            pointing = (batch.labels == self._seg).nonzero()
            if not len(pointing):
                return GroundedLoss(language, language.new_zeros(()), language.new_zeros(()))
            maps = model.image_maps(batch.squares)
            owners, positions = pointing.T
            drawn = model.draw(
                tuple(one[owners] for one in maps), states[owners, positions][:, None]
            )
        chosen = object_choice(owners.tolist(), points)
        logits = drawn.logits[chosen, 0]
        where = uncertain_points(logits, points)
        return GroundedLoss(language, *mask_loss(logits, batch.masks[chosen], where))

    def _backward(self, part: GroundedBatch, share: float, points: torch.Generator) -> GroundedLoss:
        loss = self.loss(part.to(self.device), points)
        (loss.total * share).backward()
        return GroundedLoss(*(value.detach() * share for value in loss))

    def state(self) -> dict[str, Any]:
        """Everything needed to go on from the same weights. Only tensors and plain values."""
        return {
            "step": self.step,
            "trained": {name: value.detach() for name, value in self._trained.items()},
            "optimizer": self.optimizer.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes back to a state.

        Raises:
            CheckpointError: It is the state of another model.
        """
        if state["trained"].keys() != self._trained.keys():
            raise CheckpointError(
                "the state belongs to a model with other trained parameters; start from the same"
                " weights, or in another folder"
            )
        with torch.no_grad():
            for name, value in state["trained"].items():
                self._trained[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])


def learning_rate(step: int, config: GroundedTrainConfig) -> float:
    """Linear warm-up from almost nothing, then half a cosine down to zero at the last step."""
    rise = round(config.warmup * config.steps)
    if step < rise:
        return config.lr * (WARM_START + (1 - WARM_START) * step / rise)
    progress = min(1.0, (step - rise) / (config.steps - rise))
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
