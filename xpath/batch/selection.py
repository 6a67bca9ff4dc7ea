"""Which slides of a run a process works on."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from xpath.batch.attempts import has_attempts
from xpath.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xpath.batch.ledger import Ledger
    from xpath.batch.slides import SlideEntry

__all__ = ["Selection", "Shard"]


class Shard(NamedTuple):
    """One of several shares of the slides."""

    number: int = 0
    """From 0."""
    shares: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """A choice among the slides of a run, all by default."""

    only: tuple[str, ...] = ()
    """Names, in which ``*`` and ``?`` stand for anything. Empty for all."""
    shard: Shard = field(default_factory=Shard)
    failed: bool = False
    """Only slides that failed in the stage, or whose process ended in the middle."""

    @property
    def is_part(self) -> bool:
        """True if it may leave out slides."""
        return self != Selection()

    def of(self, slides: Sequence[SlideEntry], stage: str, ledger: Ledger) -> Sequence[SlideEntry]:
        """The chosen slides, in their order.

        Raises:
            DataError: A name that none of the slides has.
        """
        for name in self.only:
            if not any(fnmatchcase(slide.slide_id, name) for slide in slides):
                raise DataError(
                    f"none of the {len(slides)} slides of {stage} is named {name!r}; they are named"
                    f" like {[slide.slide_id for slide in slides[:3]]}"
                )
        return [
            slide
            for index, slide in enumerate(slides)
            if index % self.shard.shares == self.shard.number
            and (not self.only or any(fnmatchcase(slide.slide_id, name) for name in self.only))
            and (not self.failed or _failed(slide.slide_id, stage, ledger))
        ]


def _failed(slide_id: str, stage: str, ledger: Ledger) -> bool:
    return ledger.entry(slide_id, stage).failed or has_attempts(ledger.folder(slide_id))
