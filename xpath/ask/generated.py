"""A grounded model's answer as marked words whose phrases show the masks it points at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpath.ask.picture import mask_shares, overview_size
from xpath.export.report.linked import Generated, Outline, Words, linked_layer, outline_path
from xpath.geometry import Size
from xpath.grounded.answers import plain_text
from xpath.objects.outline import components

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xpath.export.report.linked import LinkedLayer
    from xpath.grounded.answers import Answer

__all__ = ["generated_words"]


def generated_words(answer: Answer) -> Generated:
    """An answer for the page, with its question and the weights behind it."""
    end = () if answer.complete else (Words(text=" [cut off]"),)
    return Generated(
        words=(*_words(answer), *end),
        layers=tuple(_layers(answer)),
        question=answer.question.strip(),
        model=answer.model,
        digest=answer.digest,
    )


def _words(answer: Answer) -> Iterator[Words]:
    """The words without marks. Phrases with a mask are linked to it."""
    at = 0
    for span in answer.spans:
        yield from _between(answer.text[at : span.start], first=at == 0)
        labels = () if span.mask is None else (_label(answer, span.mask),)
        yield Words(text=span.phrase, labels=labels)
        at = span.end
    yield from _between(answer.text[at:], first=at == 0)
    if not answer.spans:
        for mask in range(len(answer.masks)):
            yield Words(text=" ")
            yield Words(text=f"mask {mask + 1}", labels=(_label(answer, mask),))


def _between(text: str, *, first: bool) -> Iterator[Words]:
    """Words between phrases, with a blank towards each word beside them."""
    plain = plain_text(text)
    if plain:
        before = " " if plain[0].isalnum() and not first else ""
        yield Words(text=f"{before}{plain} ")


def _layers(answer: Answer) -> Iterator[LinkedLayer]:
    height, width = answer.masks.shape[1:]
    size = overview_size(Size(width, height))
    for number, share in enumerate(mask_shares(answer.masks, size)):
        parts = components(answer.masks[number])
        label = _label(answer, number)
        outlines = (
            Outline(
                id=label,
                path=outline_path(part.rings, (0, 0), size.width / width),
                numbers=f"{part.pixels:,} px; pointed at by the model, not measured",
            )
            for part in sorted(parts, key=lambda it: -it.pixels)
        )
        yield linked_layer(label, share, outlines, count=len(parts), guess=False)


def _label(answer: Answer, mask: int) -> str:
    phrase = next((span.phrase for span in answer.spans if span.mask == mask), f"mask {mask + 1}")
    return f"generated: {phrase}"
