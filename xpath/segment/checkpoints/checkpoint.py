"""Weights on disk: a folder that says what it is.

``config.json`` (architecture, resolution, licence, labels), ``model.safetensors``,
``tokenizer.json`` and ``README.md`` (the model card). Never a pickle.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors.torch import save_file

from xpath.errors import CheckpointError, ConfigError
from xpath.labels import PAPER_TEMPLATE
from xpath.segment.model.tokenizer import PromptTokenizer
from xpath.segment.model.variants import SegmentorConfig, empty_segmentor
from xpath.store.checkpoints import checkpoint_folder, read_model_config, read_safetensors
from xpath.store.schema import atomic, sha256_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor

    from xpath.segment.model.segmentor import PathSegmentor

__all__ = [
    "DEFAULT_WEIGHTS",
    "SegmentorInfo",
    "load_fitting",
    "load_segmentor",
    "locate",
    "read_config",
    "read_info",
    "save_segmentor",
    "text_digest",
    "with_tuples",
]

SCHEMA = "xpath.segmentor/1"
DEFAULT_WEIGHTS = Path(__file__).parent.parent / "weights" / "mini"
"""The weights that ship with the package."""
FILES = ("config.json", "model.safetensors", "tokenizer.json", "README.md")
"""All that is ever fetched of a hub repository."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentorInfo:
    """Facts about weights that their users need: resolution, labels, licence."""

    name: str
    """Name of the weights, for reports."""
    mpp: float
    """Resolution of the images it was trained on, microns per pixel."""
    image_size: int
    """Side of the images it was trained on, pixels."""
    labels: tuple[str, ...]
    """Labels it learnt from real images: those it was taught."""
    licence: str
    """Licence of the weights."""
    synthetic_only: bool
    """True if no real tissue was seen in training: such masks are no findings."""
    mpp_range: tuple[float, float] | None = None
    """Finest and coarsest resolution seen in training, microns per pixel; None if only ``mpp``."""
    template: str = PAPER_TEMPLATE
    """Sentence it was trained with, with blanks for structure, object and region: labels are asked
    for in its words."""
    square: bool = False
    """True if it was trained on images enlarged to squares of ``image_size``, whatever their
    resolution, as BiomedParse and the published PathSegmentor are: so it is shown them."""
    drawn: tuple[str, ...] = ()
    """Labels it learnt from drawn tissue only, or from too few real places to find them elsewhere
    (``refusing``). On real tissue its answers to them are guesses."""
    taught: Mapping[str, int] = field(default_factory=dict)
    """Label to the number of real images that showed it; empty if nobody counted."""
    cuts: Mapping[str, float] = field(default_factory=dict)
    """Class, ``structure-object type``, to the probability above which a pixel belongs to it; 0.5
    for all others. Logits are shifted so that 0 is there."""
    digest: str = ""
    """SHA-256 over architecture and weights; filled in when loaded."""

    def on_drawn_tissue(self) -> Self:
        """The same facts for drawn tissue, where also ``drawn`` labels were taught."""
        return dataclasses.replace(self, labels=(*self.labels, *self.drawn), drawn=())

    def refusing(self, refused: Collection[str]) -> Self:
        """The same facts with some labels as good as untaught, and all others as they were taught.

        Args:
            refused: Labels of real images which held-out ones show not to have been learnt.

        Raises:
            ConfigError: One that is no label of these weights.
        """
        every = dict.fromkeys((*self.labels, *self.drawn))
        if unknown := [label for label in refused if label not in every]:
            raise ConfigError(f"{unknown} are no labels of {self.name}; it has {sorted(every)}")
        real = self.taught or dict.fromkeys(self.labels, 1)
        kept = tuple(label for label in every if real.get(label) and label not in refused)
        rest = tuple(label for label in every if label not in kept)
        return dataclasses.replace(self, labels=kept, drawn=rest)


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


def load_segmentor(
    path: str | Path | None = None,
) -> tuple[PathSegmentor, PromptTokenizer, SegmentorInfo]:
    """Reads a checkpoint. The module is in evaluation mode and float32.

    Args:
        path: A folder, a hub id ``owner/name``, or None for the weights that ship.

    Raises:
        CheckpointError: A file is missing, unreadable, of another schema, or does not fit.
    """
    folder = locate(path)
    config, info = read_config(folder)
    weights = folder / "model.safetensors"
    state = read_safetensors(weights)
    model = empty_segmentor(config)
    load_fitting(model, state, weights)
    tokenizer = PromptTokenizer.from_file(folder / "tokenizer.json")
    if tokenizer.vocabulary > config.vocabulary:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'} has {tokenizer.vocabulary} token ids, the model knows"
            f" {config.vocabulary}; take the tokenizer that the weights were trained with"
        )
    return model.eval(), tokenizer, _with_digest(info, folder)


def read_info(folder: Path) -> SegmentorInfo:
    """The facts about the weights of a folder, without building the model.

    Raises:
        CheckpointError: A file is missing, or damaged.
    """
    info = read_config(folder)[1]
    try:
        return _with_digest(info, folder)
    except OSError as error:
        raise CheckpointError(f"the weights in {folder} cannot be read: {error}") from error


def _with_digest(info: SegmentorInfo, folder: Path) -> SegmentorInfo:
    parts = [sha256_of(folder / name) for name in ("config.json", "model.safetensors")]
    return dataclasses.replace(info, digest=sha256("".join(parts).encode()).hexdigest())


def locate(path: str | Path | None) -> Path:
    """The folder of a checkpoint. Hub ids are looked up through huggingface_hub.

    Args:
        path: A folder, a hub id ``owner/name``, or None for the weights that ship.

    Raises:
        CheckpointError: There is no such folder, and none that could be fetched.
    """
    if path is None:
        return DEFAULT_WEIGHTS
    return checkpoint_folder(path, FILES)


def text_digest(model: PathSegmentor, tokenizer: PromptTokenizer) -> str:
    """SHA-256 over all that turns a prompt into features: text encoder and tokenizer.

    Two segmentors with the same digest give the same ``TextFeatures``, so these can be kept on
    disk under it, whatever happens to the rest of the model.
    """
    digest = sha256(tokenizer.to_json().encode())
    for name, value in sorted(model.text_encoder.state_dict().items()):
        flat = value.detach().cpu().contiguous().flatten()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_fitting(model: PathSegmentor, state: Mapping[str, Tensor], path: Path) -> None:
    """Fills a module in place, as float32, if every name and shape fits.

    Args:
        model: The module.
        state: Tensors under the module's names.
        path: Where they come from, for the message.

    Raises:
        CheckpointError: They do not fit; every difference is named.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    problems = [f"missing {name}" for name in wanted.keys() - shapes.keys()]
    problems += [f"unknown {name}" for name in shapes.keys() - wanted.keys()]
    problems += [
        f"{name} is {shapes[name]}, wanted {wanted[name]}"
        for name in wanted.keys() & shapes.keys()
        if wanted[name] != shapes[name]
    ]
    if problems:
        raise CheckpointError(f"{path} does not fit its config: " + "; ".join(sorted(problems)))
    model.load_state_dict({name: value.float() for name, value in state.items()})


def read_config(folder: Path) -> tuple[SegmentorConfig, SegmentorInfo]:
    """Sizes of a checkpoint's model and what is known of it, without its weights.

    Raises:
        CheckpointError: ``config.json`` is missing, unreadable, or of another schema.
    """
    wanted = "a segmentor is a folder with config.json, model.safetensors and tokenizer.json"
    content = read_model_config(folder, SCHEMA, wanted=wanted)
    try:
        return (
            SegmentorConfig(**with_tuples(content["architecture"])),
            SegmentorInfo(**with_tuples(content["info"])),
        )
    except (KeyError, TypeError, ConfigError) as error:
        path = folder / "config.json"
        raise CheckpointError(f"{path} lacks or has too many settings: {error}") from error


def with_tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists only."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
