"""Slide classifiers on disk: ``config.json``, ``model.safetensors``, ``README.md``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from xpath.errors import CheckpointError
from xpath.mil.attention_mil import AttentionMIL
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

__all__ = ["SlideClassifier", "load_classifier", "save_classifier"]

SCHEMA = "xpath.classifier/1"
KINDS: dict[str, type[AttentionMIL] | type[ObjectAwareMIL]] = {
    AttentionMIL.kind: AttentionMIL,
    ObjectAwareMIL.kind: ObjectAwareMIL,
}


@dataclass(frozen=True, kw_only=True)
class SlideClassifier:
    """A model with everything that must be known to use it."""

    model: AttentionMIL | ObjectAwareMIL
    classes: tuple[str, ...]
    """Class names in the order of the logits."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Encoder, segmentor, patch size in microns, training slides, versions."""


def save_classifier(folder: Path, classifier: SlideClassifier, *, card: str) -> None:
    """Writes a checkpoint folder, all of it or nothing."""
    model = classifier.model
    content = {
        "schema": SCHEMA,
        "kind": model.kind,
        "settings": model.settings,
        "classes": list(classifier.classes),
        "facts": dict(classifier.facts),
    }
    with atomic(folder) as draft:
        draft.mkdir()
        (draft / "config.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        (draft / "README.md").write_text(card)
        state = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(state, draft / "model.safetensors")


def load_classifier(folder: Path) -> SlideClassifier:
    """Reads a checkpoint folder; the model is in evaluation mode.

    Raises:
        CheckpointError: A file is missing, unreadable, of another schema, or does not fit.
    """
    path = folder / "config.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if content.get("schema") != SCHEMA:
            raise CheckpointError(f"{path} has schema {content.get('schema')!r}, wanted {SCHEMA!r}")
        model = KINDS[content["kind"]](**content["settings"])
        state = load_file(folder / "model.safetensors")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is no slide classifier: {error!r}") from error
    check_fit(model, state, folder)
    model.load_state_dict(state)
    classes, facts = tuple(content["classes"]), content["facts"]
    return SlideClassifier(model=model.eval(), classes=classes, facts=facts)


def check_fit(model: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Names every tensor that is missing, unknown or of another shape."""
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if wanted != found:
        names = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
        problems = [f"{name}: wanted {wanted.get(name)}, got {found.get(name)}" for name in names]
        raise CheckpointError(f"{folder} does not fit its config: " + "; ".join(problems))
