"""Training of a slide classifier, on one page.

Axes: B bags, K classes.
"""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch.nn import functional

from xpath.device import seeded
from xpath.errors import ConfigError, DataError
from xpath.metrics.classification import area_under_curve
from xpath.mil.bag import chunks, own_tensor, pack
from xpath.mil.prediction import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from xpath.mil.bag import Bag
    from xpath.protocols import SlideClassifier

__all__ = ["Epoch", "TrainConfig", "TrainResult", "train"]

logger = logging.getLogger(__name__)

LEARNT = 0.6
"""AUC on the training slides themselves below which a model has not learnt them."""
SEED_STRIDE = 1_000_003
"""Keeps epoch 1 of seed 0 from repeating epoch 0 of seed 1."""

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""None where nothing is narrowed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How a slide classifier is trained, by default as in the paper where it gives a number."""

    lr: float = 2e-4
    """Learning rate of Adam (section 4.4)."""
    weight_decay: float = 1e-5
    """Weight decay of Adam (section 4.4)."""
    epochs: int = 100
    """Largest number of passes over the training slides."""
    patience: int = 15
    """Epochs without a better validation score before it stops."""
    min_steps: int = 0
    """Optimiser steps before patience may end it: few slides take few steps in an epoch."""
    monitor: Literal["loss", "auc"] = "loss"
    """The score that decides which epoch is best. ``loss``: on few slides it is steadier than the
    AUC, which soon stands still at 1. ``auc``: ties go to the lower loss; without slides of every
    class there is no AUC, and the loss decides."""
    bags_per_step: int = 8
    """Slides per optimiser step."""
    class_weight: Literal["balanced", "none"] = "balanced"
    """``balanced``: rare classes weigh more in the loss, inversely to their frequency."""
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """``shuffled``: every slide once an epoch. ``balanced``: as many draws, every class as often,
    so that slides of a rare one come several times; with ``class_weight="none"``."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the matrix products while training; sums over patches, loss and weights stay float32.
    Half the memory, and on a GPU faster; ``float16`` only for GPUs without ``bfloat16``."""
    scale: bool = True
    """Fit the feature scaler on the training slides first."""
    averaged: float = 0.0
    """Share of the epochs, the last ones, whose weights are averaged, where no validation slides
    choose one (stochastic weight averaging, Izmailov et al. 2018). 0: the last weights stay."""
    seed: int = 0
    """Order of the slides and dropout; the first weights are the caller's matter."""

    def __post_init__(self) -> None:
        """Refuses impossible numbers.

        Raises:
            ConfigError: A number that is not positive, or an unknown word.
        """
        counts = (self.epochs, self.patience, self.bags_per_step)
        if not (0 < self.lr < math.inf and min(counts) > 0):
            raise ConfigError(f"lr, epochs, patience and bags_per_step must be positive: {self}")
        if min(self.weight_decay, self.min_steps) < 0:
            raise ConfigError(f"weight_decay and min_steps must be 0 or more: {self}")
        if not 0 <= self.averaged <= 1:
            raise ConfigError(f"averaged must be a share from 0 to 1, got {self.averaged}")
        words = {
            "class_weight": ("balanced", "none"),
            "monitor": ("loss", "auc"),
            "sampling": ("shuffled", "balanced"),
            "precision": tuple(PRECISIONS),
        }
        for name, known in words.items():
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if (self.sampling, self.class_weight) == ("balanced", "balanced"):
            raise ConfigError(
                "sampling and class_weight would both make up for rare classes, so these would"
                " count too much; set one of them: class_weight='none' or sampling='shuffled'"
            )


class Epoch(NamedTuple):
    """Loss and scores after a pass over the training slides."""

    number: int
    """Counted from 0."""
    train_loss: float
    """Mean over the slides, dropout on, while the weights changed."""
    validation_loss: float
    """Mean over the slides, dropout off; NaN without validation slides."""
    validation_auc: float
    """NaN without validation slides of every class."""


class TrainResult(NamedTuple):
    """How the training went."""

    history: list[Epoch]
    best_epoch: int
    """Number of the epoch whose weights were kept."""
    train_auc: float
    """Of the kept weights on the training slides themselves, NaN where these lack a class."""
    doubt: str
    """Why the model may not have learnt, in a sentence; empty where nothing speaks for that."""


def train(
    model: SlideClassifier,
    train_bags: Sequence[Bag],
    validation_bags: Sequence[Bag],
    config: TrainConfig | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainResult:
    """Trains a model in place and leaves it with its best weights, in evaluation mode.

    Without validation slides all epochs run, and the last weights stay, or the mean of the last. On
    the CPU, model, bags and config alone decide every bit of the result, and the global random
    state stays. How it was trained, on which slides, and what speaks against it, is kept in
    ``model.metadata["training"]``
    and so saved. A model that may not have learnt is warned of.

    Args:
        model: On whatever device; bags are brought there.
        train_bags: With labels.
        validation_bags: With labels; they only choose the epoch. May be empty.
        config: How it is trained.
        on_epoch: Called after every epoch.

    Raises:
        DataError: No training bags, a bag without a label, a label that is no class, or a loss
            that is no longer a number.
        ShapeError: Bags of other features than the model's.
    """
    config = config or TrainConfig()
    _check_labels((*train_bags, *validation_bags), len(model.classes))
    if not train_bags:
        raise DataError("there are no bags to train on")
    scaler = getattr(model, "scaler", None)
    if config.scale and scaler is not None:
        scaler.fit(train_bags)
    history: list[Epoch] = []
    steps = math.ceil(len(train_bags) / config.bags_per_step)
    best, best_score, best_state = 0, (-math.inf, -math.inf), model.state_dict()
    mean = _MeanWeights(model, config, 0.0 if validation_bags else config.averaged)
    for epoch in _epochs(model, train_bags, validation_bags, config):
        history.append(epoch)
        mean.add(epoch.number)
        if on_epoch:
            on_epoch(epoch)
        score = _score(epoch, config.monitor)
        if score > best_score or not validation_bags:
            best, best_score = epoch.number, score
            best_state = copy.deepcopy(model.state_dict())
        elif epoch.number - best >= config.patience and len(history) * steps >= config.min_steps:
            break
    model.load_state_dict(mean.state(best_state))
    model.eval()
    _fit_baseline(model, train_bags)
    answers = predict(model, train_bags)
    auc = area_under_curve(answers.probability, answers.label)
    unseen = [name for k, name in enumerate(model.classes) if k not in answers.label]
    result = TrainResult(history, best, auc, _doubt(history, best, auc, unseen))
    if result.doubt:
        logger.warning("the model may not have learnt: %s", result.doubt)
    model.metadata["training"] = {
        "xpath": version("xpath-pathology"),
        "config": asdict(config),
        "epochs": len(history),
        "best_epoch": best,
        "train_auc": None if math.isnan(auc) else auc,
        "doubt": result.doubt,
        "train_slides": [bag.slide_id for bag in train_bags],
        "validation_slides": [bag.slide_id for bag in validation_bags],
    }
    return result


class _MeanWeights:
    """The mean of a model's weights over the last epochs."""

    def __init__(self, model: SlideClassifier, config: TrainConfig, share: float) -> None:
        self._model, self._count = model, 0
        self._first = config.epochs - math.ceil(share * config.epochs)
        self._sum: dict[str, Tensor] = {}

    def add(self, epoch: int) -> None:
        """Takes the weights after an epoch, if it is one of the last."""
        if epoch < self._first:
            return
        self._count += 1
        for name, value in self._model.state_dict().items():
            if value.is_floating_point():
                self._sum[name] = self._sum.get(name, 0) + value.double()

    def state(self, last: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The last state, its weights averaged."""
        mean = {name: (value / self._count).to(last[name]) for name, value in self._sum.items()}
        return {**last, **mean}


def _doubt(history: Sequence[Epoch], best: int, auc: float, unseen: Sequence[str]) -> str:
    """Signs that a model has not learnt, as one sentence. Empty if there are none."""
    if unseen:
        return f"no training slide is of {', '.join(unseen)}; add some, or leave out such slides"
    signs = []
    if auc < LEARNT:
        signs.append(f"its AUC on the training slides themselves is {auc:.2f}")
    if best == 0 and len(history) > 1:
        signs.append("the first epoch was the best on the validation slides")
    advice = "; raise lr, epochs or proj, or compare with the mean over patches"
    return " and ".join(signs) + advice if signs else ""


def _fit_baseline(model: SlideClassifier, bags: Sequence[Bag]) -> None:
    """Means over the training slides, of a model that keeps them."""
    fit = getattr(model, "fit_baseline", None)
    if fit is not None:
        fit(bags)


def _epochs(
    model: SlideClassifier,
    train_bags: Sequence[Bag],
    validation_bags: Sequence[Bag],
    config: TrainConfig,
) -> Iterator[Epoch]:
    """Trains for one epoch at a time."""
    loss = _Loss(class_weight(train_bags, len(model.classes), config.class_weight))
    stepper = _Stepper(model, loss, config)
    count, size = len(train_bags), config.bags_per_step
    generator = torch.Generator().manual_seed(config.seed)
    device = own_tensor(model).device
    for number in range(config.epochs):
        order = slide_order(train_bags, config.sampling, generator)
        steps = ([train_bags[i] for i in order[at : at + size]] for at in range(0, count, size))
        with seeded(device, config.seed * SEED_STRIDE + number):
            train_loss = stepper.epoch(steps) / count
        epoch = Epoch(number, train_loss, *_validate(model, validation_bags, loss))
        losses = [epoch.train_loss] + [epoch.validation_loss] * bool(validation_bags)
        if not all(math.isfinite(loss) for loss in losses):
            raise DataError(f"the loss is no number any more, lower lr ({config.lr}): {epoch}")
        yield epoch


def class_weight(bags: Sequence[Bag], classes: int, rule: str) -> Tensor:
    """Weight ``(K,)`` of each class in the loss, 1 on average over the bags.

    A class without a bag weighs 1: it cannot matter in training, and should in validation.
    """
    if rule == "none":
        return torch.ones(classes)
    counts = torch.bincount(torch.tensor([bag.label for bag in bags]), minlength=classes)
    there = counts > 0
    return torch.where(there, len(bags) / (there.sum() * counts.clamp(min=1)), 1.0)


def slide_order(bags: Sequence[Bag], rule: str, generator: torch.Generator) -> list[int]:
    """Indices of the slides of an epoch, as many as there are bags.

    ``shuffled``: each once. ``balanced``: drawn with replacement, every class there is as often.
    """
    if rule == "shuffled":
        return torch.randperm(len(bags), generator=generator).tolist()
    labels = torch.tensor([bag.label for bag in bags])
    chance = 1 / torch.bincount(labels).clamp(min=1)[labels].double()
    return torch.multinomial(chance, len(bags), replacement=True, generator=generator).tolist()


class _Loss:
    """Cross-entropy, weighted by class and *summed*.

    Divided by slides, not by their weights: that would cancel the weights with one slide a step.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = self.weight.to(logits)
        return functional.cross_entropy(logits, labels, weight, reduction="sum")


class _Stepper:
    """A model, its optimiser, and the precision they work in."""

    def __init__(self, model: SlideClassifier, loss: _Loss, config: TrainConfig) -> None:
        self.model, self.loss = model, loss
        self.own = own_tensor(model)
        self.device = self.own.device.type
        self.narrow = PRECISIONS[config.precision]
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        # float16 has no small numbers: gradients are scaled up, and steps that overflow left out
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.narrow is torch.float16)

    def epoch(self, steps: Iterable[Sequence[Bag]]) -> float:
        """One optimiser step per batch. The loss summed over all bags."""
        self.model.train()
        # Added up where it is: to read a number off a GPU in every step would make it wait.
        total = torch.zeros((), dtype=torch.float64, device=self.own.device)
        for bags in steps:
            self.optimizer.zero_grad(set_to_none=True)
            for chunk in chunks(bags):
                loss = self._loss_of(chunk)
                self.scaler.scale(loss / len(bags)).backward()
                total += loss.detach()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return float(total)

    def _loss_of(self, bags: Sequence[Bag]) -> Tensor:
        packed = pack(bags).like(self.own)
        with torch.autocast(self.device, self.narrow, enabled=self.narrow is not None):
            logits = self.model(packed).logits
        return self.loss(logits, packed.labels)


def _validate(model: SlideClassifier, bags: Sequence[Bag], loss: _Loss) -> tuple[float, float]:
    """Loss and AUC. NaN where there is none."""
    if not bags:
        return math.nan, math.nan
    predicted = predict(model, bags)
    logits, labels = torch.from_numpy(predicted.logits), torch.from_numpy(predicted.label)
    total = float(loss(logits, labels))
    if not math.isfinite(total):
        return total / len(bags), math.nan
    return total / len(bags), area_under_curve(predicted.probability, predicted.label)


def _score(epoch: Epoch, monitor: str) -> tuple[float, float]:
    """Larger is better. The second number decides ties."""
    auc = epoch.validation_auc
    first = 0.0 if monitor == "loss" or math.isnan(auc) else auc
    return first, -epoch.validation_loss


def _check_labels(bags: Sequence[Bag], classes: int) -> None:
    unlabelled = [bag.slide_id for bag in bags if bag.label is None]
    if unlabelled:
        raise DataError(f"slides without a label cannot train: {unlabelled}")
    wrong = {bag.slide_id: bag.label for bag in bags if (bag.label or 0) >= classes}
    if wrong:
        raise DataError(f"the model knows classes 0 to {classes - 1}, got labels {wrong}")
