"""A slide classifier of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from xpath.errors import CheckpointError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.checkpoint import read_kind
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.mil.pooling_mil import PoolingMIL

__all__ = ["SlideClassifier", "load_classifier"]

SlideClassifier: TypeAlias = AttentionMIL | ObjectAwareMIL | PoolingMIL
"""What trains and predicts."""


def load_classifier(folder: str | Path) -> SlideClassifier:
    """The model of a checkpoint folder, of whatever kind, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: A file is missing or unreadable, of another schema or an unknown kind, or
            the weights do not fit the config.
    """
    kind = read_kind(Path(folder))
    kinds = {model.kind: model for model in (AttentionMIL, ObjectAwareMIL, PoolingMIL)}
    if kind not in kinds:
        raise CheckpointError(
            f"{folder} holds a classifier of kind {kind!r}; known are {list(kinds)}"
        )
    return kinds[kind].from_pretrained(folder)
