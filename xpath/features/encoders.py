"""Patch encoders: images in, feature maps out.

Axes: B patches, D features, H W pixels, h w places of the map.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional

from xpath.errors import CheckpointError, ConfigError, DataError
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = ["PatchEncoder", "TimmEncoder"]


class PatchEncoder(Protocol):
    """Anything that turns patches into feature maps."""

    name: str
    """For reports and file names."""
    digest: str
    """SHA-256 of the weights: features of different weights are different features."""
    dim: int
    """Features D."""

    def maps(self, images: Tensor) -> Tensor:
        """Maps ``(B, D, h, w)`` float32 on the CPU, of RGB images ``(B, 3, H, W)`` uint8."""
        ...


class TimmEncoder:
    """Any image model of timm as a patch encoder.

    Patches are resized to the model's own input size (bilinear, antialiased) and normalised as it
    was trained. Convolutional maps are taken as they are; tokens of transformers are put back on
    their grid, prefix tokens left out.

    Args:
        name: timm's name, e.g. ``resnet50.tv_in1k``.
        weights: Local weights (safetensors or a plain state dict); None to let timm fetch its own.
        random: Fresh weights instead, for tests.
        device: Where the model runs.

    Raises:
        ConfigError: timm has no such model.
        CheckpointError: The weights cannot be read, fetched, or do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: Path | None = None,
        random: bool = False,
        device: str = "cpu",
    ) -> None:
        self.name = name
        self._device = torch.device(device)
        self._model = _timm_model(name, weights, random=random).eval().to(self._device)
        settings = _data_settings(self._model)
        self._size: tuple[int, int] = settings["input_size"][1:]
        self._mean = torch.tensor(settings["mean"], device=self._device).view(3, 1, 1)
        self._std = torch.tensor(settings["std"], device=self._device).view(3, 1, 1)
        self.digest = _digest(self._model)
        self.dim = self.maps(torch.zeros(1, 3, *self._size, dtype=torch.uint8)).shape[1]

    @torch.inference_mode()
    def maps(self, images: Tensor) -> Tensor:
        """Maps ``(B, D, h, w)`` of RGB images ``(B, 3, H, W)`` in 0..255.

        Raises:
            DataError: Not uint8.
        """
        check_shape("images", images, "B 3 H W")
        if images.dtype != torch.uint8:
            raise DataError(f"images must be uint8 in 0..255, got {images.dtype}")
        x = images.to(self._device).float()
        x = functional.interpolate(x, self._size, mode="bilinear", antialias=True)
        out = self._model.forward_features((x / 255 - self._mean) / self._std)
        return _on_a_grid(self._model, out).float().cpu()


def _on_a_grid(model: Any, out: Tensor) -> Tensor:
    """``(B, D, h, w)`` of whatever layout a timm model answers in."""
    if out.ndim == 3:  # tokens
        tokens = out[:, getattr(model, "num_prefix_tokens", 0) :]
        height, width = model.patch_embed.grid_size
        return tokens.transpose(1, 2).unflatten(2, (height, width))
    # Channels last where the last axis is the model's width and the second is not.
    width = model.num_features
    return out.permute(0, 3, 1, 2) if out.shape[1] != width and out.shape[-1] == width else out


def _timm_model(name: str, weights: Path | None, *, random: bool) -> Any:
    import timm

    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:5])
        raise ConfigError(
            f"timm has no model {name!r}; similar: {close or 'see timm.list_models()'}"
        )
    try:
        model = timm.create_model(name, pretrained=weights is None and not random, num_classes=0)
        if weights is not None:
            _load(model, weights)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"weights of {name} are not to be had: {error}; without a network pass a local file"
        ) from error
    return model


def _load(model: Any, path: Path) -> None:
    """Loads local weights; a classifier's head in them is not needed, all else must fit."""
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    heads = ("head.", "fc.", "classifier.")
    state = {key: value for key, value in state.items() if not key.startswith(heads)}
    wanted = {key for key in model.state_dict() if not key.startswith(heads)}
    if state.keys() != wanted:
        missing, unknown = sorted(wanted - state.keys())[:3], sorted(state.keys() - wanted)[:3]
        raise CheckpointError(f"{path} does not fit: missing {missing}, unknown {unknown}")
    model.load_state_dict(state, strict=False)


def _data_settings(model: Any) -> dict[str, Any]:
    import timm

    settings: dict[str, Any] = timm.data.resolve_model_data_config(model)
    return settings


def _digest(model: Any) -> str:
    digest = sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
