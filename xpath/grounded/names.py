"""The published checkpoint's parameter names in terms of ours, and back.

UniBiomed's names (its code, commit 5af3a41) on the left, those of ``GroundedModel``, which are
transformers', on the right. One table serves both directions. Three parameters are cut differently:
queries, keys and values of the vision transformer are rows of one matrix there; the four point
embeddings are four tensors there and rows of one here; SAM2's positional matrix is in two modules
here.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import torch

from xpath.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

__all__ = ["Renaming", "published_name", "renaming", "to_ours", "to_published"]

_SAM = "grounding_encoder.sam2_model."
_VIT, _OUR_VIT = (
    "vision_model.encoder.layers.{n}.",
    "internvl.model.vision_tower.encoder.layer.{n}.",
)
_HIERA, _OUR_HIERA = f"{_SAM}image_encoder.trunk.", "sam.vision_encoder.backbone."
_PROMPT, _OUR_PROMPT = f"{_SAM}sam_prompt_encoder.", "sam.prompt_encoder."
_DECODER, _OUR_DECODER = f"{_SAM}sam_mask_decoder.", "sam.mask_decoder."
_TWO_WAY = "transformer.layers.{n}."


def _below(theirs: str, ours: str, tails: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((theirs + tail, ours + ours_tail) for tail, ours_tail in tails.items())


_HEADS = ("output_hypernetworks_mlps.{n}.", "iou_prediction_head.", "pred_obj_score_head.")
_THREE_LAYERS = {"layers.0.*": "proj_in.*", "layers.1.*": "layers.0.*", "layers.2.*": "proj_out.*"}
_TABLE: tuple[tuple[str, str], ...] = (
    *_below(
        "vision_model.embeddings.",
        "internvl.model.vision_tower.embeddings.",
        {
            "class_embedding": "cls_token",
            "position_embedding": "position_embeddings",
            "patch_embedding.*": "patch_embeddings.projection.*",
        },
    ),
    *_below(
        _VIT,
        _OUR_VIT,
        {
            "ls{n}": "lambda_{n}",
            "norm1.*": "layernorm_before.*",
            "norm2.*": "layernorm_after.*",
            "attn.proj.*": "attention.projection_layer.*",
            "mlp.*": "mlp.*",
        },
    ),
    *_below(
        "mlp1.",
        "internvl.model.multi_modal_projector.",
        {"0.*": "layer_norm.*", "1.*": "linear_1.*", "3.*": "linear_2.*"},
    ),
    ("language_model.model.*", "internvl.model.language_model.*"),
    ("language_model.lm_head.*", "internvl.lm_head.*"),
    ("text_hidden_fcs.*", "projection.*"),
    (f"{_SAM}no_mem_embed", "sam.no_memory_embedding"),
    *_below(
        _HIERA,
        _OUR_HIERA,
        {
            "pos_embed": "pos_embed",
            "pos_embed_window": "pos_embed_window",
            "patch_embed.proj.*": "patch_embed.projection.*",
            "blocks.{n}.norm{n}.*": "blocks.{n}.layer_norm{n}.*",
            "blocks.{n}.attn.*": "blocks.{n}.attn.*",
            "blocks.{n}.proj.*": "blocks.{n}.proj.*",
            "blocks.{n}.mlp.layers.0.*": "blocks.{n}.mlp.proj_in.*",
            "blocks.{n}.mlp.layers.1.*": "blocks.{n}.mlp.proj_out.*",
        },
    ),
    (f"{_SAM}image_encoder.neck.convs.{{n}}.conv.*", "sam.vision_encoder.neck.convs.{n}.*"),
    *_below(
        _PROMPT,
        _OUR_PROMPT,
        {
            "no_mask_embed.*": "no_mask_embed.*",
            "not_a_point_embed.*": "not_a_point_embed.*",
            "mask_downscaling.0.*": "mask_embed.conv1.*",
            "mask_downscaling.1.*": "mask_embed.layer_norm1.*",
            "mask_downscaling.3.*": "mask_embed.conv2.*",
            "mask_downscaling.4.*": "mask_embed.layer_norm2.*",
            "mask_downscaling.6.*": "mask_embed.conv3.*",
        },
    ),
    *_below(
        _DECODER,
        _OUR_DECODER,
        {
            "iou_token.*": "iou_token.*",
            "mask_tokens.*": "mask_tokens.*",
            "obj_score_token.*": "obj_score_token.*",
            "conv_s{n}.*": "conv_s{n}.*",
            "output_upscaling.0.*": "upscale_conv1.*",
            "output_upscaling.1.*": "upscale_layer_norm.*",
            "output_upscaling.3.*": "upscale_conv2.*",
            _TWO_WAY + "norm{n}.*": _TWO_WAY + "layer_norm{n}.*",
            _TWO_WAY + "mlp.layers.0.*": _TWO_WAY + "mlp.proj_in.*",
            _TWO_WAY + "mlp.layers.1.*": _TWO_WAY + "mlp.proj_out.*",
            _TWO_WAY + "{w}.out_proj.*": _TWO_WAY + "{w}.o_proj.*",
            _TWO_WAY + "{w}.{qkv}_proj.*": _TWO_WAY + "{w}.{qkv}_proj.*",
            "transformer.norm_final_attn.*": "transformer.layer_norm_final_attn.*",
            "transformer.{w}.out_proj.*": "transformer.{w}.o_proj.*",
            "transformer.{w}.{qkv}_proj.*": "transformer.{w}.{qkv}_proj.*",
        },
    ),
    *(
        pair
        for head in (
            "output_hypernetworks_mlps.{n}.",
            "iou_prediction_head.",
            "pred_obj_score_head.",
        )
        for pair in _below(_DECODER + head, _OUR_DECODER + head, _THREE_LAYERS)
    ),
)

_MATRIX = f"{_PROMPT}pe_layer.positional_encoding_gaussian_matrix"
_OUR_MATRICES = (
    "sam.shared_image_embedding.positional_embedding",
    "sam.prompt_encoder.shared_embedding.positional_embedding",
)
_POINTS, _OUR_POINTS = f"{_PROMPT}point_embeddings.", "sam.prompt_encoder.point_embed.weight"
_POINT = re.compile(rf"{re.escape(_POINTS)}(\d)\.weight")
_QKV, _OUR_QKV = _VIT + "attn.qkv.*", _OUR_VIT + "attention.{qkv}_proj.*"
_LEFT_OUT = re.compile(
    re.escape(_SAM) + r"(memory_|maskmem_|mask_downsample\.|obj_ptr_|no_obj_ptr$|no_mem_pos_enc$)"
)
_WILD = {"{n}": r"(\d+)", "{w}": r"([a-z_]+)", "{qkv}": "([qkv])", "*": "(.+)"}


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"(\{\w+\}|\*)", template)
    return re.compile("".join(_WILD.get(part) or re.escape(part) for part in parts))


def _filled(template: str, values: Iterable[str]) -> str:
    rest = iter(values)
    return re.sub(r"\{\w+\}|\*", lambda _: next(rest), template)


_FORWARD = tuple((_pattern(theirs), ours) for theirs, ours in _TABLE)
_BACKWARD = tuple((_pattern(ours), theirs) for theirs, ours in _TABLE)
_QKV_PATTERN, _OUR_QKV_PATTERN = _pattern(_QKV), _pattern(_OUR_QKV)


class Renaming(NamedTuple):
    """Which parameter of a published file is which of ours."""

    ours: dict[str, tuple[str, ...]]
    """Published name to our names: one, or those that share or are cut from it."""
    left_out: dict[str, int]
    """Parts of SAM2 that serve video only, and how many tensors each has."""


def renaming(names: Iterable[str]) -> Renaming:
    """Meaning of the published names.

    Raises:
        CheckpointError: Names that belong to no part of the model; all are listed.
    """
    ours: dict[str, tuple[str, ...]] = {}
    left_out: Counter[str] = Counter()
    problems = []
    for name in names:
        if match := _LEFT_OUT.match(name):
            left_out[match[1]] += 1
        elif renamed := _our_names(name):
            ours[name] = renamed
        else:
            problems.append(f"{name} is no parameter of UniBiomed")
    if problems:
        raise CheckpointError("; ".join(sorted(problems)))
    return Renaming(ours, dict(left_out))


def published_name(name: str) -> str | None:
    """The published name of one of our parameters, or of the tensors it is made of. Else None.

    A name that covers several published tensors ends in a dot.
    """
    if name in _OUR_MATRICES:
        return _MATRIX
    if name == _OUR_POINTS:
        return _POINTS
    if match := _OUR_QKV_PATTERN.fullmatch(name):
        layer, _, tail = match.groups()
        return _filled(_QKV, (layer, tail))
    return _first(_BACKWARD, name)


def to_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under our names. What serves video only is left out.

    Raises:
        CheckpointError: Names that belong to no part of the model; all are listed.
    """
    ours: dict[str, Tensor] = {}
    points: dict[str, Tensor] = {}
    for name, targets in renaming(state).ours.items():
        if match := _POINT.fullmatch(name):
            points[match[1]] = state[name]
            continue
        cut = _QKV_PATTERN.fullmatch(name) is not None
        parts = state[name].chunk(len(targets)) if cut else [state[name]] * len(targets)
        ours |= zip(targets, parts, strict=False)  # too few rows: the missing one is named later
    if points:
        ours[_OUR_POINTS] = torch.cat([points[number] for number in sorted(points)])
    return ours


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the published names, without what serves video only.

    Raises:
        CheckpointError: Names that are none of ours; all are listed.
    """
    theirs = {name: published_name(name) for name in state}
    problems = [f"{name} is no parameter of GroundedModel" for name, it in theirs.items() if not it]
    if problems:
        raise CheckpointError("; ".join(sorted(problems)))
    cut: dict[str, list[Tensor]] = {}
    for ours in sorted(state, key=_qkv_order):
        cut.setdefault(str(theirs[ours]), []).append(state[ours])
    published: dict[str, Tensor] = {}
    for name, parts in cut.items():
        if name == _POINTS:
            rows = parts[0].split(1)
            published |= {f"{_POINTS}{number}.weight": row for number, row in enumerate(rows)}
        else:
            published[name] = torch.cat(parts) if _QKV_PATTERN.fullmatch(name) else parts[0]
    return published


def _our_names(name: str) -> tuple[str, ...]:
    """Empty for a name that is unknown."""
    if name == _MATRIX:
        return _OUR_MATRICES
    if _POINT.fullmatch(name):
        return (_OUR_POINTS,)
    if match := _QKV_PATTERN.fullmatch(name):
        layer, tail = match.groups()
        return tuple(_filled(_OUR_QKV, (layer, part, tail)) for part in "qkv")
    renamed = _first(_FORWARD, name)
    return (renamed,) if renamed else ()


def _first(rules: Iterable[tuple[re.Pattern[str], str]], name: str) -> str | None:
    for pattern, template in rules:
        if match := pattern.fullmatch(name):
            return _filled(template, match.groups())
    return None


def _qkv_order(name: str) -> str:
    """Sorts queries before keys before values. The others anyhow."""
    match = _OUR_QKV_PATTERN.fullmatch(name)
    return str("qkv".index(match[2])) if match else ""
