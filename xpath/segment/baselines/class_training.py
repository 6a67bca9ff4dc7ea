"""Training a model with one output per label: its crops, its loss, its start.

Every label of a data set that an image has no mask of is background there, as in the published
trainings of specialised models. Axes: B images, P labels asked for, K labels, H W pixels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from xpath.errors import ConfigError, DataError
from xpath.pathseg.sampler import batch_keys
from xpath.segment.baselines.class_models import build_class_model
from xpath.segment.baselines.sam_path import start_sam_path
from xpath.segment.training.losses import UNKNOWN, soft_dice_loss
from xpath.segment.training.trainer import DTYPES, TrainConfig, Trainer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from xpath.pathseg.dataset import PromptedCrops
    from xpath.pathseg.packed import Stored
    from xpath.pathseg.record import Annotated, SourceImage
    from xpath.segment.baselines.class_models import ClassConfig, ClassOutput, LossWeights
    from xpath.segment.training.batches import BatchConfig

__all__ = [
    "ClassBatch",
    "ClassBatches",
    "ClassLoss",
    "ClassObjective",
    "ClassStart",
    "class_loss",
    "exhaustive",
    "start_training",
]

RATES = {"deeplabv3plus": (3e-4, 1e-4), "unet": (3e-4, 1e-4), "sam-path": (1e-4, 1e-2)}
"""Learning rate and weight decay: BiomedParse's (Methods), and SAM-Path's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassStart:
    """Where a model starts, and how it is trained."""

    steps: int
    """Length of the schedule."""
    encoder: str | None = None
    """Backbone of DeepLabV3+ and U-Net, by its name in segmentation-models-pytorch."""
    pretrained: str | None = None
    """Weights of the backbone by their name there; None for random ones."""
    sam: str | None = None
    """Segment Anything that SAM-Path starts from: file, folder or hub id."""
    pathology: Path | None = None
    """Weights of SAM-Path's pathology encoder; None for none."""
    lr: float | None = None
    """Largest learning rate; None for the published one."""
    precision: str = "fp32"
    device: str = "cpu"
    seed: int = 0
    """Of the first weights."""


def start_training(config: ClassConfig, start: ClassStart) -> tuple[ClassConfig, Trainer]:
    """The config of a model, sizes included, and its trainer.

    Args:
        config: Model, source and labels.
        start: Where it starts.

    Raises:
        ConfigError: Something the model needs is not given.
        CheckpointError: Weights that cannot be read or do not fit.
    """
    torch.manual_seed(start.seed)
    if config.model == "sam-path":
        if start.sam is None:
            raise ConfigError("SAM-Path starts from Segment Anything: say which with --sam WEIGHTS")
        sam_path, sizes = start_sam_path(len(config.labels), start.sam, start.pathology)
        model: nn.Module = sam_path
        config = dataclasses.replace(config, options=sizes)
    else:
        sizes = {"encoder": start.encoder} if start.encoder else {}
        config = dataclasses.replace(config, options=sizes)
        model = build_class_model(config, weights=start.pretrained)
    rate, decay = RATES[config.model]
    settings = TrainConfig(
        steps=start.steps,
        lr=start.lr or rate,
        weight_decay=decay,
        ema=0.0,  # norms of batches would not fit averaged weights
        precision=start.precision,
        seed=start.seed,
    )
    return config, Trainer(model, settings, device=start.device, loss=ClassObjective)


class ClassBatch(NamedTuple):
    """Images with the masks of some labels each."""

    images: Tensor
    """``(B, 3, H, W)`` uint8 RGB."""
    outputs: Tensor
    """``(B, P)`` index of the label of each mask."""
    target: Tensor
    """``(B, P, H, W)`` uint8: 1 the object, 0 not, 255 unknown."""

    def to(self, device: torch.device) -> ClassBatch:
        """The batch on a device."""
        return ClassBatch(*(part.to(device, non_blocking=True) for part in self))

    def parts(self, count: int) -> Iterator[ClassBatch]:
        """The batch in ``count`` parts of equal size.

        Raises:
            DataError: The batch cannot be split evenly.
        """
        if len(self.images) % count:
            raise DataError(f"{len(self.images)} images cannot be split into {count} equal parts")
        for part in zip(*(tensor.chunk(count) for tensor in self), strict=True):
            yield ClassBatch(*part)


class ClassLoss(NamedTuple):
    """Scalar parts of the loss, weighted already."""

    pixel: Tensor
    dice: Tensor
    iou: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum."""
        return self.pixel + self.dice + self.iou


class ClassBatches(Dataset[ClassBatch]):
    """Batch number n, for any n.

    Args:
        crops: Of one data set, each with all labels.
        labels: Label id of each output.
        config: Size of a batch.
    """

    def __init__(self, crops: PromptedCrops, labels: Sequence[str], config: BatchConfig) -> None:
        self._crops, self._config = crops, config
        self._index = {label: number for number, label in enumerate(labels)}

    def __getitem__(self, step: int) -> ClassBatch:
        """The crops of a step, all of one size."""
        keys = batch_keys(step, self._config.shapes, seed=self._config.seed)
        crops = [self._crops[key] for key in keys]
        outputs = [[self._index[label] for label in crop.labels] for crop in crops]
        images = torch.from_numpy(np.stack([crop.image for crop in crops]))
        target = torch.from_numpy(np.stack([crop.target for crop in crops]))
        return ClassBatch(images.permute(0, 3, 1, 2).contiguous(), torch.tensor(outputs), target)


class ClassObjective(nn.Module):
    """From a batch to its loss.

    Args:
        model: A ``ClassModel``.
        config: Its precision.
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self._dtype = DTYPES[config.precision]

    def forward(self, images: Tensor, outputs: Tensor, target: Tensor) -> ClassLoss:
        """Loss of a batch, see ``ClassBatch``."""
        model: Any = self.model
        mixed = self._dtype != torch.float32
        with torch.autocast(images.device.type, self._dtype, enabled=mixed):
            answer = model(images)
        return class_loss(answer, outputs, target, model.loss)


def class_loss(
    answer: ClassOutput, outputs: Tensor, target: Tensor, weights: LossWeights
) -> ClassLoss:
    """Cross-entropy (focal with a ``focus``) and Dice of the labels asked for, in float32.

    Args:
        answer: Of the model.
        outputs: ``(B, P)`` index of each label.
        target: ``(B, P, H, W)``: 1, 0 or unknown.
        weights: Of the parts.
    """
    logits = answer.logits.float().take_along_dim(outputs[..., None, None], dim=1)
    known, mask = (target != UNKNOWN).float(), (target == 1).float()
    pixel = functional.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    if weights.focus:
        pixel = pixel * (1 - torch.exp(-pixel)) ** weights.focus  # exp(-CE) is p of the truth
    pixel = (pixel * known).sum(dim=(2, 3)) / known.sum(dim=(2, 3)).clamp(min=1)
    dice = soft_dice_loss(logits, mask, known)
    error = logits.new_zeros(())
    if answer.iou is not None:
        guess = answer.iou.float().take_along_dim(outputs, dim=1)
        error = (guess - _iou(logits.detach() > 0, mask, known)).square().mean()
    return ClassLoss(weights.pixel * pixel.mean(), weights.dice * dice.mean(), weights.iou * error)


def _iou(answer: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """IoU ``(B, P)`` over the known pixels, 1 where both masks are empty."""
    both = (answer * mask * known).sum(dim=(2, 3))
    either = (((answer + mask) > 0) * known).sum(dim=(2, 3))
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def exhaustive(images: Sequence[Stored]) -> tuple[list[Stored], tuple[str, ...]]:
    """Images of a data set, every label without a mask known to be absent, and all its labels."""
    labels = tuple(sorted({label for image in images for label in image.labels}))
    return [
        dataclasses.replace(stored, image=_exhaustive(stored.image, labels)) for stored in images
    ], labels


def _exhaustive(image: SourceImage, labels: tuple[str, ...]) -> SourceImage:
    return dataclasses.replace(image, read=partial(_read, image, labels))


def _read(image: SourceImage, labels: tuple[str, ...]) -> Annotated:
    annotated = image.read()
    here = {mask.label for mask in annotated.masks}
    return annotated._replace(absent=tuple(label for label in labels if label not in here))
