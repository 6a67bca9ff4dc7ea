"""BiomedParse's parameter names in terms of ours.

The published checkpoint (Zhao et al. 2024) and PathSegmentor share one architecture. This module
knows how the parameters are called there, what is not needed for text prompts, and nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from xpath.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

__all__ = ["Renaming", "bare_name", "rename_biomedparse", "renaming"]

SHOWN = 5
"""Problems that a message names."""
_HEAD = "sem_seg_head.predictor."
_PIXEL = "sem_seg_head.pixel_decoder."
_TEXT = _HEAD + "lang_encoder."

# Point, scribble and memory prompts, the training criterion, and BERT's pooler.
_NEVER_NEEDED = (
    rf"{_HEAD}(pn_indicator|mask_sptial_embed|spatial_embed|spatial_featured)\."
    rf"|(.*\.)?dilation_kernel|criterion\.|{_TEXT}biomed_encoder\.(pooler|embeddings\.position_ids)"
)
# Both text encoders are in the file, whichever of them the model calls.
_NOT_NEEDED = {
    "causal": re.compile(rf"{_TEXT}biomed_encoder\.|{_NEVER_NEEDED}"),
    "bert": re.compile(rf"{_TEXT}lang_encoder\.|{_NEVER_NEEDED}"),
}

_RULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.patch_embed\.", "image_encoder.trunk.stem."),
    (r"backbone\.norm(\d)\.", r"image_encoder.norms.\1."),
    (r"backbone\.layers\.", "image_encoder.trunk.layers."),
    (
        rf"{_PIXEL}transformer\.encoder\.layers\.(\d+)\.self_attn\.",
        r"pixel_decoder.layers.\1.attention.",
    ),
    (
        rf"{_PIXEL}transformer\.encoder\.layers\.(\d+)\.linear",
        r"pixel_decoder.layers.\1.ffn.linear",
    ),
    (rf"{_PIXEL}transformer\.encoder\.", "pixel_decoder."),
    (rf"{_PIXEL}layer_4\.", "pixel_decoder.coarsest."),
    (rf"{_PIXEL}", "pixel_decoder."),
    (rf"{_HEAD}input_proj\.", "decoder.projections."),
    (rf"{_HEAD}query_feat\.", "decoder.query_content."),
    (rf"{_HEAD}query_embed\.", "decoder.query_position."),
    (rf"{_HEAD}level_embed\.", "decoder.level_embedding."),
    (
        rf"{_HEAD}transformer_cross_attention_layers\.(\d+)\.multihead_attn\.",
        r"decoder.layers.\1.cross.",
    ),
    (
        rf"{_HEAD}transformer_cross_attention_layers\.(\d+)\.norm\.",
        r"decoder.layers.\1.cross_norm.",
    ),
    (
        rf"{_HEAD}transformer_self_attention_layers\.(\d+)\.self_attn\.",
        r"decoder.layers.\1.self_attention.",
    ),
    (rf"{_HEAD}transformer_self_attention_layers\.(\d+)\.norm\.", r"decoder.layers.\1.self_norm."),
    (rf"{_HEAD}transformer_ffn_layers\.(\d+)\.linear", r"decoder.layers.\1.ffn.linear"),
    (rf"{_HEAD}transformer_ffn_layers\.(\d+)\.norm\.", r"decoder.layers.\1.ffn_norm."),
    (rf"{_HEAD}decoder_norm\.", "decoder.norm."),
    (rf"{_HEAD}mask_embed\.", "decoder.mask_embed."),
    (rf"{_HEAD}class_embed$", "decoder.class_projector"),
    (rf"{_TEXT}lang_proj$", "text_encoder.projection"),
    (rf"{_TEXT}logit_scale$", "logit_scale"),
    (rf"{_TEXT}lang_encoder\.resblocks\.", "text_encoder.blocks."),
    (rf"{_TEXT}lang_encoder\.ln_final\.", "text_encoder.norm."),
    (rf"{_TEXT}lang_encoder\.", "text_encoder."),
    (rf"{_TEXT}biomed_encoder\.", "text_encoder.bert."),
)

_INNER: tuple[tuple[str, str], ...] = (
    (r"(trunk\.layers\.\d+\.blocks\.\d+\.)norm([12])\.", r"\1norm\2_post."),
    (r"(trunk\.layers\.\d+\.blocks\.\d+\.)gamma_([12])$", r"\1ls\2.gamma"),
    (r"^(text_encoder\.blocks\.\d+\.)attn\.", r"\1attention."),
    (r"^(text_encoder\.blocks\.\d+\.)ln_", r"\1norm"),
    (r"^(text_encoder\.blocks\.\d+\.)mlp\.c_fc\.", r"\1expand."),
    (r"^(text_encoder\.blocks\.\d+\.)mlp\.c_proj\.", r"\1contract."),
)


class Renaming(NamedTuple):
    """Which parameter of a file is which of ours."""

    ours: dict[str, str]
    """Name in the file to our name."""
    left_out: dict[str, int]
    """Parts of the file that text prompts do not need, and how many parameters each has."""


def bare_name(name: str) -> str:
    """A parameter's name without the ``model.`` or ``module.`` that trainers put in front."""
    return re.sub(r"^((module|model)\.)+", "", name)


def renaming(names: Iterable[str], *, text_encoder: str = "causal") -> Renaming:
    """The names of a BiomedParse state dict, sorted by their meaning.

    Args:
        names: With or without a leading ``model.`` or ``module.``.
        text_encoder: The one of the two that the model calls, "causal" or "bert".

    Raises:
        CheckpointError: Names that belong to no known part of the model, or two names for one.
    """
    ours: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    problems = []
    for name in names:
        bare = bare_name(name)
        if found := _NOT_NEEDED[text_encoder].match(bare):
            left_out[found[0]] += 1
        elif renamed := _rename(bare):
            ours[name] = renamed
        else:
            problems.append(f"{name} is no parameter of a BiomedParse model")
    twice = [name for name, count in Counter(ours.values()).items() if count > 1]
    problems += [f"{name} is there twice" for name in twice]
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise CheckpointError("; ".join(problems[:SHOWN]) + more)
    return Renaming(ours, dict(left_out))


def rename_biomedparse(
    state: Mapping[str, Tensor], *, text_encoder: str = "causal"
) -> dict[str, Tensor]:
    """A BiomedParse state dict under our names, without what text prompts do not need.

    Args:
        state: Flat, with or without a leading ``model.`` or ``module.``.
        text_encoder: The one of the two that the model calls, "causal" or "bert".

    Raises:
        CheckpointError: Names that belong to no known part of the model, or two names for one.
    """
    ours = renaming(state, text_encoder=text_encoder).ours
    return {ours[name]: _shaped(ours[name], state[name]) for name in ours}


def _shaped(ours: str, value: Tensor) -> Tensor:
    """Linear layers of the image encoder are 1 x 1 convolutions here."""
    is_linear_there = ".trunk." in ours and value.ndim == 2
    return value[:, :, None, None] if is_linear_there else value


def _rename(name: str) -> str | None:
    for pattern, replacement in _RULES:
        ours, hits = re.subn("^" + pattern, replacement, name)
        if hits:
            break
    else:
        return None
    for pattern, replacement in _INNER:
        ours = re.sub(pattern, replacement, ours)
    ours = re.sub(r"trunk\.layers\.(\d+)\.downsample", _shift_downsample, ours)
    ours = re.sub(r"^pixel_decoder\.(adapter|layer)_([123])\.", _pyramid_place, ours)
    ours = re.sub(r"^decoder\.mask_embed\.layers\.(\d)", _mlp_place, ours)
    # Convolution and norm share one module there; here they are two.
    convolution = r"^(pixel_decoder\.(?:coarsest|laterals\.\d|outputs\.\d)\.)weight$"
    return re.sub(convolution, r"\1conv.weight", ours)


def _shift_downsample(match: re.Match[str]) -> str:
    """There a stage ends with its down-sampling, here the next one begins with it."""
    return f"trunk.layers.{int(match[1]) + 1}.downsample"


def _pyramid_place(match: re.Match[str]) -> str:
    """There level 3 is stride 16, here the list starts with stride 16."""
    part = "laterals" if match[1] == "adapter" else "outputs"
    return f"pixel_decoder.{part}.{3 - int(match[2])}."


def _mlp_place(match: re.Match[str]) -> str:
    """Linear layers sit at every other position of a sequence with ReLUs between."""
    return f"decoder.mask_projector.{2 * int(match[1])}"
