"""Published weights for the image encoder, to start a training from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from xpath.errors import CheckpointError, ConfigError
from xpath.segment.model.timm_image_encoder import TimmImageEncoder
from xpath.store.checkpoints import read_safetensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor

    from xpath.segment.model.segmentor import PathSegmentor

__all__ = ["load_encoder", "pretrain"]


def pretrain(model: PathSegmentor, path: Path, batches: Iterable[Tensor]) -> None:
    """Gives a segmentor the image encoder of a classifier, adapted to the colours of tissue.

    Args:
        model: One with a timm encoder; changed in place.
        path: Weights, see ``load_encoder``.
        batches: RGB images ``(B, 3, H, W)`` in 0..255 like those to come.

    Raises:
        ConfigError: The model's encoder is not one of timm's.
        CheckpointError: The file cannot be read, or is of another network.
    """
    encoder = model.image_encoder
    if not isinstance(encoder, TimmImageEncoder):
        raise ConfigError(
            "pretrained encoder weights fit models with an encoder of timm, such as mini; this"
            " one's is FocalNet, whose weights come with a whole checkpoint (--init)"
        )
    load_encoder(encoder, path)
    encoder.measure(model.normalise(images) for images in batches)


def load_encoder(encoder: TimmImageEncoder, path: Path) -> None:
    """Fills a timm encoder with the weights of an image classifier.

    Files of other libraries have other names for the same tensors. EfficientNet-PyTorch, for one,
    lists the tensors of EfficientNet and its Lite kin in timm's order; so where no name is known,
    tensors are taken in order, provided that every shape agrees.

    Args:
        encoder: Filled in place, all of it but the norms on its maps.
        path: ``.safetensors``, or a state dict saved by ``torch.save``.

    Raises:
        CheckpointError: The file cannot be read, or is of another network.
    """
    tensors = _without_counters(_read(path))
    wanted = _without_counters(encoder.trunk.state_dict())
    if not wanted.keys() <= tensors.keys():
        tensors = dict(zip(wanted, tensors.values(), strict=False))
    differences = [
        f"{name} is {tuple(tensors[name].shape)}, wanted {tuple(value.shape)}"
        if name in tensors
        else f"missing {name}"
        for name, value in wanted.items()
        if name not in tensors or tensors[name].shape != value.shape
    ]
    if differences:
        raise CheckpointError(
            f"{path} is of another network, {len(differences)} of {len(wanted)} tensors differ: "
            + "; ".join(differences[:3])
        )
    encoder.trunk.load_state_dict({name: tensors[name] for name in wanted}, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    except Exception as error:  # torch.load raises whatever a damaged file leads to
        raise CheckpointError(
            f"{path} cannot be read: {error}; wanted .safetensors or a state dict of torch.save"
        ) from error


def _without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without what batch norms count, which no weight depends on."""
    return {name: value for name, value in state.items() if "num_batches" not in name}
