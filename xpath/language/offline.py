"""The default reader: a lexicon, the longest match, and scopes of negation and doubt.

Needs no network and no model, and says the same every time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from xpath.labels import load_labels
from xpath.language.intents import find_intent, guess_case, worth_seeing
from xpath.language.leftovers import leftovers
from xpath.language.reading import ASKED, Mention, Reading
from xpath.language.regions import RegionMap
from xpath.language.scopes import scopes, status
from xpath.lexicon import Concept, Region, load_lexicon

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xpath.labels import Label, LabelTree
    from xpath.language.reading import Case, Request
    from xpath.lexicon import Term

__all__ = ["OfflineReader"]


class OfflineReader:
    """Finds labels by the terms of the lexicon.

    Args:
        tree: Labels to find; by default the 160 published ones.
    """

    name = "offline"

    def __init__(self, tree: LabelTree | None = None) -> None:
        self.tree = tree or load_labels()

    def read(self, request: Request) -> Reading:
        """Labels, spans and statuses of a text."""
        text = request.text
        case = request.case or guess_case(text)
        page = _Page(text, case, self.tree, _region(request.region, self.tree))
        page.add_exact_labels()
        page.add_terms()
        if case == "exploratory" or (case == "targeted" and not page.asks):
            page.add_intent()
        return Reading(
            mentions=tuple(sorted(page.mentions, key=lambda mention: mention.start)),
            case=case,
            region=page.regions.main.name if page.regions.main else None,
            ambiguous=tuple(dict.fromkeys(page.ambiguous)),
            unknown=tuple(dict.fromkeys((*page.regions.elsewhere, *page.unknown, *page.rest()))),
            reader=self.name,
        )


class _Page:
    """A text and what has been read of it so far."""

    def __init__(self, text: str, case: Case, tree: LabelTree, given: Region | None) -> None:
        self.mentions: list[Mention] = []
        self.ambiguous: list[tuple[Label, ...]] = []
        self.unknown: list[str] = []
        self._understood = case == "report"
        self._text = text
        self._case = case
        self._tree = tree
        self._exact = list(_exact_labels(text, tree))
        self._terms = [
            term
            for term in load_lexicon().terms(text)
            if not any(start <= term.start < end for _, start, end in self._exact)
        ]
        self._scopes = scopes(text, request=case != "report")
        self.regions = RegionMap(text, self._terms, given)

    @property
    def asks(self) -> bool:
        """True if a term was understood that is not only refused."""
        asked = any(mention.status in ASKED for mention in self.mentions)
        return bool(asked or self.ambiguous or self.unknown)

    def rest(self) -> list[str]:
        """Words of a request that mean nothing we know. None of an open question with an intent."""
        known = [
            (term.start, term.end)
            for term in self._terms
            if isinstance(term.meaning, Region) or term.meaning.objects
        ]
        known += [(start, end) for _, start, end in self._exact]
        return [] if self._understood else leftovers(self._text, known)

    def add_exact_labels(self) -> None:
        """Adds ids and prompts that stand in the text."""
        for label, start, end in self._exact:
            found = status(self._scopes, start, end)
            self.mentions.append(Mention(label, start, end, found))

    def add_terms(self) -> None:
        """Adds all terms of objects, each in its regions."""
        for term, concept, structures in _concepts(self._text, self._terms):
            if not (concept.in_reports if self._case == "report" else concept.objects):
                continue
            for region in self.regions.at(term.start, term.end) or (None,):
                if region is None or region.name is not None:
                    name = region.name if region else None
                    self._add_term(term, self._tree.named(concept, name, structures))

    def _add_term(self, term: Term, labels: tuple[Label, ...]) -> None:
        """Adds a term: one without a label is unknown, one with several is ambiguous."""
        found = status(self._scopes, term.start, term.end)
        if len(labels) == 1:
            self.mentions.append(Mention(labels[0], term.start, term.end, found))
        elif labels and found in ASKED:
            self.ambiguous.append(labels)
        elif found in ASKED:
            self.unknown.append(self._text[term.start : term.end])

    def add_intent(self) -> None:
        """Replaces what an open question names by what is worth seeing, but for what it refuses."""
        known = find_intent(self._text)
        region = self.regions.main or Region("unspecified")
        if known is None or region.name not in self._tree.regions:
            return
        intent, start, end = known
        refused = [mention for mention in self.mentions if mention.status not in ASKED]
        seen = worth_seeing(intent, self._tree, region.name)
        wanted = [label for label in seen if label not in {mention.label for mention in refused}]
        self.mentions = refused + [Mention(label, start, end, "present") for label in wanted]
        self.ambiguous.clear()
        self.unknown.clear()
        self._understood = True


def _region(name: str | None, tree: LabelTree) -> Region | None:
    """The region of a request. For an organ without labels one without a name."""
    if name is None:
        return None
    known = name.lower() in tree.regions
    return Region(name.lower() if known else load_lexicon().whole(name)[1])


def _exact_labels(text: str, tree: LabelTree) -> Iterator[tuple[Label, int, int]]:
    """Ids and prompts of the tree that stand in a text."""
    spaced = text.replace("_", " ")
    if not _EXACT.search(spaced):
        return
    names = {label.id: label for label in tree} | {label.prompt[:-1]: label for label in tree}
    longest_first = sorted(names, key=len, reverse=True)
    pattern = "|".join(re.escape(name) for name in longest_first)
    for match in re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)\.?", spaced, re.IGNORECASE):
        yield names[match[0].lower().rstrip(".")], match.start(), match.end()


_EXACT = re.compile(r"-(?:tissue|cell|nuclei)-|-level ", re.IGNORECASE)


def _concepts(text: str, terms: Sequence[Term]) -> list[tuple[Term, Concept, tuple[str, ...]]]:
    """Terms of objects with the structures asked for. "tumor and stromal nuclei" asks for two."""
    shared: list[tuple[Term, Concept, tuple[str, ...]]] = []
    structures: tuple[str, ...] = ()
    start = -1
    for term in reversed(terms):
        if not isinstance(term.meaning, Concept):
            continue
        joined = start >= 0 and _JOINED.fullmatch(text, term.end, start)
        adjective = _ADJECTIVE.search(text, term.start, term.end)
        own = term.structures or (structures if joined and adjective else ())
        shared.append((term, term.meaning, own))
        single = _SINGLE.search(text, term.start, term.end)
        structures, start = (("nuclei", "cell") if single else own), term.start
    return shared[::-1]


_SINGLE = re.compile(r"\b(?:cells?|nucle(?:i|us))$", re.IGNORECASE)
_JOINED = re.compile(r"\s*(?:,|/|&|and|or|,\s*and)\s*", re.IGNORECASE)
_ADJECTIVE = re.compile(
    r"(?:al|(?<!ot)ic|ous|ive|ory|ant|ated|tumou?r|cancer|stroma)$", re.IGNORECASE
)
