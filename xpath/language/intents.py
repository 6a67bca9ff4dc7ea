"""Intent of a text: a report, a request or an open question, and what is worth seeing then."""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from xpath.labels import importance_objects

if TYPE_CHECKING:
    from xpath.labels import Label, LabelTree
    from xpath.language.reading import Case

__all__ = ["Intent", "find_intent", "guess_case", "worth_seeing"]


class Intent(NamedTuple):
    """The intent of an open question."""

    name: str
    objects: tuple[str, ...]
    """``structure:object type``; none for all that a region has."""
    nearest: tuple[str, ...]
    """Where a region has none of the objects."""


def find_intent(text: str) -> tuple[Intent, int, int] | None:
    """The intent of a question and the words that tell it. None if it has none we know."""
    for intent, pattern in _intents():
        match = pattern.search(text)
        if match:
            return intent, match.start(), match.end()
    return None


def worth_seeing(intent: Intent, tree: LabelTree, region: str) -> tuple[Label, ...]:
    """Labels of a region that help with an open question, in the order of the tree."""
    here = tree.children(region)
    if intent.name == "everything":
        return here
    if intent.name == "compare":
        important = tuple(label for label in importance_objects() if label in here)
        if important:
            return important
    for names in (intent.objects, intent.nearest):
        fits = tuple(label for label in here if f"{label.structure}:{label.object_type}" in names)
        if fits:
            return fits
    return ()


def guess_case(text: str) -> Case:
    """Tells an open question, a request for certain objects and a report apart."""
    question = "?" in text
    asking = _REQUEST.search(text)
    if find_intent(text) and (_OPEN.search(text) or (asking and _ALL.search(text))):
        return "exploratory"
    return "targeted" if question or asking else "report"


_OPEN = re.compile(
    r"(?:^|[.!?]\s+)(?:so |and |please )?(?:what|how|why|is|are|has|have|does|do|did|teach|explain"
    r"|describe|list|give|tell|walk|guide|which (?:signs|features|clues|things)"
    r"|(?:can|could) you (?:explain|teach|tell|describe|list)"
    r"|where (?:should|do|can|would) i look|i.m an? \w+: \w+)\b",
    re.IGNORECASE,
)
_ALL = re.compile(r"\b(?:everything|every|all|overview|whatever|anything)\b", re.IGNORECASE)
_REQUEST = re.compile(
    r"\b(?:show|segment|find|mark|outline|highlight|locate|point out|delineate|annotate|detect"
    r"|display|label|identify (?:the|all)|draw|colou?r|contour|where|please|i want|i need"
    r"|i would like|i'd like|look for|give me|list|pick out|select|trace|map"
    r"|i (?:do not|don't) (?:need|want)|everything but|leave out|ignore|omit|minus)\b"
    r"|^\s*(?:all|only|just|every|the)\b[^.\n]*$",
    re.IGNORECASE,
)


@lru_cache(maxsize=1)
def _intents() -> tuple[tuple[Intent, re.Pattern[str]], ...]:
    text = files("xpath.language").joinpath("intents.toml").read_text(encoding="utf-8")
    return tuple(
        (
            Intent(name, tuple(entry["objects"]), tuple(entry.get("nearest", ()))),
            re.compile("|".join(entry["patterns"]), re.IGNORECASE),
        )
        for name, entry in tomllib.loads(text).items()
    )
