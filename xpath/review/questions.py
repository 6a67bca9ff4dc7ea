"""Questions in words over a slide: first what was understood, then the objects in view."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.ask.picture import find_labels
from xpath.ask.words import reading_json
from xpath.errors import DataError, LabelError
from xpath.export.colour import hex_colour, object_colour
from xpath.export.overlay import short_name
from xpath.geometry import Box, Size
from xpath.labels import load_labels
from xpath.language.offline import OfflineReader
from xpath.language.reading import Request
from xpath.review.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xpath.ask.picture import LabelObjects
    from xpath.batch.slides import SlideEntry
    from xpath.export.qupath.geojson import Feature
    from xpath.labels import Label
    from xpath.review.pixels import SlidePixels
    from xpath.study.study import Study

__all__ = ["Questions"]

SIDE = 1024
"""Longest side of what is segmented, pixels at the resolution of the run: what fits into seconds
on a laptop. Of a larger view it is the middle."""
MOST_LABELS = 64
MOST_OBJECTS = 3000
"""Objects that are sent, the largest."""
MOST_CHARACTERS = 20_000
PATIENCE = 60.0
"""Seconds a question waits for the one before it."""


class Questions:
    """Reads questions and segments views with the run's own segmentor, one at a time."""

    def __init__(self, study: Study, pixels: SlidePixels) -> None:
        """Loads nothing yet: the segmentor comes with the first view that is asked."""
        self._study, self._pixels = study, pixels
        self._reader = OfflineReader()
        self._segmentor = threading.Lock()

    @property
    def regions(self) -> list[str]:
        """Regions a question may be about. That of the run's own labels comes first."""
        own = [label.partition("-")[0] for label in self._study.config.objects.labels]
        return list(dict.fromkeys((*own, *load_labels().regions)))

    def read(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Reading of a question, before anything is segmented.

        Args:
            content: ``text`` and, if it is known, ``region``.

        Raises:
            Refused: No text, or too long a one.
        """
        text, region = content.get("text"), content.get("region") or None
        if not isinstance(text, str) or not text.strip() or not isinstance(region, str | None):
            raise Refused(400, "a question needs a text, and a region or none")
        if len(text) > MOST_CHARACTERS:
            raise Refused(413, f"a question may have {MOST_CHARACTERS} characters")
        reading = self._reader.read(Request(text, None, region))
        answer = reading_json(text, reading, self._study.segmentor.labels)
        for label in answer["asked"]:
            label["name"] = short_name(label["label"])
            label["colour"] = hex_colour(object_colour(label["label"]))
        return answer

    def find(self, entry: SlideEntry, content: Mapping[str, Any]) -> dict[str, Any]:
        """The objects of some labels in a view.

        Args:
            entry: The slide.
            content: ``labels``, and ``x``, ``y``, ``width``, ``height`` of the view in level-0
                pixels. Of a view that is too large the middle is looked at: ``box`` says where.

        Raises:
            Refused: No labels, too many, or unknown ones; no view; the slide cannot be read; or
                another question takes too long.
        """
        labels, view = _labels(content), _view(content)
        slide = self._pixels.slide(entry)
        mpp = slide.mpp_or_none
        per_pixel = self._study.config.grid.mpp / mpp if mpp else 1.0
        box = _middle(view, Box(0, 0, slide.size.width, slide.size.height), SIDE * per_pixel)
        size = Size(
            max(1, round(box.width / per_pixel)),
            max(1, round(box.height / per_pixel)),
        )
        image = self._pixels.region(entry, box, size)
        found = self._segmented(image, labels, box, mpp)
        features = found.features
        largest = sorted(features, key=lambda it: -max(_areas(it)))[:MOST_OBJECTS]
        return {
            "box": [box.x, box.y, box.width, box.height],
            "whole": (box.width, box.height) == (view.width, view.height),
            "counts": {label.id: sum(it.label == label.id for it in features) for label in labels},
            "doubted": sorted(found.doubted),
            "shown": len(largest),
            "objects": [_as_json(feature) for feature in largest],
        }

    def _segmented(
        self, image: NDArray[np.uint8], labels: Sequence[Label], box: Box, mpp: float | None
    ) -> LabelObjects:
        if not self._segmentor.acquire(timeout=PATIENCE):
            raise Refused(503, "the segmentor is busy with another question; ask again")
        try:
            # pixels as the run's own patches have them, so the same objects are found
            return find_labels(
                image, labels, self._study.predictor, mpp=None, box=box, level0_mpp=mpp
            )
        except DataError as error:
            raise Refused(413, str(error)) from error
        finally:
            self._segmentor.release()


def _labels(content: Mapping[str, Any]) -> list[Label]:
    names = content.get("labels")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Refused(400, "labels must be a list of label ids")
    if not 1 <= len(names) <= MOST_LABELS:
        raise Refused(413, f"ask for 1 to {MOST_LABELS} labels at once, got {len(names)}")
    try:
        return [load_labels()[name] for name in dict.fromkeys(names)]
    except LabelError as error:
        raise Refused(404, str(error)) from error


def _view(content: Mapping[str, Any]) -> Box:
    try:
        sides = [float(content[name]) for name in ("x", "y", "width", "height")]
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(400, "a view needs x, y, width and height") from error
    if not all(math.isfinite(side) and abs(side) < 1e9 for side in sides):
        raise Refused(400, "x, y, width and height must be numbers of level-0 pixels")
    return Box(*map(round, sides))


def _middle(view: Box, slide: Box, most: float) -> Box:
    """The middle of what is in view, no side longer than ``most`` level-0 pixels."""
    left, top = max(view.x, slide.x), max(view.y, slide.y)
    wide, high = min(view.right, slide.right) - left, min(view.bottom, slide.bottom) - top
    width, height = min(wide, int(most)), min(high, int(most))
    if min(width, height) < 1:
        raise Refused(400, "nothing of the slide is in view")
    left, top = left + (wide - width) // 2, top + (high - height) // 2
    return Box(left, top, width, height)


def _areas(feature: Feature) -> list[float]:
    return [value for name, value in feature.measurements.items() if name.startswith("area")]


def _as_json(feature: Feature) -> dict[str, Any]:
    rings = [np.round(np.asarray(ring, np.float64), 1).tolist() for ring in feature.rings]
    numbers = dict(feature.measurements)
    return {"id": feature.name, "label": feature.label, "rings": rings, "numbers": numbers}
