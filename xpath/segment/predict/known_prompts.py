"""Which prompts are published labels, and which the weights were taught.

Any words may be asked for. An answer to words that were never taught is a guess, so it is marked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from xpath.errors import LabelError
from xpath.labels import PAPER_TEMPLATE, Label, load_labels
from xpath.pathseg.parents import nearest_taught
from xpath.pathseg.sentences import template_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "UNTAUGHT",
    "in_template",
    "nearest_labels",
    "published",
    "taught_labels",
    "untaught",
]

UNTAUGHT = "untaught"
"""Name of all labels the weights never learnt, where a calibration keeps one."""


def published(prompts: Sequence[str]) -> tuple[bool, ...]:
    """For each prompt: is it the sentence of one of the 160 labels of PathSeg?"""
    known = _published()
    return tuple(_plain(prompt) in known for prompt in prompts)


def untaught(prompts: Iterable[str], labels: Iterable[str]) -> tuple[str, ...]:
    """Prompts that are the sentence of none of these labels, each once.

    Args:
        prompts: Sentences.
        labels: Label ids the weights were trained on; with none, nothing is known and nothing
            returned.
    """
    taught = {_sentence(label) for label in labels}
    return tuple(p for p in dict.fromkeys(prompts) if _plain(p) not in taught) if taught else ()


def taught_labels(prompts: Sequence[str], labels: Iterable[str]) -> tuple[str, ...]:
    """For each prompt the label id it is the sentence of, or ``UNTAUGHT``.

    Args:
        prompts: Sentences.
        labels: Label ids the weights were trained on; with none, nothing is known and the prompts
            are returned.
    """
    ids = {_sentence(label): label for label in labels}
    return tuple(ids.get(_plain(prompt), UNTAUGHT) for prompt in prompts) if ids else tuple(prompts)


def nearest_labels(prompts: Sequence[str], labels: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """For each prompt the taught labels that answer in its place (``nearest_taught``).

    Empty where the prompt was taught, is no label's sentence, or has no taught parent.

    Args:
        prompts: Sentences.
        labels: Label ids the weights were trained on.
    """
    taught = frozenset(labels)
    asked = (template_label(prompt) for prompt in prompts)
    found = (nearest_taught(label, taught) if label else () for label in asked)
    return tuple(
        () if own != UNTAUGHT else near
        for own, near in zip(taught_labels(prompts, taught), found, strict=True)
    )


def in_template(prompt: str, template: str) -> str:
    """A label's sentence of the paper in another template. Any other words as they are.

    Args:
        prompt: A sentence.
        template: With blanks for structure, object and region.
    """
    if template == PAPER_TEMPLATE:
        return prompt
    label = template_label(prompt)
    if label is None:
        return prompt
    region, structure, object_type = label.split("-", 2)
    return Label(region, structure, object_type).said(template)


@lru_cache(maxsize=1)
def _published() -> frozenset[str]:
    return frozenset(_plain(label.prompt) for label in load_labels())


@lru_cache(maxsize=1024)
def _sentence(label: str) -> str:
    """The prompt of a label. Weights from elsewhere may name theirs as they like."""
    try:
        return _plain(load_labels().parse(label, allow_new=True).prompt)
    except LabelError:
        return _plain(label)


def _plain(prompt: str) -> str:
    """Without the differences a tokenizer does not see."""
    return " ".join(prompt.lower().split())
