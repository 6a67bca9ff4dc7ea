"""The objects of a study: labels that are asked for, or taught ones that answer in their place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from xpath.errors import LabelError
from xpath.export.answers import answers_in_words
from xpath.export.overlay import short_name
from xpath.labels import load_labels
from xpath.segment.predict.known_prompts import nearest_labels, untaught

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xpath.labels import Label

__all__ = ["AskedObjects", "asked_objects"]


class AskedObjects(NamedTuple):
    """Labels that are asked for, and those that are segmented for them."""

    asked: tuple[Label, ...]
    """In their order."""
    labels: tuple[Label, ...]
    """The objects: what is segmented, each once, in the order in which it was first asked for."""
    left_out: tuple[Label, ...]
    """Asked for, never learnt, and answered by none."""
    guesses: frozenset[str]
    """Ids of the objects that the weights never learnt."""

    @property
    def guess_names(self) -> tuple[str, ...]:
        """Short names of the guesses, in the order of the objects."""
        return tuple(short_name(label.id) for label in self.labels if label.id in self.guesses)

    @property
    def answers(self) -> dict[str, tuple[str, ...]]:
        """By the id of an object the ids of the labels that it answers for, if there are any."""
        return {label.id: label.answers_for for label in self.labels if label.answers_for}

    def columns(self, label: str) -> dict[str, Any]:
        """Columns of an object in tables: whether it was taught, and ids of what it answers for."""
        asked = self.answers.get(label, ())
        return {"taught": label not in self.guesses, "answers_for": "; ".join(asked)}

    def for_labels(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Ids of the objects that were asked for as one of some labels, each once."""
        return tuple(
            dict.fromkeys(
                label.id
                for one in ids
                for label in self.labels
                if one == label.id or one in label.answers_for
            )
        )

    @property
    def summary(self) -> str:
        """How the labels are answered, in a line. Empty if each is segmented itself."""
        answered = {one for labels in self.answers.values() for one in labels}
        itself = len(self.asked) - len(answered) - len(self.left_out)
        parts = [f"{itself} segmented as asked"] if itself else []
        if answered:
            words = answers_in_words(self.answers)
            parts.append(f"{len(answered)} answered by the nearest taught ({words})")
        if self.left_out:
            names = ", ".join(short_name(label.id) for label in self.left_out)
            parts.append(f"{len(self.left_out)} never learnt and left out ({names})")
        if not (answered or self.left_out):
            return ""
        return f"of {len(self.asked)} labels {', '.join(parts)}"


def asked_objects(
    asked: Sequence[Label], taught: Sequence[str], *, parents: bool, guesses: bool
) -> AskedObjects:
    """The objects that are segmented for labels that are asked for.

    Args:
        asked: Labels, each once. One with words of its own is always asked itself.
        taught: Ids of the labels the weights were trained on; with none, nothing is known, and all
            are asked themselves.
        parents: Let the nearest taught labels answer for one that was not (``nearest_taught``).
        guesses: Ask for a label that nothing answers for. Otherwise it is left out.

    Raises:
        LabelError: A label twice, or one with words of its own that also answers for another.
    """
    _refuse_twice(asked)
    prompts = [label.prompt for label in asked]
    unknown = frozenset(untaught(prompts, taught))
    nearest = nearest_labels(prompts, taught) if parents else ((),) * len(prompts)
    objects: dict[str, Label] = {}
    answers: dict[str, list[str]] = {}
    left_out = []
    for label, near in zip(asked, nearest, strict=True):
        if near and not label.sentence:
            for one in near:
                objects.setdefault(one, load_labels().parse(one, allow_new=True))
                answers.setdefault(one, []).append(label.id)
        elif guesses or label.prompt not in unknown:
            objects.setdefault(label.id, label)
        else:
            left_out.append(label)
    _refuse_own_words(asked, answers)
    labels = (replace(it, answers_for=tuple(answers.get(it.id, ()))) for it in objects.values())
    guessed = frozenset(label.id for label in objects.values() if label.prompt in unknown)
    return AskedObjects(tuple(asked), tuple(labels), tuple(left_out), guessed)


def _refuse_twice(asked: Sequence[Label]) -> None:
    names = [label.id for label in asked]
    if len(set(names)) < len(names):
        raise LabelError(f"objects must name each label once, got {names}")


def _refuse_own_words(asked: Sequence[Label], answers: dict[str, list[str]]) -> None:
    """Refuses two questions under one name."""
    for label in asked:
        if label.sentence and label.id in answers:
            raise LabelError(
                f"{label.id} has words of its own and cannot also answer for"
                f" {', '.join(answers[label.id])}; leave one out, or set objects.parents=false"
            )
