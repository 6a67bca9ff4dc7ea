"""Checkpoint folders: where they are, what they say of themselves, their tensors. No pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpath.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

__all__ = ["checkpoint_folder", "read_model_config", "read_safetensors"]


def checkpoint_folder(path: str | Path, files: Iterable[str]) -> Path:
    """The folder of a checkpoint. Hub ids are looked up through huggingface_hub.

    Args:
        path: A folder, or a hub id ``owner/name``.
        files: Patterns of all that is ever fetched of a hub repository.

    Raises:
        CheckpointError: There is no such folder, and none that could be fetched.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or str(path).count("/") != 1:
        raise CheckpointError(
            f"{path} is no folder; pass a checkpoint folder or a hub id owner/name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(str(path), allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"{path} is no folder here and could not be fetched from the hub ({error}); without a"
            " network, pass the folder of a checkpoint that was downloaded before"
        ) from error


def read_model_config(folder: Path, schema: str, *, wanted: str) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint, without its schema.

    Args:
        folder: Of the checkpoint.
        schema: Name and version that it must have.
        wanted: What such a folder is, or who writes it, for the message.

    Raises:
        CheckpointError: ``config.json`` is missing, damaged, or of another schema.
    """
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {wanted}") from error
    settings: dict[str, Any] = content if isinstance(content, dict) else {}
    found = settings.pop("schema", None)
    if found != schema:
        raise CheckpointError(f"{path} has schema {found!r}, wanted {schema!r}; {wanted}")
    return settings


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
