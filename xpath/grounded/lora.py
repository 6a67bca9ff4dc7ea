"""Which parameters of the grounded model are trained, and low-rank adapters for the rest.

As UniBiomed: image encoders stay as they are, the language model learns through LoRA (Hu et al.
2022), and what joins them learns in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from xpath.errors import MissingDependencyError

if TYPE_CHECKING:
    from torch import Tensor

    from xpath.grounded.model import GroundedModel

__all__ = ["LoraSizes", "add_lora", "merged_state", "trained"]

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ADAPTER, WRAPPED = "default", ".base_layer."
"""How peft calls an adapter, and the layer it wraps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSizes:
    """Low-rank adapters of all matrices of the language model's layers."""

    rank: int = 128
    alpha: int = 256
    """Adapters count ``alpha / rank`` times."""
    dropout: float = 0.05


def add_lora(model: GroundedModel, sizes: LoraSizes) -> None:
    """Puts adapters into the language model, and freezes what is not trained.

    Args:
        model: Changed in place; its answers are the same until a step is made.
        sizes: Of the adapters.

    Raises:
        MissingDependencyError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingDependencyError(
            "adapters need peft: pip install 'xpath-pathology[grounded]'"
        ) from error
    model.requires_grad_(requires_grad=False)
    config = LoraConfig(
        r=sizes.rank,
        lora_alpha=sizes.alpha,
        lora_dropout=sizes.dropout,
        bias="none",
        target_modules=list(TARGETS),
    )
    language = model.internvl.model.language_model
    inject_adapter_in_model(config, language)
    in_full = (
        language.embed_tokens,
        model.internvl.lm_head,
        model.internvl.model.multi_modal_projector,
        model.projection,
        model.sam.prompt_encoder,
        model.sam.mask_decoder,
    )
    for part in in_full:
        part.requires_grad_(requires_grad=True)


def trained(model: GroundedModel) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


@torch.no_grad()
def merged_state(model: GroundedModel) -> dict[str, Tensor]:
    """The state with adapters added to the matrices they belong to. The model stays as it is."""
    layers: dict[str, Any] = dict(model.named_modules())
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        layer, wrapped, parameter = name.partition(WRAPPED)
        if ".lora_" in name:
            continue
        if wrapped and parameter == "weight":
            value = value + layers[layer].get_delta_weight(ADAPTER)
        state[f"{layer}.{parameter}" if wrapped else name] = value
    return state
