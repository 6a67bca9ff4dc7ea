"""Terms of pathology in free text: what people call the objects and regions of the label tree.

The table is ``lexicon.toml``. Terms are compared by stems: lower case, singular, American spelling.
At each word the longest term counts.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence, Set

__all__ = ["Concept", "Lexicon", "Region", "Term", "load_lexicon"]


@dataclass(frozen=True, slots=True)
class Concept:
    """Meaning of a term, whatever it is called."""

    name: str
    objects: tuple[str, ...]
    """``structure:object type``, best first; none for what the label tree does not have."""
    nearest: tuple[str, ...] = ()
    """What comes closest in a region that has none of the objects."""
    in_reports: bool = True
    """False for words that a report uses without meaning an object, such as "nuclei"."""


@dataclass(frozen=True, slots=True)
class Region:
    """An organ that a text names."""

    name: str | None
    """Region of the label tree; None for an organ it does not have."""
    sign: bool = False
    """True for a word that only hints at the organ, such as "urothelial"."""


class Term(NamedTuple):
    """A term of the lexicon in a text."""

    start: int
    """First character."""
    end: int
    """One past the last character."""
    meaning: Concept | Region
    structures: tuple[str, ...] = ()
    """Structures that a word beside the term asks for ("tumor *nuclei*"), best first; or none."""


class _Token(NamedTuple):
    """A word, or half of a hyphenated one."""

    stem: str
    start: int
    end: int
    joined: bool
    """True if only blanks or a hyphen lie between it and the word before."""


_Phrase = tuple[str, ...]
_Meaning = TypeVar("_Meaning", Concept, Region)


class _Phrases(Generic[_Meaning]):
    """Phrases by their first word, longest first."""

    def __init__(self) -> None:
        self.meanings: dict[_Phrase, _Meaning] = {}
        self._by_first_word: dict[str, list[_Phrase]] = {}

    def add(self, phrase: _Phrase, meaning: _Meaning) -> None:
        """Adds a phrase. The first meaning counts."""
        if phrase not in self.meanings:
            self.meanings[phrase] = meaning
            same = self._by_first_word.setdefault(phrase[0], [])
            same.append(phrase)
            same.sort(key=len, reverse=True)

    def longest(
        self, tokens: list[_Token], index: int, skipped: Set[int] = frozenset()
    ) -> tuple[int, _Meaning | None]:
        """One past the last token of the longest phrase that begins here, and its meaning.

        Tokens at the indices ``skipped`` may lie within the phrase.
        """
        for phrase in self._by_first_word.get(tokens[index].stem, ()):
            last = _match(tokens, index, phrase, skipped)
            if last:
                return last, self.meanings[phrase]
        return 0, None


def _match(tokens: list[_Token], index: int, phrase: _Phrase, skipped: Set[int]) -> int:
    """One past the last token of a phrase that begins here. 0 if it does not."""
    first = index
    for word in phrase:
        while first < index < len(tokens) and index in skipped and tokens[index].stem != word:
            if not tokens[index].joined:
                return 0
            index += 1
        if index >= len(tokens) or tokens[index].stem != word:
            return 0
        if index > first and not tokens[index].joined:
            return 0
        index += 1
    return index


_LEVELS = {"tissue": ("tissue",), "nucleus": ("nuclei",), "cell": ("cell",)}
_FILLERS = frozenset(("the", "a", "an", "all", "of", "in", "any", "every", "pathology", "level"))
_ARTICLES = frozenset(("the", "a", "an", "all", "of", "level"))
_COPULAS = frozenset(("is", "are", "was", "were", "appear", "appears", "look", "looks", "remain"))
_ADVERBS = frozenset(("entirely", "completely", "largely", "mostly", "otherwise", "still", "all"))
_PREDICATES = frozenset(("normal", "malignant", "dysplastic"))
"""Adjectives that mean the same behind their noun: "which glands are healthy"."""


class Lexicon:
    """Terms by their stems.

    Args:
        table: As ``lexicon.toml`` has it: ``words``, ``structures``, ``regions``, ``elsewhere``,
            ``concepts`` and ``spelled``.
    """

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._same: dict[str, str] = {
            singular(other): word for word, others in table["words"].items() for other in others
        }
        self._structures = {word: tuple(names) for word, names in table["structures"].items()}
        self._spelled = frozenset(map(self.stem, table["spelled"]["words"]))
        self._regions: _Phrases[Region] = _Phrases()
        for name, entry in table["regions"].items():
            self._add(self._regions, entry["names"], Region(name))
            self._add(self._regions, entry["signs"], Region(name, sign=True))
        self._add(self._regions, table["elsewhere"]["names"], Region(None))
        self._concepts: _Phrases[Concept] = _Phrases()
        for name, entry in table["concepts"].items():
            objects, nearest = tuple(entry["objects"]), tuple(entry.get("nearest", ()))
            concept = Concept(name, objects, nearest, entry.get("report", True))
            self._add(self._concepts, entry["terms"], concept)
        self._corrections: dict[str, str] = {}

    def stem(self, word: str) -> str:
        """A word as the terms have it."""
        word = singular(word)
        return self._same.get(word, word)

    def terms(self, text: str, *, correct: bool = True) -> list[Term]:
        """The terms of a text, in its order.

        Organs may lie within an object's term ("normal *prostate* glands") and are then listed
        too, unless they tell where a metastasis comes from.

        Args:
            text: Free text.
            correct: Words that the lexicon does not have count as their nearest neighbour.
        """
        tokens = self._tokens(text, correct=correct)
        organs = self._organs(tokens)
        inside = {index for first, (last, _) in organs.items() for index in range(first, last)}
        found: list[Term] = []
        index = 0
        while index < len(tokens):
            last, concept = self._longest(tokens, index, inside)
            if concept is not None and last >= organs.get(index, (0, None))[0]:
                term, last = self._term(tokens, index, last, concept)
                while found and found[-1].end > term.start:  # the "nuclei" of "nuclei of the tumor"
                    found.pop()
                found.append(term)
                origin = "metasta" in concept.name
                steps = range(index, last)
            else:
                origin, steps = False, range(index, index + 1)
            for first in steps:
                if first in organs and not origin:
                    end, region = organs[first]
                    found.append(Term(tokens[first].start, tokens[end - 1].end, region))
                    last = max(last, end)
            index = max(last, index + 1)
        return found

    def whole(self, text: str) -> tuple[Term | None, str | None]:
        """The one concept and the one region that a text consists of.

        Returns:
            The term, None if the text names no concept, several, or anything else; and the region,
            None if it names none. Nothing is corrected.
        """
        terms = self.terms(text, correct=False)
        concepts = [term for term in terms if isinstance(term.meaning, Concept)]
        regions = {term.meaning.name for term in terms if isinstance(term.meaning, Region)}
        known = [(term.start, term.end) for term in terms]
        rest = [
            token
            for token in self._tokens(text, correct=False)
            if not any(start <= token.start < end for start, end in known)
            and token.stem not in _FILLERS
        ]
        if rest or len(concepts) > 1 or len(regions) > 1:
            return None, None
        return (concepts[0] if concepts else None), next(iter(regions), None)

    def nearest_word(self, word: str) -> str | None:
        """The stem a misspelt word stands for. None if it is none of the lexicon's.

        Optimal string alignment distance 1, or 2 from nine letters on if the first three agree.
        Short words must agree in the first letter: "bland" is no "gland".
        """
        if len(word) < 5 or word in self._spelled or not word.isalpha():
            return None
        if word not in self._corrections:
            self._corrections[word] = self._nearest(word)
        return self._corrections[word] or None

    def _nearest(self, word: str) -> str:
        from rapidfuzz.distance import OSA
        from rapidfuzz.process import extract

        limit = 2 if len(word) >= 9 else 1
        close = extract(word, self._vocabulary, scorer=OSA.distance, score_cutoff=limit, limit=None)
        fits = sorted(
            (int(distance), other)
            for other, distance, _ in close
            if (distance < 2 or other[:3] == word[:3]) and (len(word) > 7 or other[0] == word[0])
        )
        return fits[0][1] if fits else ""

    @cached_property
    def _words(self) -> frozenset[str]:
        """Every word of every term."""
        phrases = (*self._regions.meanings, *self._concepts.meanings)
        return frozenset(word for phrase in phrases for word in phrase)

    @cached_property
    def _vocabulary(self) -> list[str]:
        """Words long enough to be misspelt, in a fixed order."""
        return sorted(word for word in self._words | {*self._same, "nucleus"} if len(word) >= 5)

    def _add(self, phrases: _Phrases[_Meaning], terms: Sequence[str], meaning: _Meaning) -> None:
        for term in terms:
            phrases.add(tuple(self.stem(word) for word in _WORD.findall(term.lower())), meaning)

    def _tokens(self, text: str, *, correct: bool) -> list[_Token]:
        tokens, end = [], 0
        for match in _WORD.finditer(text):
            stem = self.stem(match[0])
            if correct and stem not in self._words:
                near = self.nearest_word(stem)
                stem = self.stem(near) if near else stem
            joined = not text[end : match.start()].strip(" \t\r\n-/'\u2019\u2010\u2011\u2013")
            tokens.append(_Token(stem, match.start(), match.end(), joined))
            end = match.end()
        return tokens

    def _organs(self, tokens: list[_Token]) -> dict[int, tuple[int, Region]]:
        """First token of an organ to one past its last, and the region."""
        organs, index = {}, 0
        while index < len(tokens):
            last, region = self._regions.longest(tokens, index)
            if region is not None:
                organs[index] = (last, region)
            index = max(last, index + 1)
        return organs

    def _longest(
        self, tokens: list[_Token], index: int, inside: Set[int]
    ) -> tuple[int, Concept | None]:
        last, concept = self._concepts.longest(tokens, index, inside)
        phrase = tuple(token.stem for token in tokens[index : last or index + 1])
        return self._predicate(tokens, last or index + 1, phrase) or (last, concept)

    def _predicate(
        self, tokens: list[_Token], last: int, phrase: _Phrase
    ) -> tuple[int, Concept] | None:
        """A longer match if an adjective behind the noun makes one: "glands are healthy"."""
        for skipped in (_COPULAS, _ADVERBS):
            if _is(tokens, last, skipped):
                last += 1
        if not _is(tokens, last, _PREDICATES):
            return None
        meaning = self._concepts.meanings.get((tokens[last].stem, *phrase))
        return (last + 1, meaning) if meaning else None

    def _term(
        self, tokens: list[_Token], first: int, last: int, concept: Concept
    ) -> tuple[Term, int]:
        """A concept with the structure that the words around it ask for."""
        structures: tuple[str, ...] = ()
        if _is(tokens, last, self._structures) and tokens[last - 1].stem != tokens[last].stem:
            structures = self._structures[tokens[last].stem]
            last += 1
        before = first - 1
        while before > 0 and _is(tokens, before + 1, None) and tokens[before].stem in _ARTICLES:
            before -= 1
        between = [token.stem for token in tokens[before + 1 : first]]
        if before >= 0 and tokens[before].stem in _LEVELS and {"of", "level"} & set(between):
            names = _LEVELS if "level" in between else self._structures
            structures, first = names[tokens[before].stem], before
        return Term(tokens[first].start, tokens[last - 1].end, concept, structures), last


def singular(word: str) -> str:
    """A word in lower case, singular and American spelling."""
    word = word.lower()
    for british, american in _BRITISH:
        word = word.replace(british, american)
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    for ending, replacement in _ENDINGS:
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: len(word) - len(ending)] + replacement
    return word


_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?", re.IGNORECASE)
_BRITISH = (
    ("haem", "hem"), ("aemi", "emi"), ("oesoph", "esoph"), ("oedem", "edem"), ("caec", "cec"),
    ("leuco", "leuko"), ("tumour", "tumor"), ("colour", "color"), ("fibre", "fiber"),
    ("defence", "defense"), ("phaeo", "pheo"), ("keratinis", "keratiniz"),
    ("centre", "center"), ("vascularis", "vasculariz"),
)  # fmt: skip
_IRREGULAR = {
    "nuclei": "nucleus", "nucleii": "nucleus", "acini": "acinus", "alveoli": "alveolus",
    "bronchi": "bronchus", "emboli": "embolus", "thrombi": "thrombus", "foci": "focus",
    "villi": "villus", "ganglia": "ganglion", "adnexae": "adnexa", "adnexum": "adnexa",
    "septa": "septum", "septae": "septum", "testes": "testis", "stromata": "stroma",
    "vasa": "vas", "ova": "ovum", "fungi": "fungus", "bacteria": "bacterium",
    "tissues": "tissue", "neutrophile": "neutrophil", "neutrophiles": "neutrophil",
    "eosinophile": "eosinophil", "eosinophiles": "eosinophil", "glomeruli": "glomerulus",
}  # fmt: skip
_ENDINGS = (
    ("omata", "oma"), ("oses", "osis"), ("tases", "tasis"), ("eses", "esis"), ("yses", "ysis"),
    ("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"),
    ("ss", "ss"), ("us", "us"), ("is", "is"), ("s", ""),
)  # fmt: skip


def _is(tokens: list[_Token], index: int, stems: Container[str] | None) -> bool:
    """True if there is a token here, joined to the one before, of one of these stems (or any)."""
    if not 0 < index < len(tokens) or not tokens[index].joined:
        return False
    return stems is None or tokens[index].stem in stems


@lru_cache(maxsize=1)
def load_lexicon() -> Lexicon:
    """The lexicon of the package."""
    text = files("xpath").joinpath("lexicon.toml").read_text(encoding="utf-8")
    return Lexicon(tomllib.loads(text))
