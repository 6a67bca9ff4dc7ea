"""Where a training starts: sizes, tokenizer and name, kept so that it can go on elsewhere."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.errors import CheckpointError
from xpath.segment.checkpoints.checkpoint import with_tuples
from xpath.segment.model.tokenizer import PromptTokenizer
from xpath.segment.model.variants import SegmentorConfig
from xpath.segment.training.options import architecture, name_of
from xpath.segment.training.run import STATE
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Start"]

FILE = "model.json"


class Start(NamedTuple):
    """Everything a training needs beside its state and its images."""

    config: SegmentorConfig
    tokenizer: PromptTokenizer
    name: str
    """Of the weights to come."""
    fresh: bool
    """Whether nothing was trained yet."""

    @classmethod
    def of(cls, folder: Path, model: str, init: Path | None, changes: Mapping[str, Any]) -> Start:
        """That of the training in a folder, or of a new one, which is then kept there.

        Args:
            folder: Of the training.
            model: One of ``options.MODELS``.
            init: Checkpoint that a new one starts from; looked at only by that.
            changes: Fields of ``SegmentorConfig`` that are to be others.

        Raises:
            ConfigError: No such model, or no such field.
            CheckpointError: The checkpoint, or what was kept, cannot be read.
        """
        if (folder / STATE).exists():
            return _kept(folder)
        config, tokenizer = architecture(model, init, changes)
        start = cls(config, tokenizer, name_of(model, init), fresh=True)
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(folder / "tokenizer.json")
        about = {"name": start.name, "architecture": dataclasses.asdict(config)}
        with atomic(folder / FILE) as draft:
            draft.write_text(json.dumps(about, indent=1) + "\n")
        return start


def _kept(folder: Path) -> Start:
    path = folder / FILE
    try:
        about: dict[str, Any] = json.loads(path.read_text())
        config = SegmentorConfig(**with_tuples(about["architecture"]))
        tokenizer = PromptTokenizer.from_file(folder / "tokenizer.json")
        return Start(config, tokenizer, str(about["name"]), fresh=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); copy it from where the training began"
        ) from error
