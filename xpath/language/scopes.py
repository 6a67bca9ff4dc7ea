"""Negation, uncertainty, history and exclusion: which words of a text they govern.

The idea is that of NegEx (Chapman et al., 2001): cues, before or behind what they govern, and words
that end their scope. The cues are in ``cues.toml``.
"""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib.resources import files
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xpath.language.reading import Status

__all__ = ["Scope", "scopes", "status"]


class Scope(NamedTuple):
    """Words that a cue governs: ``text[start:end]``."""

    start: int
    end: int
    status: Status
    attached: bool = False
    """True for a cue that governs only what touches it: "*non*-neoplastic", "tumour-*free*"."""


class _Cue(NamedTuple):
    """Words that change the status of others."""

    start: int
    end: int
    status: str
    """A status, or ``none`` for words that only look like a cue."""
    direction: str
    """``before`` or ``behind`` what it governs (``value``: behind a colon), or ``attached``."""


def scopes(text: str, *, request: bool = False) -> list[Scope]:
    """All scopes of a text.

    Args:
        text: A report or a request.
        request: True for a request to somebody: there "not" and "except" exclude what is on the
            slide; in a report "not" denies it, and what follows "except" is there.
    """
    found = list(_histories(text))
    for start, end in _sentences(text):
        sentence = text[start:end]
        cues = _cues(sentence, request=request)
        for number, cue in enumerate(cues):
            if cue.status != "none":
                low, high = _span(sentence, cues, number, request=request)
                attached = cue.direction == "attached"
                found.append(Scope(start + low, start + high, cast("Status", cue.status), attached))
    return found


def status(found: Iterable[Scope], start: int, end: int) -> Status:
    """The status of the words from ``start`` to ``end``: the gravest of the scopes around them."""
    governing = {scope.status for scope in found if _governs(scope, start, end)}
    return next((one for one in _GRAVEST_FIRST if one in governing), "present")


def _governs(scope: Scope, start: int, end: int) -> bool:
    if scope.attached:
        return start == scope.end or end == scope.start
    return scope.start < end and start < scope.end


_GRAVEST_FIRST: tuple[Status, ...] = ("historical", "excluded", "absent", "uncertain")


# -- sentences -------------------------------------------------------------------------------------

_BREAK = re.compile(r"(?<=\S)[.;!?](?=[\s\"')\]]|$)|\n")
_ABBREVIATION = re.compile(
    r"(?:\b(?:vs|approx|ca|cf|dr|e\.g|i\.e|incl|resp|neg|pos)|\b[a-z])$", re.I
)
_CARRIED_OVER = re.compile(
    r"(?:\b(?:of|for|no|not|or|nor|and|without|the|a|an|with|any)|,)\s*$", re.I
)
_NEW_ITEM = re.compile(r"\s*(?:\n|[-*\u2022\u2013]\s|\(?\w{1,2}[.)]\s|[A-Z])")


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of the stretches that no scope leaves."""
    start = 0
    for match in _BREAK.finditer(text):
        before = text[start : match.start()]
        if match[0] == "\n":
            wrapped = _CARRIED_OVER.search(before) or not _NEW_ITEM.match(text, match.end())
            if wrapped and before.strip():
                continue
        elif match[0] == "." and _ABBREVIATION.search(before):
            continue
        yield start, match.end()
        start = match.end()
    yield start, len(text)


_HISTORY = re.compile(
    r"(?:^|(?<=[.\n]))[ \t]*"
    r"(?:(?:relevant|past|previous|clinical|medical|surgical|patient|family) )*"
    r"(?:history|clinical(?: (?:information|indication|data|details|context|notes?|diagnosis"
    r"|summary|question))?|indication|anamnesis|reason for (?:exam\w*|referral|biopsy))"
    r"[ \t]*(?::|\n)",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"\n[ \t]*\n|\n[ \t]*[A-Z][A-Za-z /()-]{2,40}(?::|\n|$)|(?<=\.)[ \t]+[A-Z][A-Za-z ]{2,30}:"
)
_SENTENCE_END = re.compile(r"[.](?=\s|$)|\n")


def _histories(text: str) -> Iterator[Scope]:
    """Paragraphs under a heading such as "Clinical history:"."""
    for match in _HISTORY.finditer(text):
        heading = _HEADING.search(text, match.end() - 1 if match[0].endswith(":") else match.end())
        end = heading.start() if heading else len(text)
        if heading is None:  # nothing tells where it ends: its first sentence
            stop = _SENTENCE_END.search(text, match.end())
            end = stop.end() if stop else end
        yield Scope(match.end(), end, "historical")


# -- cues ------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, re.Pattern[str]]]:
    """The expressions of ``cues.toml`` by section and name."""
    text = files("xpath.language").joinpath("cues.toml").read_text(encoding="utf-8")
    sections: dict[str, Any] = tomllib.loads(text)
    parts: dict[str, str] = sections.pop("parts")
    return {
        section: {
            name: _compile(
                cues, parts, bordered=section != "stops" and name in ("before", "behind")
            )
            for name, cues in groups.items()
        }
        for section, groups in sections.items()
    }


def _compile(cues: list[str], parts: dict[str, str], *, bordered: bool) -> re.Pattern[str]:
    """One expression of many, with the parts filled in. The longest is tried first."""
    joined = "|".join(sorted(cues, key=len, reverse=True))
    while _PART.search(joined):  # not str.format: expressions have braces of their own
        joined = _PART.sub(lambda match: parts[match[1]], joined)
    return re.compile(rf"(?<![\w-])(?:{joined})(?!\w)" if bordered else joined, re.IGNORECASE)


_PART = re.compile(r"\{([a-z_]+)\}")


def _leads(sentence: str, cue: _Cue) -> bool:
    """True if a word follows that a cue can govern."""
    return bool(_WORD_BEHIND.match(sentence, cue.end))


_WORD_BEHIND = re.compile(r"[^.;)]*?\w")


def _cues(sentence: str, *, request: bool) -> list[_Cue]:
    """The cues of a sentence. Where they overlap the first and longest."""
    found: list[_Cue] = []
    for section, groups in _table().items():
        if section == "stops" or (section == "excluded" and not request):
            continue
        for direction, pattern in groups.items():
            matches = pattern.finditer(sentence)
            found += [_Cue(*match.span(), section, direction) for match in matches]
    found = [cue for cue in found if cue.direction != "before" or _leads(sentence, cue)]
    found.sort(key=lambda cue: (cue.start, -cue.end, cue.status != "excluded"))
    chosen: list[_Cue] = []
    for cue in found:
        if not chosen or cue.start >= chosen[-1].end:
            chosen.append(cue)
    return chosen


# -- reach -----------------------------------------------------------------------------------------

_CONJOINED = re.compile(r"\s*(?:and|or|nor|&)\b", re.IGNORECASE)
_CHOICE = re.compile(r"\b(?:or|nor)\b", re.IGNORECASE)
_LISTED = re.compile(r"\b(?:and|or|nor)\b", re.IGNORECASE)
_NEW_CUE = re.compile(r"(?:\b(?:and|but|or)|[,:(])\s*$", re.IGNORECASE)


def _span(sentence: str, cues: list[_Cue], number: int, *, request: bool) -> tuple[int, int]:
    """Where the scope of a cue begins and ends in its sentence."""
    cue = cues[number]
    if cue.direction == "attached":
        return cue.start, cue.end
    if cue.direction in ("before", "sign"):
        return cue.end, _end_of(sentence, cue, cues[number + 1 :], request=request)
    return _start_of(sentence, cue, cues[:number]), cue.start


def _end_of(sentence: str, cue: _Cue, later: list[_Cue], *, request: bool) -> int:
    """Where the scope of a cue before its words ends."""
    new = (other.start for other in later if _begins_anew(sentence, other))
    end = next(new, len(sentence))
    stops = _table()["stops"]
    names = ("both", "before") if request else ("both", "before", "exception")
    for name in names:
        for stop in stops[name].finditer(sentence, cue.end, end):
            if not _is_no_stop(sentence, cue, stop, later):
                end = stop.start()
                break
    choice = _LISTED if cue.status == "excluded" else _CHOICE
    return _list_end(sentence[cue.end : end], choice) + cue.end


def _begins_anew(sentence: str, cue: _Cue) -> bool:
    """True for a cue behind "and", "but", "or", a comma, a colon or a bracket."""
    return bool(_NEW_CUE.search(sentence[max(0, cue.start - 6) : cue.start]))


def _is_no_stop(sentence: str, cue: _Cue, stop: re.Match[str], later: list[_Cue]) -> bool:
    """True for a bracket of a few words in the scope, and for words that belong to another cue."""
    if stop[0] == "(":
        return _is_bare(sentence[stop.end() :].partition(")")[0])
    if stop[0] == ")" and "(" in sentence[cue.end : stop.start()]:
        return True
    return any(other.start <= stop.start() < other.end for other in later)


def _list_end(scope: str, choice: re.Pattern[str]) -> int:
    """The first comma that ends a scope. Commas of a list "a, b or c" do not."""
    items = scope.split(",")
    comma = 0
    for number, item in enumerate(items[:-1]):
        comma += len(item)
        rest = items[number + 1 :]
        if not _CONJOINED.match(rest[0]) and not _is_list(rest, choice):
            return comma
        comma += 1
    return len(scope)


def _is_list(rest: list[str], choice: re.Pattern[str]) -> bool:
    """True if what follows a comma is the rest of a list: bare names up to "or", or ", and"."""
    for number, item in enumerate(rest):
        if _CONJOINED.match(item):
            return number > 0
        last = choice.search(item)
        if last:
            return _is_bare(item[: last.start()])
        if not _is_bare(item):
            return False
    return False


def _is_bare(item: str) -> bool:
    """True for a few words without a verb or a quantity."""
    return len(item.split()) <= 5 and not _table()["stops"]["bare"].search(item)


def _start_of(sentence: str, cue: _Cue, earlier: list[_Cue]) -> int:
    """Where the scope of a cue behind its words begins."""
    ends = [other.end for other in earlier if other.direction != "attached"]
    start = max(ends, default=0)
    for name in ("both", "behind"):
        for stop in _table()["stops"][name].finditer(sentence, start, cue.start):
            if sentence[stop.end() : cue.start].strip():  # a verb that touches the cue is its own
                start = stop.end()
    bracket = sentence.rfind("(", start, cue.start)
    inside = sentence[bracket + 1 : cue.start]
    if bracket >= 0 and ")" not in inside and inside.strip():
        start = bracket + 1
    return cue.start - _length_of_list(sentence[start : cue.start])


def _length_of_list(words: str) -> int:
    """Length of the end of a sentence that is one item, or a list "a, b and c"."""
    *items, last = words.split(",")
    if items and not last.strip():  # "fibrosis, probably"
        last = f"{items.pop()},{last}"
    kept = len(last)
    if _LISTED.search(last):
        for item in takewhile(_is_bare, reversed(items)):
            kept += len(item) + 1
    return kept
