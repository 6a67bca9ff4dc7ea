"""What the review page knows of one slide: read from the run folder, nothing is made anew.

Axes: N patches, L object kinds, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import XPathError
from xpath.explain.explanation import read_explanation
from xpath.export.colour import hex_colour, object_colour
from xpath.export.overlay import short_name
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.review.layers import LayerPainter
from xpath.review.pieces import piece_at, place_on
from xpath.review.pyramid import TILE, Pyramid
from xpath.review.what_if import WhatIf, what_if_of
from xpath.store.features import read_features
from xpath.store.masks import open_masks
from xpath.study.slides import bags_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xpath.batch.slides import SlideEntry
    from xpath.explain.explanation import Explanation
    from xpath.review.pieces import Piece
    from xpath.store.masks import SlideMasks
    from xpath.study.study import Study

__all__ = ["Seen", "SlideView", "open_view"]

SAME = 1e-3
"""How far the model's logits may be from those of the explanation."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # pieces hold arrays
class Seen:
    """An object under a place, with its numbers."""

    piece: Piece
    label: str
    numbers: dict[str, float]
    """Finite numbers by name; what cannot be told is left out."""


@dataclass(frozen=True, kw_only=True, eq=False)  # arrays do not compare to one bool
class SlideView:
    """One slide of a run, ready to be looked at."""

    entry: SlideEntry
    classes: tuple[str, ...]
    masks: SlideMasks
    found: Explanation
    painter: LayerPainter
    what_if: WhatIf | None
    """None where the classifier is not the one that was explained."""

    @property
    def pyramid(self) -> Pyramid:
        """The tiles of the slide."""
        return Pyramid(self.masks.grid.slide_size)

    def describe(self) -> dict[str, Any]:
        """What the page shows of the slide as a whole, as JSON knows it."""
        grid, pyramid = self.masks.grid, self.pyramid
        target = self.classes[self.found.target]
        return {
            "id": self.entry.slide_id,
            "label": self.entry.label,
            "width": grid.slide_size.width,
            "height": grid.slide_size.height,
            "mpp": grid.slide_mpp,
            "tile": TILE,
            "last": pyramid.last,
            "patches": len(grid),
            "explained": target,
            "measured": self.classes[self.found.importance.target],
            "probability": {
                "object-aware model": self._probability(self.found.object.logits),
                "standard model": self._probability(self.found.patch.logits),
            },
            "bias": self.found.object.bias,
            "limits": self.painter.limits,
            "what_if": self.what_if is not None,
            "kinds": [self._kind(kind) for kind in range(len(self.found.object.objects))],
            "source": f"slides/{self.entry.slide_id}/explanation.h5",
        }

    def at(self, x: float, y: float, kinds: Sequence[int]) -> list[Seen]:
        """Objects under a place in level-0 pixels, the smallest first."""
        place = place_on(self.masks, x, y)
        if place is None:
            return []
        here = self.masks.read(place[0])[:, place[1], place[2]]
        pieces = [piece_at(self.masks, kind, place) for kind in kinds if here[kind]]
        found = [piece for piece in pieces if piece is not None]
        found.sort(key=lambda piece: int(piece.pixels.sum()))
        return [self._seen(piece) for piece in found]

    def _kind(self, kind: int) -> dict[str, Any]:
        label, found = self.found.object.objects[kind], self.found
        masked = kind < len(self.masks.labels)
        share = float(self.masks.area[:, kind].mean() / self.masks.size**2) if masked else None
        row: dict[str, Any] = {
            "index": kind,
            "label": label,
            "name": short_name(label),
            "colour": hex_colour(object_colour(label)),
            "masked": masked,
            "area": share,
            "contribution": float(found.object.contribution[kind]),
            "centres": self._strongest(kind) if masked else [],
        }
        whole = self.what_if and self.what_if.without(found.target, kind, None)
        if whole:
            row["without"] = whole.log_odds
        if label in found.importance.objects:
            place = found.importance.objects.index(label)
            row |= {
                "hidden": float(found.importance.effect[place]),
                "random": float(found.importance.null[place]),
            }
        return {name: value for name, value in row.items() if _tellable(value)}

    def _strongest(self, kind: int) -> list[list[float]]:
        """Centres of the patches in which a kind adds most, and least, to the logit."""
        held = np.flatnonzero(self.masks.area[:, kind])
        order = held[
            np.argsort(-np.abs(self.found.object.patch_contribution[held, kind]), kind="stable")
        ]
        half = self.masks.grid.footprint / 2
        centres: list[list[float]] = (self.masks.grid.coords[order[:8]] + half).tolist()
        return centres

    def _seen(self, piece: Piece) -> Seen:
        kind, found = piece.kind, self.found
        total = self.masks.area[piece.patches, kind]
        terms = found.object.patch_contribution[piece.patches, kind]
        pixel_um = (self.masks.grid.footprint / self.masks.size) * (
            self.masks.grid.slide_mpp or math.nan
        )
        numbers = {
            "area um2": float(piece.pixels.sum()) * pixel_um**2,
            "contribution": float((terms * piece.pixels / np.maximum(total, 1)).sum()),
            "contribution of its patches": float(terms.sum()),
            "contribution of its kind": float(found.object.contribution[kind]),
            "presence score": float(self.masks.presence[piece.patches, kind].max()),
            "patches": float(len(piece.patches)),
        }
        for name, patches in (("without it here", piece.patches), ("without its kind", None)):
            answer = self.what_if and self.what_if.without(found.target, kind, patches)
            if answer:
                numbers[f"{name}: log-odds"] = answer.log_odds
                numbers[f"{name}: probability"] = answer.probability
        numbers |= self._measured(self.masks.labels[kind])
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        return Seen(piece=piece, label=self.masks.labels[kind], numbers=finite)

    def _measured(self, label: str) -> dict[str, float]:
        """What blurring the kind did to the standard model."""
        if label not in self.found.importance.objects:
            return {}
        place = self.found.importance.objects.index(label)
        return {
            "blurred: fall of log-odds": float(self.found.importance.effect[place]),
            "random, same area: fall of log-odds": float(self.found.importance.null[place]),
        }

    def _probability(self, logits: NDArray[np.float64]) -> dict[str, float]:
        weight = np.exp(logits - logits.max())
        return dict(zip(self.classes, (weight / weight.sum()).tolist(), strict=True))


def open_view(study: Study, entry: SlideEntry) -> SlideView:
    """Reads what the run holds of a slide.

    Raises:
        StoreError: The slide has not been explained, or a file is damaged.
    """
    masks = open_masks(study.folder.masks(entry.slide_id))
    found = read_explanation(study.folder.explanation(entry.slide_id))
    return SlideView(
        entry=entry,
        classes=study.classes,
        masks=masks,
        found=found,
        painter=LayerPainter(masks, found),
        what_if=_what_if(study, entry, found),
    )


def _what_if(study: Study, entry: SlideEntry, found: Explanation) -> WhatIf | None:
    """None where features or classifier are gone, or are not those that were explained."""
    try:
        model = ObjectAwareMIL.from_pretrained(
            study.model_folder("object_aware", study.fold_of(entry))
        )
        slide = read_features(study.folder.features(entry.slide_id))
        answer = what_if_of(
            model, bags_of(slide, None, study.config.objects.min_coverage, model.objects)[1]
        )
    except XPathError:
        return None
    same = np.allclose(answer.logits(), found.object.logits, atol=SAME, rtol=SAME)
    return answer if same and model.objects == found.object.objects else None


def _tellable(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
