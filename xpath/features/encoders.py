"""Patch encoders: images in, feature maps out.

Axes: B patches, D features, H W pixels, h w positions of the map.
"""

from __future__ import annotations

import difflib
import json
import math
import pickle
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn import functional

from xpath.errors import CheckpointError, ConfigError, DataError
from xpath.features.published import PUBLISHED, fetch_weights, trunk_state
from xpath.shapes import check_shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["Precision", "TimmEncoder"]

Precision = Literal["float32", "bfloat16", "float16"]

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
OURS = {
    "checkpoint_path",
    "features_only",
    "in_chans",
    "num_classes",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
}
"""Arguments of ``timm.create_model`` that are not for others to set."""
MISFIT = (
    "the model must be built as the card of its weights says, by kwargs= (objects.encoder_options),"
    " such as init_values=1e-5 where ls1.gamma is unknown"
)


class TimmEncoder:
    """Any image model of timm as a patch encoder.

    Patches are resized to the model's input size (bilinear, antialiased: also where the model was
    trained with another filter, so that all encoders see the same) and normalised as it was
    trained. Convolutional maps are taken as they are; tokens of transformers are put back on their
    grid, prefix tokens left out. Where the weights come from is always given, by exactly one of
    ``weights``, ``pretrained`` and ``seed``.

    Example, once ``hf auth login`` was run and the conditions of the weights were accepted::

        TimmEncoder("hf-hub:MahmoodLab/UNI", pretrained=True,
                    kwargs={"init_values": 1e-5, "dynamic_img_size": True})

    Args:
        name: ``conch``; timm's name, e.g. ``resnet50.tv_in1k``; ``hf-hub:owner/name`` for a model
            on the Hugging Face hub; ``local-dir:folder`` for one that was downloaded from there, a
            folder with ``config.json`` and weights.
        weights: Local weights, safetensors or a plain state dict; pickled code is never run.
        pretrained: Let timm fetch the weights it has for this name, or read those of the folder.
        seed: Fresh random weights, for tests.
        device: Where the model runs.
        size: Side of the model's input in pixels, a multiple of its stride; None for the one it
            was trained with, of convolutional models rounded up to such a multiple. Otherwise the
            last positions of the map would hang over the edge, and masks would not fit it. Position
            embeddings are interpolated.
        kwargs: What else the model is built with, as the card of its weights says. Of
            ``mlp_layer`` and the like the name is enough, ``"SwiGLUPacked"``. ``mean`` and ``std``
            are how images are normalised, where timm's for this name are not those of the weights.
        precision: What the model computes in; maps are float32 in any case.

    Raises:
        ConfigError: timm has no such model, cannot build it so, it does not answer in maps, it
            cannot take the size, or it is not clear where its weights come from.
        CheckpointError: The weights cannot be read, fetched, or do not fit.
    """

    def __init__(  # noqa: PLR0913 - all independent, all but one by name
        self,
        name: str,
        *,
        weights: Path | None = None,
        pretrained: bool = False,
        seed: int | None = None,
        device: str = "cpu",
        size: int | None = None,
        kwargs: Mapping[str, Any] = NO_OPTIONS,
        precision: Precision = "float32",
    ) -> None:
        if precision not in ("float32", "bfloat16", "float16"):
            raise ConfigError(f"precision must be float32, bfloat16 or float16, got {precision!r}")
        if [weights is not None, pretrained, seed is not None].count(True) != 1:
            raise ConfigError(
                f"say where the weights of {name} come from: weights=, a local file; or"
                " pretrained=True, fetched by timm; or seed=, random ones for tests"
            )
        self.name = _without_folder(name)
        self._device, self._precision = torch.device(device), precision
        architecture, options = name, kwargs
        if known := PUBLISHED.get(name):
            architecture, options = known.architecture, {**known.options, **kwargs}
            weights = fetch_weights(known) if pretrained else weights
        model = (
            _trained_model(architecture, options, weights)
            if seed is None
            else _random_model(architecture, options, seed)
        )
        settings = _data_settings(model)
        self._size = _input_size(model, name, settings["input_size"], size)
        self._model = model.eval().to(self._device)
        self._mean = torch.tensor(settings["mean"], device=self._device).view(3, 1, 1)
        self._std = torch.tensor(settings["std"], device=self._device).view(3, 1, 1)
        self.dim = self._prepared(size)
        shown = [_identity(name), self._size, settings["mean"], settings["std"]]
        if kwargs:
            shown.append({"kwargs": dict(kwargs)})
        if precision != "float32":
            shown.append({"precision": precision})
        text = json.dumps(shown, sort_keys=True, default=_shown)
        self.digest = _digest(model, text)

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
        with self._mixed():
            out = self._model.forward_features((x / 255 - self._mean) / self._std)
        return _on_a_grid(self._model, self.name, out).float().cpu()

    def _mixed(self) -> Any:
        """Matrices are multiplied in the precision that was asked for."""
        if self._precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, getattr(torch, self._precision))

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
    if grid is None or math.prod(grid) != count:  # merged on the way, or not given
        grid = (math.isqrt(count),) * 2
    if math.prod(grid) != count:
        raise ConfigError(f"{name} answers {count} tokens, no square grid; choose another model")
    return tokens.transpose(1, 2).reshape(len(out), -1, *grid)


def _shown(layer: Any) -> str:
    """A class by its name, so that it makes no difference which of the two was given."""
    return str(getattr(layer, "__name__", layer))


def _without_folder(name: str) -> str:
    """The name for reports: the path of a folder on this machine means nothing on another."""
    source, colon, folder = name.partition(":")
    return f"{source}:{Path(folder).name}" if colon and source == "local-dir" else name


def _identity(name: str) -> str:
    """The name as far as it decides the features: of a folder its configuration, not its path."""
    source, colon, folder = name.partition(":")
    if not colon or source != "local-dir":
        return name
    return sha256((Path(folder) / "config.json").read_bytes()).hexdigest()


def _random_model(name: str, kwargs: Mapping[str, Any], seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _new_model(name, kwargs, pretrained=False)


def _trained_model(name: str, kwargs: Mapping[str, Any], weights: Path | None) -> Any:
    """With local weights, or those that timm fetches."""
    from safetensors import SafetensorError

    unreadable = (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError)
    try:
        model = _new_model(name, kwargs, pretrained=weights is None)
    except unreadable as error:
        lines = "; ".join(line.strip()[:200] for line in str(error).splitlines())
        raise CheckpointError(f"{name} cannot be had: {lines}; {_remedy(name, error)}") from error
    if weights is not None:
        _load(model, weights)
    return model


def _remedy(name: str, error: BaseException) -> str:
    from huggingface_hub.errors import RepositoryNotFoundError

    if "state_dict" in str(error):
        return MISFIT
    page = name.partition(":")[2].partition("@")[0]
    if page and isinstance(error, RepositoryNotFoundError):  # also of what is gated or private
        return (
            f"if the name is right, accept the conditions on https://huggingface.co/{page} and log"
            " in with `hf auth login` (before huggingface_hub 1: `huggingface-cli login`), or set"
            " HF_TOKEN"
        )
    if name.startswith("local-dir:"):
        return "the folder must hold config.json and the weights, as they lie on the hub"
    return "without a network pass weights=, or a downloaded folder as local-dir:folder"


def check_encoder(name: str) -> None:
    """Refuses names that timm does not know, without building or fetching anything.

    Raises:
        ConfigError: It has no such model, or there is no such folder.
    """
    import timm

    source, elsewhere, folder = name.partition(":")
    if source == "local-dir" and not Path(folder).is_dir():
        raise ConfigError(f"{name}: there is no such folder; pass that of the model's files")
    if not elsewhere and name not in PUBLISHED and not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5)
        hint = f"; did you mean hf-hub:{name}?" if "/" in name else ""
        raise ConfigError(
            f"timm has no model {name!r}; similar:"
            f" {', '.join(close) or 'see timm.list_models()'}{hint}"
        )


def _new_model(name: str, kwargs: Mapping[str, Any], *, pretrained: bool) -> Any:
    """A model of timm without its classifier."""
    import timm

    check_encoder(name)
    elsewhere = ":" in name  # on the hub, or in a folder
    if not elsewhere and not kwargs:
        return timm.create_model(name, pretrained=pretrained, num_classes=0)
    arguments = _arguments(name, kwargs)
    try:
        model: Any = timm.create_model(name, pretrained=pretrained, **arguments)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError):
            raise
        raise ConfigError(
            f"timm cannot build {name} with {dict(kwargs)}: {error!r}; take the arguments from the"
            " card of its weights"
        ) from error
    # Only now: asked for a model without classifier, timm would not mind weights that do not fit.
    model.reset_classifier(0)
    return model


def _arguments(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for timm: layers by name become classes, normalisation goes where it belongs."""
    import timm.layers

    given = {key: value for key, value in kwargs.items() if (key, value) != ("num_classes", 0)}
    if wrong := sorted(OURS & given.keys()):
        raise ConfigError(f"{name}: {', '.join(wrong)} cannot be set; leave it out")
    for key, value in given.items():
        if key.endswith("_layer") and str(value)[:1].isupper():  # "silu" timm knows itself
            layer = getattr(timm.layers, str(value), None) or getattr(torch.nn, str(value), None)
            given[key] = layer or value
    images: dict[str, Any] = {key: tuple(given.pop(key)) for key in ("mean", "std") if key in given}
    if isinstance(side := given.get("img_size"), int):
        images["input_size"] = (3, side, side)
    return given | ({"pretrained_cfg_overlay": images} if images else {})


def _load(model: Any, path: Path) -> None:
    """Loads local weights. The classifier in them is left out, all else must fit."""
    from safetensors import SafetensorError
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(path), use_ema=False, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}; wanted safetensors or a plain state dict"
        ) from error
    state = trunk_state(state)
    heads = model.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    unwanted = tuple(f"{head}." for head in heads)
    state = {key: value for key, value in state.items() if not key.startswith(unwanted)}
    wanted = model.state_dict()
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{path} does not fit: {_some('missing', missing)}, {_some('unknown', unknown)};"
            f" {MISFIT}"
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:  # other shapes
        raise CheckpointError(f"{path} does not fit: {error}; {MISFIT}") from error


def _some(what: str, names: list[str]) -> str:
    """The first names, and how many there are."""
    return f"{len(names)} {what}" + (f" ({', '.join(names[:3])} ...)" if names else "")


def _data_settings(model: Any) -> dict[str, Any]:
    from timm.data.config import resolve_model_data_config

    settings: dict[str, Any] = resolve_model_data_config(model)
    return settings


def _input_size(
    model: Any, name: str, trained: tuple[int, int, int], size: int | None
) -> tuple[int, int]:
    """Height and width at which every position of the map is one stride of the image."""
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
