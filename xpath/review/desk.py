"""The run as reviewers see it: slides, objects, findings. Knows nothing of HTTP."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from xpath.errors import StoreError
from xpath.review.findings import Finding, Findings
from xpath.review.findings_files import findings_csv, findings_geojson
from xpath.review.layers import LAYERS
from xpath.review.pixels import Recent, SlidePixels, encoded
from xpath.review.refusal import Refused
from xpath.review.slide_view import SlideView, open_view
from xpath.store.schema import atomic
from xpath.study.folder import slide_predictions, slide_splits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xpath.batch.slides import SlideEntry
    from xpath.review.slide_view import Seen
    from xpath.study.study import Study

__all__ = ["ReviewDesk"]

VIEWS = 4
"""Slides whose numbers are kept in memory."""
POINTS = 20_000
"""Most points of an outline that are sent to the page."""


class ReviewDesk:
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

    def run(self) -> dict[str, Any]:
        """The slides of the run."""
        folder = self.study.folder
        parts, predicted = slide_splits(folder), slide_predictions(folder)
        count = self.findings.count()
        return {
            "run": folder.root.name,
            "classes": self.study.classes,
            "report": folder.index.exists(),
            "slides": [
                {
                    "id": entry.slide_id,
                    "label": entry.label,
                    "part": parts.get(entry.slide_id, ""),
                    "predicted": predicted.get(entry.slide_id, ""),
                    "explained": folder.explanation(entry.slide_id).exists(),
                    "report": (folder.exports(entry.slide_id) / "report.html").exists(),
                    "findings": count.get(entry.slide_id, 0),
                }
                for entry in self.study.slides
            ],
        }

    def slide(self, slide_id: str) -> dict[str, Any]:
        """One slide; ``missing`` says why its pixels cannot be shown."""
        entry = self._entry(slide_id)
        about = self._view(entry).describe()
        return about | {"missing": self._pixels.missing(entry)}

    def tile(self, slide_id: str, place: tuple[int, int, int]) -> bytes:
        """JPEG of one tile: level, column, row."""
        entry = self._entry(slide_id)
        return self._pixels.jpeg(entry, self._view(entry).pyramid.tile(*place))

    def layer(self, slide_id: str, layer: str, place: tuple[int, int, int], kinds: str) -> bytes:
        """PNG of one tile of a layer; ``kinds`` are indices separated by commas."""
        if layer not in LAYERS:
            raise Refused(404, f"layer must be one of {', '.join(LAYERS)}")
        view = self._view(self._entry(slide_id))
        chosen = self._kinds(view, kinds)
        tile = view.pyramid.tile(*place)
        key = (slide_id, layer, place, chosen)
        return self._layers.get(
            key, lambda: encoded(view.painter.paint(layer, tile, chosen), "PNG")
        )

    def at(self, slide_id: str, x: float, y: float, kinds: str) -> dict[str, Any]:
        """Objects under a place."""
        view = self._view(self._entry(slide_id))
        if not (math.isfinite(x) and math.isfinite(y)):
            raise Refused(400, "x and y must be numbers")
        seen = view.at(x, y, self._kinds(view, kinds))
        return {"objects": [self._as_json(view, one) for one in seen]}

    def remember(self, slide_id: str, said: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps a finding about the object of a kind at a place.

        Args:
            slide_id: The slide.
            said: ``x``, ``y``, ``kind``, ``verdict``, ``reviewer`` and ``comment``. Outline and
                numbers are not taken from the page but from the run.
        """
        entry = self._entry(slide_id)
        view = self._view(entry)
        try:
            x, y, kind = float(said["x"]), float(said["y"]), int(said["kind"])
            texts = {name: said.get(name, "") for name in ("verdict", "reviewer", "comment")}
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(400, "a finding needs x, y, kind, verdict and reviewer") from error
        if not all(isinstance(text, str) for text in texts.values()):
            raise Refused(400, "verdict, reviewer and comment must be texts")
        seen = self.at_kind(view, x, y, kind)
        try:
            origin = self._pixels.origin(entry)
            corner = origin.x, origin.y
        except Refused:  # moved away; most slides measure from 0, 0
            corner = 0, 0
        rings = tuple(tuple((float(a), float(b)) for a, b in ring) for ring in seen.piece.rings)
        finding = Finding(
            slide_id=slide_id,
            object=seen.piece.name,
            label=seen.label,
            x=x,
            y=y,
            origin_x=corner[0],
            origin_y=corner[1],
            rings=rings,
            numbers=seen.numbers,
            **texts,
        )
        return _short(self.findings.save(finding))

    def at_kind(self, view: SlideView, x: float, y: float, kind: int) -> Seen:
        """The object of one kind at a place.

        Raises:
            Refused: There is none.
        """
        wanted = self._kinds(view, str(kind))
        seen = view.at(x, y, wanted) if math.isfinite(x) and math.isfinite(y) else []
        if not seen:
            raise Refused(404, "there is no object of this kind at this place")
        return seen[0]

    def found(self, slide_id: str) -> list[dict[str, Any]]:
        """Findings on one slide, without their outlines."""
        return [_short(finding) for finding in self.findings.read(self._entry(slide_id).slide_id)]

    def geojson(self, slide_id: str) -> str:
        """Findings on one slide for QuPath."""
        return findings_geojson(self.findings.read(self._entry(slide_id).slide_id))

    def csv(self) -> str:
        """All findings as a table."""
        return findings_csv(self.findings.read())

    def write_findings(self, folder: Path) -> list[Path]:
        """Writes ``findings.csv`` and a GeoJSON file per slide that has findings."""
        written = {folder / "findings.csv": self.csv()}
        for slide_id in sorted({finding.slide_id for finding in self.findings.read()}):
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

    def _view(self, entry: SlideEntry) -> SlideView:
        try:
            return self._views.get(entry.slide_id, lambda: open_view(self.study, entry))
        except StoreError as error:
            raise Refused(
                409,
                "This slide has no complete explanation in the run (the slide was not among those"
                " to explain, or a file is damaged); run `xpath explain` first.",
            ) from error

    def _kinds(self, view: SlideView, text: str) -> tuple[int, ...]:
        """Indices of kinds that have masks; all of them for an empty text."""
        most = len(view.masks.labels)
        if not text:
            return tuple(range(most))
        if not re.fullmatch(r"-|\d{1,4}(,\d{1,4}){0,500}", text):
            raise Refused(400, "kinds must be numbers separated by commas")
        chosen = () if text == "-" else tuple(sorted({int(number) for number in text.split(",")}))
        if chosen and chosen[-1] >= most:
            raise Refused(404, f"the slide has {most} kinds of objects, counted from 0")
        return chosen

    def _as_json(self, view: SlideView, seen: Seen) -> dict[str, Any]:
        piece = seen.piece
        step = max(1, sum(len(ring) for ring in piece.rings) // POINTS)
        return {
            "name": piece.name,
            "kind": piece.kind,
            "label": seen.label,
            "complete": piece.complete,
            "numbers": seen.numbers,
            "rings": [ring[::step].tolist() for ring in piece.rings],
            "explained": view.classes[view.found.target],
        }


def _short(finding: Finding) -> dict[str, Any]:
    names = ("slide_id", "object", "label", "reviewer", "verdict", "comment", "x", "y", "changed")
    return {"id": finding.id} | {name: getattr(finding, name) for name in names}
