"""One slide of a run as the review page shows it, read from the run folder.

Axes: N patches, L object classes (indices j), E objects hidden, K slide classes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import XPathError
from xpath.explain.explanation import read_explanation
from xpath.export.answers import answered_names
from xpath.export.colour import hex_colour, object_colour
from xpath.export.overlay import marked_name
from xpath.export.report.tables import temperatures
from xpath.geometry import Size
from xpath.metrics.calibration import scaled_probability
from xpath.mil.object_aware import ObjectAwareMIL
from xpath.objects.canvas import Canvas, patch_windows
from xpath.objects.measure import covered_pixels
from xpath.objects.outline import components
from xpath.review.agreement import (
    hiding_in_a_sentence,
    objects_disagreed_on,
    predictions_disagree,
)
from xpath.review.layers import LayerPainter
from xpath.review.pyramid import TILE, Pyramid
from xpath.review.what_if import WhatIf, what_if_of
from xpath.store.features import read_features
from xpath.store.masks import open_masks
from xpath.study.slides import bags_of, objects_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.batch.slides import SlideEntry
    from xpath.explain.explanation import Explanation
    from xpath.store.masks import SlideMasks
    from xpath.store.objects import ObjectTable
    from xpath.study.study import Study

__all__ = ["ShownObject", "SlideView", "open_view"]

SAME = 1e-3
"""Largest difference of the model's logits from those of the explanation."""
FINENESS, LONGEST = 8, 2048
"""The analysed area is outlined to this share of a patch, or this share of the slide's side."""
BLURRED, OTHER_BLURRED = "blurred: fall of log-odds", "other tissue blurred: fall of log-odds"
"""Numbers of an object's class in the standard model."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class ShownObject:
    """An object under a point, with its numbers."""

    name: str
    """The same for every point in the object, and in every run with these masks."""
    object_class: int
    """Index of its label."""
    label: str
    """Label id."""
    rings: tuple[NDArray[np.float64], ...]
    """Closed rings ``(K, 2)`` of x, y in level-0 pixels: the outline, then holes."""
    numbers: dict[str, float]
    """Finite numbers by name; what is not known is left out. Above 0 speaks for the class."""
    hiding: str
    """The standard model's answer when its class is hidden, in a sentence, empty if not asked."""


@dataclass(frozen=True, kw_only=True, eq=False)  # arrays do not compare to one bool
class SlideView:
    """One slide of a run, ready to be looked at."""

    entry: SlideEntry
    classes: tuple[str, ...]
    masks: SlideMasks
    explanation: Explanation
    objects: ObjectTable
    painter: LayerPainter
    what_if: WhatIf | None
    """None where the classifier is not the one that was explained."""
    temperature: Mapping[str, float]
    """Of each model that was calibrated."""

    @property
    def pyramid(self) -> Pyramid:
        """The tiles of the slide."""
        return Pyramid(self.masks.grid.slide_size)

    def describe(self) -> dict[str, Any]:
        """The slide as a whole, as JSON."""
        grid, pyramid = self.masks.grid, self.pyramid
        explanation, target = self.explanation, self.explanation.target
        probability = {
            "object-aware model": self._probability("object_aware", explanation.object.logits),
            "standard model": self._probability("attention", explanation.patch.logits),
        }
        disagreement = predictions_disagree(probability)
        return {
            "id": self.entry.slide_id,
            "label": self.entry.label,
            "width": grid.slide_size.width,
            "height": grid.slide_size.height,
            "mpp": grid.slide_mpp,
            "tile": TILE,
            "last": pyramid.last,
            "analysed": [ring.tolist() for ring in analysed_rings(self.masks)],
            "explained": self.classes[target],
            "probability": probability,
            "calibrated": "object_aware" in self.temperature,
            "disagreements": [
                *([disagreement] if disagreement else []),
                *objects_disagreed_on(explanation, self.classes),
            ],
            "centred": not math.isnan(explanation.object.baseline_logit),
            "limits": self.painter.limits,
            "what_if": self.what_if is not None,
            "rule": self.objects.rule,
            "object_classes": [
                self._object_class(j) for j in range(len(explanation.object.objects))
            ],
            "source": f"slides/{self.entry.slide_id}/explanation.h5",
        }

    def at(self, x: float, y: float, object_classes: Sequence[int]) -> list[ShownObject]:
        """Objects of some classes under a point in level-0 pixels, the smallest first."""
        return [self._shown(index) for index in self.objects.at(x, y, object_classes)]

    def _object_class(self, j: int) -> dict[str, Any]:
        label, by_object = self.explanation.object.objects[j], self.explanation.object
        masked = j < len(self.masks.labels)
        asked = json.loads(self.masks.provenance.get("answers_for", "{}"))
        row: dict[str, Any] = {
            "index": j,
            "label": label,
            "name": marked_name(label, guess=masked and not self.masks.facts.taught[j]),
            "answers_for": answered_names(label, asked[label]) if label in asked else None,
            "colour": hex_colour(object_colour(label)),
            "masked": masked,
            "count": self.objects.counts[label] if masked else None,
            "value": float(by_object.bars[j]),
            "centres": self._strongest(j) if masked else [],
        }
        if masked:
            pixels, scale = float(self.objects.label_pixels[j]), self.objects.scale
            row["area"] = pixels * scale**2 / covered_pixels(self.masks.grid)
            row["mm2"] = pixels * self.objects.um_per_pixel**2 / 1e6
        return {name: value for name, value in row.items() if _is_known(value)}

    def _strongest(self, j: int) -> list[list[float]]:
        """Centres of the patches in which a class adds most, and least, to the logit."""
        held = np.flatnonzero(self.masks.area[:, j])
        order = held[
            np.argsort(-np.abs(self.explanation.object.patch_contribution[held, j]), kind="stable")
        ]
        half = self.masks.grid.footprint / 2
        centres: list[list[float]] = (self.masks.grid.coords[order[:8]] + half).tolist()
        return centres

    def _shown(self, index: int) -> ShownObject:
        table, explanation = self.objects, self.explanation
        j, patches = int(table.label[index]), table.patches_of(index)
        terms = explanation.object.patch_contribution[patches, j]
        numbers = {
            "area um2": float(table.areas_um2[index]),
            "contribution": float(terms @ table.shares_of(index)),
            "contribution of its class": float(explanation.object.bars[j]),
            "confidence": float(table.confidence[index]),
            "patches": float(len(patches)),
        }
        for name, absent in (("with it here", patches), ("with its class", None)):
            answer = self.what_if and self.what_if.without(explanation.target, j, absent)
            if answer:
                numbers[f"{name}: log-odds"] = 0.0 - answer.log_odds
                numbers[f"{name}: probability without"] = answer.probability
        numbers |= self._measured(table.labels[j])
        return ShownObject(
            name=table.id(index),
            object_class=j,
            label=table.labels[j],
            rings=table.rings(index),
            numbers={name: value for name, value in numbers.items() if math.isfinite(value)},
            hiding=self._hiding(numbers),
        )

    def _hiding(self, numbers: Mapping[str, float]) -> str:
        if BLURRED not in numbers:
            return ""
        return hiding_in_a_sentence(
            numbers[BLURRED], numbers[OTHER_BLURRED], self.classes[self.explanation.target]
        )

    def _measured(self, label: str) -> dict[str, float]:
        """The effect on the standard model of hiding all objects of a label."""
        hiding = self.explanation.importance
        if label not in hiding.objects:
            return {}
        e, target = hiding.objects.index(label), self.explanation.target
        effect = float(hiding.effects[target, e])
        return {
            BLURRED: effect,
            OTHER_BLURRED: effect - float(hiding.excesses[target, e]),
        }

    def _probability(self, model: str, logits: NDArray[np.float64]) -> dict[str, float]:
        values = scaled_probability(logits, self.temperature.get(model, 1.0))
        return dict(zip(self.classes, values.tolist(), strict=True))


def analysed_rings(masks: SlideMasks) -> list[NDArray[np.float64]]:
    """Closed rings ``(K, 2)`` of x, y in level-0 pixels around all patches, and around holes."""
    grid = masks.grid
    sides = grid.slide_size.width, grid.slide_size.height
    scale = max(grid.footprint / FINENESS, max(sides) / LONGEST)
    size = Size(*(math.ceil(side / scale) for side in sides))
    covered = np.zeros((size.height, size.width), np.bool_)
    windows = patch_windows(masks, Canvas((0.0, 0.0), (scale, scale), size))
    for top, left, bottom, right in windows.tolist():
        covered[top:bottom, left:right] = True
    return [
        np.minimum(ring * scale, np.array(sides, np.float64))
        for component in components(covered)
        for ring in component.rings
    ]


def open_view(study: Study, entry: SlideEntry) -> SlideView:
    """Reads the files of a slide, and counts its objects if no stage has done so yet.

    Raises:
        StoreError: The slide has not been explained, or a file is damaged.
    """
    masks = open_masks(study.folder.masks(entry.slide_id))
    temperature = temperatures(study.folder.table("calibration"), study.fold_of(entry))
    explanation = read_explanation(study.folder.explanation(entry.slide_id))
    return SlideView(
        entry=entry,
        classes=study.classes,
        masks=masks,
        explanation=explanation,
        objects=objects_of(study, entry),
        painter=LayerPainter(masks, explanation),
        what_if=_what_if(study, entry, explanation, temperature.get("object_aware", 1.0)),
        temperature=temperature,
    )


def _what_if(
    study: Study, entry: SlideEntry, explanation: Explanation, temperature: float
) -> WhatIf | None:
    """None where features or classifier are gone, or are not those that were explained."""
    try:
        model = ObjectAwareMIL.from_pretrained(
            study.model_folder("object_aware", study.fold_of(entry))
        )
        slide = read_features(study.folder.features(entry.slide_id))
        bag = bags_of(slide, None, study.config.objects.min_coverage, model.objects)[1]
        answer = what_if_of(model, bag, temperature)
    except XPathError:
        return None
    same = np.allclose(answer.logits(), explanation.object.logits, atol=SAME, rtol=SAME)
    return answer if same and model.objects == explanation.object.objects else None


def _is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))
