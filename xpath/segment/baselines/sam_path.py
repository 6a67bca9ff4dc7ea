"""SAM-Path (Zhang et al. 2023): a frozen Segment Anything with a trained prompt per class.

Written from the paper. Tokens of Segment Anything's encoder, before its neck, and of a pathology
encoder, both frozen, are joined; a new neck and the mask decoder learn, one mask token a class.
Axes: B images, K labels, D features, H W pixels, h w places of tokens, S side of the square.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from xpath.errors import ConfigError
from xpath.segment.baselines.class_models import ClassOutput, LossWeights
from xpath.segment.baselines.sam_recipes import DEVIATION, MEAN
from xpath.segment.baselines.sam_weights import load_fitting, load_sam, read_tensors

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import SamModel

__all__ = ["PATHOLOGY", "SamPath", "empty_sam_path", "load_pathology", "start_sam_path"]

PATHOLOGY = "vit_small_patch16_224"
"""timm's name of HIPT's first stage (Chen et al. 2022), which the paper takes."""


class SamPath(nn.Module):
    """Segment Anything for K classes at once.

    Args:
        sam: Its encoder is frozen, its decoder learns on.
        classes: K.
        pathology: A vision transformer of timm whose tokens are joined; None for none.
    """

    loss = LossWeights(pixel=0.25, dice=0.75, iou=0.0625, focus=2.0)
    positions: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, sam: SamModel, classes: int, pathology: nn.Module | None = None) -> None:
        from transformers.models.sam.modeling_sam import SamVisionNeck

        super().__init__()
        whole: Any = sam
        sizes = deepcopy(whole.config.vision_config)
        self._side = int(sizes.image_size)
        self.encoder, self.pathology = whole.vision_encoder, pathology
        self.encoder.neck = nn.Identity()
        for module in filter(None, (self.encoder, self.pathology)):
            module.requires_grad_(requires_grad=False)
        sizes.hidden_size += _width(pathology)
        self.neck = SamVisionNeck(sizes)
        self.decoder = _decoder(whole, classes)
        self.no_mask = nn.Parameter(whole.prompt_encoder.no_mask_embed.weight.detach().clone())
        positions = whole.get_image_wide_positional_embeddings().detach()
        self.register_buffer("positions", positions)
        for name, values in {"mean": MEAN, "deviation": DEVIATION}.items():
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> ClassOutput:
        """Logits ``(B, K, H, W)`` of images ``(B, 3, H, W)`` in 0..255, stretched to the square."""
        square = functional.interpolate(
            images.float(), (self._side, self._side), mode="bilinear", antialias=True
        )
        with torch.no_grad():
            tokens = self._tokens(square)
        maps = self.neck(tokens) + self.no_mask[..., None, None]
        masks, iou = self.decoder(
            image_embeddings=maps,
            image_positional_embeddings=self.positions.expand(len(maps), -1, -1, -1),
            sparse_prompt_embeddings=None,
            dense_prompt_embeddings=torch.zeros_like(maps),
            multimask_output=True,  # all masks but that of the first token
        )
        logits = functional.interpolate(masks[:, 0], images.shape[-2:], mode="bilinear")
        return ClassOutput(logits, iou[:, 0])

    def _tokens(self, square: Tensor) -> Tensor:
        """Tokens of both encoders ``(B, h, w, D)``."""
        tokens: Tensor = self.encoder((square - self.mean) / self.deviation).last_hidden_state
        if self.pathology is None:
            return tokens
        encoder: Any = self.pathology
        joined = encoder.forward_features(square / 127.5 - 1)[:, encoder.num_prefix_tokens :]
        grid = tokens.shape[1:3]
        return torch.cat((tokens, joined.unflatten(1, grid)), dim=-1)


def start_sam_path(
    classes: int, sam: str | Path, pathology: Path | None = None, *, encoder: str = PATHOLOGY
) -> tuple[SamPath, dict[str, Any]]:
    """A model to be trained, and the options ``empty_sam_path`` builds it from again.

    Args:
        classes: K.
        sam: Segment Anything's weights: ``.pth``, folder or hub id.
        pathology: Weights of the pathology encoder, a state dict; None for none.
        encoder: timm's name of it.

    Raises:
        CheckpointError: Weights that cannot be read or do not fit.
        ConfigError: Weights with adapters.
    """
    loaded = load_sam(sam)
    if loaded.adapted:
        raise ConfigError(f"{sam} is SAM-Med2D; SAM-Path starts from Segment Anything itself")
    options = {"sam": loaded.model.config.to_dict(), "pathology": encoder if pathology else None}
    joined = load_pathology(encoder, pathology) if pathology else None
    return SamPath(loaded.model, classes, joined), options


def empty_sam_path(classes: int, *, sam: dict[str, Any], pathology: str | None) -> SamPath:
    """The model of a checkpoint, with random weights."""
    from transformers import SamConfig, SamModel

    joined = _vision_transformer(pathology) if pathology else None
    return SamPath(SamModel(SamConfig(**sam)), classes, joined)


def load_pathology(encoder: str, path: Path) -> nn.Module:
    """A vision transformer with weights as timm or DINO write them.

    DINO's teacher, below ``teacher`` and with ``module.backbone.`` in front of the names, is what
    HIPT publishes; heads are left out.

    Raises:
        CheckpointError: The file cannot be read, or is of another network.
    """
    state = read_tensors(path, "teacher")
    plain = {name.removeprefix("module.").removeprefix("backbone."): v for name, v in state.items()}
    kept = {name: value for name, value in plain.items() if not name.startswith("head.")}
    model = _vision_transformer(encoder)
    load_fitting(model, kept, path, encoder)
    return model


def _vision_transformer(name: str) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, num_classes=0, dynamic_img_size=True)
    return model


def _width(pathology: nn.Module | None) -> int:
    model: Any = pathology
    return int(model.num_features) if model is not None else 0


def _decoder(sam: Any, classes: int) -> nn.Module:
    """Segment Anything's decoder with a token and a copy of its first hypernetwork per class."""
    from transformers.models.sam.modeling_sam import SamMaskDecoder

    config = deepcopy(sam.config.mask_decoder_config)
    config.num_multimask_outputs = classes
    decoder = SamMaskDecoder(config)
    mine, theirs = decoder.state_dict(), sam.mask_decoder.state_dict()
    first = sam.mask_decoder.output_hypernetworks_mlps[0].state_dict()
    fitting = {k: v for k, v in theirs.items() if k in mine and v.shape == mine[k].shape}
    fitting.pop("mask_tokens.weight", None)  # the prompts of the classes start afresh
    for number in range(classes + 1):
        fitting |= {f"output_hypernetworks_mlps.{number}.{k}": v for k, v in first.items()}
    decoder.load_state_dict(fitting, strict=False)
    return decoder
