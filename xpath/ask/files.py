"""An answer as files: the page to open, a table, a picture, objects for QuPath, and the reading."""

from __future__ import annotations

import json
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from xpath.ask.words import linked_words, reading_json
from xpath.export.overlay import objects_rgba, short_name, stacked, write_png
from xpath.export.qupath.geojson import write_geojson
from xpath.export.report.linked import (
    LinkedPage,
    Outline,
    Words,
    linked_layer,
    outline_path,
    write_linked_page,
)
from xpath.export.report.pictures import jpeg_bytes
from xpath.store.schema import atomic
from xpath.store.tables import write_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.ask.answer import Answer
    from xpath.export.qupath.geojson import Feature
    from xpath.export.report.linked import Generated, LinkedLayer

__all__ = ["PAGE", "write_answer", "write_masks"]

PAGE = "ask.html"
TABLE, PICTURE, GEOJSON, READING = "objects.csv", "overlay.png", "objects.geojson", "reading.json"
COLUMNS = ("id", "label", "guess", "x", "y", "area", "unit", "confidence")


def write_answer(
    answer: Answer, folder: Path, *, generated: tuple[Generated, ...] = ()
) -> tuple[Path, ...]:
    """Writes everything about an answer and returns the paths, the page first.

    Args:
        answer: What was asked and found.
        folder: Where.
        generated: Words of a model, shown beside it and marked as such.

    Raises:
        StoreError: The disk is full.
    """
    paths = tuple(folder / name for name in (PAGE, TABLE, PICTURE, GEOJSON, READING))
    page, table, picture, geojson, reading = paths
    names = [label.id for label in answer.labels]
    with atomic(reading) as draft:
        content = reading_json(answer.asked.text, answer.asked.reading, answer.segmentor.labels)
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    rows = [dict(zip(COLUMNS, _row(answer, it), strict=True)) for it in answer.features]
    write_table(table, rows, COLUMNS)
    write_geojson(geojson, answer.features, slide_id=answer.name, bounds=answer.bounds)
    write_png(picture, stacked(answer.overview, objects_rgba(answer.shares, names)))
    write_linked_page(page, _page(answer, generated))
    return paths


def write_masks(answer: Answer, masks: NDArray[np.bool_], folder: Path) -> tuple[Path, ...]:
    """Writes the masks ``(L, H, W)`` of an image, a PNG for each label, 255 inside."""
    paths = []
    for label, mask in zip(answer.labels, masks, strict=True):
        path = folder / "masks" / f"{label.id.replace(' ', '_')}.png"
        write_png(path, mask.astype(np.uint8) * 255)
        paths.append(path)
    return tuple(paths)


def _row(answer: Answer, feature: Feature) -> tuple[str, ...]:
    """Cells of an object, in the order of ``COLUMNS``."""
    x, y = _centre(feature)
    area, unit = _area(feature)
    guess = "yes" if feature.label in answer.guesses else "no"
    sure = feature.measurements["confidence"]
    numbers = (f"{x:.1f}", f"{y:.1f}", f"{area:.1f}", unit, f"{sure:.3f}")
    return (feature.name, feature.label, guess, *numbers)


def _page(answer: Answer, generated: tuple[Generated, ...]) -> LinkedPage:
    layers = tuple(_layers(answer))
    reading = answer.asked.reading
    height, width = answer.overview.shape[:2]
    scale = answer.size.width / width
    total = Counter(feature.label for feature in answer.features)
    counted = ", ".join(f"{total[it.label]} {it.name}" for it in layers)
    return LinkedPage(
        title=answer.name,
        lead=f"Found: {counted}.",
        paragraphs=(_text(answer), *_misunderstood(answer)),
        overview=jpeg_bytes(answer.overview),
        width=width,
        height=height,
        layers=layers,
        um_per_pixel=None if answer.mpp is None else answer.mpp * scale,
        notices=_notices(answer),
        generated=generated,
        facts={
            "picture": answer.name,
            "region": reading.region or "not known",
            "read by": reading.reader,
            "segmentor": answer.segmentor.name,
            "segmentor SHA-256": answer.segmentor.digest,
            "xpath": version("xpath-pathology"),
        },
        files=(
            f"Beside this page: every object in {TABLE} and, for QuPath, {GEOJSON}; what was read"
            f" in {READING}.",
        ),
    )


def _text(answer: Answer) -> tuple[Words, ...]:
    """The text. Labels without words of their own, as of an open question, come after it."""
    words = linked_words(answer.asked.text, answer.asked.reading)
    named = {label for each in words for label in each.labels}
    others = [label.id for label in answer.labels if label.id not in named]
    listed = [part for name in others for part in (Words(text=" "), _name(name))]
    return (*words, *listed)


def _name(label: str) -> Words:
    return Words(text=short_name(label), labels=(label,), status="present")


def _misunderstood(answer: Answer) -> Iterator[tuple[Words, ...]]:
    reading = answer.asked.reading
    if reading.unknown:
        yield (Words(text=f"Not understood: {', '.join(reading.unknown)}."),)
    for labels in reading.ambiguous:
        names = " or ".join(label.id for label in labels)
        yield (Words(text=f"Not looked for, as no region is known: {names}."),)


def _notices(answer: Answer) -> tuple[str, ...]:
    notices = []
    if answer.guesses:
        names = ", ".join(sorted(map(short_name, answer.guesses)))
        notices.append(f"The weights never learnt {names}: what is shown of them is a guess.")
    if answer.doubted:
        names = ", ".join(sorted(map(short_name, answer.doubted)))
        notices.append(f"The segmentor's presence test says that this is not there: {names}.")
    if answer.mpp is None:
        notices.append(
            "The resolution of the image is not known: it was taken for"
            f" {answer.segmentor.mpp:g} microns per pixel, and areas are in pixels."
        )
    return tuple(notices)


def _layers(answer: Answer) -> Iterator[LinkedLayer]:
    scale = answer.overview.shape[1] / answer.size.width
    for label, share in zip(answer.labels, answer.shares, strict=True):
        features = [it for it in answer.features if it.label == label.id]
        largest = sorted(features, key=lambda it: -_area(it)[0])
        outlines = (
            Outline(
                id=it.name,
                path=outline_path(it.rings, (0, 0), scale),
                numbers=_numbers(it),
            )
            for it in largest
        )
        guess = label.id in answer.guesses
        yield linked_layer(label.id, share, outlines, count=len(features), guess=guess)


def _numbers(feature: Feature) -> str:
    area, unit = _area(feature)
    return f"{area:,.0f} {unit}, confidence {feature.measurements['confidence']:.2f}"


def _area(feature: Feature) -> tuple[float, str]:
    if "area um2" in feature.measurements:
        return feature.measurements["area um2"], "um2"
    return feature.measurements.get("area px", 0.0), "px"


def _centre(feature: Feature) -> tuple[float, float]:
    """x, y of the middle of the outline, weighted by area (Green's theorem)."""
    ring = np.asarray(feature.rings[0], np.float64)
    start = ring[0]
    points = ring - start
    cross = points[:-1, 0] * points[1:, 1] - points[1:, 0] * points[:-1, 1]
    x, y = start + (points[:-1] + points[1:]).T @ cross / (3 * cross.sum())
    return float(x), float(y)
