"""Weights on disk: a folder that says what it is.

``config.json`` (architecture, resolution, licence, labels), ``model.safetensors``,
``tokenizer.json`` and ``README.md`` (the model card). Never a pickle.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from xpath.errors import CheckpointError
from xpath.segment.tokenizer import PromptTokenizer
from xpath.segment.variants import SegmentorConfig, build_segmentor
from xpath.store.schema import atomic, sha256_of

if TYPE_CHECKING:
    from torch import Tensor

    from xpath.segment.model.segmentor import PathSegmentor

__all__ = ["DEFAULT_WEIGHTS", "SegmentorInfo", "load_segmentor", "save_segmentor"]

SCHEMA = "xpath.segmentor/1"
DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "synthetic"
"""The weights that ship with the package."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentorInfo:
    """What must be known to use the weights rightly."""

    name: str
    """Name of the weights, for reports."""
    mpp: float
    """Resolution of the images it was trained on, microns per pixel."""
    image_size: int
    """Side of the images it was trained on, pixels."""
    labels: tuple[str, ...]
    """Labels it was trained on."""
    licence: str
    """Licence of the weights."""
    synthetic_only: bool
    """True if no real tissue was seen in training: such masks are no findings."""
    digest: str = ""
    """SHA-256 over architecture and weights; filled in when loaded."""


def save_segmentor(
    folder: Path,
    model: PathSegmentor,
    config: SegmentorConfig,
    tokenizer: PromptTokenizer,
    info: SegmentorInfo,
    *,
    card: str,
    half: bool = True,
) -> None:
    """Writes a checkpoint folder, all of it or nothing.

    Args:
        folder: Replaced if it exists.
        model: The module.
        config: Numbers the module was built from.
        tokenizer: What turns its prompts into ids.
        info: What users must know.
        card: The model card, Markdown.
        half: Store float16; loading gives float32 again.
    """
    state = {name: _stored(value, half=half) for name, value in model.state_dict().items()}
    about = {key: value for key, value in dataclasses.asdict(info).items() if key != "digest"}
    text = json.dumps(
        {"schema": SCHEMA, "architecture": dataclasses.asdict(config), "info": about}, indent=2
    )
    with atomic(folder) as draft:
        draft.mkdir()
        (draft / "config.json").write_text(text + "\n")
        (draft / "README.md").write_text(card)
        tokenizer.save(draft / "tokenizer.json")
        save_file(state, draft / "model.safetensors")


def _stored(value: Tensor, *, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if half and value.is_floating_point() else value


def load_segmentor(folder: Path) -> tuple[PathSegmentor, PromptTokenizer, SegmentorInfo]:
    """Reads a checkpoint folder; the module is in evaluation mode and float32.

    Raises:
        CheckpointError: A file is missing, unreadable, of another schema, or does not fit.
    """
    config, info = _read_config(folder / "config.json")
    weights = folder / "model.safetensors"
    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{weights} cannot be read: {error}") from error
    model = build_segmentor(config)
    _check_fit(model, state, weights)
    model.load_state_dict({name: value.float() for name, value in state.items()})
    digest = sha256((sha256_of(folder / "config.json") + sha256_of(weights)).encode()).hexdigest()
    info = dataclasses.replace(info, digest=digest)
    return model.eval(), PromptTokenizer.from_file(folder / "tokenizer.json"), info


def _read_config(path: Path) -> tuple[SegmentorConfig, SegmentorInfo]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); a checkpoint is a folder with config.json,"
            " model.safetensors and tokenizer.json"
        ) from error
    if content.get("schema") != SCHEMA:
        raise CheckpointError(f"{path} has schema {content.get('schema')!r}, wanted {SCHEMA!r}")
    try:
        architecture, about = content["architecture"], content["info"]
        architecture["depths"] = tuple(architecture["depths"])
        about["labels"] = tuple(about["labels"])
        return SegmentorConfig(**architecture), SegmentorInfo(**about)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} lacks or has too many settings: {error}") from error


def _check_fit(model: PathSegmentor, state: dict[str, Tensor], path: Path) -> None:
    """Names every difference between the weights and the model."""
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    problems = [f"missing {name}" for name in wanted.keys() - found.keys()]
    problems += [f"unknown {name}" for name in found.keys() - wanted.keys()]
    problems += [
        f"{name} is {found[name]}, wanted {wanted[name]}"
        for name in wanted.keys() & found.keys()
        if wanted[name] != found[name]
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit its config: " + "; ".join(sorted(problems)))
