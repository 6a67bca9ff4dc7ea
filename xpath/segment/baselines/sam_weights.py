"""Weights of the Segment Anything family, in its own files or in transformers' layout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from xpath.errors import CheckpointError
from xpath.segment.baselines.sam_names import has_adapters, is_original, rename_sam

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import SamModel

__all__ = [
    "Adapter",
    "LoadedSam",
    "add_adapters",
    "config_of",
    "load_fitting",
    "load_sam",
    "read_tensors",
]

PATCH = 16
"""Pixels of a token's side, in every published size."""
WINDOW = 14
"""Tokens of an attention window's side, likewise."""


class LoadedSam(NamedTuple):
    """A model of the family."""

    model: SamModel
    adapted: bool
    """Whether it has SAM-Med2D's adapters."""


def load_sam(path: str | Path) -> LoadedSam:
    """Reads a published ``.pth``, or a folder or hub id in transformers' layout.

    ViT-B, L and H are told by the shapes of a file.

    Raises:
        CheckpointError: Neither, or weights that do not fit. Differences are named.
    """
    from transformers import SamModel

    file = Path(path)
    if file.is_file():
        return _from_file(file)
    try:
        return LoadedSam(SamModel.from_pretrained(str(path)), adapted=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is neither a file of weights nor a SamModel that can be fetched: {error}"
        ) from error


def read_tensors(path: Path, *keys: str) -> dict[str, Tensor]:
    """A state dict from a file, also from below its key ``model``, ``state_dict`` or another.

    Raises:
        CheckpointError: The file is damaged, or holds something else.
    """
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever a damaged file leads to
        raise CheckpointError(f"{path} cannot be read as a file of tensors: {error}") from error
    for key in ("model", "state_dict", *keys):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    tensors = isinstance(state, dict) and all(torch.is_tensor(value) for value in state.values())
    if not tensors:
        raise CheckpointError(f"{path} holds no state dict but {type(state).__name__}")
    return dict(state)


def load_fitting(model: nn.Module, state: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Fills a model, if every name and shape fits.

    Args:
        model: Filled in place.
        state: Tensors under its names.
        path: Where they come from, for the message.
        what: What was wanted of the file, for the message.

    Raises:
        CheckpointError: They do not fit. The first differences are named.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    differing = sorted(
        f"{name} is {given.get(name, 'missing')}, wanted {wanted.get(name, 'no such')}"
        for name in wanted.keys() | given.keys()
        if wanted.get(name) != given.get(name)
    )
    if differing:
        raise CheckpointError(
            f"{path} is no {what}: {'; '.join(differing[:5])} ({len(differing)} differences)"
        )
    model.load_state_dict(dict(state), assign=True)


def _from_file(path: Path) -> LoadedSam:
    from transformers import SamModel

    state = read_tensors(path)
    adapted = has_adapters(state)
    if is_original(state):
        state = rename_sam(state)
    try:
        config = config_of(state)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{path} is no Segment Anything: a tensor is missing or misshapen ({error})"
        ) from error
    with torch.device("meta"):
        model = SamModel(config)
        if adapted:
            add_adapters(model)
    load_fitting(model, {k: v.float() for k, v in state.items()}, path, "Segment Anything")
    return LoadedSam(model, adapted)


def config_of(state: Mapping[str, Tensor]) -> Any:
    """Sizes of a model as its tensors show them. The decoder has 8 heads in every size."""
    from transformers import SamConfig

    _, grid, _, hidden = state["vision_encoder.pos_embed"].shape
    first = "vision_encoder.layers.0"
    mlp = f"{first}.mlp.mlp" if f"{first}.mlp.mlp.lin1.weight" in state else f"{first}.mlp"
    layers = _count(state, r"vision_encoder\.layers\.(\d+)\.")
    spans = [len(state[f"vision_encoder.layers.{n}.attn.rel_pos_h"]) for n in range(layers)]
    channels = state["vision_encoder.neck.conv1.weight"].shape[0]
    decoder = "mask_decoder.transformer.layers"
    return SamConfig(
        vision_config={
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": hidden // state[f"{first}.attn.rel_pos_h"].shape[1],
            "mlp_dim": state[f"{mlp}.lin1.weight"].shape[0],
            "image_size": grid * PATCH,
            "patch_size": PATCH,
            "window_size": WINDOW,
            "output_channels": channels,
            "num_pos_feats": channels // 2,
            "global_attn_indexes": [n for n, span in enumerate(spans) if span != 2 * WINDOW - 1],
        },
        prompt_encoder_config={
            "hidden_size": channels,
            "image_size": grid * PATCH,
            "patch_size": PATCH,
            "image_embedding_size": grid,
        },
        mask_decoder_config={
            "hidden_size": channels,
            "num_hidden_layers": _count(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
            "num_attention_heads": 8,
            "mlp_dim": state[f"{decoder}.0.mlp.lin1.weight"].shape[0],
            "iou_head_hidden_dim": len(state["mask_decoder.iou_prediction_head.proj_in.weight"]),
        },
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbered modules there are."""
    matches = filter(None, (re.match(pattern, name) for name in state))
    return 1 + max(int(match.group(1)) for match in matches)


class Adapter(nn.Module):
    """SAM-Med2D's adapter: channels gated by their mean, then a small convolutional hourglass.

    Args:
        width: Features of a token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = width // 4
        self.channel = nn.Sequential(
            nn.Linear(width, narrow, bias=False),
            nn.ReLU(),
            nn.Linear(narrow, width, bias=False),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, bias=False),
            nn.ReLU(),
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``(B, h, w, C)``, h and w even, to as many."""
        gated = tokens * self.channel(tokens.mean(dim=(1, 2)))[:, None, None]
        maps = self.spatial(gated.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        adapted: Tensor = self.norm(tokens + maps)
        return adapted


class _AdaptedMLP(nn.Module):
    """An MLP with an adapter beside it, both on the same normalised tokens."""

    def __init__(self, mlp: nn.Module, width: int) -> None:
        super().__init__()
        self.mlp, self.adapter = mlp, Adapter(width)

    def forward(self, tokens: Tensor) -> Tensor:
        both: Tensor = self.mlp(tokens) + self.adapter(tokens)
        return both


def add_adapters(model: SamModel) -> None:
    """Gives every layer of the image encoder an adapter of SAM-Med2D, untrained."""
    encoder: Any = model.vision_encoder
    for layer in encoder.layers:
        layer.mlp = _AdaptedMLP(layer.mlp, encoder.config.hidden_size)
