"""Starting points of a training: sizes and words of the model, the paper's settings."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpath.errors import ConfigError
from xpath.pathseg.prompts import sentences
from xpath.segment.checkpoints.checkpoint import SegmentorInfo, locate, read_config
from xpath.segment.model.tokenizer import PromptTokenizer, fit_tokenizer
from xpath.segment.model.variants import large_config, mini_config, tiny_config

if TYPE_CHECKING:
    from xpath.pathseg.dataset import CropConfig
    from xpath.segment.model.variants import SegmentorConfig

__all__ = ["MODELS", "PRESETS", "architecture", "describe", "factors", "name_of", "steps_of"]

MODELS = ("mini", "tiny", "large", "init")
"""``large`` has the paper's sizes and BiomedParse's causal text encoder; ``init`` is whatever the
checkpoint given with it is: the way to fine-tune PubMedBERT or BiomedParse weights."""

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "model": "large",
        "shapes": ((32, 1024),),
        "epochs": 20,
        "lr": 8e-4,
        "precision": "bf16",
        "device": "cuda",
        "workers": 8,
    }
}
"""PathSegmentor paper, section 4.4; weight decay 0.05 is the default of every training."""


def architecture(model: str, init: Path | None) -> tuple[SegmentorConfig, PromptTokenizer]:
    """Sizes of the model, and the tokenizer of its prompts.

    Args:
        model: One of ``MODELS``.
        init: Checkpoint that the training starts from, folder or hub id.

    Raises:
        ConfigError: No such model, or ``init`` without a checkpoint.
        CheckpointError: A checkpoint that cannot be read.
    """
    if model == "init":
        if init is None:
            raise ConfigError("model init takes its sizes from a checkpoint: say which with --init")
        folder = locate(init)
        config, _ = read_config(folder)
        return config, PromptTokenizer.from_file(folder / "tokenizer.json")
    tokenizer = fit_tokenizer(sentences())
    if model == "large":
        large = large_config(text="clip")
        return replace(large, vocabulary=tokenizer.vocabulary), tokenizer
    if model not in MODELS:
        raise ConfigError(f"model must be one of {MODELS}, got {model!r}")
    make = mini_config if model == "mini" else tiny_config
    return make(tokenizer.vocabulary), tokenizer


def name_of(model: str, init: Path | None) -> str:
    """Name of the weights to come. A fine-tuned checkpoint keeps its own.

    Raises:
        CheckpointError: ``init`` cannot be read.
    """
    if model == "init" and init is not None:
        return read_config(locate(init))[1].name
    return f"pathsegmentor-{model}"


def describe(
    name: str, labels: tuple[str, ...], views: CropConfig, *, image_size: int
) -> SegmentorInfo:
    """Facts about the weights that their users need.

    Args:
        name: Of the weights.
        labels: That were trained.
        views: Resolutions that were shown.
        image_size: Side of the crops, pixels.
    """
    return SegmentorInfo(
        name=name,
        mpp=0.25,
        mpp_range=(views.fine[0], views.coarse[1]),
        image_size=image_size,
        labels=labels,
        licence="CC BY-NC-SA 4.0",
        synthetic_only=False,
    )


def steps_of(epochs: float, images: int, shapes: tuple[tuple[int, int], ...]) -> int:
    """Optimiser steps in which as many crops are drawn as there are images, ``epochs`` times.

    Raises:
        ConfigError: Nothing to train on.
    """
    crops = sum(count for count, _ in shapes) / len(shapes)
    if images < 1 or epochs <= 0:
        raise ConfigError(f"got {epochs} epochs of {images} images; both must be positive")
    return math.ceil(epochs * images / crops)


def factors(text: str) -> dict[str, float]:
    """``glas=2,nuinsseg=0.5`` as a dictionary.

    Raises:
        ConfigError: Anything else, or a factor that is not positive.
    """
    try:
        pairs = dict(part.split("=") for part in text.split(","))
        found = {name: float(value) for name, value in pairs.items()}
    except ValueError as error:
        raise ConfigError(f"factors look like glas=2,nuinsseg=0.5, got {text!r}") from error
    if min(found.values()) <= 0:
        raise ConfigError(f"factors must be positive, got {text!r}")
    return found
