"""A page whose words are linked to the objects they mean: click a word, and its objects light up.

Reports and answers are anybody's text, so the template escapes every word of them.
Axes: h w pixels of the overview, K corners.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import DataError
from xpath.export.colour import hex_colour, object_colour
from xpath.export.overlay import short_name
from xpath.export.report.pages import LIMITS, MOST_BYTES, environment
from xpath.export.report.pictures import object_layer
from xpath.export.report.words import scale_bar
from xpath.store.schema import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from xpath.export.report.words import ScaleBar

__all__ = [
    "Generated",
    "LinkedLayer",
    "LinkedPage",
    "Outline",
    "Words",
    "linked_layer",
    "outline_path",
    "write_linked_page",
]

PLAIN, ASKED = {"", "present"}, {"present", "uncertain"}
MOST_OUTLINES = 300
"""Objects of a label that can be clicked one by one, the largest. The mask shows all of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """A stretch of text, and what it means."""

    text: str
    labels: tuple[str, ...] = ()
    """Ids of the labels it means, empty for the words between."""
    status: str = ""
    """``present``, ``uncertain``, ``absent``, ``historical`` or ``excluded`` of a reading."""
    source: str = ""
    """File of the run folder and the array in it that a measured fact is from."""

    @property
    def is_fact(self) -> bool:
        """True for a number or a place, as against the name of an object."""
        return ": " in self.source


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """One object that can be clicked."""

    id: str
    """Its name in ``objects.h5`` or the table beside the page."""
    path: str
    """SVG path in pixels of the overview."""
    numbers: str
    """Its measurements in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkedLayer:
    """The objects of one label over the picture."""

    label: str
    name: str
    colour: str
    """``#rrggbb``."""
    png: bytes
    """All of its mask, exact however many objects it has."""
    count: int
    """Objects."""
    outlines: tuple[Outline, ...] = ()
    guess: bool = False
    """True for a label that the segmentor's weights never learnt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """Text that a model wrote, always shown with the question and the weights behind it."""

    words: tuple[Words, ...]
    """Phrases that have a mask are linked to it."""
    layers: tuple[LinkedLayer, ...]
    """Masks the model points at; it may point at what is not there."""
    question: str
    model: str
    digest: str
    """SHA-256 of the weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkedPage:
    """A text and a picture, word by word and object by object."""

    title: str
    lead: str
    """What the page answers, in one plain sentence."""
    paragraphs: tuple[tuple[Words, ...], ...]
    overview: bytes
    """JPEG or PNG."""
    width: int
    height: int
    """Of the overview, pixels."""
    layers: tuple[LinkedLayer, ...]
    um_per_pixel: float | None = None
    """Of the overview, for the scale bar."""
    notices: tuple[str, ...] = ()
    generated: tuple[Generated, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    """Provenance."""
    files: tuple[str, ...] = ()
    """Where the numbers are from, a sentence each."""

    @property
    def bar(self) -> ScaleBar | None:
        """The scale bar, None where the resolution is unknown."""
        return scale_bar(self.um_per_pixel, self.width)

    @property
    def statuses(self) -> frozenset[str]:
        """The statuses of its words that need an explanation."""
        return frozenset(words.status for line in self.paragraphs for words in line) - PLAIN

    @property
    def all_layers(self) -> tuple[LinkedLayer, ...]:
        """Those of the page, and those behind generated words."""
        return self.layers + tuple(layer for text in self.generated for layer in text.layers)

    def is_guess(self, words: Words) -> bool:
        """True if words mean a label that the segmentor's weights never learnt."""
        guesses = {layer.label for layer in self.layers if layer.guess}
        named = words.status in ASKED | PLAIN and not words.is_fact
        return named and not guesses.isdisjoint(words.labels)


def linked_layer(
    label: str, share: NDArray[np.float32], outlines: Iterable[Outline], *, count: int, guess: bool
) -> LinkedLayer:
    """A layer in the colour of its label.

    Args:
        label: Label id.
        share: ``(h, w)`` share of each overview pixel that the mask covers.
        outlines: Its objects, the largest first; the first 300 are taken.
        count: Number of its objects.
        guess: Whether the weights never learnt it.
    """
    colour = object_colour(label)
    taken = tuple(outline for outline, _ in zip(outlines, range(MOST_OUTLINES), strict=False))
    return LinkedLayer(
        label=label,
        name=short_name(label),
        colour=hex_colour(colour),
        png=object_layer(share, colour),
        count=count,
        outlines=taken,
        guess=guess,
    )


def outline_path(rings: Sequence[ArrayLike], origin: tuple[float, float], scale: float) -> str:
    """SVG path of closed rings, to a tenth of an overview pixel.

    Args:
        rings: ``(K, 2)`` x, y in level-0 pixels, the outline and its holes.
        origin: x, y of the overview's corner, level-0 pixels.
        scale: Overview pixels per level-0 pixel.
    """
    parts = []
    for ring in rings:
        points = np.round((np.asarray(ring, np.float64)[:-1] - origin) * scale, 1)
        moved = (points != np.roll(points, 1, axis=0)).any(axis=1)
        kept = points[moved] if moved.any() else points[:1]
        parts.append("M" + "L".join(f"{x:g} {y:g}" for x, y in kept.tolist()) + "Z")
    return "".join(parts)


def write_linked_page(path: Path, page: LinkedPage) -> None:
    """Writes the page: one file that asks nobody for anything.

    Raises:
        DataError: The pictures make it larger than 15 MB.
    """
    template = environment().get_template("linked.html")
    content = template.render(limits=LIMITS, report=page).encode()
    if len(content) > MOST_BYTES:
        raise DataError(
            f"{path} would have {len(content) / 1e6:.1f} MB, wanted at most {MOST_BYTES / 1e6:g};"
            " ask for fewer objects or a smaller picture"
        )
    with atomic(path) as draft:
        draft.write_bytes(content)
