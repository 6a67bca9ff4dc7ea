"""Starting points of a training: sizes and words of the model, settings of the paper, its end."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpath.errors import ConfigError
from xpath.pathseg.dataset import CropConfig
from xpath.pathseg.prompts import PromptConfig, sentences
from xpath.segment.checkpoints.checkpoint import (
    DEFAULT_WEIGHTS,
    SegmentorInfo,
    locate,
    read_config,
)
from xpath.segment.model.tokenizer import PromptTokenizer, fit_tokenizer
from xpath.segment.model.variants import SegmentorConfig, large_config, mini_config, tiny_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "MODELS",
    "PRESETS",
    "architecture",
    "check_preset",
    "describe",
    "factors",
    "name_of",
    "settings",
    "steps_of",
    "until_interrupted",
    "views_of",
]

MODELS = ("mini", "tiny", "large", "init")
"""``large`` has the paper's sizes and BiomedParse's causal text encoder; ``init`` is whatever the
checkpoint given with it is: the way to fine-tune PubMedBERT or BiomedParse weights."""

PRESETS: dict[str, dict[str, Any]] = {
    "own": {},
    "shipped": {
        "model": "init",
        "init": DEFAULT_WEIGHTS,
        "shapes": ((16, 256),),
        "steps": 5000,
        "lr": 5e-4,
        "encoder_lr": 0.5,
        "text_lr": 0.4,
        "drop_path": 0.05,
        "contrast": 0.6,
        "full_heads": 1,
        "prompts": 6,
        "drawn": 64,
        "emphasis": {"pannuke_figures": 5.0},
        "unions": 0.4,
        "shares": {
            "drawn": 0.05,
            "bcss": 0.02,
            "gtex_fat": 0.05,
            "sbu_necrosis": 0.03,
            "bcss_pseudo": 0.06,
        },
        "compose": 0.4,
        "validate_steps": 2000,
    },
    "paper": {
        "model": "init",
        "shapes": ((32, 1024),),
        "epochs": 20,
        "lr": 8e-4,
        "encoder_lr": 1.0,
        "contrast": 0.0,
        "drop_path": 0.3,
        "ema": 0.0,
        "precision": "bf16",
        "device": "cuda",
        "workers": 8,
    },
}
"""Defaults of a training by the name of its recipe. ``own``: those of the options themselves.

``shipped``: the weights that ship go on learning, on the images of ``pipelines/splits``: at most a
tenth of the crops is drawn tissue, an eighth is of fat, necrosis and stroma, and no label is asked
for more often where it is absent.

``paper``: sections 4.1, 4.2 and 4.4 of PathSegmentor's paper; weight decay 0.05 is the default of
every training. Drop path, clipping and the loss that teaches which query answers, on which the
paper is silent, are those of BiomedParse, where it starts. Warm-up and cosine of the learning rate,
four questions to an image and the balance of sources are ours: no source states them."""
PAPER_WORDS = PromptConfig(other_region=0, no_region=0, synonym=0, phrase=0, cell=0)


def architecture(
    model: str, init: Path | None, changes: Mapping[str, Any] | None = None
) -> tuple[SegmentorConfig, PromptTokenizer]:
    """Sizes of the model, and the tokenizer of its prompts.

    Args:
        model: One of ``MODELS``.
        init: Checkpoint that the training starts from, folder or hub id.
        changes: Fields of ``SegmentorConfig`` that are to be others.

    Raises:
        ConfigError: No such model, ``init`` without a checkpoint, or a change of what is not there.
        CheckpointError: A checkpoint that cannot be read.
    """
    config, tokenizer = _architecture(model, init)
    try:
        return replace(config, **(changes or {})), tokenizer
    except TypeError as error:
        raise ConfigError(f"the model has no such setting: {error}") from error


def _architecture(model: str, init: Path | None) -> tuple[SegmentorConfig, PromptTokenizer]:
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


def views_of(preset: str, *, prompts: int, emphasis: Mapping[str, float], **own: Any) -> CropConfig:
    """How images are shown and asked about.

    Args:
        preset: ``paper`` for whole images at 0.9 to 1.1 of the crop, unchanged, asked for what is
            there in the template sentence; any other for crops at many resolutions in many words.
        prompts: Questions per image.
        emphasis: Source to how much more of it is seen.
        own: Further fields of ``CropConfig`` for recipes that are not the paper's.
    """
    if preset == "paper":
        return CropConfig(
            prompts=prompts,
            emphasis=emphasis,
            absent=0,
            blank=0,
            whole=(0.9, 1.1),
            augment=None,
            words=PAPER_WORDS,
        )
    return CropConfig(prompts=prompts, emphasis=emphasis, **own)


def check_preset(preset: str, model: str, init: Path | None) -> None:
    """Refuses to call a training the paper's that does not start where the paper starts.

    Raises:
        ConfigError: The paper's recipe without BiomedParse's weights and a BERT.
    """
    if preset != "paper":
        return
    how = "make it by `xpath weights import biomedparse_v1.pt --bert PUBMEDBERT --out START`"
    if model != "init" or init is None:
        raise ConfigError(f"the paper starts from BiomedParse's weights: --init START; {how}")
    config, _ = read_config(locate(init))
    if config.text_encoder != "bert":
        raise ConfigError(f"the paper's text encoder is PubMedBERT, {init} has another; {how}")


def name_of(model: str, init: Path | None) -> str:
    """Name of the weights to come. A fine-tuned checkpoint keeps its own.

    Raises:
        CheckpointError: ``init`` cannot be read.
    """
    if model == "init" and init is not None:
        return read_config(locate(init))[1].name
    return f"pathsegmentor-{model}"


def describe(
    name: str, taught: Mapping[str, int], views: CropConfig, *, image_size: int
) -> SegmentorInfo:
    """Facts about the weights that their users need.

    Args:
        name: Of the weights.
        taught: Label that was trained to the number of real images that show it.
        views: Resolutions that were shown.
        image_size: Side of the crops, pixels.
    """
    real = {label: count for label, count in taught.items() if count}
    return SegmentorInfo(
        name=name,
        mpp=0.25,
        mpp_range=None if views.whole else (views.fine[0], views.coarse[1]),
        square=views.whole is not None,
        image_size=image_size,
        labels=tuple(real),
        drawn=tuple(label for label in taught if label not in real),
        taught=real,
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


def settings(text: str) -> dict[str, Any]:
    """``pixel_dim=64,fine=separable`` as a dictionary, numbers as such.

    Raises:
        ConfigError: Anything else.
    """
    try:
        pairs = dict(part.split("=") for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"settings look like pixel_dim=64,mask_dim=64, got {text!r}") from error
    return {name: int(value) if value.isdigit() else value for name, value in pairs.items()}


def until_interrupted(main: Callable[[], None], name: str) -> int:
    """Trains to the end, or until Ctrl-C, which is told in a line. Returns the exit code."""
    try:
        main()
    except KeyboardInterrupt:
        line = "interrupted; what was saved last is kept, the same command goes on"
        sys.stderr.write(f"{name}: {line}\n")
        return 130
    return 0
