"""Slide classifiers on disk, each a folder that describes itself.

``config.json`` (schema, type of model, numbers, names of classes and objects, metadata),
``model.safetensors`` and ``README.md`` (the model card). Never a pickle.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import nn

from xpath.errors import CheckpointError
from xpath.store.checkpoints import read_model_config, read_safetensors
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["Pretrained", "read_model_type"]

SCHEMA = "xpath.classifier/1"
FILES = frozenset({"config.json", "model.safetensors", "README.md"})


class Pretrained(nn.Module):
    """A module that can be saved and loaded.

    A sub-class keeps what it was built from as ``config``, a frozen dataclass whose fields are the
    arguments of its constructor, ``classes`` among them.
    """

    model_type: ClassVar[str]
    """Name of the architecture in ``config.json``."""
    config: Any
    """The numbers it was built from."""
    metadata: dict[str, Any]
    """All that a user of it must know, anything JSON can hold: digests of encoder and segmentor,
    side of a patch in microns, slides it was trained on. Saved and loaded with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.metadata = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the logits."""
        return tuple(self.config.classes)

    def save_pretrained(self, folder: str | Path, card: str | None = None) -> None:
        """Writes the checkpoint folder, all of it or nothing.

        Args:
            folder: Made; replaced if it holds a slide classifier already.
            card: Text of the model card, Markdown; by default a short one from the config.

        Raises:
            CheckpointError: The folder holds other files, or the metadata is not JSON.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        _refuse_other_files(folder)
        config = {
            "schema": SCHEMA,
            "kind": self.model_type,
            "config": dataclasses.asdict(self.config),
            "metadata": self.metadata,
        }
        try:
            text = json.dumps(config, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"metadata must be plain JSON values: {error}") from error
        state = {name: value.cpu().contiguous() for name, value in self.state_dict().items()}
        with atomic(folder) as draft:
            draft.mkdir()
            (draft / "config.json").write_text(text + "\n", encoding="utf-8")
            (draft / "README.md").write_text(card or self._card(), encoding="utf-8")
            save_file(state, draft / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The model of a checkpoint folder, in evaluation mode, on the CPU.

        Raises:
            CheckpointError: A file is missing or unreadable, of another schema or type, or the
                weights do not fit the config; every tensor that does not fit is named.
        """
        folder = Path(folder)
        content = _read_config(folder)
        if content["kind"] != cls.model_type:
            raise CheckpointError(
                f"{folder} holds a classifier of type {content['kind']!r}, not {cls.model_type!r};"
                " xpath.mil.classifier.load_classifier reads any type"
            )
        try:
            model = cls(**content["config"])
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / 'config.json'} cannot be used: {error}") from error
        weights = folder / "model.safetensors"
        state = read_safetensors(weights)
        _check_fit(model, state, weights)
        model.load_state_dict(state, assign=True)  # assign: keep the stored precision
        model.metadata = content["metadata"]
        return model.eval()

    def _card(self) -> str:
        config = dataclasses.asdict(self.config)
        lines = [f"# Slide classifier ({self.model_type})", ""]
        about = {key: value for key, value in self.metadata.items() if key != "baseline"}
        lines += [f"* {key}: {value}" for key, value in {**config, **about}.items()]
        return "\n".join([*lines, "", "For research; not for diagnosis.", ""])


def read_model_type(folder: Path) -> str:
    """Type of the classifier in a checkpoint folder.

    Raises:
        CheckpointError: There is no config, or it is of another schema.
    """
    return str(_read_config(folder)["kind"])


def _read_config(folder: Path) -> dict[str, Any]:
    """Type, config and metadata."""
    wanted = "a slide classifier is a folder with config.json and model.safetensors"
    content = read_model_config(folder, SCHEMA, wanted=wanted)
    try:
        return {key: content[key] for key in ("kind", "config", "metadata")}
    except KeyError as error:
        raise CheckpointError(f"{folder / 'config.json'} lacks {error}; {wanted}") from error


def _refuse_other_files(folder: Path) -> None:
    """Refuses to replace a folder that holds anything but a slide classifier."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    config = folder / "config.json"
    ours = config.is_file() and SCHEMA in config.read_text(encoding="utf-8", errors="replace")
    others = {entry.name for entry in folder.iterdir()} - FILES if ours else {folder.name}
    if others:
        raise CheckpointError(
            f"{folder} would be replaced, but {sorted(others)[:5]} is no part of a slide"
            " classifier; choose another folder, or remove it first"
        )


def _check_fit(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Names every tensor that is missing, unknown, of another shape, or no number."""
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    problems = [f"missing {name}" for name in wanted.keys() - given.keys()]
    problems += [f"unknown {name}" for name in given.keys() - wanted.keys()]
    for name in wanted.keys() & given.keys():
        if wanted[name] != given[name]:
            problems.append(f"{name} is {given[name]}, wanted {wanted[name]}")
        elif not state[name].is_floating_point() or not torch.isfinite(state[name]).all():
            problems.append(f"{name} holds values that are no finite floating numbers")
    if problems:
        raise CheckpointError(f"{path} does not fit its config: " + "; ".join(sorted(problems)))
