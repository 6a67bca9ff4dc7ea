"""A reading as people and programs get it: lines, JSON, and a text cut at its mentions."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from xpath.export.report.linked import Words
from xpath.language.reading import ASKED
from xpath.pathseg.parents import nearest_taught

if TYPE_CHECKING:
    from collections.abc import Collection

    from xpath.language.reading import Reading

__all__ = ["READING", "linked_words", "reading_json", "reading_lines"]

READING = "xpath.reading/1"


def linked_words(text: str, reading: Reading) -> tuple[Words, ...]:
    """A text cut at its mentions. Joined again, the words are the text.

    A mention that begins within another one adds its label to that one. Mentions without a span,
    as an open question may have, are left to the list of labels.
    """
    words: list[Words] = []
    end = 0
    spans = sorted((it for it in reading.mentions if it.end > it.start), key=_start)
    for start, group in groupby(spans, key=_start):
        mentions = list(group)
        labels = tuple(dict.fromkeys(mention.label.id for mention in mentions))
        if start < end:
            inside = words.pop()
            both = tuple(dict.fromkeys(inside.labels + labels))
            words.append(Words(text=inside.text, labels=both, status=inside.status))
            continue
        stop = max(mention.end for mention in mentions)
        if start > end:
            words.append(Words(text=text[end:start]))
        words.append(Words(text=text[start:stop], labels=labels, status=mentions[0].status))
        end = stop
    if end < len(text):
        words.append(Words(text=text[end:]))
    return tuple(words)


def reading_json(text: str, reading: Reading, taught: Collection[str]) -> dict[str, Any]:
    """A reading as JSON, schema ``xpath.reading/1``.

    Args:
        text: What was read.
        reading: Of the text.
        taught: Ids of the labels that the segmentor's weights learnt; the others are guesses, and
            ``nearest`` the taught ones they belong to.
    """
    return {
        "schema": READING,
        "text": text,
        "case": reading.case,
        "region": reading.region,
        "reader": reading.reader,
        "words": [
            {"text": words.text, "labels": list(words.labels), "status": words.status}
            for words in linked_words(text, reading)
        ],
        "mentions": [
            {
                "label": mention.label.id,
                "start": mention.start,
                "end": mention.end,
                "evidence": text[mention.start : mention.end],
                "status": mention.status,
            }
            for mention in reading.mentions
        ],
        "asked": [
            {
                "label": label.id,
                "prompt": label.prompt,
                "guess": label.id not in taught,
                "nearest": [one for one in nearest_taught(label.id, taught) if one != label.id],
            }
            for label in reading.labels
        ],
        "ambiguous": [[label.id for label in labels] for labels in reading.ambiguous],
        "unknown": list(reading.unknown),
        "dropped": reading.dropped,
    }


def reading_lines(text: str, reading: Reading, taught: Collection[str]) -> list[str]:
    """A reading as a table in plain text, then what could not be read."""
    lines = []
    for mention in reading.mentions:
        words = " ".join(text[mention.start : mention.end].split())
        guess = mention.status in ASKED and mention.label.id not in taught
        lines.append(
            f"{mention.status:10} {mention.label.id:44} {mention.start:>4}-{mention.end:<4} {words}"
            f"{_guess(mention.label.id, taught) if guess else ''}".rstrip()
        )
    lines += [
        f"{'ambiguous':10} {' or '.join(label.id for label in labels)}; say the --region"
        for labels in reading.ambiguous
    ]
    lines += [f"{'unknown':10} {words}" for words in reading.unknown]
    if reading.dropped:
        lines.append(f"{reading.dropped} mentions were dropped: their evidence is not in the text")
    count = len(reading.labels)
    region = reading.region or "not known"
    lines.append(f"{count} to look for; region {region}; read by {reading.reader}")
    return lines


def _guess(label: str, taught: Collection[str]) -> str:
    near = " or ".join(nearest_taught(label, taught))
    return f"  (a guess: the weights never learnt it{f', the nearest is {near}' if near else ''})"


def _start(mention: Any) -> int:
    return int(mention.start)
