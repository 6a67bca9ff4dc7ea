"""Training a slide classifier: one page."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch.nn import functional

from xpath.errors import ConfigError, DataError
from xpath.mil.bag import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from xpath.mil.attention_mil import AttentionMIL
    from xpath.mil.bag import Bag
    from xpath.mil.object_aware import ObjectAwareMIL

__all__ = ["Epoch", "TrainConfig", "TrainResult", "train"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How a slide classifier is trained; the defaults are the paper's where it says so."""

    lr: float = 2e-4
    """Learning rate of Adam (section 4.4)."""
    weight_decay: float = 1e-5
    """Weight decay of Adam (section 4.4)."""
    epochs: int = 100
    """Largest number of passes over the training slides."""
    patience: int = 15
    """Epochs without a better validation loss before it stops."""
    bags_per_step: int = 8
    """Slides per optimiser step."""
    class_weight: Literal["balanced", "none"] = "balanced"
    """``balanced``: rare classes weigh more, inversely to their frequency."""
    scale: bool = True
    """Fit the feature scaler on the training slides."""
    seed: int = 0
    """Order of the slides and dropout."""

    def __post_init__(self) -> None:
        """Refuses impossible numbers."""
        if min(self.lr, self.epochs, self.patience, self.bags_per_step) <= 0:
            raise ConfigError(f"lr, epochs, patience and bags_per_step must be positive: {self}")
        if self.class_weight not in ("balanced", "none"):
            raise ConfigError(f"class_weight must be balanced or none, got {self.class_weight!r}")


class Epoch(NamedTuple):
    """What is known after a pass over the training slides."""

    number: int
    train_loss: float
    validation_loss: float
    """NaN without validation slides."""


class TrainResult(NamedTuple):
    """How the training went."""

    history: list[Epoch]
    best: int
    """Number of the epoch whose weights were kept."""


def train(
    model: AttentionMIL | ObjectAwareMIL,
    train_bags: Sequence[Bag],
    validation_bags: Sequence[Bag],
    config: TrainConfig,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainResult:
    """Trains a model in place and leaves it with its best weights, in evaluation mode.

    Early stopping watches the validation loss: on few slides it is steadier than the AUC. Without
    validation slides all epochs run and the last weights stay. The seed alone decides the result;
    the global random state is left as it was.

    Raises:
        DataError: A training bag without a label.
    """
    unlabelled = [bag.slide_id for bag in (*train_bags, *validation_bags) if bag.label is None]
    if unlabelled:
        raise DataError(f"slides without a label cannot train: {unlabelled}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _train(model, train_bags, validation_bags, config, on_epoch)


def _train(
    model: AttentionMIL | ObjectAwareMIL,
    train_bags: Sequence[Bag],
    validation_bags: Sequence[Bag],
    config: TrainConfig,
    on_epoch: Callable[[Epoch], None] | None,
) -> TrainResult:
    if config.scale:
        model.scaler.fit(train_bags)
    weight = class_weight(train_bags, model.classifier.out_features, config.class_weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    history: list[Epoch] = []
    best, best_loss, best_state = 0, math.inf, copy.deepcopy(model.state_dict())
    for number in range(config.epochs):
        train_loss = _one_epoch(model, train_bags, optimizer, weight, config.bags_per_step)
        validation = mean_loss(model, validation_bags, weight) if validation_bags else math.nan
        history.append(Epoch(number, train_loss, validation))
        if on_epoch:
            on_epoch(history[-1])
        if not validation_bags or validation < best_loss:
            best, best_loss = number, validation
            best_state = copy.deepcopy(model.state_dict())
        elif number - best >= config.patience:
            break
    model.load_state_dict(best_state)
    model.eval()
    return TrainResult(history, best)


def class_weight(bags: Sequence[Bag], classes: int, rule: str) -> Tensor:
    """Weight ``(K,)`` of each class in the loss, 1 on average over the slides.

    Raises:
        DataError: A label that is no class.
    """
    labels = torch.tensor([bag.label for bag in bags])
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels must be 0 to {classes - 1}, got {sorted(set(labels.tolist()))}")
    counts = torch.bincount(labels, minlength=classes).float()
    if rule == "none":
        return torch.ones(classes)
    seen = counts > 0
    return torch.where(seen, len(bags) / (seen.sum() * counts.clamp(min=1)), 0.0)


@torch.no_grad()
def mean_loss(model: AttentionMIL | ObjectAwareMIL, bags: Sequence[Bag], weight: Tensor) -> float:
    """Weighted cross-entropy over bags, dropout off."""
    model.eval()
    packed = pack(bags)
    return float(functional.cross_entropy(model(packed).logits, packed.labels, weight))


def _one_epoch(
    model: AttentionMIL | ObjectAwareMIL,
    bags: Sequence[Bag],
    optimizer: torch.optim.Optimizer,
    weight: Tensor,
    step: int,
) -> float:
    model.train()
    losses = []
    for chosen in torch.randperm(len(bags)).split(step):
        packed = pack([bags[int(i)] for i in chosen])
        loss = functional.cross_entropy(model(packed).logits, packed.labels, weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses) / len(losses)
