"""BiomedParse's published weights and configurations (Zhao et al. 2024), read as ours."""

from __future__ import annotations

import logging
import pickle
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from xpath.errors import CheckpointError, ConfigError
from xpath.segment.checkpoints.biomedparse_names import bare_name, rename_biomedparse, renaming
from xpath.segment.checkpoints.biomedparse_sizes import config_from_state
from xpath.segment.checkpoints.checkpoint import load_fitting
from xpath.segment.model.segmentor import PIXEL_MEAN, PIXEL_STD, PathSegmentor
from xpath.segment.model.variants import SegmentorConfig, empty_segmentor
from xpath.store.checkpoints import read_safetensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

__all__ = [
    "LoadedBiomedParse",
    "config_from_reference",
    "load_biomedparse",
]

logger = logging.getLogger(__name__)

ONE_WAY: tuple[tuple[str, object], ...] = (
    ("BACKBONE.NAME", "focal"),
    ("BACKBONE.FOCAL.PATCH_SIZE", 4),
    ("BACKBONE.FOCAL.PATCH_NORM", True),
    ("BACKBONE.FOCAL.USE_CONV_EMBED", True),
    ("BACKBONE.FOCAL.SCALING_MODULATOR", True),
    ("BACKBONE.FOCAL.USE_POSTLN", True),
    ("BACKBONE.FOCAL.USE_POSTLN_IN_MODULATION", False),
    ("BACKBONE.FOCAL.USE_LAYERSCALE", True),
    ("TEXT.NAME", "transformer"),
    ("TEXT.AUTOGRESSIVE", True),
    ("ENCODER.NAME", "transformer_encoder_fpn"),
    ("ENCODER.NORM", "GN"),
    ("DECODER.PRE_NORM", False),
)
"""Switches of a reference configuration that have only one way here, that of BiomedParse."""
TEXT_ENCODERS: dict[str, Literal["causal", "bert"]] = {"clip": "causal", "biomed-clip": "bert"}
BERT_LAYERS = BERT_HEADS = 12
"""Of BERT base; a reference configuration does not name them."""


class LoadedBiomedParse(NamedTuple):
    """Published weights in a module of ours."""

    model: PathSegmentor
    """In evaluation mode, float32."""
    config: SegmentorConfig
    """Numbers it was built from; ``save_segmentor`` wants them."""


def load_biomedparse(
    path: Path,
    *,
    config: SegmentorConfig | None = None,
    heads: int = 8,
    text_heads: int | None = None,
) -> LoadedBiomedParse:
    """Reads weights saved under BiomedParse's names, ``.pt`` or ``.safetensors``.

    What text prompts do not need (point and memory prompts, the text encoder that is not called)
    is left out and named in the log; everything else must fit.

    Args:
        path: A flat state dict, or a trainer's file with one under ``module`` or ``model``.
        config: Numbers of the architecture; read off the tensors if not given.
        heads: Attention heads of pixel and joint decoder, which no tensor tells. Ignored with
            ``config``.
        text_heads: Those of the text encoder; one per 64 features if not given. Ignored with
            ``config``.

    Raises:
        CheckpointError: The file cannot be read or does not fit; every difference is named.
    """
    file = _read(path)
    text_encoder = config.text_encoder if config else _text_encoder(file)
    try:
        names = renaming(file, text_encoder=text_encoder)
        state = rename_biomedparse(file, text_encoder=text_encoder)
        config = config or config_from_state(state, heads=heads, text_heads=text_heads)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if names.left_out:
        parts = ", ".join(f"{part}* ({count})" for part, count in sorted(names.left_out.items()))
        logger.info("%s: left out what text prompts do not need: %s", path, parts)
    model = empty_segmentor(config)
    load_fitting(model, state, path)
    return LoadedBiomedParse(model.eval(), config)


def _read(path: Path) -> dict[str, Tensor]:
    """The flat state dict of a file."""
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is no file of tensors alone, and no other is read because it could run code;"
            " wanted a state dict of torch.save, or .safetensors"
        ) from error
    for inner in ("module", "model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(inner), dict):
            content = content[inner]
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, wanted a state dict")
    others = [str(name) for name, value in content.items() if not torch.is_tensor(value)]
    if others:
        raise CheckpointError(f"{path} holds values that are no tensors: {', '.join(others)}")
    return content


def _text_encoder(file: Mapping[str, Tensor]) -> Literal["causal", "bert"]:
    """The text encoder that the model called: both may be in the file.

    It is BERT if the projection has BERT's width and the other one was built for BERT's tokenizer.
    """
    text = "sem_seg_head.predictor.lang_encoder."
    shapes = {bare_name(name): tuple(value.shape) for name, value in file.items()}
    bert = shapes.get(text + "biomed_encoder.embeddings.word_embeddings.weight")
    projection = shapes.get(text + "lang_proj")
    if bert is None or projection is None or projection[0] != bert[1]:
        return "causal"
    causal = shapes.get(text + "lang_encoder.token_embedding.weight")
    return "bert" if causal is None or causal[0] == bert[0] else "causal"


def config_from_reference(reference: Mapping[str, Any]) -> SegmentorConfig:
    """The numbers of a configuration in the reference's own field names.

    Args:
        reference: ``{"config": {...}, "pixel_mean": [...], "pixel_std": [...], "vocab_size": n}``;
            ``config`` is what BiomedParse's YAML has under ``MODEL``. Without the others: ImageNet
            and CLIP.

    Raises:
        ConfigError: A field is missing, or switches something this architecture has only one way.
    """
    settings = reference.get("config", reference)
    settings = settings.get("MODEL", settings)
    _check_one_way(settings)
    try:
        return _config(settings, reference)
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"the reference configuration has no usable {error}; wanted the fields of BiomedParse's"
            " YAML below MODEL"
        ) from error


def _config(settings: Mapping[str, Any], reference: Mapping[str, Any]) -> SegmentorConfig:
    focal, text = settings["BACKBONE"]["FOCAL"], settings["TEXT"]
    encoder, decoder = settings["ENCODER"], settings["DECODER"]
    dim, pixel_dim, mask_dim = decoder["HIDDEN_DIM"], encoder["CONVS_DIM"], encoder["MASK_DIM"]
    projected = pixel_dim != dim or decoder.get("ENFORCE_INPUT_PROJ", False)
    encoder_type = TEXT_ENCODERS[text.get("TOKENIZER", "clip")]
    return SegmentorConfig(
        width=focal["EMBED_DIM"],
        depths=tuple(focal["DEPTHS"]),
        focal_levels=tuple(focal["FOCAL_LEVELS"]),
        focal_windows=tuple(focal["FOCAL_WINDOWS"]),
        mlp_ratio=focal.get("MLP_RATIO", 4.0),
        dim=dim,
        pixel_dim=pixel_dim if projected else None,
        mask_dim=mask_dim if mask_dim != dim else None,
        heads=decoder["NHEADS"],
        hidden=decoder["DIM_FEEDFORWARD"],
        pixel_depth=encoder["TRANSFORMER_ENC_LAYERS"],
        queries=decoder["NUM_OBJECT_QUERIES"],
        decoder_depth=decoder["DEC_LAYERS"] - 1,  # there the head before the first layer counts
        vocabulary=reference.get("vocab_size", 49408 if encoder_type == "causal" else 30522),
        context=text["CONTEXT_LENGTH"],
        text_encoder=encoder_type,
        text_width=text["WIDTH"],
        text_depth=text["LAYERS"] if encoder_type == "causal" else BERT_LAYERS,
        text_heads=text["HEADS"] if encoder_type == "causal" else BERT_HEADS,
        pixel_mean=tuple(reference.get("pixel_mean", PIXEL_MEAN)),
        pixel_std=tuple(reference.get("pixel_std", PIXEL_STD)),
    )


def _check_one_way(settings: Mapping[str, Any]) -> None:
    """Names every switch that is not as published. One that is not there is as published."""
    problems = []
    for path, wanted in ONE_WAY:
        value: Any = settings
        for part in path.split("."):
            value = value.get(part, wanted) if isinstance(value, dict) else value
        if value != wanted:
            problems.append(f"{path} is {value!r}, only {wanted!r} is known")
    tokenizer = settings.get("TEXT", {}).get("TOKENIZER", "clip")
    if tokenizer not in TEXT_ENCODERS:
        problems.append(f"TEXT.TOKENIZER is {tokenizer!r}, wanted one of {sorted(TEXT_ENCODERS)}")
    dim = settings.get("DECODER", {}).get("HIDDEN_DIM")
    if settings.get("DIM_PROJ", dim) != dim:
        problems.append(f"DIM_PROJ {settings['DIM_PROJ']} must equal DECODER.HIDDEN_DIM {dim}")
    if problems:
        raise ConfigError("a reference configuration of another type: " + "; ".join(problems))
