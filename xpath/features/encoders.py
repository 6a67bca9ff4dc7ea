"""Patch encoders: images in, feature maps out.

Axes: B patches, D features, H W pixels, h w places of the map.
"""

from __future__ import annotations

import json
import math
import pickle
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
    """SHA-256 of all that decides the features; other weights are other features."""
    dim: int
    """Features D."""

    def maps(self, images: Tensor) -> Tensor:
        """Maps ``(B, D, h, w)`` float32 on the CPU, of RGB images ``(B, 3, H, W)`` uint8."""
        ...


class TimmEncoder:
    """Any image model of timm as a patch encoder.

    Patches are resized to the model's input size (bilinear, antialiased: also where the model was
    trained with another filter, so that all encoders see the same) and normalised as it was
    trained. Convolutional maps are taken as they are; tokens of transformers are put back on their
    grid, prefix tokens left out. Where the weights come from is always said: exactly one of
    ``weights``, ``pretrained`` and ``seed``.

    Args:
        name: timm's name, e.g. ``resnet50.tv_in1k``.
        weights: Local weights, safetensors or a plain state dict; pickled code is never run.
        pretrained: Let timm fetch the weights it has for this name.
        seed: Fresh random weights, for tests.
        device: Where the model runs.
        size: Side of the model's input in pixels, a multiple of its stride; None for the one it
            was trained with, of convolutional models rounded up to such a multiple. Otherwise the
            last places of the map would hang over the edge, and masks would not fit it. Position
            embeddings are interpolated.

    Raises:
        ConfigError: timm has no such model, it does not answer in maps, it cannot take the size, or
            it is not clear where its weights come from.
        CheckpointError: The weights cannot be read, fetched, or do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: Path | None = None,
        pretrained: bool = False,
        seed: int | None = None,
        device: str = "cpu",
        size: int | None = None,
    ) -> None:
        if [weights is not None, pretrained, seed is not None].count(True) != 1:
            raise ConfigError(
                f"say where the weights of {name} come from: weights=, a local file; or"
                " pretrained=True, fetched by timm; or seed=, random ones for tests"
            )
        self.name = name
        self._device = torch.device(device)
        model = _random_model(name, seed) if seed is not None else _trained_model(name, weights)
        settings = _data_settings(model)
        self._size = _input_size(model, name, settings["input_size"], size)
        self._model = model.eval().to(self._device)
        self._mean = torch.tensor(settings["mean"], device=self._device).view(3, 1, 1)
        self._std = torch.tensor(settings["std"], device=self._device).view(3, 1, 1)
        self.dim = self._prepared(size)
        shown = [name, self._size, settings["mean"], settings["std"]]
        self.digest = _digest(model, json.dumps(shown))

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
        return _on_a_grid(self._model, self.name, out).float().cpu()

    def _prepared(self, size: int | None) -> int:
        """Makes the model ready for another input size, tries it, and gives its width D."""
        try:
            if size and hasattr(self._model, "set_input_size"):
                self._model.set_input_size(img_size=(size, size))
            elif size and self._model.pretrained_cfg.get("fixed_input_size"):
                raise ConfigError(f"{self.name} takes images of one size only; leave out size=")
            return self.maps(torch.zeros(1, 3, *self._size, dtype=torch.uint8)).shape[1]
        except (AssertionError, RuntimeError) as error:
            raise ConfigError(f"{self.name} cannot work at {self._size} pixels: {error}") from error


def _on_a_grid(model: Any, name: str, out: Any) -> Tensor:
    """``(B, D, h, w)`` of whatever layout a timm model answers in."""
    if isinstance(out, torch.Tensor) and out.ndim == 3:
        return _tokens_on_a_grid(model, name, out)
    if not isinstance(out, torch.Tensor) or out.ndim != 4:
        raise ConfigError(f"{name} answers {type(out).__name__}, not one map; choose another model")
    width = model.num_features
    last = getattr(model, "output_fmt", None) == "NHWC"
    # Models that do not say: channels last where only the last axis is as long as the model wide.
    last = last or (out.shape[1] != width and out.shape[-1] == width)
    return out.permute(0, 3, 1, 2) if last else out


def _tokens_on_a_grid(model: Any, name: str, out: Tensor) -> Tensor:
    tokens = out[:, getattr(model, "num_prefix_tokens", 0) :]
    count = tokens.shape[1]
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid is None or math.prod(grid) != count:  # merged on the way, or not said
        grid = (math.isqrt(count),) * 2
    if math.prod(grid) != count:
        raise ConfigError(f"{name} answers {count} tokens, no square grid; choose another model")
    return tokens.transpose(1, 2).reshape(len(out), -1, *grid)


def _random_model(name: str, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _new_model(name, pretrained=False)


def _trained_model(name: str, weights: Path | None) -> Any:
    """With local weights, or those that timm fetches."""
    try:
        model = _new_model(name, pretrained=weights is None)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"weights of {name} cannot be fetched: {error}; without a network pass weights="
        ) from error
    if weights is not None:
        _load(model, weights)
    return model


def _new_model(name: str, *, pretrained: bool) -> Any:
    """A model of timm without its classifier."""
    import timm

    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:5])
        raise ConfigError(
            f"timm has no model {name!r}; similar: {close or 'see timm.list_models()'}"
        )
    return timm.create_model(name, pretrained=pretrained, num_classes=0)


def _load(model: Any, path: Path) -> None:
    """Loads local weights; the classifier in them is not needed, all else must fit."""
    from safetensors import SafetensorError
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(path), use_ema=False, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}; wanted safetensors or a plain state dict"
        ) from error
    heads = model.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    unwanted = tuple(f"{head}." for head in heads)
    state = {key: value for key, value in state.items() if not key.startswith(unwanted)}
    wanted = model.state_dict()
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unknown:
        raise CheckpointError(f"{path} does not fit: missing {missing[:3]}, unknown {unknown[:3]}")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:  # other shapes
        raise CheckpointError(f"{path} does not fit: {error}") from error


def _data_settings(model: Any) -> dict[str, Any]:
    from timm.data.config import resolve_model_data_config

    settings: dict[str, Any] = resolve_model_data_config(model)
    return settings


def _input_size(
    model: Any, name: str, trained: tuple[int, int, int], size: int | None
) -> tuple[int, int]:
    """Height and width at which every place of the map is one stride of the image."""
    info = getattr(model, "feature_info", None)
    stride = int(info[-1]["reduction"]) if info else 1
    if size is None:
        step = 1 if model.pretrained_cfg.get("fixed_input_size") else stride
        return -(-trained[1] // step) * step, -(-trained[2] // step) * step
    if size <= 0 or size % stride:
        raise ConfigError(f"size of {name} must be a multiple of its stride {stride}, got {size}")
    return size, size


def _digest(model: Any, settings: str) -> str:
    """Of the weights, bit by bit, and of how images are prepared."""
    digest = sha256(settings.encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
