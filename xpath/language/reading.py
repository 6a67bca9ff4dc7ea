"""A request in words, and a reader's reading of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from xpath.errors import DataError
from xpath.labels import load_labels

if TYPE_CHECKING:
    from xpath.labels import Label

__all__ = ["ASKED", "Case", "Mention", "Reader", "Reading", "Request", "Status"]

Case = Literal["report", "targeted", "exploratory"]
"""A report that names findings, a request for certain objects, or an open question."""
Status = Literal["present", "uncertain", "absent", "historical", "excluded"]
ASKED: tuple[Status, ...] = ("present", "uncertain")
"""Statuses that are segmented."""


@dataclass(frozen=True, slots=True)
class Request:
    """A text and what is known about it.

    Raises:
        DataError: A case that is none.
    """

    text: str
    case: Case | None = None
    """None: the reader decides."""
    region: str | None = None
    """Region of the slide in any spelling; None if it is not known."""

    def __post_init__(self) -> None:
        if self.case is not None and self.case not in get_args(Case):
            raise DataError(f"case must be one of {', '.join(get_args(Case))}, got {self.case!r}")


@dataclass(frozen=True, slots=True)
class Mention:
    """A label with the words that mean it: ``text[start:end]``, empty for an open question."""

    label: Label
    start: int
    end: int
    status: Status


@dataclass(frozen=True, slots=True)
class Reading:
    """Objects of the label tree that a text mentions."""

    mentions: tuple[Mention, ...]
    """In the order of the text."""
    case: Case
    region: str | None
    """Region the text is about; None if neither it nor the request tells."""
    ambiguous: tuple[tuple[Label, ...], ...] = ()
    """Labels that a term may mean equally well, because no region is known; none is asked for."""
    unknown: tuple[str, ...] = ()
    """Words for which the label tree has nothing, and labels that a reader invented."""
    reader: str = ""
    """Who read it."""
    dropped: int = 0
    """Mentions left out because their evidence is not in the text."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """Labels to ask for: present or uncertain, in the order of the published tree."""
        asked = {mention.label for mention in self.mentions if mention.status in ASKED}
        order = {label: number for number, label in enumerate(load_labels())}
        return tuple(sorted(asked, key=lambda label: (order.get(label, len(order)), label.id)))

    @property
    def prompts(self) -> tuple[str, ...]:
        """The sentences of ``labels`` for the segmentor."""
        return tuple(label.prompt for label in self.labels)


class Reader(Protocol):
    """Anything that finds labels in words.

    Labels come from the tree, evidence is verbatim, and the same text gives the same reading.
    """

    def read(self, request: Request) -> Reading:
        """A text and the little that is known about it."""
