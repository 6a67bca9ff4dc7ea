"""Which organ a passage of a text is about."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from xpath.lexicon import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xpath.lexicon import Term

__all__ = ["RegionMap"]

_ORIGIN_BEFORE = re.compile(
    r"\b(?:metastatic|metastas[ei]s|from|primary)(?: (?:from|of|in))?(?: (?:an?|the|known))?\s*$",
    re.IGNORECASE,
)
_ORIGIN_BEHIND = re.compile(r"\s*(?:primary|origin)\b", re.IGNORECASE)
_SITE_BEFORE = re.compile(
    r"\b(?:in|of|from|within|for|on|to|into)(?: (?:an?|the|this|my|that|your|his|her|our))?"
    r"(?: (?:left|right|normal|human))*\s*$",
    re.IGNORECASE,
)
_LIST = re.compile(r"\s*(?:,|and|or|/|&|,\s*and)\s*(?:the )?", re.IGNORECASE)
_SENTENCE = re.compile(r"[.;?!](?=\s|$)|\n")


class RegionMap:
    """Regions of a text, passage by passage.

    The region of the request counts everywhere. Otherwise a term belongs to the organ that follows
    it ("glands *in the colon*"), else to the one named last before it, else to the first of the
    text. A word that only hints at an organ counts where no organ is named.

    Args:
        text: The text.
        terms: What the lexicon found in it.
        given: The region of the request; one without a name for an organ the labels do not have.
    """

    def __init__(self, text: str, terms: Sequence[Term], given: Region | None = None) -> None:
        self._text = text
        self._given = given
        organs = [(term, term.meaning) for term in terms if isinstance(term.meaning, Region)]
        named = [(term, region) for term, region in organs if not region.sign]
        sites = [pair for pair in named if not self._is_origin(pair[0])]
        self._organs = sites or named or organs
        self._many = len({region.name for _, region in self._organs}) > 1
        self.elsewhere = tuple(
            text[term.start : term.end] for term, region in named if region.name is None
        )
        """Organs of the text that the labels do not have, as written."""
        if given is not None and given.name is not None:
            self.elsewhere = ()

    @property
    def main(self) -> Region | None:
        """The region of the request, else the first of the text. None if none is known."""
        if self._given is not None:
            return self._given
        return self._organs[0][1] if self._organs else None

    def at(self, start: int, end: int) -> tuple[Region, ...]:
        """Regions of the words from ``start`` to ``end``: one, several of a list, or none known."""
        if self._given is not None or not self._many:
            return (self.main,) if self.main else ()
        inside = [region for term, region in self._organs if start <= term.start < end]
        if inside:
            return (inside[0],)
        before = [(term, region) for term, region in self._organs if term.end <= start]
        behind = [(term, region) for term, region in self._organs if term.start >= end]
        if behind and self._is_site(end, behind[0][0].start) and not self._heads(before, start):
            return self._listed(behind)
        return (before[-1] if before else behind[0])[1:]

    def _listed(self, organs: list[tuple[Term, Region]]) -> tuple[Region, ...]:
        """The first organ, and those that follow it in a list ("in colon and breast")."""
        listed = [organs[0][1]]
        for (last, _), (term, region) in pairwise(organs):
            if not _LIST.fullmatch(self._text, last.end, term.start):
                break
            listed.append(region)
        return tuple(listed)

    def _is_origin(self, term: Term) -> bool:
        """True for where a metastasis comes from."""
        return bool(
            _ORIGIN_BEFORE.search(self._text[max(0, term.start - 40) : term.start])
            or _ORIGIN_BEHIND.match(self._text, term.end)
        )

    def _is_site(self, end: int, organ: int) -> bool:
        """True if an organ in the same sentence tells where the words before it are."""
        between = self._text[end:organ]
        return bool(_SITE_BEFORE.search(between)) and not _SENTENCE.search(between)

    def _heads(self, before: list[tuple[Term, Region]], start: int) -> bool:
        """True if the last organ before is the heading of the same sentence ("Colon: ...")."""
        if not before:
            return False
        between = self._text[before[-1][0].end : start]
        return ":" in between and not _SENTENCE.search(between)
