"""A slide classifier of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from xpath.errors import CheckpointError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.checkpoint import read_kind
from xpath.mil.object_aware import ObjectAwareMIL

__all__ = ["SlideClassifier", "load_classifier"]

SlideClassifier: TypeAlias = AttentionMIL | ObjectAwareMIL
"""What trains, predicts and is explained: logits are a sum over patches."""


def load_classifier(folder: str | Path) -> SlideClassifier:
    """The model of a checkpoint folder, of whatever kind, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: A file is missing or unreadable, of another schema or an unknown kind, or
            the weights do not fit the config.
    """
    kind = read_kind(Path(folder))
    if kind == AttentionMIL.kind:
        return AttentionMIL.from_pretrained(folder)
    if kind == ObjectAwareMIL.kind:
        return ObjectAwareMIL.from_pretrained(folder)
    known = [AttentionMIL.kind, ObjectAwareMIL.kind]
    raise CheckpointError(f"{folder} holds a classifier of kind {kind!r}; known are {known}")
