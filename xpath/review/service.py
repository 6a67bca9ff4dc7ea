"""The run as reviewers see it, without HTTP: slides, objects, findings."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from xpath.batch.done import key_of
from xpath.errors import StoreError
from xpath.export.overlay import short_name
from xpath.review.findings import Finding, Findings
from xpath.review.findings_files import (
    findings_csv,
    findings_geojson,
    findings_html,
    findings_json,
    findings_text,
)
from xpath.review.layers import LAYERS
from xpath.review.pixels import Recent, SlidePixels, encoded, look_of
from xpath.review.questions import Questions
from xpath.review.refusal import Refused
from xpath.review.slide_view import SlideView, open_view
from xpath.store.schema import atomic
from xpath.study.folder import slide_predictions, slide_probabilities, slide_splits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xpath.batch.slides import SlideEntry
    from xpath.review.slide_view import ShownObject
    from xpath.study.study import Study

__all__ = ["ReviewService"]

VIEWS = 12
"""Slides whose numbers are kept in memory."""
TEXTS = ("verdict", "reviewer", "comment", "instead")
"""What a reviewer chooses or types."""
POINTS = 20_000
"""Most points of an outline that are sent to the page."""


class ReviewService:
    """Answers the questions of the review page."""

    def __init__(self, study: Study) -> None:
        """Makes ``review/findings.sqlite`` in the run folder if it is not there.

        Raises:
            StoreError: It cannot be written.
        """
        self.study = study
        self.findings = Findings(study.folder.root / "review" / "findings.sqlite")
        self._pixels = SlidePixels(study)
        self._entries = {entry.slide_id: entry for entry in study.slides}
        self._views: Recent[SlideView] = Recent(VIEWS)
        self._layers: Recent[bytes] = Recent(1024)
        self.questions = Questions(study, self._pixels)

    def run(self) -> dict[str, Any]:
        """The slides of the run, those whose prediction is in doubt first."""
        folder = self.study.folder
        splits, predicted = slide_splits(folder), slide_predictions(folder)
        probability = slide_probabilities(folder)
        count, unread = self._count()
        return {
            "run": folder.root.name,
            "classes": self.study.classes,
            "report": folder.index.exists(),
            "regions": self.questions.regions,
            "names": [short_name(label) for label in self.study.config.objects.labels],
            "unread": unread,
            "slides": [
                {
                    "id": entry.slide_id,
                    "label": entry.label,
                    "split": splits.get(entry.slide_id, ""),
                    "predicted": predicted.get(entry.slide_id, ""),
                    "probability": _of_predicted(entry.slide_id, predicted, probability),
                    "explained": folder.explanation(entry.slide_id).exists(),
                    "report": (folder.exports(entry.slide_id) / "report.html").exists(),
                    "sentences": (folder.exports(entry.slide_id) / "findings.html").exists(),
                    "findings": count.get(entry.slide_id, 0),
                }
                for entry in sorted(
                    self.study.slides,
                    key=lambda it: _of_predicted(it.slide_id, predicted, probability) or 1.0,
                )
            ],
        }

    def _count(self) -> tuple[dict[str, int], str]:
        """Findings by slide, and why they cannot be read, so that all else can be looked at."""
        try:
            return self.findings.count(), ""
        except Refused as refused:
            return {}, refused.reason
        except StoreError:
            return {}, "the findings cannot be read; is review/findings.sqlite damaged?"

    def slide(self, slide_id: str) -> dict[str, Any]:
        """One slide, with the reason why its pixels cannot be shown as ``missing``.

        Its ``stamp`` is another when anything of it has changed, and in every run: a browser knows
        by it which tiles it may show again.
        """
        entry = self._entry(slide_id)
        stamp = self._stamp(entry)
        about = self._view(entry).describe()
        return about | {"missing": self._pixels.missing(entry), "stamp": stamp}

    def tile(self, slide_id: str, index: tuple[int, int, int]) -> bytes:
        """JPEG of one tile: level, column, row."""
        entry = self._entry(slide_id)
        return self._pixels.jpeg(entry, self._view(entry).pyramid.tile(*index))

    def layer(self, slide_id: str, layer: str, index: tuple[int, int, int], classes: str) -> bytes:
        """PNG of one tile of a layer.

        Args:
            slide_id: The slide.
            layer: One of ``LAYERS``.
            index: Level, column, row.
            classes: Indices of object classes separated by commas, ``-`` for none.
        """
        if layer not in LAYERS:
            raise Refused(404, f"layer must be one of {', '.join(LAYERS)}")
        entry = self._entry(slide_id)
        stamp, view = self._stamp(entry), self._view(entry)
        chosen = self._object_classes(view, classes)
        tile = view.pyramid.tile(*index)
        key = (slide_id, stamp, layer, index, chosen)
        return self._layers.get(
            key, lambda: encoded(view.painter.paint(layer, tile, chosen), "PNG")
        )

    def at(self, slide_id: str, x: float, y: float, classes: str) -> dict[str, Any]:
        """Objects of some classes under a point in level-0 pixels."""
        view = self._view(self._entry(slide_id))
        if not (math.isfinite(x) and math.isfinite(y)):
            raise Refused(400, "x and y must be numbers")
        shown = view.at(x, y, self._object_classes(view, classes))
        return {"objects": [self._as_json(view, one) for one in shown]}

    def remember(self, slide_id: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Stores a finding about the object of a class at a point.

        Args:
            slide_id: The slide.
            content: ``x``, ``y``, ``object_class``, ``verdict``, ``reviewer``, ``comment`` and
                ``instead``. Outline and numbers are not taken from the page but from the run.
        """
        entry = self._entry(slide_id)
        view = self._view(entry)
        try:
            x, y, j = float(content["x"]), float(content["y"]), int(content["object_class"])
            texts = {name: content.get(name, "") for name in TEXTS}
        except (KeyError, TypeError, ValueError) as error:
            message = "a finding needs x, y, object_class, verdict and reviewer"
            raise Refused(400, message) from error
        if not all(isinstance(text, str) for text in texts.values()):
            raise Refused(400, f"{', '.join(TEXTS)} must be texts")
        shown = self.object_at(view, x, y, j)
        try:
            origin = self._pixels.origin(entry)
            corner = origin.x, origin.y
        except Refused:  # moved away; most slides measure from 0, 0
            corner = 0, 0
        rings = tuple(tuple((float(a), float(b)) for a, b in ring) for ring in shown.rings)
        finding = Finding(
            slide_id=slide_id,
            object=shown.name,
            label=shown.label,
            x=x,
            y=y,
            origin_x=corner[0],
            origin_y=corner[1],
            rings=rings,
            numbers=shown.numbers,
            **texts,
        )
        return _short(self.findings.save(finding))

    def object_at(self, view: SlideView, x: float, y: float, object_class: int) -> ShownObject:
        """The object of one class at a point.

        Raises:
            Refused: There is none.
        """
        wanted = self._object_classes(view, str(object_class))
        shown = view.at(x, y, wanted) if math.isfinite(x) and math.isfinite(y) else []
        if not shown:
            raise Refused(404, "there is no object of this class at this point")
        return shown[0]

    def find(self, slide_id: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Objects of some labels in a view of a slide, segmented now (``Questions.find``)."""
        return self.questions.find(self._entry(slide_id), content)

    def findings_on(self, slide_id: str) -> list[dict[str, Any]]:
        """Findings on one slide, without their outlines."""
        return [_short(finding) for finding in self.findings.read(self._entry(slide_id).slide_id)]

    def geojson(self, slide_id: str) -> str:
        """Findings on one slide for QuPath."""
        return findings_geojson(self.findings.read(self._entry(slide_id).slide_id))

    def csv(self) -> str:
        """All findings as a table."""
        return findings_csv(self.findings.read())

    def write_findings(self, folder: Path) -> list[Path]:
        """Writes ``findings.csv``, ``.json``, ``.txt``, ``.html``, and GeoJSON of each slide."""
        findings = self.findings.read()
        written = {
            folder / "findings.csv": findings_csv(findings),
            folder / "findings.json": findings_json(findings),
            folder / "findings.txt": findings_text(findings),
            folder / "findings.html": findings_html(findings, self.study.folder.root.name),
        }
        for slide_id in sorted({finding.slide_id for finding in findings}):
            path = folder / f"{slide_id}.findings.geojson"
            written[path] = findings_geojson(self.findings.read(slide_id))
        for path, text in written.items():
            with atomic(path) as draft:
                draft.write_text(text, encoding="utf-8")
        return list(written)

    def _entry(self, slide_id: str) -> SlideEntry:
        if slide_id not in self._entries:
            raise Refused(404, "the run has no such slide")
        return self._entries[slide_id]

    def _stamp(self, entry: SlideEntry) -> str:
        """Changes with all files that a view of a slide is made from, and from run to run."""
        folder, name = self.study.folder, entry.slide_id
        files = (
            entry.path,
            folder.masks(name),
            folder.features(name),
            folder.explanation(name),
            folder.table("calibration"),
            folder.split,
            folder.models,
        )
        return key_of(str(folder.root.resolve()), [look_of(file) for file in files])[:16]

    def _view(self, entry: SlideEntry) -> SlideView:
        key = (entry.slide_id, self._stamp(entry))
        try:
            return self._views.get(key, lambda: open_view(self.study, entry))
        except StoreError as error:
            raise Refused(
                409,
                "This slide has no complete explanation in the run (the slide was not among those"
                " to explain, or a file is damaged); run `xpath explain` first.",
            ) from error

    def _object_classes(self, view: SlideView, text: str) -> tuple[int, ...]:
        """Indices of object classes that have masks, all of them for an empty text."""
        most = len(view.masks.labels)
        if not text:
            return tuple(range(most))
        if not re.fullmatch(r"-|\d{1,4}(,\d{1,4}){0,500}", text):
            raise Refused(400, "object classes must be numbers separated by commas")
        chosen = () if text == "-" else tuple(sorted({int(number) for number in text.split(",")}))
        if chosen and chosen[-1] >= most:
            raise Refused(404, f"the slide has {most} classes of objects, counted from 0")
        return chosen

    def _as_json(self, view: SlideView, shown: ShownObject) -> dict[str, Any]:
        step = max(1, sum(len(ring) for ring in shown.rings) // POINTS)
        return {
            "name": shown.name,
            "object_class": shown.object_class,
            "label": shown.label,
            "numbers": shown.numbers,
            "hiding": shown.hiding,
            "rings": [ring[::step].tolist() for ring in shown.rings],
            "explained": view.classes[view.explanation.target],
        }


def _of_predicted(
    slide_id: str, predicted: Mapping[str, str], probability: Mapping[str, Mapping[str, float]]
) -> float | None:
    """Calibrated probability of the predicted class, None before training."""
    return probability.get(slide_id, {}).get(predicted.get(slide_id, ""))


def _short(finding: Finding) -> dict[str, Any]:
    names = [field.name for field in fields(finding)]
    hidden = ("origin_x", "origin_y", "rings", "numbers")
    values = {name: getattr(finding, name) for name in names if name not in hidden}
    return {"id": finding.id} | values
