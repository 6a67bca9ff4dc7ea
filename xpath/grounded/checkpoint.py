"""Weights of the grounded model on disk, under the published checkpoint's names.

A folder with ``*.safetensors``, the tokenizer's files and the model card, whose licence is shown
when it is loaded. Ours also has ``config.json`` with a schema; without one the sizes are those
of UniBiomed.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors.torch import save_file

from xpath.errors import CheckpointError
from xpath.grounded.config import GroundedConfig, GroundingSizes, LanguageSizes, VisionSizes
from xpath.grounded.model import GroundedModel, empty_grounded
from xpath.grounded.names import renaming, to_ours, to_published
from xpath.grounded.prompts import GroundedTokenizer
from xpath.store.checkpoints import checkpoint_folder, read_safetensors
from xpath.store.schema import atomic, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["GroundedInfo", "LoadedGrounded", "load_fitting", "load_grounded", "save_grounded"]

logger = logging.getLogger(__name__)

SCHEMA = "xpath.grounded/1"
CARD = "README.md"
EMBEDDINGS = "language_model.model.embed_tokens.weight"
FILES = ("*.safetensors", "*.json", "merges.txt", CARD)
"""All that is ever fetched of a hub repository."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundedInfo:
    """Facts about the weights."""

    name: str
    """Name of the weights, for reports."""
    licence: str | None
    """As the model card states it; None if it states none."""
    digest: str = ""
    """SHA-256 over the files of the weights; filled in when loaded."""


class LoadedGrounded(NamedTuple):
    """Weights in a module, with all that belongs to them."""

    model: GroundedModel
    """In evaluation mode, float32, on the CPU."""
    tokenizer: GroundedTokenizer
    info: GroundedInfo


def load_grounded(path: str | Path, config: GroundedConfig | None = None) -> LoadedGrounded:
    """Reads a checkpoint under the published names. What serves video only is left out.

    Args:
        path: A folder, or a hub id ``owner/name``.
        config: Sizes; those in the folder if not given, else those of UniBiomed.

    Raises:
        CheckpointError: A file is missing or unreadable, or the weights do not fit; every
            difference is named.
    """
    folder = checkpoint_folder(path, FILES)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"{folder} holds no *.safetensors; weights in other formats are not read: save them as"
            " safetensors"
        )
    state = {name: value for file in files for name, value in read_safetensors(file).items()}
    tokenizer = GroundedTokenizer.from_folder(folder)
    known, name = _read_config(folder)
    config = config or known or _published_sizes(state)
    if tokenizer.size > config.language.vocabulary:
        raise CheckpointError(
            f"the tokenizer in {folder} has {tokenizer.size} ids, the model knows"
            f" {config.language.vocabulary}; take the tokenizer the weights were trained with"
        )
    model = empty_grounded(config, image_token=tokenizer.context)
    load_fitting(model, state, folder)
    info = GroundedInfo(name=name, licence=_licence(folder), digest=_digest(files))
    logger.warning(
        "%s: licence of these weights, by their model card: %s", name, info.licence or "not stated"
    )
    return LoadedGrounded(model.eval(), tokenizer, info)


def save_grounded(
    folder: Path,
    model_state: Mapping[str, Tensor],
    config: GroundedConfig,
    tokenizer: GroundedTokenizer,
    info: GroundedInfo,
    *,
    card: str = "",
) -> None:
    """Writes a checkpoint folder under the published names, all of it or nothing.

    Args:
        folder: Replaced if it exists.
        model_state: State dict of a ``GroundedModel``; adapters merged.
        config: Sizes.
        tokenizer: Of the weights.
        info: Name and licence.
        card: Text of the model card, Markdown.

    Raises:
        CheckpointError: Names that are none of the model's.
    """
    # cloned, as the point embeddings are views of one tensor, and safetensors wants none
    state = {name: value.cpu().clone() for name, value in to_published(model_state).items()}
    about = {"schema": SCHEMA, "name": info.name, "architecture": dataclasses.asdict(config)}
    front = f"---\nlicense: {info.licence}\n---\n" if info.licence else ""
    with atomic(folder) as draft:
        draft.mkdir()
        (draft / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        text = f"{front}# {info.name}\n\n{card}".rstrip() + "\n"
        (draft / CARD).write_text(text, encoding="utf-8")
        tokenizer.save(draft / "tokenizer.json")
        # Neighbours such as queries, keys and values would share memory, which safetensors refuses.
        save_file(
            {name: value.clone() for name, value in state.items()}, draft / "model.safetensors"
        )


def load_fitting(model: GroundedModel, state: Mapping[str, Tensor], path: Path) -> None:
    """Fills a module, as float32, with tensors under the published names.

    Args:
        model: May be on the meta device.
        state: From a file of the published class.
        path: Where they come from, for the message.

    Raises:
        CheckpointError: They do not fit; every difference is named.
    """
    try:
        left_out = renaming(state).left_out
        ours = to_ours(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    stored = {name: tuple(value.shape) for name, value in ours.items()}
    problems = [f"missing {name}" for name in wanted.keys() - stored.keys()]
    problems += [
        f"{name} is {stored[name]}, wanted {wanted[name]}"
        for name in wanted.keys() & stored.keys()
        if wanted[name] != stored[name]
    ]
    problems += [f"unknown {name}" for name in stored.keys() - wanted.keys()]
    if problems:
        raise CheckpointError(f"{path} does not fit its sizes: " + "; ".join(sorted(problems)))
    if left_out:
        parts = ", ".join(f"{part}* ({count})" for part, count in sorted(left_out.items()))
        logger.info("%s: left out what serves video only: %s", path, parts)
    model.load_state_dict({name: value.float() for name, value in ours.items()}, assign=True)


def _read_config(folder: Path) -> tuple[GroundedConfig | None, str]:
    """Sizes, if the folder is ours, and the name of the weights."""
    path = folder / "config.json"
    if not path.is_file():
        return None, folder.name
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content.get("schema") != SCHEMA:
            return None, str(content.get("_name_or_path") or folder.name)
        sizes = content["architecture"]
        config = GroundedConfig(
            vision=VisionSizes(**sizes["vision"]),
            language=LanguageSizes(**sizes["language"]),
            grounding=GroundingSizes(**_with_tuples(sizes["grounding"])),
        )
        return config, str(content["name"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!r}") from error


def _with_tuples(sizes: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists only."""
    return {name: tuple(it) if isinstance(it, list) else it for name, it in sizes.items()}


def _published_sizes(state: Mapping[str, Tensor]) -> GroundedConfig:
    """Those of UniBiomed, with as many token ids as the file has embeddings of."""
    sizes = GroundedConfig()
    if EMBEDDINGS not in state:
        return sizes
    rows = len(state[EMBEDDINGS])
    return dataclasses.replace(sizes, language=dataclasses.replace(sizes.language, vocabulary=rows))


def _licence(folder: Path) -> str | None:
    """The licence in the front matter of the model card."""
    card = folder / CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    stated = re.search(r"^license(?:_name)?:\s*(.+)$", front[1], re.MULTILINE) if front else None
    return stated[1].strip() if stated else None


def _digest(files: list[Path]) -> str:
    if len(files) == 1:
        return sha256_of(files[0])
    return sha256("".join(map(sha256_of, files)).encode()).hexdigest()
